"""Affinity labels, AffinityNet, the random walk and the pseudo masks."""


rule make_affinity_labels:
    input:
        cams=part_from("priors", "results/{dataset}/{run}/cams/{subset}.zarr"),
        saliency=part_from(
            "saliency", "results/{dataset}/{run}/saliency/{subset}", optional=True
        ),
        manifest="results/{dataset}/manifest/{subset}.csv",
        classes="results/{dataset}/classes.csv",
    output:
        folder=directory("results/{dataset}/{run}/affinity_labels/{subset}"),
    log:
        "logs/{dataset}/{run}/make_affinity_labels.{subset}.log",
    benchmark:
        "benchmarks/{dataset}/{run}/make_affinity_labels.{subset}.tsv"
    conda:
        "../../environment.yml"
    threads: 8
    resources:
        mem_mb=by_attempt(16000),
        runtime="12h",
    params:
        settings=of_run("affinity_labels"),
        revision=REVISION["make_affinity_labels"],
    message:
        "Affinity labels of {wildcards.dataset} {wildcards.run}"
    script:
        "../scripts/make_affinity_labels.py"


rule train_affinity:
    input:
        labels=part_for("train", "results/{dataset}/{run}/affinity_labels/{subset}"),
        manifest=manifest_for("train"),
        classes="results/{dataset}/classes.csv",
        weights=weights_for("affinity"),
    output:
        model="results/{dataset}/{run}/affinity.pt",
        history="results/{dataset}/{run}/affinity.history.csv",
    log:
        "logs/{dataset}/{run}/train_affinity.log",
    benchmark:
        "benchmarks/{dataset}/{run}/train_affinity.tsv"
    conda:
        "../../environment.yml"
    threads: 8
    resources:
        gpu=1,
        mem_mb=by_attempt(32000),
        runtime="12h",
    params:
        settings=of_run("affinity"),
        seed=seed_of,
        revision=REVISION["train_affinity"],
    message:
        "AffinityNet of {wildcards.dataset} {wildcards.run}"
    script:
        "../scripts/train_affinity.py"


rule walk_cams:
    input:
        model="results/{dataset}/{run}/affinity.pt",
        cams=part_from("priors", "results/{dataset}/{run}/cams/{subset}.zarr"),
        manifest="results/{dataset}/manifest/{subset}.csv",
    output:
        store=directory("results/{dataset}/{run}/random_walk/{subset}.zarr"),
    log:
        "logs/{dataset}/{run}/walk_cams.{subset}.log",
    benchmark:
        "benchmarks/{dataset}/{run}/walk_cams.{subset}.tsv"
    conda:
        "../../environment.yml"
    threads: 8
    resources:
        gpu=1,
        mem_mb=by_attempt(16000),
        runtime="12h",
    params:
        settings=of_run("walk"),
        revision=REVISION["walk_cams"],
    message:
        "Random walk of {wildcards.dataset} {wildcards.run}"
    script:
        "../scripts/walk_cams.py"


rule make_pseudo_masks:
    input:
        walked="results/{dataset}/{run}/random_walk/{subset}.zarr",
        manifest="results/{dataset}/manifest/{subset}.csv",
        classes="results/{dataset}/classes.csv",
    output:
        folder=directory("results/{dataset}/{run}/pseudo_masks/{subset}"),
    log:
        "logs/{dataset}/{run}/make_pseudo_masks.{subset}.log",
    benchmark:
        "benchmarks/{dataset}/{run}/make_pseudo_masks.{subset}.tsv"
    conda:
        "../../environment.yml"
    threads: 8
    resources:
        mem_mb=by_attempt(8000),
        runtime="12h",
    params:
        settings=of_run("pseudo_masks"),
        revision=REVISION["make_pseudo_masks"],
    message:
        "Pseudo masks of {wildcards.dataset} {wildcards.run}"
    script:
        "../scripts/make_pseudo_masks.py"
