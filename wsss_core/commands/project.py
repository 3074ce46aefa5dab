"""The project that a command works in: the runs of config.yaml and the tree of what they left."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wsss_core.commands.printing import CommandError
from wsss_core.recipes.checks import check_config
from wsss_core.recipes.config import read_config
from wsss_core.recipes.recipes import Recipes
from wsss_core.recipes.tree import Tree

PACKAGED = Path(__file__).parents[2]  # folder of the Snakefile, in a checkout


@dataclass(frozen=True)
class Project:
    """What config.yaml declares, and where results lie."""

    recipes: Recipes
    tree: Tree
    root: Path  # folder of the Snakefile

    def checked(self, dataset: str, run: str) -> tuple[str, str]:
        """The names of a data set and of a run, which config.yaml has.

        Raises:
            RecipeError: it has not, with the names that are near.
        """
        self.recipes.data_set(dataset)
        self.recipes.parse(run)
        return dataset, run


def open_project(configfiles: Sequence[Path] = ()) -> Project:
    """The project of the working directory, as Snakemake would see it: its config.yaml, else the one of this package.

    Raises:
        CommandError: there is neither.
        RecipeError: a config that cannot work.
    """
    root = next((folder for folder in (Path.cwd(), PACKAGED) if (folder / "Snakefile").exists()), None)
    if root is None:
        raise CommandError("there is no Snakefile here: change to the folder in which you run snakemake")
    own = Path.cwd() / "config.yaml"  # beside a Snakefile elsewhere, it is taken in place of that one's
    config = read_config(configfiles, root, own if own.exists() else root / "config.yaml")
    check_config(config, root)
    return Project(Recipes(config), Tree.of(config), root)
