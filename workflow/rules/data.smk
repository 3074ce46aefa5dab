"""Data sets: pictures of the demo, classes, manifests, masks of COCO, ImageNet weights."""


rule make_demo:
    output:
        folder=directory("results/{dataset}/VOC2012"),
    log:
        "logs/{dataset}/make_demo.log",
    benchmark:
        "benchmarks/{dataset}/make_demo.tsv"
    conda:
        "../../environment.yml"
    resources:
        mem_mb=by_attempt(2000),
        runtime="30m",
    params:
        declared=of_dataset("seed", "images", "size"),
        revision=REVISION["make_demo"],
    message:
        "Drawing the pictures of {wildcards.dataset}"
    script:
        "../scripts/make_demo.py"


rule make_manifest:
    input:
        unpack(image_lists),
    output:
        manifest="results/{dataset}/manifest/{subset}.csv",
    log:
        "logs/{dataset}/make_manifest.{subset}.log",
    benchmark:
        "benchmarks/{dataset}/make_manifest.{subset}.tsv"
    conda:
        "../../environment.yml"
    threads: 8
    resources:
        mem_mb=by_attempt(4000),
        runtime="1h",
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
        folder=directory("results/{dataset}/masks/{subset}"),
    log:
        "logs/{dataset}/make_masks.{subset}.log",
    benchmark:
        "benchmarks/{dataset}/make_masks.{subset}.tsv"
    wildcard_constraints:
        dataset="|".join(
            n for n, d in config["datasets"].items() if d["kind"] == "coco"
        ),
    conda:
        "../../environment.yml"
    threads: 8
    resources:
        mem_mb=by_attempt(8000),
        runtime="2h",
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
        classes="results/{dataset}/classes.csv",
    log:
        "logs/{dataset}/make_classes.log",
    conda:
        "../../environment.yml"
    resources:
        mem_mb=by_attempt(1000),
        runtime="10m",
    params:
        declared=lambda wildcards: {
            key: config["datasets"][wildcards.dataset].get(key)
            for key in ("kind", "classes", "names", "colours")
        },
    message:
        "Classes of {wildcards.dataset}"
    script:
        "../scripts/make_classes.py"


localrules:
    fetch_weights,


rule fetch_weights:
    output:
        weights="resources/weights/{backbone}.pt",
    log:
        "logs/fetch_weights.{backbone}.log",
    conda:
        "../../environment.yml"
    message:
        "ImageNet weights of {wildcards.backbone}"
    script:
        "../scripts/fetch_weights.py"
