"""Wildcards, and the functions that give rules their inputs and params."""

from pathlib import Path

from wsss_core.recipes import PARTS, RecipeError, Recipes, ordered
from wsss_core.revisions import REVISION

RECIPES = Recipes(config)

# The section of the settings that each network is trained by.
NETWORKS = {"v3plus": "deeplab", "v2": "deeplabv2"}


wildcard_constraints:
    dataset="|".join(config["datasets"]),
    run=f"({'|'.join(config['runs'])})(@seed[0-9]+)?",
    subset="[A-Za-z0-9_]+",
    backbone="[A-Za-z0-9_.-]+",


def by_attempt(mem_mb):
    """Resource function: more memory at each attempt. Run times stay: a training goes on where it was stopped."""
    return lambda wildcards, attempt: attempt * mem_mb


def settings_of(wildcards, sections):
    """Settings of the run by section, without what an input stands for."""
    every = RECIPES.settings(wildcards.dataset, wildcards.run)
    return {s: {k: v for k, v in every[s].items() if k != "weights"} for s in sections}


def of_run(*sections):
    """Params function: settings of the run in these sections; those of one section have no name above them."""

    def settings(wildcards):
        chosen = settings_of(wildcards, sections)
        return chosen[sections[0]] if len(sections) == 1 else chosen

    return settings


def of_classifier(wildcards):
    """Params function: settings of the classifier and of the parts that the run's method has."""
    return settings_of(wildcards, RECIPES.classifier_sections(wildcards.run))


def settings_from(wildcards, part, section):
    """The settings that a part of this run was made with, which are those of the run that it comes from."""
    source = RECIPES.source(wildcards.run, part)
    return RECIPES.settings(wildcards.dataset, source)[section]


def of_scored_cams(wildcards):
    """Params function: what the score of the priors states."""
    return settings_of(wildcards, ["priors"]) | {
        "cams": settings_from(wildcards, "priors", "cams")
    }


def of_scored_saliency(wildcards):
    """Params function: what the score of the saliency with CAMs states."""
    return settings_of(wildcards, ["priors"]) | {
        "cams": settings_from(wildcards, "priors", "cams"),
        "saliency_masks": settings_from(wildcards, "saliency", "saliency_masks"),
        "cams_of": RECIPES.source(wildcards.run, "priors"),
        "saliency_of": RECIPES.source(wildcards.run, "saliency"),
    }


def of_scored_saliency_gt(wildcards):
    """Params function: what the score of the saliency with known classes states."""
    return settings_of(wildcards, ["saliency_scores"]) | {
        "saliency_masks": settings_from(wildcards, "saliency", "saliency_masks"),
        "saliency_of": RECIPES.source(wildcards.run, "saliency"),
    }


def of_monitoring(wildcards):
    """Params function: thresholds, and the crop, of which only images' corners are looked at."""
    settings = settings_of(wildcards, ("monitoring", "classifier"))
    return settings["monitoring"] | {"crop": settings["classifier"]["crop"]}


def seed_of(wildcards):
    """The run's seed."""
    return RECIPES.parse(wildcards.run)[1]


def of_dataset(*keys):
    """Params function: these declarations of the data set."""

    def declarations(wildcards):
        dataset = config["datasets"][wildcards.dataset]
        return ordered({key: dataset[key] for key in keys})

    return declarations


def images_declared(wildcards):
    """Params function: what decides about the images of a subset and their labels; scripts call it `declared`."""
    dataset, subset = config["datasets"][wildcards.dataset], wildcards.subset
    keys = {
        "demo": ("kind", "classes"),
        "voc": ("kind", "classes", "root", "sbd"),
        "coco": ("kind", "classes", "root", "masks"),
        "folders": ("kind", "classes", "names", "images", "masks", "labels"),
    }[dataset["kind"]]
    declared = {key: dataset[key] for key in keys}
    for key in {"lists", "subsets"} & set(dataset):
        # The others are left out: a further subset must not remake the manifests that are there.
        own = {name: part for name, part in dataset[key].items() if name == subset}
        declared[key] = ordered(own or dataset[key])
    if dataset["kind"] == "coco":
        declared["made_masks"] = f"results/{wildcards.dataset}/masks/{subset}"
    return declared


def image_lists(wildcards):
    """What a manifest is made from, apart from the images: the demo's folder, or lists, labels and annotations.

    A file that should be there and is not is left to the script, which explains what is expected where.
    """
    dataset, subset = config["datasets"][wildcards.dataset], wildcards.subset
    if dataset["kind"] == "demo":
        return {"root": f"results/{wildcards.dataset}/VOC2012"}
    if dataset["kind"] == "folders":
        files = [dataset["lists"].get(subset), dataset["labels"]]
        return {"lists": [file for file in files if file and Path(file).is_file()]}
    if dataset["kind"] == "coco":
        part = dataset["subsets"].get(subset, {"annotations": "", "list": None})
        files = [Path(dataset["root"], part["annotations"]), Path(part["list"] or "")]
        return {"lists": [str(file) for file in files if file.is_file()]}
    sources = {"train_aug": ("train_aug", "train", "val")}.get(subset, (subset,))
    folders = [Path(dataset["root"], "ImageSets/Segmentation")]
    if subset == "train_aug" and dataset["sbd"]:
        inner = ("", "dataset", "benchmark_RELEASE/dataset")
        folders += [Path(dataset["sbd"], folder) for folder in inner]
    lists = [folder / f"{source}.txt" for folder in folders for source in sources]
    return {"lists": [str(file) for file in lists if file.is_file()]}


def over_seeds(name):
    """This file of every seed of the run."""
    return lambda wildcards: [
        f"results/{wildcards.dataset}/{run}/{name}"
        for run in RECIPES.seeded(wildcards.run)
    ]


def subset_for(role):
    """Input function's help: the data set's subset with the role train, scored or val."""
    return lambda wildcards: config["datasets"][wildcards.dataset]["splits"][role]


def manifest_for(role):
    """The manifest of the subset with this role."""
    return lambda wildcards: (
        f"results/{wildcards.dataset}/manifest/{subset_for(role)(wildcards)}.csv"
    )


def part_for(role, path):
    """A file of the run whose name holds the {subset} with this role, in the store that has its images."""

    def input_path(wildcards):
        subset = RECIPES.train_subset(wildcards.dataset, subset_for(role)(wildcards))
        return path.format(dataset=wildcards.dataset, run=wildcards.run, subset=subset)

    return input_path


def part_from(part, path, role="train", optional=False):
    """A file of the run that a part of this run comes from.

    Where a word stands for the part (`saliency: none`), it is no file if optional, and an error otherwise.
    """

    def input_path(wildcards):
        source = RECIPES.source(wildcards.run, part)
        if source not in PARTS[part]:
            subset = getattr(wildcards, "subset", None) or subset_for(role)(wildcards)
            return path.format(
                dataset=wildcards.dataset,
                run=source,
                subset=RECIPES.train_subset(wildcards.dataset, subset),
            )
        if optional:
            return []
        raise RecipeError(
            f"runs.{RECIPES.parse(wildcards.run)[0]}.{part} is {source}: {path} cannot be made"
        )

    return input_path


def ordinary_classifier(wildcards):
    """The classifier that looks at erased images, for the methods that have one."""
    if not RECIPES.needs(wildcards.run, "erasing"):
        return []
    run = RECIPES.ordinary(wildcards.dataset, wildcards.run)
    return f"results/{wildcards.dataset}/{run}/classifier.pt"


def weights_for(section):
    """The file of weights that a network starts from, or no file."""

    def input_path(wildcards):
        settings = RECIPES.settings(wildcards.dataset, wildcards.run)[section]
        weights = settings["weights"]
        if weights == "none":
            return []
        if weights == "pretrained":
            return f"resources/weights/{settings['backbone']}.pt"
        if weights == "ordinary":
            return f"results/{wildcards.dataset}/{RECIPES.plain(wildcards.run)}/classifier.pt"
        if not Path(weights).is_file():
            raise RecipeError(
                f"{section}.weights of the run {wildcards.run} is the file {weights}, which is not there: put it there, "
                "or name another one in config.yaml (docs/stages.md, fetch_weights)"
            )
        return weights

    return input_path


def truth_for(role):
    """The masks that the pipeline makes for the subset with this role; none where the data set has its own."""

    def input_path(wildcards):
        dataset = config["datasets"][wildcards.dataset]
        if dataset["kind"] != "coco" or dataset["masks"]:
            return []
        return f"results/{wildcards.dataset}/masks/{subset_for(role)(wildcards)}"

    return input_path


def hints_of(wildcards):
    """The hints that C²AM-H is trained with, from the run's priors; no file for C²AM, which has none."""
    settings = RECIPES.settings(wildcards.dataset, wildcards.run)["c2am"]
    if settings["hints"] == "none":
        return []
    return part_from("priors", "results/{dataset}/{run}/hints/{subset}.zarr")(wildcards)


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
