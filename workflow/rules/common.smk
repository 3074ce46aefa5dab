"""Wildcards, and the functions that give rules their paths, inputs and params."""

from pathlib import Path
from shutil import rmtree

from snakemake.logging import logger

from wsss_core.recipes import sources
from wsss_core.recipes.config import RecipeError, ordered
from wsss_core.recipes.kinds import (
    KINDS,
    check_apart,
    check_subset,
    deciding,
    has_masks,
    list_files,
    makes_masks,
    missing_files,
    missing_objects,
    needs_further_masks,
    proposals_declared,
    truth_of_instances,
)
from wsss_core.recipes.names import near, unknown
from wsss_core.recipes.recipes import NAME, SUBSET, Recipes
from wsss_core.recipes.revisions import REVISION
from wsss_core.recipes.settings import identity
from wsss_core.recipes.tree import Tree

RECIPES = Recipes(config)
TREE = Tree.of(config)
PICTURES = config.get("pictures_every", 5)  # a resource of trainings: no number changes


wildcard_constraints:
    dataset=NAME,  # of any data set and run, so that one that is not there is said with those that are
    run=f"{NAME}(@[^/]*)?",
    subset=SUBSET,
    backbone="[A-Za-z0-9_.-]+",


def by_attempt(mem_mb):
    """Resource function: twice the memory from the second attempt on, and never more than max_mem_mb.

    No more than twice: the attempts before may have met their time limit or lost their node.

    Snakemake asks for resources when the plan is whole and no job has begun: the time to say what the plan lacks.
    """

    def memory(wildcards, attempt):
        say_what_is_missing()
        return min(min(attempt, 2) * mem_mb, config.get("max_mem_mb", 96000))

    return memory


def hours(number):
    """Resource function: as many hours, from the second attempt on twice as many; for jobs that begin again.

    A training goes on where it was stopped, so its run time stays.
    """
    return lambda wildcards, attempt: min(attempt, 2) * 60 * number


def forget_finished_trainings():
    """Remove what trainings resume from where their checkpoints stand: the jobs are known to have succeeded."""
    for state in Path(TREE.results).glob("*/*/*.resume.pt"):
        network = state.with_suffix("").with_suffix(".pt")
        if network.exists():
            rmtree(network.with_suffix(".epochs.resume"), ignore_errors=True)
            state.unlink()


# --- files from elsewhere ---

MISSING = {}  # by path: what it is and where it is published; input functions add to it


def there(path, what, made):
    """Whether a file that no rule makes is there, or what is made from it; if not, it is said with all others."""
    if Path(path).exists() or Path(made).exists():
        return True
    MISSING[path] = what
    return False


def say_what_is_missing():
    """Refuse to start jobs of a plan that lacks files from elsewhere; a dry run goes on and lists them once."""
    if not MISSING:
        return
    lines = [f"  {path}: {what}" for path, what in sorted(MISSING.items())]
    text = "\n".join(
        [
            "Not there, and nothing makes it (docs/data.md, Files from elsewhere):",
            *lines,
        ]
    )
    if not (workflow.dryrun or workflow.touch):
        raise RecipeError(text)
    logger.warning(text)
    MISSING.clear()


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

    return lambda wildcards: of(maps_behind_masks(wildcards), role)(wildcards)


def maps_behind_masks(wildcards):
    """The artefact with these maps, by name."""
    method = RECIPES.method(wildcards.dataset, wildcards.run, "refinement")
    # without any, the message is that of the masks, which cannot be made either
    return method and method.maps or "pseudo_masks"


def ordinary_classifier(wildcards):
    """Input function: the classifier that looks at erased images, for the methods that have one."""
    method = RECIPES.method(wildcards.dataset, wildcards.run, "prior")
    if not any("ordinary" in stage.takes for stage in method.stages):
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
        if settings.weights == "ordinary":
            return classifier_of(
                wildcards, RECIPES.plain(wildcards.dataset, wildcards.run)
            )
        file, what = settings.weights, sources.page_of(Path(settings.weights).name)
        if settings.weights == "pretrained":
            file = TREE.path("weights", backbone=settings.backbone)
            if sources.fetched(settings.backbone):
                return file
            what = sources.weights_of(settings.backbone)
        made = TREE.path(name.rpartition(".")[2], **dict(wildcards.items()))
        return file if there(file, f"{what}, for {section}", made) else []

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


def made_with(*artefacts):
    """Params function: all that is behind what is scored, each with its run and its settings."""

    def found(wildcards):
        dataset, run = wildcards.dataset, wildcards.run
        return ordered(
            {
                name: made
                for artefact in artefacts
                if RECIPES.has(dataset, run, artefact)
                for name, made in RECIPES.behind(dataset, run, artefact).items()
            }
        )

    return found


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


def training_objects_of(wildcards):
    """Params function: what the detector learns from: instances of a run, or ground_truth."""
    if RECIPES.learns_true_objects(wildcards.dataset, wildcards.run):
        return "ground_truth"
    return RECIPES.source(wildcards.dataset, wildcards.run, "instance_labels")


def seed_of(wildcards):
    """Params function: the run's seed."""
    return RECIPES.parse(wildcards.run)[1]


# --- data sets ---


def declared(wildcards):
    """The data set as config.yaml declares it."""
    return RECIPES.data_set(wildcards.dataset)


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
    """What a manifest is made from, apart from the images: the demo's folder, or lists and annotations.

    The rows of a table of labels are params instead: those of other subsets must not count.
    """
    check_subset(declared(wildcards), wildcards.subset)
    if KINDS[declared(wildcards)["kind"]].drawn:
        return {"root": TREE.path("demo", dataset=wildcards.dataset)}
    check_apart(declared(wildcards))
    made = TREE.path("manifest", **dict(wildcards.items()))
    for path, what in missing_files(declared(wildcards), wildcards.subset).items():
        there(path, f"{what}, for {wildcards.dataset}", made)
    return {"lists": list_files(declared(wildcards), wildcards.subset)}


def subset_for(role):
    """Params function: the data set's subset with the role train, scored or val."""

    def subset(wildcards):
        found = declared(wildcards)["splits"][role]
        if found is None:
            raise RecipeError(
                f"datasets.{wildcards.dataset}.splits.{role} is null, which this needs: name a subset of images that "
                f"are not trained on, or ask for {TREE.path('masks', dataset=wildcards.dataset, run='RUN')}"
            )
        return found

    return subset


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


def truth_to_score(role):
    """Input function: as ``truth_for``, refused for a data set that has no masks, before anything is trained."""

    def masks(wildcards):
        if not has_masks(declared(wildcards)):
            raise RecipeError(
                f"datasets.{wildcards.dataset}.masks is null, so nothing can be scored: ask for what needs no truth, "
                f"such as {TREE.path('masks', dataset=wildcards.dataset, run='RUN', subset=subset_for(role)(wildcards))}"
            )
        return truth_for(role)(wildcards)

    return masks


def truth_of_training(wildcards):
    """Input function: masks that the pipeline makes and full supervision learns from; none for other runs."""
    full = RECIPES.trains_on_truth(wildcards.dataset, wildcards.run)
    return truth_for("train")(wildcards) if full else []


def further_masks(wildcards):
    """Input function: true masks that full supervision needs beside the data set's own; none for other runs."""
    full = RECIPES.trains_on_truth(wildcards.dataset, wildcards.run)
    if not full or not needs_further_masks(declared(wildcards)):
        return []
    folder = declared(wildcards)["sbd_masks"] or "sbd_masks (null)"
    what = f"true masks of SBD's images, for full supervision, {sources.SBD_MASKS}"
    made = TREE.path("segmentation", **dict(wildcards.items()))
    return folder if there(folder, what, made) else []
