"""Wildcards and the input functions that several rules share."""

from wsss_core.recipes import Recipes
from wsss_core.revisions import REVISION

RECIPES = Recipes(config)


wildcard_constraints:
    dataset="|".join(config["datasets"]),
    run=f"({'|'.join(config['runs'])})(@seed[0-9]+)?",
    subset="[A-Za-z0-9_]+",
    backbone="[A-Za-z0-9_.-]+",


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
        return {key: config["datasets"][wildcards.dataset][key] for key in keys}

    return declarations


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
            subset=subset_for(role)(wildcards),
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
