"""Wildcards, and the functions that give rules their inputs and params."""

from pathlib import Path

from wsss_core.recipes import Recipes, ordered
from wsss_core.revisions import REVISION

RECIPES = Recipes(config)


wildcard_constraints:
    dataset="|".join(config["datasets"]),
    run=f"({'|'.join(config['runs'])})(@seed[0-9]+)?",
    subset="[A-Za-z0-9_]+",
    backbone="[A-Za-z0-9_.-]+",


def by_attempt(mem_mb):
    """Resource function: more memory at each attempt. Run times stay: a training goes on where it was stopped."""
    return lambda wildcards, attempt: attempt * mem_mb


def of_run(*sections):
    """Params function: settings of the run in these sections, without what an input stands for."""

    def settings(wildcards):
        every = RECIPES.settings(wildcards.dataset, wildcards.run)
        chosen = {
            s: {k: v for k, v in every[s].items() if k != "weights"} for s in sections
        }
        return chosen[sections[0]] if len(sections) == 1 else chosen

    return settings


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
    dataset = config["datasets"][wildcards.dataset]
    keys = {
        "demo": ("kind", "classes"),
        "voc": ("kind", "classes", "root", "sbd"),
        "folders": ("kind", "classes", "names", "images", "masks", "labels"),
    }[dataset["kind"]]
    lists = dataset.get("lists", {})
    own = {name: path for name, path in lists.items() if name == wildcards.subset}
    # The other lists are left out: a further subset must not remake the manifests that are there.
    declared = {key: dataset[key] for key in keys}
    return declared | {"lists": own or lists} if lists else declared


def image_lists(wildcards):
    """What a manifest is made from, apart from the images: the demo's folder, or lists and tables of labels.

    A file that should be there and is not is left to the script, which explains what is expected where.
    """
    dataset, subset = config["datasets"][wildcards.dataset], wildcards.subset
    if dataset["kind"] == "demo":
        return {"root": f"results/{wildcards.dataset}/VOC2012"}
    if dataset["kind"] == "folders":
        files = [dataset["lists"].get(subset), dataset["labels"]]
        return {"lists": [file for file in files if file and Path(file).is_file()]}
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


def part_from(part, path, role="train"):
    """A file of the run that this run takes its ordinary classifier or its saliency from."""

    def input_path(wildcards):
        return path.format(
            dataset=wildcards.dataset,
            run=RECIPES.source(wildcards.run, part),
            subset=getattr(wildcards, "subset", None) or subset_for(role)(wildcards),
        )

    return input_path


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
            ordinary = RECIPES.source(wildcards.run, "ordinary")
            return f"results/{wildcards.dataset}/{ordinary}/classifier.pt"
        return weights

    return input_path
