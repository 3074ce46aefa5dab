"""The segmentation network."""


rule train_deeplab:
    input:
        masks=part_from(
            "pseudo_masks",
            "results/{dataset}/{run}/pseudo_masks/{subset}",
            optional=True,
        ),
        truth=truth_of_training,
        manifest=manifest_for("train"),
        classes="results/{dataset}/classes.csv",
        weights=network_weights,
    output:
        model="results/{dataset}/{run}/deeplab.pt",
        history="results/{dataset}/{run}/deeplab.history.csv",
    log:
        "logs/{dataset}/{run}/train_deeplab.log",
    benchmark:
        "benchmarks/{dataset}/{run}/train_deeplab.tsv"
    conda:
        "../../environment.yml"
    threads: 8
    resources:
        gpu=1,
        mem_mb=by_attempt(48000),
        runtime="48h",
    params:
        network=network_of,
        settings=of_network,
        seed=seed_of,
        revision=REVISION["train_deeplab"],
    message:
        "Segmentation network ({params.network}) of {wildcards.dataset} {wildcards.run}"
    script:
        "../scripts/train_deeplab.py"


rule predict_masks:
    input:
        model="results/{dataset}/{run}/deeplab.pt",
        manifest="results/{dataset}/manifest/{subset}.csv",
        classes="results/{dataset}/classes.csv",
    output:
        folder=directory("results/{dataset}/{run}/masks/{subset}"),
    log:
        "logs/{dataset}/{run}/predict_masks.{subset}.log",
    benchmark:
        "benchmarks/{dataset}/{run}/predict_masks.{subset}.tsv"
    conda:
        "../../environment.yml"
    threads: 8
    resources:
        gpu=1,
        mem_mb=by_attempt(16000),
        runtime="12h",
    params:
        settings=of_run("prediction"),
        revision=REVISION["predict_masks"],
    message:
        "Masks of {wildcards.dataset} {wildcards.run}"
    script:
        "../scripts/predict_masks.py"
