"""What a comparison of runs is made from: what lies on disk. The Snakefile imports this, so no numpy or matplotlib.

A comparison makes nothing of a run. Its files are no inputs of a rule, which would make again what config.yaml has
changed since, trainings too; a digest of the scores is among its params instead, so that it is made again after them.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from wsss_core.base.jobs import digest_of
from wsss_core.recipes.config import RecipeError
from wsss_core.recipes.recipes import Recipes
from wsss_core.recipes.tree import Tree
from wsss_core.reports.contents import INSTANCE_SCORES, SCORES, resolve_report, stages_of

RESULTS = tuple(score.result for score in (*SCORES, *INSTANCE_SCORES))
# by role, groups of artefacts of which a picture shows one a run, the ones to prefer first
VIEWS = {
    "scored": (("pseudo_masks",), ("cams",), ("irn_instances", "components", "cim_instances")),
    "val": (("masks",), ("detections", "cim_instances")),
}
MASKS = ("pseudo_masks", "cams", "masks")

Json = dict[str, Any]


def resolve_comparison(dataset: str, names: Sequence[str] | None, recipes: Recipes, tree: Tree) -> Json:
    """What a page about several runs says and is made from, as far as it is there, as plain values for a rule's params.

    Args:
        names: the runs, the one that the others are held against first; None takes all that have a score of their own,
            in the order of config.yaml, and of each its first seed.

    Raises:
        RecipeError: a run or a data set that config.yaml does not have; fewer than two runs; one without any score.
    """
    recipes.data_set(dataset)
    scored = runs_with_scores(dataset, recipes, tree)
    chosen = list(dict.fromkeys(names)) if names is not None else [seeds[0] for seeds in scored.values()]
    runs = [_run(dataset, run, scored.get(run, []), recipes, tree) for run in chosen]
    bare = next((one["run"] for one in runs if not one["scores"]), None)
    if bare or len(runs) < 2:
        there = [run for seeds in scored.values() for run in seeds]
        wanted = tree.path("priors_miou", dataset=dataset, run=bare or "RUN")
        raise RecipeError(
            (f"{bare} has no scores on {dataset}" if bare else "a comparison needs two runs or more")
            + f"; {tree.results}/{dataset} has those of {', '.join(there) or 'no run'}: make others first, such as by "
            f"snakemake --cores all -- {wanted}"
        )
    properties = tree.path("class_properties", dataset=dataset)
    found = {
        "dataset": dataset,
        "command": f"snakemake --cores all -- {tree.path('comparison', dataset=dataset)}",
        "classes": tree.path("classes", dataset=dataset),
        "properties": properties if Path(properties).is_file() else None,
        "runs": runs,
        "galleries": _galleries(dataset, runs, recipes, tree),
    }
    files = [score[kind] for run in runs for score in run["scores"] for kind in ("result", "images") if score[kind]]
    files += [path for run in runs for score in run["scores"] for path in score["seeds"]]
    return found | {"digest": digest_of(*(Path(path) for path in dict.fromkeys(files)))}


def runs_with_scores(dataset: str, recipes: Recipes, tree: Tree) -> dict[str, list[str]]:
    """By the first of its seeds, each recipe's runs that have a score in a folder of their own, by rising seed."""
    found: dict[str, list[str]] = {}
    folder = Path(tree.path("classes", dataset=dataset)).parent
    there = [path.name for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []
    for recipe in recipes.runs:
        own = [name for name in there if _seed_of(name, recipe) > -2]
        own = [run for run in own if any(Path(tree.path(name, dataset=dataset, run=run)).is_file() for name in RESULTS)]
        if own := sorted(own, key=lambda run: _seed_of(run, recipe)):
            found[own[0]] = own
    return found


def _seed_of(name: str, recipe: str) -> int:
    """The seed that a folder's name says, -1 of the plain run; -2 of another recipe's."""
    seed = name.removeprefix(f"{recipe}@seed")
    return -1 if name == recipe else int(seed) if seed != name and seed.isdecimal() else -2


def _run(dataset: str, run: str, seeds: Sequence[str], recipes: Recipes, tree: Tree) -> Json:
    """A run with the scores that are there, each with the files of the recipe's other seeds."""
    resolved = resolve_report(dataset, run, recipes, tree)
    others = [_scores(resolve_report(dataset, other, recipes, tree)) for other in seeds if other != run]
    scores = [
        {**score, "seeds": [other[name]["result"] for other in others if name in other]}
        for name, score in _scores(resolved).items()
    ]
    return {**{key: resolved[key] for key in ("run", "seed", "methods", "road")}, "scores": scores}


def _scores(resolved: Json) -> dict[str, Json]:
    """By name, the scores of a run that are there."""
    found = {}
    for score in resolved["scores"]:
        if Path(score["result"]).is_file():
            images = score["images"] if score["images"] and Path(score["images"]).is_file() else None
            found[score["name"]] = score | {"images": images}
    return found


def _galleries(dataset: str, runs: Sequence[Json], recipes: Recipes, tree: Tree) -> list[Json]:
    """Pictures by role: of masks, and of objects, as far as two runs have them; what is scored is preferred."""
    splits, found = recipes.data_set(dataset)["splits"], []
    for role, views in VIEWS.items():
        if not splits[role]:
            continue
        manifest = tree.path("manifest", dataset=dataset, subset=splits[role])
        subset = recipes.train_subset(dataset, splits[role])
        made: list[Json] = [
            {"view": view, "panels": panels, "images": _images(runs, view[0], panels)}
            for view in views
            if len(panels := _panels(dataset, runs, view, subset, recipes, tree)) > 1 and Path(manifest).is_file()
        ]
        masks = [one for one in made if one["view"][0] in MASKS]
        objects = [one for one in made if one not in masks]
        most = max(masks, key=lambda one: len(one["images"]), default=None)
        true = Path(tree.path("instance_truth", dataset=dataset, subset=splits[role]))
        about = {"role": role, "subset": splits[role], "manifest": manifest}
        found += [about | one | {"objects": None} for one in ([most] if most else [])]
        found += [about | one | {"objects": str(true) if true.is_dir() else None} for one in objects]
    return found


def _panels(
    dataset: str, runs: Sequence[Json], view: Sequence[str], subset: str, recipes: Recipes, tree: Tree
) -> list[list[str]]:
    """Of each run that has such a picture of its own: its name, the artefact, and where it lies.

    Of runs that share one, it is that of the first.
    """
    found: dict[str, list[str]] = {}
    for run in runs:
        stages = stages_of(recipes, dataset, run["run"])
        paths = {
            artefact: tree.path(artefact, dataset=dataset, run=stages[artefact], subset=subset)
            for artefact in view
            if artefact in stages
        }
        made = next((artefact for artefact, path in paths.items() if Path(path).is_dir()), None)
        if made:
            found.setdefault(paths[made], [run["run"], made, paths[made]])
    return list(found.values())


def _images(runs: Sequence[Json], artefact: str, panels: Sequence[Sequence[str]]) -> dict[str, str]:
    """By run that is shown, its scores by image of this artefact."""
    shown = {panel[0] for panel in panels}
    tables = {
        run["run"]: score["images"]
        for run in runs
        for score in run["scores"]
        if score["artefact"] == artefact and score["images"] and run["run"] in shown
    }
    return tables if len(tables) > 1 else {}
