"""Data sets as config.yaml declares them."""

from pathlib import Path

from wsss_core.data.classes import Classes, make_classes
from wsss_core.data.demo import DEMO_CLASSES
from wsss_core.data.folders import folder_manifest
from wsss_core.data.manifest import DataError, Manifest
from wsss_core.data.voc import VOC_CLASSES, voc_manifest


def declared_classes(declared: dict) -> Classes:
    """The classes of a data set: all its names, those that ``classes`` keeps, and their colours."""
    names = {"voc": VOC_CLASSES, "demo": DEMO_CLASSES}.get(declared["kind"], declared.get("names"))
    return make_classes(names, keep=declared["classes"], colours=declared.get("colours"))


def declared_manifest(declared: dict, *, subset: str, root: str | Path | None, workers: int) -> Manifest:
    """The manifest of a subset.

    Args:
        declared: a data set's entry in config.yaml.
        root: folder in VOC layout where the data set is made by the pipeline itself, else None.
    """
    classes = declared_classes(declared)
    if declared["kind"] != "folders":
        return voc_manifest(
            root=root or declared["root"],
            subset=subset,
            classes=classes,
            sbd_root=declared.get("sbd"),
            workers=workers,
        )
    if subset not in declared["lists"]:
        raise DataError(
            f"the data set declares no list of the subset {subset!r}; it has {', '.join(declared['lists'])}"
        )
    return folder_manifest(
        images=declared["images"],
        masks=declared["masks"],
        split=declared["lists"][subset],
        labels=declared["labels"],
        classes=classes,
        workers=workers,
    )
