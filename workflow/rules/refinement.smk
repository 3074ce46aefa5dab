"""Refinement: affinity labels, AffinityNet, the random walk and the pseudo masks."""


rule make_affinity_labels:
    input:
        cams=of("cams"),
        saliency=result_of("saliency"),
        manifest=TREE.path("manifest"),
        classes=TREE.path("classes"),
    output:
        folder=directory(TREE.path("affinity_labels")),
    log:
        TREE.log("make_affinity_labels", "dataset", "run", "subset"),
    benchmark:
        TREE.benchmark("make_affinity_labels", "dataset", "run", "subset")
    conda:
        "../../environment.yml"
    threads: 8
    resources:
        mem_mb=by_attempt(16000),
        runtime=hours(12),
    params:
        settings=settings_of("affinity_labels"),
        revision=REVISION["make_affinity_labels"],
    message:
        "Affinity labels of {wildcards.dataset} {wildcards.run}"
    script:
        "../scripts/make_affinity_labels.py"


rule train_affinity:
    input:
        labels=of("affinity_labels", "train"),
        manifest=manifest_for("train"),
        classes=TREE.path("classes"),
        weights=weights_for("refinement.affinity"),
    output:
        model=TREE.path("affinity"),
        history=as_curve(TREE.history("affinity"), "AffinityNet"),
    log:
        TREE.log("train_affinity", "dataset", "run"),
    benchmark:
        TREE.benchmark("train_affinity", "dataset", "run")
    conda:
        "../../environment.yml"
    threads: 8
    resources:
        gpu=1,
        mem_mb=by_attempt(32000),
        runtime="12h",
        pictures=PICTURES,
    params:
        settings=settings_of("affinity"),
        seed=seed_of,
        revision=REVISION["train_affinity"],
    message:
        "AffinityNet of {wildcards.dataset} {wildcards.run}"
    script:
        "../scripts/train_affinity.py"


rule walk_cams:
    input:
        model=of("affinity"),
        cams=of("cams"),
        manifest=TREE.path("manifest"),
    output:
        store=directory(TREE.path("random_walk")),
    log:
        TREE.log("walk_cams", "dataset", "run", "subset"),
    benchmark:
        TREE.benchmark("walk_cams", "dataset", "run", "subset")
    conda:
        "../../environment.yml"
    threads: 8
    resources:
        gpu=1,
        mem_mb=by_attempt(16000),
        runtime=hours(12),
    params:
        settings=settings_of("random_walk"),
        revision=REVISION["walk_cams"],
    message:
        "Random walk of {wildcards.dataset} {wildcards.run}"
    script:
        "../scripts/walk_cams.py"


rule make_pseudo_masks:
    input:
        maps=refined_maps(),
        manifest=TREE.path("manifest"),
        classes=TREE.path("classes"),
    output:
        folder=directory(TREE.path("pseudo_masks")),
    log:
        TREE.log("make_pseudo_masks", "dataset", "run", "subset"),
    benchmark:
        TREE.benchmark("make_pseudo_masks", "dataset", "run", "subset")
    conda:
        "../../environment.yml"
    threads: 8
    resources:
        mem_mb=by_attempt(8000),
        runtime=hours(12),
    params:
        settings=settings_of("pseudo_masks"),
        revision=REVISION["make_pseudo_masks"],
    message:
        "Pseudo masks of {wildcards.dataset} {wildcards.run}"
    script:
        "../scripts/make_pseudo_masks.py"
