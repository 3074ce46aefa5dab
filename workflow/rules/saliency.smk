"""Saliency: hints from CAMs, C²AM and C²AM-H, binary pseudo-saliency, PoolNet."""


rule make_hints:
    input:
        cams=part_from("priors", "results/{dataset}/{run}/cams/{subset}.zarr"),
        manifest="results/{dataset}/manifest/{subset}.csv",
    output:
        store=directory("results/{dataset}/{run}/hints/{subset}.zarr"),
    log:
        "logs/{dataset}/{run}/make_hints.{subset}.log",
    benchmark:
        "benchmarks/{dataset}/{run}/make_hints.{subset}.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=by_attempt(4000),
        runtime="2h",
    params:
        revision=REVISION["make_hints"],
    message:
        "Hints of {wildcards.dataset} {wildcards.run}"
    script:
        "../scripts/make_hints.py"


rule train_c2am:
    input:
        hints=hints_of,
        manifest=manifest_for("train"),
        weights=weights_for("c2am"),
    output:
        model="results/{dataset}/{run}/c2am.pt",
        history="results/{dataset}/{run}/c2am.history.csv",
    log:
        "logs/{dataset}/{run}/train_c2am.log",
    benchmark:
        "benchmarks/{dataset}/{run}/train_c2am.tsv"
    conda:
        "../../environment.yml"
    threads: 8
    resources:
        gpu=1,
        mem_mb=by_attempt(32000),
        runtime="24h",
    params:
        settings=of_run("c2am"),
        seed=seed_of,
        revision=REVISION["train_c2am"],
    message:
        "C²AM of {wildcards.dataset} {wildcards.run}"
    script:
        "../scripts/train_c2am.py"


rule dump_saliency:
    input:
        model="results/{dataset}/{run}/c2am.pt",
        manifest="results/{dataset}/manifest/{subset}.csv",
    output:
        store=directory("results/{dataset}/{run}/c2am_maps/{subset}.zarr"),
    log:
        "logs/{dataset}/{run}/dump_saliency.{subset}.log",
    benchmark:
        "benchmarks/{dataset}/{run}/dump_saliency.{subset}.tsv"
    conda:
        "../../environment.yml"
    threads: 8
    resources:
        gpu=1,
        mem_mb=by_attempt(16000),
        runtime="12h",
    params:
        settings=of_run("c2am_maps"),
        revision=REVISION["dump_saliency"],
    message:
        "C²AM maps of {wildcards.dataset} {wildcards.run}"
    script:
        "../scripts/dump_saliency.py"


rule make_saliency_masks:
    input:
        maps="results/{dataset}/{run}/c2am_maps/{subset}.zarr",
        manifest="results/{dataset}/manifest/{subset}.csv",
    output:
        folder=directory("results/{dataset}/{run}/saliency_masks/{subset}"),
    log:
        "logs/{dataset}/{run}/make_saliency_masks.{subset}.log",
    benchmark:
        "benchmarks/{dataset}/{run}/make_saliency_masks.{subset}.tsv"
    conda:
        "../../environment.yml"
    threads: 8
    resources:
        mem_mb=by_attempt(8000),
        runtime="12h",
    params:
        settings=of_run("saliency_masks"),
        revision=REVISION["make_saliency_masks"],
    message:
        "Binary pseudo-saliency of {wildcards.dataset} {wildcards.run}"
    script:
        "../scripts/make_saliency_masks.py"


rule train_poolnet:
    input:
        masks=part_for("train", "results/{dataset}/{run}/saliency_masks/{subset}"),
        manifest=manifest_for("train"),
        weights=weights_for("poolnet"),
    output:
        model="results/{dataset}/{run}/poolnet.pt",
        history="results/{dataset}/{run}/poolnet.history.csv",
    log:
        "logs/{dataset}/{run}/train_poolnet.log",
    benchmark:
        "benchmarks/{dataset}/{run}/train_poolnet.tsv"
    conda:
        "../../environment.yml"
    threads: 8
    resources:
        gpu=1,
        mem_mb=by_attempt(16000),
        runtime="24h",
    params:
        settings=of_run("poolnet"),
        seed=seed_of,
        revision=REVISION["train_poolnet"],
    message:
        "PoolNet of {wildcards.dataset} {wildcards.run}"
    script:
        "../scripts/train_poolnet.py"


rule predict_saliency:
    input:
        model="results/{dataset}/{run}/poolnet.pt",
        manifest="results/{dataset}/manifest/{subset}.csv",
    output:
        folder=directory("results/{dataset}/{run}/saliency/{subset}"),
    log:
        "logs/{dataset}/{run}/predict_saliency.{subset}.log",
    benchmark:
        "benchmarks/{dataset}/{run}/predict_saliency.{subset}.tsv"
    conda:
        "../../environment.yml"
    threads: 8
    resources:
        gpu=1,
        mem_mb=by_attempt(8000),
        runtime="12h",
    params:
        revision=REVISION["predict_saliency"],
    message:
        "Saliency of {wildcards.dataset} {wildcards.run}"
    script:
        "../scripts/predict_saliency.py"
