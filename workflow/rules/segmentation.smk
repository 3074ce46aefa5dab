"""The segmentation network."""


rule train_segmentation:
    input:
        masks=if_any("pseudo_masks", "train"),
        truth=truth_of_training,
        further=further_masks,
        manifest=manifest_for("train"),
        classes=TREE.path("classes"),
        weights=weights_for("segmentation"),
    output:
        model=TREE.path("segmentation"),
        history=as_curve(TREE.history("segmentation"), "Segmentation network"),
    log:
        TREE.log("train_segmentation", "dataset", "run"),
    benchmark:
        TREE.benchmark("train_segmentation", "dataset", "run")
    conda:
        "../../environment.yml"
    threads: 8
    resources:
        gpu=1,
        mem_mb=by_attempt(48000),
        runtime="48h",
        compile=compiled("segmentation"),
        pictures=PICTURES,
    params:
        network=method_of("segmentation"),
        settings=settings_of("segmentation"),
        seed=seed_of,
        revision=REVISION["train_segmentation"],
    message:
        "Segmentation network ({params.network}) of {wildcards.dataset} {wildcards.run}"
    script:
        "../scripts/train_segmentation.py"


rule predict_masks:
    input:
        model=of("segmentation"),
        manifest=TREE.path("manifest"),
        classes=TREE.path("classes"),
    output:
        folder=directory(TREE.path("masks")),
    log:
        TREE.log("predict_masks", "dataset", "run", "subset"),
    benchmark:
        TREE.benchmark("predict_masks", "dataset", "run", "subset")
    conda:
        "../../environment.yml"
    threads: 8
    resources:
        gpu=1,
        mem_mb=by_attempt(16000),
        runtime=hours(12),
    params:
        settings=settings_of("masks"),
        revision=REVISION["predict_masks"],
    message:
        "Masks of {wildcards.dataset} {wildcards.run}"
    script:
        "../scripts/predict_masks.py"
