"""MS COCO: image-level labels and masks from its annotation files ("instances").

Every object counts for the labels, crowds too: so do the published label files, and 82,081 of the 82,783 training and
40,137 of the 40,504 validation images of 2014 then have a class. The others stay, as images of background alone.
"""

import json
import logging
import math
import warnings
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypedDict

import numpy as np
from pycocotools import mask as run_lengths

from wsss_core.base.files import whole
from wsss_core.base.parallel import in_processes
from wsss_core.data.classes import VOID, Classes, DataError, make_classes
from wsss_core.data.manifest import Manifest, build_manifest, of_subset, raise_faults, read_ids
from wsss_core.data.mask_folder import png_of
from wsss_core.data.masks import write_mask
from wsss_core.recipes.class_names import COCO_CLASSES
from wsss_core.recipes.kinds import Declared

logger = logging.getLogger(__name__)

# The category ids of these classes; the others up to 90 are of classes that were never annotated.
CATEGORY_IDS = [id for id in range(1, 91) if id not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)]
LABELLED_OF = {82783: 82081, 40504: 40137}  # images with a class, by the number of images: train2014, val2014

LARGEST = 2**27  # pixels of an image, far more than any of COCO's: a wrong size would take all memory

LAYOUT = """MS COCO is at https://cocodataset.org/#download; with `root` for its folder, the images and annotations of
2014 are expected as
  root/train2014/COCO_train2014_000000000009.jpg
  root/val2014/COCO_val2014_000000000042.jpg
  root/annotations/instances_train2014.json, instances_val2014.json"""


@dataclass(frozen=True)
class Thing:
    """An annotated object, or a crowd of them, as its file has it: ``outline`` is polygons or run lengths."""

    id: int
    name: str
    crowd: bool
    outline: list | dict


@dataclass(frozen=True)
class Picture:
    """An image of an annotation file; ``id`` has twelve digits, ``file`` is its name in the folder of images."""

    id: str
    file: str
    height: int
    width: int
    things: tuple[Thing, ...]


class Annotated(TypedDict):
    """Where the objects of a subset are annotated, and which of its images count; see ``coco_manifest``."""

    annotations: Path
    listed: str | None


def names_of(declared: Declared) -> tuple[str, ...]:
    """COCO's own classes."""
    return COCO_CLASSES


def manifest_of(declared: Declared, *, subset: str, classes: Classes, workers: int) -> Manifest:
    """``coco_manifest`` of a declared data set."""
    return coco_manifest(
        **annotated(declared, subset),
        images=Path(declared["root"], of_subset(declared["subsets"], subset)["images"]),
        classes=classes,
        ready_masks=declared["masks"],
        made_masks=declared["made_masks"],
        workers=workers,
    )


def annotated(declared: Declared, subset: str) -> Annotated:
    """The files of a declared subset that ``coco_manifest`` and ``make_masks`` share."""
    own = of_subset(declared["subsets"], subset)
    return {"annotations": Path(declared["root"], own["annotations"]), "listed": own["list"]}


def coco_manifest(
    *,
    images: str | Path,
    annotations: str | Path,
    listed: str | Path | None,
    classes: Classes,
    ready_masks: str | Path | None,
    made_masks: str | Path | None,
    workers: int = 8,
) -> Manifest:
    """Build the manifest of a subset of MS COCO; images without any object stay, without labels.

    Args:
        images: folder of the files that the annotations name.
        annotations: an ``instances_*.json``.
        listed: text file of image ids, one a line, with or without leading zeros, or file names; None for all images.
        classes: the classes; images that only have classes dropped by a subset are left out.
        ready_masks: folder of ``<12 digits>.png`` that are there already, or None.
        made_masks: folder where ``make_masks`` puts them, whether or not it has yet; used without ``ready_masks``.
        workers: threads that check the images.

    Raises:
        DataError: a missing or broken file, an image of another size than annotated, or a complete train2014 or
            val2014 with another number of labelled images than it should have.
    """
    subset = read_pictures(annotations, listed)
    pictures = {picture.id: picture for picture in subset}
    if not Path(images).is_dir():
        raise DataError(f"{images}: the folder of images does not exist.\n{LAYOUT}")
    manifest = build_manifest(
        ids=[picture.id for picture in subset],
        image_of=lambda id: Path(images, pictures[id].file),
        mask_of=lambda id: Path(ready_masks, f"{id}.png") if ready_masks else None,
        labels_of=lambda id: [thing.name for thing in pictures[id].things],
        classes=classes,
        drop_unlabelled=False,
        require_masks=False,
        workers=workers,
    )
    _check_sizes(manifest, pictures, annotations)
    _check_labelled(manifest, annotations, classes)
    if ready_masks or not made_masks:
        return manifest
    return Manifest.of([replace(row, mask=str(png_of(made_masks, row.id))) for row in manifest])


def make_masks(*, annotations: str | Path, listed: str | Path | None, folder: str | Path, workers: int = 1) -> None:
    """Write the masks of all images of a subset as palette PNGs ``<12 digits>.png``, see ``semantic_mask``.

    Args:
        annotations, listed: as for ``coco_manifest``. The file is read once; workers get an image at a time.
        folder: the folder to make.
        workers: processes.

    Raises:
        DataError: a missing or broken file or outline.
    """
    pictures = read_pictures(annotations, listed)
    every = max(1, len(pictures) // 20)
    with whole(folder) as partial_folder:
        partial_folder.mkdir()
        write = partial(_write_mask, folder=partial_folder, classes=make_classes(COCO_CLASSES))
        for done, _ in enumerate(in_processes(write, pictures, workers), start=1):
            if done % every == 0:
                logger.info("%d of %d masks", done, len(pictures))


def semantic_mask(picture: Picture) -> np.ndarray:
    """(height, width) uint8: 0 background, 1..80 classes in the order of ``COCO_CLASSES``, 255 crowds.

    Where things overlap, the one with the smaller area is on top: it is most often in front of the larger one, and
    would be lost behind it (coco2voc orders them so). Crowds lie below all objects: their coarse outlines also take
    in what stands between, so they are void and not a class.
    """
    drawn = [(thing, pixels(thing, picture)) for thing in picture.things]
    drawn.sort(key=lambda item: (not item[0].crowd, -int(item[1].sum())))
    mask = np.zeros((picture.height, picture.width), np.uint8)
    for thing, inside in drawn:
        mask[inside] = VOID if thing.crowd else COCO_CLASSES.index(thing.name) + 1
    return mask


def read_pictures(annotations: str | Path, listed: str | Path | None = None) -> list[Picture]:
    """Read an annotation file: its images by increasing id, or those of a list in the list's order.

    Raises:
        DataError: a file that is missing or of another form, a category that COCO does not have, an annotation of an
            image that the file lacks, a listed image that it lacks, or a damaged outline of an image.
    """
    logger.info("reading %s", annotations)
    try:
        with open(annotations, encoding="utf-8-sig") as file:
            content = json.load(file)
        pictures = _pictures(content)
    except FileNotFoundError as error:
        raise DataError(f"{annotations}: the file of annotations does not exist.\n{LAYOUT}") from error
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        wrong = f"{error} is missing" if isinstance(error, KeyError) else error
        raise DataError(f"{annotations}: cannot be read as annotations of COCO's instances: {wrong}") from error
    if listed is not None:
        pictures = _chosen(pictures, read_ids(listed), f"{listed}: images not in {annotations}")
    raise_faults([fault for picture in pictures if (fault := _damage(picture, annotations))])
    return pictures


def _pictures(content: dict) -> list[Picture]:
    names = {category["id"]: category["name"] for category in content["categories"]}
    unknown = sorted(set(map(str, names.values())) - set(COCO_CLASSES))
    if unknown:
        raise ValueError(f"the categories {', '.join(unknown)} are none of COCO's: declare the data set as `folders`")
    if len(names) < len(content["categories"]):
        raise ValueError("two categories have the same id")
    things: dict[int, list[Thing]] = {image["id"]: [] for image in content["images"]}
    if len(things) < len(content["images"]):
        raise ValueError("two images have the same id")
    for note in content["annotations"]:
        if note["image_id"] not in things:
            raise ValueError(
                f"annotation {note['id']} is of an image {note['image_id']}, which is not among the images"
            )
        thing = Thing(note["id"], names[note["category_id"]], bool(note.get("iscrowd", 0)), note["segmentation"])
        things[note["image_id"]].append(thing)
    for image in content["images"]:
        _check_image(image)
    return [
        Picture(f"{image['id']:012d}", image["file_name"], image["height"], image["width"], tuple(things[image["id"]]))
        for image in sorted(content["images"], key=lambda image: image["id"])
    ]


def _check_image(image: dict) -> None:
    """Refuse an entry of an image that would be read from elsewhere, or has no size that a picture can have."""
    id, name, height, width = (image[key] for key in ("id", "file_name", "height", "width"))
    if type(id) is not int or id < 0:
        raise ValueError(f"the image id {id!r} is no number from 0 on")
    if not isinstance(name, str) or not name or Path(name).is_absolute() or ".." in Path(name).parts:
        raise ValueError(f"image {id}: the file_name {name!r} is none within the folder of images")
    if type(height) is not int or type(width) is not int or min(height, width) < 1 or height * width > LARGEST:
        raise ValueError(f"image {id}: height x width is {height!r} x {width!r}")


def _damage(picture: Picture, annotations: str | Path) -> DataError | None:
    """The first outline of an image that is damaged, if any: its label cannot be trusted either."""
    try:
        for thing in picture.things:
            _check_outline(thing, picture)
    except DataError as error:
        return DataError(f"{annotations}: {error}")
    return None


def _chosen(pictures: list[Picture], ids: list[str], what: str) -> list[Picture]:
    known = {Path(picture.file).stem: picture for picture in pictures} | {picture.id: picture for picture in pictures}
    wanted = [id if id in known else Path(id).stem.zfill(12) for id in ids]
    missing = [id for id, key in zip(ids, wanted, strict=True) if key not in known]
    if missing:
        shown = ", ".join(missing[:10]) + (", ..." if len(missing) > 10 else "")
        raise DataError(f"{what} ({len(missing)} of {len(ids)}): {shown}")
    return [known[key] for key in wanted]


def _write_mask(picture: Picture, *, folder: Path, classes: Classes) -> None:
    write_mask(png_of(folder, picture.id), semantic_mask(picture), classes)


def _check_outline(thing: Thing, picture: Picture) -> None:
    """Refuse what pycocotools would draw garbage of, or die of: it checks neither corners nor packed run lengths."""
    outline, size = thing.outline, [picture.height, picture.width]
    try:
        if isinstance(outline, list):
            for polygon in outline:
                _check_corners(polygon, size)
            return
        if list(outline["size"]) != size:
            raise ValueError(f"run lengths of {outline['size']} pixels")
        packed = isinstance(outline["counts"], str | bytes)
        lengths = _unpacked(outline["counts"]) if packed else outline["counts"]
        if any(length < 0 or length != int(length) for length in lengths) or sum(lengths) != size[0] * size[1]:
            raise ValueError(f"its run lengths are not those of {size[0] * size[1]} pixels")
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        raise _unusable(thing, picture, error) from error


def _check_corners(polygon: list[float], size: list[int]) -> None:
    if not math.isfinite(sum(polygon)):
        raise ValueError("a corner is no finite number")
    longer = max(size)
    for values, side in ((polygon[::2], size[1]), (polygon[1::2], size[0])):
        if values and not -longer <= min(values) <= max(values) <= side + longer:
            raise ValueError(f"the corner {max(values, key=abs)} is far outside of the image")


def _unpacked(text: str | bytes) -> list[int]:
    """Run lengths of COCO's packed form: five bits a character, and from the fourth on the change to the last but one.

    Raises:
        ValueError: a character that has no place in it, or an end amid a number.
    """
    lengths: list[int] = []
    value = shift = 0
    for code in text.encode() if isinstance(text, str) else text:
        bits = code - 48
        if not 0 <= bits < 64 or shift > 30:
            raise ValueError("its packed run lengths are damaged")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        lengths.append(value + lengths[-2] if len(lengths) > 2 else value)
        value = shift = 0
    if shift:
        raise ValueError("its packed run lengths are cut short")
    return lengths


def _unusable(thing: Thing, picture: Picture, error: Exception) -> DataError:
    wrong = f"{error} is missing" if isinstance(error, KeyError) else error
    return DataError(
        f"annotation {thing.id} ({thing.name}) of image {picture.id}, {picture.height} x {picture.width}, has no "
        f"usable segmentation: {wrong}"
    )


def pixels(thing: Thing, picture: Picture) -> np.ndarray:
    """(height, width) bool: the inside of an outline that is polygons, plain run lengths or packed ones."""
    _check_outline(thing, picture)
    outline, size = thing.outline, [picture.height, picture.width]
    try:
        if isinstance(outline, list):
            # pycocotools takes a polygon of four numbers for a box
            if not outline or min(map(len, outline)) < 6:
                raise ValueError("a polygon needs three corners")
            encoded = run_lengths.merge(run_lengths.frPyObjects(outline, *size))
        else:
            plain = isinstance(outline["counts"], list)
            encoded = run_lengths.frPyObjects(outline, *size) if plain else outline
        with warnings.catch_warnings():  # pycocotools' arrays miss a keyword that NumPy 2 wants; it does no harm
            warnings.simplefilter("ignore", DeprecationWarning)
            return run_lengths.decode(encoded) > 0
    except (ValueError, TypeError, KeyError) as error:
        raise _unusable(thing, picture, error) from error


def _check_sizes(manifest: Manifest, pictures: dict[str, Picture], annotations: str | Path) -> None:
    pairs = [(row, pictures[row.id]) for row in manifest]
    raise_faults(
        [
            DataError(
                f"{row.image}: height x width is {row.height} x {row.width}, {annotations} says "
                f"{picture.height} x {picture.width}"
            )
            for row, picture in pairs
            if (row.height, row.width) != (picture.height, picture.width)
        ]
    )


def _check_labelled(manifest: Manifest, annotations: str | Path, classes: Classes) -> None:
    """Compare how many images have a class with COCO 2014, where the subset has all of its images and classes."""
    expected = LABELLED_OF.get(len(manifest))
    if expected is None or classes.names != COCO_CLASSES:
        return
    found = sum(bool(row.labels) for row in manifest)
    if found != expected:
        raise DataError(
            f"{annotations}: {found} of its {len(manifest)} images have a class, in COCO 2014 {expected} have one: "
            f"is the file changed? Unpack it again"
        )
    logger.info("the number of images with a class is that of COCO 2014")
