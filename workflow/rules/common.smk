"""Wildcards, and the functions that give rules their paths, inputs and params."""

from pathlib import Path

from wsss_core.recipes.config import RecipeError, ordered
from wsss_core.recipes.kinds import KINDS, deciding, list_files, makes_masks
from wsss_core.recipes.recipes import Recipes
from wsss_core.recipes.revisions import REVISION
from wsss_core.recipes.settings import identity
from wsss_core.recipes.tree import Tree

RECIPES = Recipes(config)
TREE = Tree.of(config)


wildcard_constraints:
    dataset="|".join(config["datasets"]),
    run=f"({'|'.join(config['runs'])})(@seed[0-9]+)?",
    subset="[A-Za-z0-9_]+",
    backbone="[A-Za-z0-9_.-]+",


def by_attempt(mem_mb):
    """Resource function: more memory at each attempt. Run times stay: a training goes on where it was stopped."""
    return lambda wildcards, attempt: attempt * mem_mb


# --- a run's artefacts ---


def of(artefact, role=None):
    """Input function: an artefact of the run, in the folder of the run that it is shared with.

    The subset is that of the wildcard, or the one with a role: train, scored or val.
    """

    def input_path(wildcards):
        subset = subset_for(role)(wildcards) if role else wildcards.get("subset", "")
        return TREE.path(
            artefact,
            dataset=wildcards.dataset,
            run=RECIPES.source(wildcards.dataset, wildcards.run, artefact),
            subset=RECIPES.train_subset(wildcards.dataset, subset),
        )

    return input_path


def if_any(artefact, role=None):
    """Input function: as ``of``, and no file where the run has no such artefact."""
    return lambda wildcards: (
        of(artefact, role)(wildcards)
        if RECIPES.has(wildcards.dataset, wildcards.run, artefact)
        else []
    )


def result_of(slot, role=None):
    """Input function: what a slot of the run hands to the next ones; no file where the run has no such slot."""

    def input_path(wildcards):
        artefact = RECIPES.result(wildcards.dataset, wildcards.run, slot)
        return of(artefact, role)(wildcards) if artefact else []

    return input_path


def refined_maps(role=None):
    """Input function: the class maps that the run's refinement makes masks of."""

    def input_path(wildcards):
        method = RECIPES.method(wildcards.dataset, wildcards.run, "refinement")
        # without any, the message is that of the masks, which cannot be made either
        return of(method and method.maps or "pseudo_masks", role)(wildcards)

    return input_path


def ordinary_classifier(wildcards):
    """Input function: the classifier that looks at erased images, for the methods that have one."""
    method = RECIPES.method(wildcards.dataset, wildcards.run, "prior")
    if "ordinary" not in method.needs:
        return []
    return classifier_of(wildcards, RECIPES.ordinary(wildcards.dataset, wildcards.run))


def classifier_of(wildcards, run):
    """The classifier of another run, where it lies."""
    source = RECIPES.source(wildcards.dataset, run, "classifier")
    return TREE.path("classifier", dataset=wildcards.dataset, run=source)


def weights_for(name):
    """Input function: the file of weights that the network of a section, or of a slot's method, starts from."""

    def input_path(wildcards):
        section = name if "." in name else f"{name}.{method_of(name)(wildcards)}"
        settings = RECIPES.section(wildcards.dataset, wildcards.run, section)
        if settings.weights == "none":
            return []
        if settings.weights == "pretrained":
            return TREE.path("weights", backbone=settings.backbone)
        if settings.weights == "ordinary":
            return classifier_of(
                wildcards, RECIPES.plain(wildcards.dataset, wildcards.run)
            )
        if not Path(settings.weights).is_file():
            raise RecipeError(
                f"{section}.weights of the run {wildcards.run} is the file {settings.weights}, which is not there: put "
                "it there, or name another one in config.yaml (docs/stages.md, fetch_weights)"
            )
        return settings.weights

    return input_path


def over_seeds(artefact, scored):
    """Input function: a score of every seed of the run, for the runs that have what it scores."""
    return lambda wildcards: (
        [
            TREE.path(artefact, dataset=wildcards.dataset, run=run)
            for run in RECIPES.seeded(wildcards.run)
        ]
        if RECIPES.has(wildcards.dataset, wildcards.run, scored)
        else []
    )


# --- a run's settings ---


def settings_of(artefact):
    """Params function: what decides about an artefact of the run beside its inputs, by section.

    It refuses to make again in this run's folder what the run shares with another one.
    """

    def settings(wildcards):
        source = RECIPES.source(wildcards.dataset, wildcards.run, artefact)
        if source != wildcards.run:
            shared = TREE.path(artefact, **{**dict(wildcards.items()), "run": source})
            raise RecipeError(
                f"the run {wildcards.run} shares this with {source}: ask for {shared}"
            )
        return RECIPES.stage_settings(wildcards.dataset, wildcards.run, artefact)

    return settings


def section_of(*names):
    """Params function: settings of sections such as prior.scores, by the last part of their names."""
    return lambda wildcards: ordered(
        {
            name.partition(".")[2]: identity(
                RECIPES.section(wildcards.dataset, wildcards.run, name)
            )
            for name in names
        }
    )


def scoring(scores, *artefacts):
    """Params function: a section of scores, and what the scored artefacts were made with and in which run."""

    def settings(wildcards):
        dataset, run = wildcards.dataset, wildcards.run
        found = section_of(scores)(wildcards)
        for artefact in artefacts:
            if RECIPES.has(dataset, run, artefact):
                own = RECIPES.stage_settings(dataset, run, artefact)
                source = RECIPES.source(dataset, run, artefact)
                found[artefact] = {**own, "run": source}
        return ordered(found)

    return settings


def compiled(name):
    """Resource function: whether the network is compiled, which changes its speed alone and so is no param."""

    def flag(wildcards):
        section = name if "." in name else f"{name}.{method_of(name)(wildcards)}"
        return int(RECIPES.section(wildcards.dataset, wildcards.run, section).compile)

    return flag


def method_of(slot):
    """Params function: the method that fills a slot of the run."""
    return lambda wildcards: RECIPES.filled(wildcards.dataset, wildcards.run, slot)[
        1
    ].method


def training_masks_of(wildcards):
    """Params function: what the segmentation network learns from: a run's pseudo masks, or ground_truth."""
    if RECIPES.trains_on_truth(wildcards.dataset, wildcards.run):
        return "ground_truth"
    return RECIPES.source(wildcards.dataset, wildcards.run, "pseudo_masks")


def seed_of(wildcards):
    """Params function: the run's seed."""
    return RECIPES.parse(wildcards.run)[1]


# --- data sets ---


def declared(wildcards):
    """The data set as config.yaml declares it."""
    return config["datasets"][wildcards.dataset]


def of_dataset(*keys):
    """Params function: these declarations of the data set."""
    return lambda wildcards: ordered(
        {key: declared(wildcards).get(key) for key in keys}
    )


def images_declared(wildcards):
    """Params function: what decides about the images of a subset and their labels; scripts call it `declared`."""
    found = deciding(declared(wildcards), wildcards.subset)
    if KINDS[found["kind"]].makes_masks:
        found["made_masks"] = TREE.path("coco_masks", **dict(wildcards.items()))
    return found


def image_lists(wildcards):
    """What a manifest is made from, apart from the images: the demo's folder, or lists, labels and annotations."""
    if KINDS[declared(wildcards)["kind"]].drawn:
        return {"root": TREE.path("demo", dataset=wildcards.dataset)}
    return {"lists": list_files(declared(wildcards), wildcards.subset)}


def subset_for(role):
    """Params function: the data set's subset with the role train, scored or val."""
    return lambda wildcards: declared(wildcards)["splits"][role]


def manifest_for(role):
    """Input function: the manifest of the subset with this role."""
    return lambda wildcards: TREE.path(
        "manifest", dataset=wildcards.dataset, subset=subset_for(role)(wildcards)
    )


def truth_for(role):
    """Input function: the masks that the pipeline makes of a subset; none where the data set has its own."""
    return lambda wildcards: (
        TREE.path(
            "coco_masks", dataset=wildcards.dataset, subset=subset_for(role)(wildcards)
        )
        if makes_masks(declared(wildcards))
        else []
    )


def truth_of_training(wildcards):
    """Input function: masks that the pipeline makes and full supervision learns from; none for other runs."""
    full = RECIPES.trains_on_truth(wildcards.dataset, wildcards.run)
    return truth_for("train")(wildcards) if full else []
