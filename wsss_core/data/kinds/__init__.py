"""Data sets as config.yaml declares them."""

from pathlib import Path

from wsss_core.data.classes import Classes, make_classes
from wsss_core.data.kinds.coco import COCO_CLASSES, coco_manifest, make_masks
from wsss_core.data.kinds.demo import DEMO_CLASSES
from wsss_core.data.kinds.folders import folder_manifest
from wsss_core.data.kinds.voc import VOC_CLASSES, voc_manifest
from wsss_core.data.manifest import DataError, Manifest

KNOWN_CLASSES = {"voc": VOC_CLASSES, "demo": DEMO_CLASSES, "coco": COCO_CLASSES}


def declared_classes(declared: dict) -> Classes:
    """The classes of a data set: all its names, those that ``classes`` keeps, and their colours."""
    names = KNOWN_CLASSES.get(declared["kind"], declared.get("names"))
    return make_classes(names, keep=declared["classes"], colours=declared.get("colours"))


def declared_manifest(declared: dict, *, subset: str, root: str | Path | None, workers: int) -> Manifest:
    """The manifest of a subset; images without any class are in it, but for VOC and the demo, which have none.

    Args:
        declared: a data set's entry in config.yaml; of kind ``coco`` also ``made_masks``, the folder where the
            pipeline makes the masks of the subset.
        root: folder in VOC layout where the data set is made by the pipeline itself, else None.
    """
    classes = declared_classes(declared)
    if declared["kind"] == "coco":
        return coco_manifest(
            **_coco_files(declared, subset, "images", "annotations"),
            classes=classes,
            ready_masks=declared["masks"],
            made_masks=declared["made_masks"],
            workers=workers,
        )
    if declared["kind"] == "folders":
        return folder_manifest(
            images=declared["images"],
            masks=declared["masks"],
            split=_of_subset(declared["lists"], subset),
            labels=declared["labels"],
            classes=classes,
            drop_unlabelled=False,
            workers=workers,
        )
    return voc_manifest(
        root=root or declared["root"],
        subset=subset,
        classes=classes,
        sbd_root=declared.get("sbd"),
        workers=workers,
    )


def declared_masks(declared: dict, *, subset: str, folder: str | Path, workers: int) -> None:
    """Make the folder of masks of a subset of kind ``coco``, of all classes whatever ``classes`` keeps."""
    make_masks(**_coco_files(declared, subset, "annotations"), folder=folder, workers=workers)


def _coco_files(declared: dict, subset: str, *parts: str) -> dict[str, Path | str | None]:
    own = _of_subset(declared["subsets"], subset)
    return {part: Path(declared["root"], own[part]) for part in parts} | {"listed": own["list"]}


def _of_subset(subsets: dict, subset: str):
    if subset not in subsets:
        raise DataError(f"the data set does not declare the subset {subset!r}; it has {', '.join(subsets)}")
    return subsets[subset]
