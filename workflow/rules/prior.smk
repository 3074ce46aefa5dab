"""Priors: classifiers, and their class activation maps (CAMs)."""


rule train_classifier:
    input:
        manifest=manifest_for("train"),
        classes=TREE.path("classes"),
        weights=weights_for("prior.classifier"),
        ordinary=ordinary_classifier,
    output:
        model=TREE.path("classifier"),
        epochs=directory(TREE.path("epochs")),
        history=as_curve(TREE.history("classifier"), "Classifier"),
    log:
        TREE.log("train_classifier", "dataset", "run"),
    benchmark:
        TREE.benchmark("train_classifier", "dataset", "run")
    conda:
        "../../environment.yml"
    threads: 8
    resources:
        gpu=1,
        mem_mb=by_attempt(48000),
        runtime="48h",
        compile=compiled("prior.classifier"),
        pictures=PICTURES,
    params:
        settings=settings_of("classifier"),
        seed=seed_of,
        revision=REVISION["train_classifier"],
    message:
        "Classifier of {wildcards.dataset} {wildcards.run}"
    script:
        "../scripts/train_classifier.py"


rule dump_cams:
    input:
        model=of("classifier"),
        manifest=TREE.path("manifest"),
    output:
        store=directory(TREE.path("cams")),
    log:
        TREE.log("dump_cams", "dataset", "run", "subset"),
    benchmark:
        TREE.benchmark("dump_cams", "dataset", "run", "subset")
    conda:
        "../../environment.yml"
    threads: 8
    resources:
        gpu=1,
        mem_mb=by_attempt(16000),
        runtime=hours(12),
    params:
        settings=settings_of("cams"),
        revision=REVISION["dump_cams"],
    message:
        "CAMs of {wildcards.dataset} {wildcards.subset} from run {wildcards.run}"
    script:
        "../scripts/dump_cams.py"
