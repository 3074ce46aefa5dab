"""Data sets: pictures of the demo, classes, manifests, masks of COCO, ImageNet weights."""


rule make_demo:
    output:
        folder=directory(TREE.path("demo")),
    log:
        TREE.log("make_demo", "dataset"),
    benchmark:
        TREE.benchmark("make_demo", "dataset")
    conda:
        "../../environment.yml"
    resources:
        mem_mb=by_attempt(2000),
        runtime="30m",
    params:
        declared=of_dataset("seed", "images", "size", "twins"),
        revision=REVISION["make_demo"],
    message:
        "Drawing the pictures of {wildcards.dataset}"
    script:
        "../scripts/make_demo.py"


rule make_manifest:
    input:
        unpack(image_lists),
    output:
        manifest=TREE.path("manifest"),
    log:
        TREE.log("make_manifest", "dataset", "subset"),
    benchmark:
        TREE.benchmark("make_manifest", "dataset", "subset")
    conda:
        "../../environment.yml"
    threads: 8
    resources:
        mem_mb=by_attempt(4000),
        runtime=hours(1),
    params:
        declared=images_declared,
        revision=REVISION["make_manifest"],
    message:
        "Manifest of {wildcards.dataset} {wildcards.subset}"
    script:
        "../scripts/make_manifest.py"


rule make_masks:
    input:
        unpack(image_lists),
    output:
        folder=directory(TREE.path("coco_masks")),
    log:
        TREE.log("make_masks", "dataset", "subset"),
    benchmark:
        TREE.benchmark("make_masks", "dataset", "subset")
    wildcard_constraints:
        dataset="|".join(
            n for n, d in config["datasets"].items() if KINDS[d["kind"]].makes_masks
        ),
    conda:
        "../../environment.yml"
    threads: 8
    resources:
        mem_mb=by_attempt(8000),
        runtime=hours(2),
    params:
        declared=lambda wildcards: {
            key: images_declared(wildcards)[key] for key in ("root", "subsets")
        },
        revision=REVISION["make_masks"],
    message:
        "Masks of {wildcards.dataset} {wildcards.subset}"
    script:
        "../scripts/make_masks.py"


rule make_classes:
    output:
        classes=TREE.path("classes"),
    log:
        TREE.log("make_classes", "dataset"),
    conda:
        "../../environment.yml"
    resources:
        mem_mb=by_attempt(1000),
        runtime="10m",
    params:
        declared=of_dataset("kind", "classes", "names", "colours"),
    message:
        "Classes of {wildcards.dataset}"
    script:
        "../scripts/make_classes.py"


localrules:
    fetch_weights,
    make_classes,


rule fetch_weights:
    output:
        weights=TREE.path("weights"),
    log:
        TREE.log("fetch_weights", "backbone"),
    conda:
        "../../environment.yml"
    message:
        "ImageNet weights of {wildcards.backbone}"
    script:
        "../scripts/fetch_weights.py"
