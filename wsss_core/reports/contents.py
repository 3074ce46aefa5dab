"""What a report of a run is made from; the Snakefile imports this, so neither numpy nor matplotlib."""

import json
from collections.abc import Iterable
from typing import Any, NamedTuple

from wsss_core.recipes.kinds import has_masks, makes_masks, truth_of_instances
from wsss_core.recipes.methods import METHODS, SECTIONS, SLOTS
from wsss_core.recipes.recipes import Recipes
from wsss_core.recipes.settings import plain
from wsss_core.recipes.tree import Tree
from wsss_core.reports.citations import cited

# by artefact: what readers call it, and the rule that makes it
STAGES = {
    "ordinary": ("Ordinary classifier", "train_classifier"),
    "classifier": ("Classifier", "train_classifier"),
    "cams": ("CAMs", "dump_cams"),
    "hints": ("Hints", "make_hints"),
    "c2am": ("C²AM", "train_c2am"),
    "c2am_maps": ("C²AM's maps", "dump_c2am_maps"),
    "saliency_masks": ("C²AM's masks", "make_saliency_masks"),
    "poolnet": ("PoolNet", "train_poolnet"),
    "saliency": ("PoolNet's saliency", "predict_saliency"),
    "affinity_labels": ("Affinity labels", "make_affinity_labels"),
    "affinity": ("AffinityNet", "train_affinity"),
    "random_walk": ("Random walk", "walk_cams"),
    "pseudo_masks": ("Pseudo masks", "make_pseudo_masks"),
    "segmentation": ("Segmentation network", "train_segmentation"),
    "masks": ("Predictions", "predict_masks"),
    "irn_instances": ("IRNet's instances", "make_irn_instances"),
    "components": ("Components", "make_components"),
    "peaks": ("Peaks", "dump_peaks"),
    "proposal_labels": ("Labels of proposals", "make_proposal_labels"),
    "cim": ("CIM", "train_cim"),
    "proposal_scores": ("Scores of proposals", "score_proposals"),
    "cim_instances": ("CIM's instances", "make_cim_instances"),
    "instance_labels": ("Instance labels", "make_instance_labels"),
    "maskrcnn": ("Mask R-CNN", "train_maskrcnn"),
    "detections": ("Detections", "predict_instances"),
}


class Score(NamedTuple):
    """A score that a run may have.

    Attributes:
        result, images: names in the tree of its result file, and of its table by image if there is one.
        artefact: what is scored.
        role: of the subset that it is scored on.
        settings: the section that decides about it beside the artefact, or None.
    """

    result: str
    images: str | None
    artefact: str
    role: str
    settings: str | None


SCORES = (
    Score("priors_miou", "priors_images", "cams", "scored", "prior.scores"),
    Score("saliency_miou", None, "saliency_masks", "scored", "prior.scores"),
    Score("pseudo_miou", "pseudo_images", "pseudo_masks", "scored", "refinement.scores"),
    Score("seg_miou", "seg_images", "masks", "val", None),
)
INSTANCE_SCORES = (
    Score("irn_ap", None, "irn_instances", "scored", "instances.scores"),
    Score("components_ap", None, "components", "scored", "instances.scores"),
    Score("cim_ap", None, "cim_instances", "val", "instances.scores"),
    Score("detections_ap", None, "detections", "val", "detection.scores"),
)
LOOKED_AT = ("cams", "saliency_masks", "saliency", "affinity_labels", "pseudo_masks", "masks")  # by check_health
INSTANCES = ("irn_instances", "components", "cim_instances", "detections")
SHOWN = {  # panels of the gallery by role; instances of training images are those of the run's own method
    "scored": (*LOOKED_AT[:5], "irn_instances", "components", "cim_instances"),
    "val": ("masks", "detections"),
}


def resolve_report(dataset: str, run: str, recipes: Recipes, tree: Tree) -> dict[str, Any]:
    """What a run's report says and is made from, as plain values for a rule's params.

    Seconds and losses are read where they lie and no inputs, since networks from elsewhere have none.

    Raises:
        RecipeError: a run or a data set that config.yaml does not have.
    """
    stages = stages_of(recipes, dataset, run)
    declared, splits = recipes.data_set(dataset), recipes.data_set(dataset)["splits"]
    scores = []
    for score in scores_of(recipes, dataset, run, stages):
        at = {"dataset": dataset, "run": _scored_as(recipes, dataset, run, score)}
        images = tree.path(score.images, **at) if score.images else None
        scores.append({"name": score.result, "artefact": score.artefact, "role": score.role,
                       "result": tree.path(score.result, **at), "images": images})  # fmt: skip
    own = {"dataset": dataset, "run": run}
    by_class = {score["name"] for score in scores} & {score.result for score in SCORES}
    galleries = [_gallery(recipes, tree, own, role, stages, scores) for role in SHOWN if splits[role]]
    galleries = [gallery for gallery in galleries if gallery["panels"]]
    return {
        **own,
        "seed": recipes.parse(run)[1],
        "target": tree.path("report", **own),
        "methods": methods_of(recipes, dataset, run, stages),
        "classes": tree.path("classes", dataset=dataset),
        "road": [_stop(tree, dataset, artefact, source) for artefact, source in stages.items()],
        "scores": scores,
        "health": tree.path("health", **own) if set(LOOKED_AT) & set(stages) else None,
        "properties": tree.path("class_properties", dataset=dataset) if by_class else None,
        "galleries": galleries,
        "truth": [tree.path("coco_masks", dataset=dataset, subset=gallery["subset"]) for gallery in galleries]
        if makes_masks(declared)
        else [],
        "settings": changed_settings(recipes, dataset, run, stages),
        "cited": cited(recipes, dataset, run, stages),
    }


def files_of_report(resolved: dict[str, Any]) -> list[str]:
    """Every file and folder that a resolved report cannot be made without, once."""
    found = [resolved["classes"], resolved["health"], resolved["properties"], *resolved["truth"]]
    found += [score[kind] for score in resolved["scores"] for kind in ("result", "images")]
    for gallery in resolved["galleries"]:
        found += [gallery["manifest"], gallery["images"], gallery["objects"], *(path for _, path in gallery["panels"])]
    return list(dict.fromkeys(path for path in found if path))


def stages_of(recipes: Recipes, dataset: str, run: str) -> dict[str, str]:
    """All that a run goes through in its order, each with the run in whose folder it lies.

    Of a run that learns from true masks or objects, that is what is behind its network alone. An ordinary classifier is
    called that.
    """
    slots: tuple[str, ...] = SLOTS
    if recipes.trains_on_truth(dataset, run):
        slots = SLOTS[3:]
    if recipes.learns_true_objects(dataset, run):
        slots = SLOTS[5:]
    found: dict[str, str] = {}
    for slot in slots:
        if end := recipes.result(dataset, run, slot):
            behind = recipes.behind(dataset, run, end)
            found |= {artefact: made["run"] for artefact, made in behind.items() if artefact not in found}
    return found


def scores_of(recipes: Recipes, dataset: str, run: str, stages: dict[str, str]) -> list[Score]:
    """The scores that a run can have on a data set, in the order of its stages."""
    declared = recipes.data_set(dataset)
    possible: tuple[Score, ...] = SCORES if has_masks(declared) else ()
    possible += INSTANCE_SCORES if truth_of_instances(declared) else ()
    if "saliency" in stages:  # where C²AM's masks are refined, the score is that of the refined ones
        possible = tuple(
            score._replace(artefact="saliency") if score.artefact == "saliency_masks" else score for score in possible
        )
    return [score for score in possible if score.artefact in stages and declared["splits"][score.role]]


def _scored_as(recipes: Recipes, dataset: str, run: str, score: Score) -> str:
    """The run whose score this is: that of a shared artefact where both score it in the same way, else this one."""
    source = recipes.source(dataset, run, score.artefact)
    if score.settings is None:
        return source
    same = recipes.section(dataset, run, score.settings) == recipes.section(dataset, source, score.settings)
    return source if same else run


def _stop(tree: Tree, dataset: str, artefact: str, run: str) -> dict[str, Any]:
    """A stage on the road: its name, its run, where its seconds and losses are, if it has any."""
    name, rule = STAGES.get(artefact, (artefact.replace("_", " ").capitalize(), None))
    made = "classifier" if artefact == "ordinary" else artefact
    network = tree.path(made, dataset=dataset, run=run)
    return {
        "artefact": artefact,
        "name": name,
        "run": run,
        "benchmark": f"{tree.benchmarks}/{dataset}/{run}/{rule}" if rule else None,
        "history": tree.history(made, dataset=dataset, run=run) if network.endswith(".pt") else None,
    }


def _gallery(
    recipes: Recipes, tree: Tree, own: dict[str, str], role: str, stages: dict[str, str], scores: list[dict]
) -> dict[str, Any]:
    dataset = own["dataset"]
    splits = recipes.data_set(dataset)["splits"]
    subset = splits[role]
    stores = recipes.train_subset(dataset, subset)
    # without a val split, predictions are to be seen on the training images, where check_health looks at them
    names = [name for name in (SHOWN[role] if splits["val"] else (*SHOWN[role], "masks")) if name in stages]
    objects = truth_of_instances(recipes.data_set(dataset)) if set(INSTANCES) & set(names) else None
    ranked = [score for score in scores if score["role"] == role and score["images"]]
    return {
        "role": role,
        "subset": subset,
        "manifest": tree.path("manifest", dataset=dataset, subset=subset),
        "ranked_by": ranked[-1]["artefact"] if ranked else None,
        "images": ranked[-1]["images"] if ranked else None,
        "objects": tree.path("instance_truth", dataset=dataset, subset=subset) if objects else None,
        "panels": [[name, tree.path(name, dataset=dataset, run=stages[name], subset=stores)] for name in names],
    }


def methods_of(recipes: Recipes, dataset: str, run: str, stages: Iterable[str]) -> list[list[str]]:
    """Each slot of a run that has one of the stages: slot, method, and the run that fills it."""
    wanted, found = set(stages), []
    for slot in SLOTS:
        method = recipes.method(dataset, run, slot)
        if method and (method.truth or wanted & {stage.makes for stage in method.stages}):
            filler, filled = recipes.filled(dataset, run, slot)
            found.append([slot, str(filled.method), filler])
    return found


def changed_settings(recipes: Recipes, dataset: str, run: str, stages: Iterable[str]) -> list[list[str]]:
    """Settings that are not the defaults of their sections: key, value, default, which layer the value is from."""
    found = []
    for slot, method, filler in methods_of(recipes, dataset, run, stages):
        filled = recipes.slot(dataset, filler, slot)
        for section in METHODS[slot][method].sections:
            settings, defaults = filled.sections[section], plain(SECTIONS[slot][section]())
            if settings is None:
                found.append([f"{slot}.{section}", "null", "", f"runs.{recipes.parse(filler)[0]}"])
                continue
            for key, value in plain(settings).items():
                if value != defaults[key]:
                    origin = filled.origins.get(f"{section}.{key}", "")
                    found.append([f"{slot}.{section}.{key}", _told(value), _told(defaults[key]), origin])
    return found


def _told(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
