"""Saliency: hints from CAMs, C²AM with and without them, binary pseudo-saliency, PoolNet."""


rule make_hints:
    input:
        cams=of("cams"),
        manifest=TREE.path("manifest"),
    output:
        store=directory(TREE.path("hints")),
    log:
        TREE.log("make_hints", "dataset", "run", "subset"),
    benchmark:
        TREE.benchmark("make_hints", "dataset", "run", "subset")
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=by_attempt(4000),
        runtime=hours(2),
    params:
        settings=settings_of("hints"),
        revision=REVISION["make_hints"],
    message:
        "Hints of {wildcards.dataset} {wildcards.run}"
    script:
        "../scripts/make_hints.py"


rule train_c2am:
    input:
        hints=if_any("hints", "train"),
        manifest=manifest_for("train"),
        weights=weights_for("saliency.c2am"),
    output:
        model=TREE.path("c2am"),
        history=as_curve(TREE.history("c2am"), "C²AM"),
    log:
        TREE.log("train_c2am", "dataset", "run"),
    benchmark:
        TREE.benchmark("train_c2am", "dataset", "run")
    conda:
        "../../environment.yml"
    threads: 8
    resources:
        gpu=1,
        mem_mb=by_attempt(32000),
        runtime="24h",
        compile=compiled("saliency.c2am"),
        pictures=PICTURES,
    params:
        settings=settings_of("c2am"),
        seed=seed_of,
        revision=REVISION["train_c2am"],
    message:
        "C²AM of {wildcards.dataset} {wildcards.run}"
    script:
        "../scripts/train_c2am.py"


rule dump_c2am_maps:
    input:
        model=of("c2am"),
        manifest=TREE.path("manifest"),
    output:
        store=directory(TREE.path("c2am_maps")),
    log:
        TREE.log("dump_c2am_maps", "dataset", "run", "subset"),
    benchmark:
        TREE.benchmark("dump_c2am_maps", "dataset", "run", "subset")
    conda:
        "../../environment.yml"
    threads: 8
    resources:
        gpu=1,
        mem_mb=by_attempt(16000),
        runtime=hours(12),
    params:
        settings=settings_of("c2am_maps"),
        revision=REVISION["dump_c2am_maps"],
    message:
        "C²AM maps of {wildcards.dataset} {wildcards.run}"
    script:
        "../scripts/dump_c2am_maps.py"


rule make_saliency_masks:
    input:
        maps=of("c2am_maps"),
        manifest=TREE.path("manifest"),
    output:
        folder=directory(TREE.path("saliency_masks")),
    log:
        TREE.log("make_saliency_masks", "dataset", "run", "subset"),
    benchmark:
        TREE.benchmark("make_saliency_masks", "dataset", "run", "subset")
    conda:
        "../../environment.yml"
    threads: 8
    resources:
        mem_mb=by_attempt(8000),
        runtime=hours(12),
    params:
        settings=settings_of("saliency_masks"),
        revision=REVISION["make_saliency_masks"],
    message:
        "Binary pseudo-saliency of {wildcards.dataset} {wildcards.run}"
    script:
        "../scripts/make_saliency_masks.py"


rule train_poolnet:
    input:
        masks=of("saliency_masks", "train"),
        manifest=manifest_for("train"),
        weights=weights_for("saliency.poolnet"),
    output:
        model=TREE.path("poolnet"),
        history=as_curve(TREE.history("poolnet"), "PoolNet"),
    log:
        TREE.log("train_poolnet", "dataset", "run"),
    benchmark:
        TREE.benchmark("train_poolnet", "dataset", "run")
    conda:
        "../../environment.yml"
    threads: 8
    resources:
        gpu=1,
        mem_mb=by_attempt(16000),
        runtime="24h",
        pictures=PICTURES,
    params:
        settings=settings_of("poolnet"),
        seed=seed_of,
        revision=REVISION["train_poolnet"],
    message:
        "PoolNet of {wildcards.dataset} {wildcards.run}"
    script:
        "../scripts/train_poolnet.py"


rule predict_saliency:
    input:
        model=of("poolnet"),
        manifest=TREE.path("manifest"),
    output:
        folder=directory(TREE.path("saliency")),
    log:
        TREE.log("predict_saliency", "dataset", "run", "subset"),
    benchmark:
        TREE.benchmark("predict_saliency", "dataset", "run", "subset")
    conda:
        "../../environment.yml"
    threads: 8
    resources:
        gpu=1,
        mem_mb=by_attempt(8000),
        runtime=hours(12),
    params:
        settings=settings_of("saliency"),
        revision=REVISION["predict_saliency"],
    message:
        "Saliency of {wildcards.dataset} {wildcards.run}"
    script:
        "../scripts/predict_saliency.py"
