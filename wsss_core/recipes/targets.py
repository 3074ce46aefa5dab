"""Targets that no rule makes: what may have been meant."""

from collections.abc import Iterable, Iterator

from wsss_core.recipes.config import RecipeError
from wsss_core.recipes.names import near
from wsss_core.recipes.recipes import Recipes
from wsss_core.recipes.tree import OF_DATASET, OF_RUN, Tree

SUFFIXES = {"over_seeds": ".md", "tables/{table}": ".md", "figures/{figure}": ".png"}  # that their rules add


def nothing_makes(path: str, tree: Tree, recipes: Recipes) -> str:
    """Why no rule makes a path, and which target is near.

    Args:
        path: a target as it was asked for, from the folder where Snakemake runs.
    """
    said = f"no rule makes {path}"
    inside = path.removeprefix(f"{tree.results}/").strip("/")
    if inside == path:
        return f"{said}: targets lie under {tree.results}/, such as {tree.results}/demo/pnoc/seg_miou.json"
    dataset, _, rest = inside.partition("/")
    try:
        recipes.data_set(dataset)
    except RecipeError as error:
        return f"{said}: {error}"
    try:
        known = list(_filled(OF_DATASET.values(), recipes, dataset))
        run = rest.partition("/")[0]
        if run and not any(run == one.partition("/")[0] for one in known):
            recipes.parse(run)
            known = [f"{run}/{one}" for one in _filled(OF_RUN.values(), recipes, dataset)]
    except RecipeError as error:
        if rest in _filled(OF_RUN.values(), recipes, dataset):
            return f"{said}: name a run, as in {tree.results}/{dataset}/RUN/{rest}"
        return f"{said}: {error}"
    if found := near(rest, known, most=2):
        return f"{said}; did you mean {' or '.join(f'{tree.results}/{dataset}/{one}' for one in found)}?"
    return f"{said}; under {tree.results}/{dataset}/ there are {', '.join(known)}"


def _filled(paths: Iterable[str], recipes: Recipes, dataset: str) -> Iterator[str]:
    """Paths below a data set or a run, with those subsets that have a role."""
    subsets = [subset for subset in dict.fromkeys(recipes.data_set(dataset)["splits"].values()) if subset]
    for path in paths:
        for subset in subsets if "{subset}" in path else [""]:
            yield path.replace("{subset}", subset) + SUFFIXES.get(path, "")
