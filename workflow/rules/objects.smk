"""Input and params functions about objects: true ones, instances of runs, proposals and their labels."""


def instances_by(wildcards):
    """The artefact with the instances that the run's method makes of training images, by name."""
    method = RECIPES.method(wildcards.dataset, wildcards.run, "instances")
    # without any, the message is that of the labels, which cannot be made either
    return method.stages[-2].makes if method and method.stages else "instance_labels"


def object_files(wildcards):
    """What the true objects of a subset are read from: the demo's folder, annotations, or masks that are made."""
    found, whole = image_lists(wildcards), declared(wildcards)
    made = TREE.path("instance_truth", **dict(wildcards.items()))
    for path, what in missing_objects(whole, wildcards.subset).items():
        there(path, f"{what}, for {wildcards.dataset}", made)
    if truth_of_instances(whole) == "components" and makes_masks(whole):
        found["masks"] = TREE.path("coco_masks", **dict(wildcards.items()))
    return found


def objects_declared(wildcards):
    """Params function: what decides about the true objects of a subset."""
    kind = truth_of_instances(declared(wildcards))
    return ordered(images_declared(wildcards) | {"instances": kind})


def least_score_to_learn_from(wildcards):
    """The score from which a detector would learn from an instance of the run, and from which it is shown."""
    return RECIPES.section(wildcards.dataset, wildcards.run, "instances.labels").score


def true_objects(role=None):
    """Input function: the true objects of the wildcard's subset or of the one with a role, refused for a data set that
    declares none."""

    def objects(wildcards):
        if truth_of_instances(declared(wildcards)) is None:
            raise RecipeError(
                f"datasets.{wildcards.dataset}.instances is null or not said, so there are no true objects to score or "
                "to learn from: set it to what docs/data.md offers for this kind of data set"
            )
        subset = subset_for(role)(wildcards) if role else wildcards.subset
        return TREE.path("instance_truth", dataset=wildcards.dataset, subset=subset)

    return objects


def objects_to_show(role=None):
    """Input function: the same to be looked at; none for a data set that declares none."""
    return lambda wildcards: (
        true_objects(role)(wildcards) if truth_of_instances(declared(wildcards)) else []
    )


def objects_of_training(wildcards):
    """Input function: what a detector learns from: instances of the run, or, with full supervision, true objects."""
    if RECIPES.learns_true_objects(wildcards.dataset, wildcards.run):
        return true_objects("train")(wildcards)
    return of("instance_labels", "train")(wildcards)


def proposals_for(role=None):
    """Input function: the data set's proposals, of the wildcard's subset or the one with a role; refused without any."""

    def proposals(wildcards):
        deciding_about_proposals(wildcards)
        subset = subset_for(role)(wildcards) if role else wildcards.subset
        return TREE.path("proposals", dataset=wildcards.dataset, subset=subset)

    return proposals


def proposals_behind(role):
    """Input function: what a detector's objects were chosen from, to tell its recall; none where it was not CIM's choice."""
    return lambda wildcards: (
        proposals_for(role)(wildcards)
        if RECIPES.has(wildcards.dataset, wildcards.run, "cim_instances")
        else []
    )


def deciding_about_proposals(wildcards):
    """Params function: what decides about proposals beside the images and the files."""
    if found := proposals_declared(declared(wildcards)):
        return ordered(found)
    raise RecipeError(
        f"datasets.{wildcards.dataset}.proposals is null or not said, so there are no masks that CIM could choose among: "
        "say proposals: {kind: grouping}, or see docs/cim.md"
    )


def proposal_files(wildcards):
    """Input function: the folder that proposals of a subset are read from; none where they are made here."""
    if deciding_about_proposals(wildcards)["kind"] != "files":
        return []
    folders = declared(wildcards)["proposals"]["folders"]
    if wildcards.subset not in folders:
        raise RecipeError(
            f"datasets.{wildcards.dataset}.proposals.folders names none of the subset {wildcards.subset}, only of "
            f"{', '.join(folders)}"
        )
    folder = folders[wildcards.subset]
    made = TREE.path("proposals", **dict(wildcards.items()))
    what = f"{sources.PROPOSALS}, for {wildcards.dataset}"
    return folder if there(folder, what, made) else []


def labels_of_proposals(wildcards):
    """Input function: AGPL's labels of the training images; none for a run that learns without them."""
    cim = RECIPES.section(wildcards.dataset, wildcards.run, "instances.cim")
    return of("proposal_labels", "train")(wildcards) if cim.cluster_labels else []
