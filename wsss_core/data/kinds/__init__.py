"""Data sets as config.yaml declares them, a module a kind; ``recipes/kinds.py`` is what a plan asks of each."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from wsss_core.data.classes import Classes, make_classes
from wsss_core.data.kinds import coco, demo, folders, voc
from wsss_core.data.manifest import Manifest
from wsss_core.recipes.kinds import Declared


class Kind(Protocol):
    """What the module of a kind offers."""

    def names_of(self, declared: Declared) -> Sequence[str]:
        """Names of all its classes, in the order of the mask values 1, 2, ..."""

    def manifest_of(self, declared: Declared, *, subset: str, classes: Classes, workers: int) -> Manifest:
        """The manifest of a subset."""


KINDS: dict[str, Kind] = {"voc": voc, "coco": coco, "demo": demo, "folders": folders}


def declared_classes(declared: Declared) -> Classes:
    """The classes of a data set: all its names, those that ``classes`` keeps, and their colours."""
    names = KINDS[declared["kind"]].names_of(declared)
    return make_classes(names, keep=declared["classes"], colours=declared.get("colours"))


def declared_manifest(declared: Declared, *, subset: str, root: str | Path | None, workers: int) -> Manifest:
    """The manifest of a subset; images without any class are in it, but for VOC and the demo, which have none.

    Args:
        declared: a data set's entry in config.yaml; of kind ``coco`` also ``made_masks``, the folder where the
            pipeline makes the masks of the subset. Its ``longest_side``, if any, limits the sizes to work at.
        root: folder of a data set that the pipeline makes itself, else None.
    """
    found = declared if root is None else {**declared, "root": root}
    kind = KINDS[declared["kind"]]
    manifest = kind.manifest_of(found, subset=subset, classes=declared_classes(declared), workers=workers)
    longest_side = declared.get("longest_side")
    return manifest if longest_side is None else manifest.limited(longest_side)


def declared_masks(declared: Declared, *, subset: str, folder: str | Path, workers: int) -> None:
    """Make the folder of masks of a subset of kind ``coco``, of all classes whatever ``classes`` keeps."""
    coco.make_masks(**coco.annotated(declared, subset), folder=folder, workers=workers)
