"""The segmentation network."""

# The section of the settings that each network is trained by.
NETWORKS = {"v3plus": "deeplab", "v2": "deeplabv2"}


def network_of(wildcards):
    """Params function: the run's segmentation network."""
    return RECIPES.settings(wildcards.dataset, wildcards.run)["deeplab"]["network"]


def of_network(wildcards):
    """Params function: settings of the run's network, so that those of the other one rerun nothing."""
    settings = of_run(NETWORKS[network_of(wildcards)])(wildcards)
    return {key: value for key, value in settings.items() if key != "network"}


def network_weights(wildcards):
    """The file of weights that the run's network starts from, or no file."""
    return weights_for(NETWORKS[network_of(wildcards)])(wildcards)


def truth_of_training(wildcards):
    """Masks that the pipeline makes and full supervision trains on; none for a weakly supervised run."""
    full = RECIPES.source(wildcards.run, "pseudo_masks") == "ground_truth"
    return truth_for("train")(wildcards) if full else []


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
