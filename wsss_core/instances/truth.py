"""True objects of a split, for scores and for full supervision alone."""

import logging
from collections.abc import Iterator
from functools import partial
from itertools import starmap
from pathlib import Path
from typing import Any

import numpy as np

from wsss_core.base.files import whole
from wsss_core.base.parallel import in_processes
from wsss_core.base.progress import count_progress
from wsss_core.data.classes import VOID, Classes, DataError
from wsss_core.data.kinds import coco
from wsss_core.data.manifest import Manifest, Row
from wsss_core.data.mask_folder import png_of
from wsss_core.data.masks import nearest, read_mask, read_numbers
from wsss_core.instances.components import components
from wsss_core.instances.store import Instances, InstanceWriter, instances_of
from wsss_core.recipes.kinds import Declared, sbd_places, truth_of_instances

logger = logging.getLogger(__name__)

SMALLEST = 0.002  # share of the picture that a component of a class mask needs to be taken for an object


def make_instance_truth(
    *,
    declared: Declared,
    subset: str,
    root: str | Path | None,
    manifest: Manifest,
    classes: Classes,
    store: Path,
    about: dict[str, Any],
    workers: int = 1,
) -> None:
    """Store the true objects of every image of a split.

    What a ``classes`` subset drops is no object. Objects have the size that stages work at. What they are taken from
    stands in the store's attribute ``truth``: ``objects`` (of VOC, SBD or the demo), ``annotations`` (of COCO, with
    crowds marked as such) or ``components`` of the class masks, where objects of a class that touch are one, and
    what lies in several pieces is several.

    Args:
        declared: a data set's entry in config.yaml.
        root: folder of a data set that the pipeline makes itself, else None.
        store: the store to create, see ``instances.store``.

    Raises:
        DataError: a data set without true objects, or files that are missing, broken or contradict one another.
    """
    kind = truth_of_instances(declared)
    if kind is None:
        raise DataError("the data set declares no true objects: set its key instances, or score no instances")
    made: Iterator[Instances]
    if kind == "annotations":
        pairs = _annotated(declared, subset, manifest)
        made = in_processes(partial(annotated_objects, classes=classes), pairs, workers)
    elif kind == "components":
        made = in_processes(partial(components_of, classes=classes), manifest.rows, workers)
    else:
        folder, sbd = Path(root or declared["root"]), declared.get("sbd")
        made = in_processes(partial(objects_of, root=folder, sbd=sbd, classes=classes), manifest.rows, workers)
    with (
        whole(store) as partial_folder,
        InstanceWriter(partial_folder, manifest, about={**about, "truth": kind}) as out,
    ):
        count_progress(starmap(out.write, zip(manifest.ids, made, strict=True)), len(manifest))
    logger.info("%d true objects in %d images", out.count, len(manifest))


def objects_of(row: Row, *, root: Path, sbd: str | None, classes: Classes) -> Instances:
    """The objects of an image in the layout of VOC: ``SegmentationObject/<id>.png``, or SBD's ``inst/<id>.mat``.

    Void pixels belong to no object.

    Raises:
        DataError: there is no such file, it cannot be read, or an object has no class or several.
    """
    path = png_of(root / "SegmentationObject", row.id)
    if not path.is_file():
        return _objects_of_sbd(row, path, sbd, classes)
    every = classes.without_subset()
    numbers = read_numbers(path, row.own_size)
    if not row.mask:
        raise DataError(f"{path}: the image has no mask of classes, which says what its objects are")
    mask = read_mask(row.mask, every, row.own_size)
    found = np.setdiff1d(np.unique(numbers), (0, VOID)).tolist()
    labels = []
    for number in found:
        values = np.unique(mask[numbers == number]).tolist()
        if len(values) > 1 or values[0] in (0, VOID):
            names = {0: "background", VOID: "void"} | dict(enumerate(every.names, 1))
            raise DataError(
                f"{path}: object {number} is {' and '.join(names[value] for value in values)} in {row.mask}: an object "
                "has one class"
            )
        labels.append(classes.label(every.names[values[0] - 1]))
    return _kept(row, numbers, found, labels)


def _objects_of_sbd(row: Row, path: Path, sbd: str | None, classes: Classes) -> Instances:
    files = [place / "inst" / f"{row.id}.mat" for place in sbd_places(sbd)] if sbd else []
    file = next((file for file in files if file.is_file()), None)
    if file is None:
        beside = f", nor {files[0]} of SBD" if files else ""
        raise DataError(
            f"there is no {path}{beside}: unpack the devkit's SegmentationObject as well, or set the data set's key "
            "instances to null, or to components"
        )
    from scipy.io import loadmat  # few runs need it

    try:
        content = loadmat(file)["GTinst"][0, 0]
        numbers = np.asarray(content["Segmentation"])
        values = np.asarray(content["Categories"]).ravel().astype(int).tolist()
    except Exception as error:  # what a broken file raises depends on where it is broken
        raise DataError(f"{file}: cannot be read as objects of SBD: {error}") from error
    if numbers.shape != row.own_size or int(numbers.max()) > len(values):
        raise DataError(f"{file}: its objects are not those of an image of {row.height} x {row.width} pixels")
    every = classes.without_subset()
    if not all(1 <= value <= len(every) for value in values):
        raise DataError(f"{file}: the classes {values} of its objects are not those of VOC, 1 to {len(every)}")
    names = [every.names[value - 1] for value in values]
    return _kept(row, numbers, list(range(1, len(values) + 1)), [classes.label(name) for name in names])


def _kept(row: Row, numbers: np.ndarray, found: list[int], labels: list[int | None]) -> Instances:
    """The objects of classes that are kept, at the size that stages work at."""
    kept = [(number, label) for number, label in zip(found, labels, strict=True) if label is not None]
    numbers = nearest(numbers, (row.height, row.width))
    masks = np.array([numbers == number for number, _ in kept], bool).reshape(-1, row.height, row.width)
    return instances_of(masks, [label for _, label in kept])


def components_of(row: Row, *, classes: Classes) -> Instances:
    """The connected components of an image's true mask, but for scraps; see ``components``."""
    if not row.mask:
        raise DataError(f"image {row.id} has no true mask, whose components could be its objects")
    mask = nearest(read_mask(row.mask, classes, row.own_size), (row.height, row.width))
    return instances_of(*components(mask, smallest=max(1, round(SMALLEST * mask.size))))


def annotated_objects(pair: tuple[Row, coco.Picture], *, classes: Classes) -> Instances:
    """The annotated objects and crowds of an image of COCO."""
    row, picture = pair
    kept = [(thing, label) for thing in picture.things if (label := classes.label(thing.name)) is not None]
    masks = [nearest(coco.pixels(thing, picture), (row.height, row.width)) for thing, _ in kept]
    stacked = np.array(masks, bool).reshape(-1, row.height, row.width)
    return instances_of(stacked, [label for _, label in kept], crowd=[thing.crowd for thing, _ in kept])


def _annotated(declared: Declared, subset: str, manifest: Manifest) -> list[tuple[Row, coco.Picture]]:
    """Each image with its annotations: a worker gets those of an image at a time."""
    pictures = {picture.id: picture for picture in coco.read_pictures(**coco.annotated(declared, subset))}
    if missing := [row.id for row in manifest if row.id not in pictures]:
        raise DataError(f"the annotations of {subset} have no image {missing[0]}: make the manifest again")
    return [(row, pictures[row.id]) for row in manifest]
