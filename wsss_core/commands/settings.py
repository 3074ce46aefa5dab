"""``wsss settings``: what a run is on a data set, where each value comes from, and how two runs differ."""

from collections.abc import Iterator

from wsss_core.commands.printing import told
from wsss_core.commands.project import Project
from wsss_core.recipes.methods import SLOTS


def settings_of(project: Project, dataset: str, run: str) -> Iterator[tuple[str, str, str]]:
    """All settings of a run: key, value, and the layer that the value comes from."""
    recipes = project.recipes
    origins = {
        f"{slot}.{key}": origin for slot in SLOTS for key, origin in recipes.slot(dataset, run, slot).origins.items()
    }
    for key, value in recipes.flat(dataset, run).items():
        owner = next((name for name in (key, key.rpartition(".")[0]) if name in origins), "")
        yield key, told(value), origins.get(owner, "")


def differences(project: Project, dataset: str, run: str, other: str) -> list[tuple[str, str, str]]:
    """The settings in which two runs differ: key, value of the first, value of the other.

    Args:
        other: a run of the same data set, or ``dataset/run``.
    """
    elsewhere, slash, name = other.partition("/")
    second = project.checked(elsewhere, name) if slash else project.checked(dataset, other)
    found = project.recipes.differences((dataset, run), second)
    return [(key, told(one), told(two)) for key, (one, two) in found.items()]
