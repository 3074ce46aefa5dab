"""Pascal VOC 2012 as downloaded, with the further images of SBD for train_aug."""

import logging
import xml.etree.ElementTree as ET
from functools import partial
from pathlib import Path

import numpy as np

from wsss_core.data.classes import Classes, DataError
from wsss_core.data.decoding import PUBLISHED, opened
from wsss_core.data.manifest import Manifest, build_manifest, read_ids
from wsss_core.data.masks import read_mask
from wsss_core.recipes import sources
from wsss_core.recipes.class_names import VOC_CLASSES, VOC_SUBSETS
from wsss_core.recipes.kinds import Declared

logger = logging.getLogger(__name__)


# Images with each class, by the number of images of the full split: 1,464 are train, 10,582 train_aug.
LABEL_TOTALS = {
    1464: (88, 65, 105, 78, 87, 78, 128, 131, 148, 64, 82, 121, 68, 81, 442, 82, 63, 93, 83, 84),
    10582: (
        590, 504, 705, 468, 714, 393, 1150, 1005, 1228, 267,
        613, 1188, 445, 492, 4155, 522, 300, 649, 503, 567,
    ),
}  # fmt: skip

LAYOUT = f"""The folder should hold, as the devkit of {sources.VOC} does,
  JPEGImages/<id>.jpg
  Annotations/<id>.xml
  SegmentationClass/<id>.png
  ImageSets/Segmentation/train.txt, val.txt, trainval.txt, test.txt"""
SBD_LAYOUT = f"""The Semantic Boundaries Dataset of Berkeley is at
  {sources.SBD}
Of its folder only the lists train.txt and val.txt are needed, in itself, in dataset/ or in
benchmark_RELEASE/dataset/"""


def names_of(declared: Declared) -> tuple[str, ...]:
    """VOC's own classes."""
    return VOC_CLASSES


def manifest_of(declared: Declared, *, subset: str, classes: Classes, workers: int) -> Manifest:
    """``voc_manifest`` of a declared data set."""
    root, sbd_root = declared["root"], declared["sbd"]
    return voc_manifest(root=root, subset=subset, classes=classes, sbd_root=sbd_root, workers=workers)


def voc_manifest(
    *,
    root: str | Path,
    subset: str,
    classes: Classes,
    sbd_root: str | Path | None = None,
    workers: int = 8,
) -> Manifest:
    """Build the manifest of a split of VOC 2012 or of a data set in its layout.

    train_aug (10,582 images) is train, then the images of SBD's train and val that are in neither train nor
    val of VOC, by id; a list ``ImageSets/Segmentation/train_aug.txt`` in the devkit is taken instead. Their
    masks are VOC's own where VOC has one: nothing but full supervision needs others, and that reads them from a folder
    of their own (``read_sbd_mask``). test has no labels and no masks.

    Args:
        root: the folder that holds JPEGImages, e.g. ``VOCdevkit/VOC2012``.
        subset: train, val, trainval, train_aug or test.
        classes: the classes; images without any of them are left out, except in test.
        sbd_root: the folder of SBD, needed for train_aug alone.
        workers: threads that check the images.

    Raises:
        DataError: a missing or broken file, or labels whose totals are not those of VOC 2012.
    """
    root = Path(root)
    _check_folders(root)
    ids = _split(root, subset, sbd_root)
    labelled, with_masks = subset != "test", subset in ("train", "val", "trainval")
    own = set(_list(root, "train")) if subset == "train_aug" else set(ids if with_masks else ())
    _check_present(root, ids, "JPEGImages", ".jpg")
    if labelled:
        _check_present(root, ids, "Annotations", ".xml")
    if with_masks:
        _check_present(root, ids, "SegmentationClass", ".png")
    labels_of = partial(_checked_labels, root, classes) if labelled else _no_labels
    manifest = build_manifest(
        ids=ids,
        image_of=lambda id: root / "JPEGImages" / f"{id}.jpg",
        mask_of=lambda id: root / "SegmentationClass" / f"{id}.png" if id in own else None,
        labels_of=labels_of,
        classes=classes,
        drop_unlabelled=labelled,
        require_masks=with_masks,
        workers=workers,
    )
    check_label_totals(manifest, len(ids), subset, classes)
    return manifest


def sbd_mask_of(folder: str | Path, id: str) -> Path | None:
    """The file of an image's mask in a folder of SBD's masks, ``<id>.png`` or SBD's own ``<id>.mat``; None without."""
    files = (Path(folder, f"{id}{suffix}") for suffix in (".png", ".mat"))
    return next((file for file in files if file.is_file()), None)


def read_sbd_mask(path: Path, classes: Classes, size: tuple[int, int]) -> np.ndarray:
    """Read a mask as ``read_mask`` does, or a ``.mat`` of SBD, which has no void pixels.

    Args:
        classes: VOC's, or a subset of them.
        size: (height, width) of the image.

    Raises:
        DataError: an unreadable file, another size, or a value that no class has.
    """
    if path.suffix != ".mat":
        return read_mask(path, classes, size)
    from scipy.io import loadmat  # one run in a hundred needs it

    try:
        stored = np.asarray(loadmat(path)["GTcls"][0, 0]["Segmentation"])
    except Exception as error:  # what a broken file raises depends on where it is broken
        raise DataError(f"{path}: cannot be read as a mask of SBD: {error}") from error
    if stored.shape != tuple(size):
        has, needs = (" x ".join(map(str, shape)) for shape in (stored.shape, size))
        raise DataError(f"{path}: height x width is {has}, the image's is {needs}")
    if stored.dtype != np.uint8:
        raise DataError(f"{path}: a mask of SBD has values of 8 bits, not {stored.dtype}")
    mask = classes.lookup[stored]
    if mask.min() < 0:
        raise DataError(f"{path}: mask values {np.unique(stored[mask < 0]).tolist()} belong to no class")
    return mask.astype(np.uint8)


def read_xml_labels(path: str | Path, size: tuple[int, int] | None = None) -> list[str]:
    """Read the names of the classes in an annotation, sorted, each once.

    Every object counts, difficult, truncated and occluded ones too. Its box is cut to integers and clamped to
    the image; a box without width or height is no object (so do the authors of P-NOC, in their code).

    Args:
        size: (height, width) of the picture. One that is annotated with both exchanged is let through, as long as its
            labels are the same either way.

    Raises:
        DataError: a file that is no annotation, or one of another picture.
    """
    try:
        tree = ET.parse(path).getroot()
        height, width = (int(_text(tree, f"size/{side}")) for side in ("height", "width"))
        if min(height, width) < 1:
            raise ValueError(f"<size> says height x width is {height} x {width}")
        things = [(_text(thing, "name"), _box(thing)) for thing in tree.iter("object")]
    # a LookupError is an unknown encoding, an OverflowError a corner at infinity
    except (OSError, ET.ParseError, ValueError, LookupError, OverflowError) as error:
        raise DataError(f"{path}: cannot be read as a VOC annotation: {error}") from error
    names = _names_within(things, height, width)
    if size is not None and (height, width) != size:
        if (width, height) != size or _names_within(things, *size) != names:
            raise DataError(
                f"{path}: <size> says height x width is {height} x {width}, the image's is {size[0]} x {size[1]}: one "
                "of the two is another picture's"
            )
        logger.info("%s: height and width are exchanged in <size>, the labels are the same", path)
    return names


def _box(thing: ET.Element) -> list[int]:
    """Left, top, right and bottom of an object, cut to integers."""
    return [int(float(_text(thing, f"bndbox/{side}"))) for side in ("xmin", "ymin", "xmax", "ymax")]


def _names_within(things: list[tuple[str, list[int]]], height: int, width: int) -> list[str]:
    """The names of objects whose box has an area within the image."""
    names = set()
    for name, corners in things:
        box = [min(max(corner, 0), limit) for corner, limit in zip(corners, [width, height] * 2, strict=True)]
        if box[2] > box[0] and box[3] > box[1]:
            names.add(name)
    return sorted(names)


def check_label_totals(manifest: Manifest, images: int, subset: str, classes: Classes) -> None:
    """Compare how many images have each class with VOC 2012, where the split has all of its images."""
    if subset not in ("train", "train_aug") or classes.names != VOC_CLASSES or images not in LABEL_TOTALS:
        return
    found = manifest.multi_hot(classes).sum(0).astype(int)
    expected = np.array(LABEL_TOTALS[images])
    if (found != expected).any():
        raise DataError(
            f"the labels of {subset} are not those of VOC 2012, is an annotation changed?\n"
            f"  images with each class: {' '.join(map(str, found))}\n"
            f"  in VOC 2012:            {' '.join(map(str, expected))}"
        )
    logger.info("the label totals of %s are those of VOC 2012", subset)


def _split(root: Path, subset: str, sbd_root: str | Path | None) -> list[str]:
    if subset not in VOC_SUBSETS:
        raise DataError(f"unknown subset {subset!r}; VOC has {', '.join(VOC_SUBSETS)}")
    if subset != "train_aug":
        return _list(root, subset)
    val = set(_list(root, "val"))
    ready = _list_path(root, "train_aug")
    if ready.is_file():
        ids = _list(root, "train_aug")
        shared = sorted(val & set(ids))
        if shared:
            raise DataError(f"{ready}: {len(shared)} of its images are in val too, for example {shared[0]}")
        return ids
    train = _list(root, "train")
    further = set(_sbd_ids(root, sbd_root)) - val - set(train)
    return [*train, *sorted(further)]


def _sbd_ids(root: Path, sbd_root: str | Path | None) -> list[str]:
    if sbd_root is None:
        raise DataError(
            f"train_aug needs the lists of SBD: give the folder of SBD, put a ready list at "
            f"{_list_path(root, 'train_aug')}, or train on the subset train.\n{SBD_LAYOUT}"
        )
    for folder in (Path(sbd_root), Path(sbd_root, "dataset"), Path(sbd_root, "benchmark_RELEASE", "dataset")):
        lists = folder / "train.txt", folder / "val.txt"
        if all(path.is_file() for path in lists):
            return [id for path in lists for id in _ids_of(path)]
    raise DataError(f"{sbd_root}: no train.txt and val.txt of SBD here.\n{SBD_LAYOUT}")


def _list(root: Path, subset: str) -> list[str]:
    path = _list_path(root, subset)
    if not path.is_file():
        raise DataError(f"{path}: the list of {subset} does not exist.\n{LAYOUT}")
    return _ids_of(path)


def _ids_of(path: Path) -> list[str]:
    """The ids of a list; lines of "/JPEGImages/<id>.jpg /SegmentationClass/<id>.png" are common too."""
    first = (line.split()[0] for line in read_ids(path))
    return [Path(word).stem if "/" in word else word for word in first]


def _list_path(root: Path, subset: str) -> Path:
    return root / "ImageSets" / "Segmentation" / f"{subset}.txt"


def _check_folders(root: Path) -> None:
    for folder in (root, root / "JPEGImages", root / "ImageSets" / "Segmentation"):
        if not folder.is_dir():
            raise DataError(f"{folder}: the folder does not exist.\n{LAYOUT}")


def _check_present(root: Path, ids: list[str], folder: str, suffix: str) -> None:
    """One message for a part of the devkit that is missing, in place of a fault an image."""
    # One listing is far faster than ten thousand looks on a network file system.
    there = {path.name for path in (root / folder).iterdir()} if (root / folder).is_dir() else set()
    missing = [id for id in ids if f"{id}{suffix}" not in there]
    if missing:
        shown = ", ".join(f"{id}{suffix}" for id in missing[:10])
        raise DataError(
            f"{root / folder}: {len(missing)} of {len(ids)} files are missing: {shown}"
            f"{', ...' if len(missing) > 10 else ''}\n{LAYOUT}"
        )


def _checked_labels(root: Path, classes: Classes, id: str) -> list[str]:
    path = root / "Annotations" / f"{id}.xml"
    names = read_xml_labels(path, _size_of(root / "JPEGImages" / f"{id}.jpg"))
    for name in names:
        _check_name(path, name, classes)
    return names


def _size_of(image: Path) -> tuple[int, int]:
    """(height, width) as the head of a picture says, which takes no decoding."""
    with opened(image, PUBLISHED) as picture:
        return picture.height, picture.width


def _check_name(path: Path, name: str, classes: Classes) -> None:
    try:
        classes.label(name)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def _no_labels(id: str) -> list[str]:
    return []


def _text(element: ET.Element, path: str) -> str:
    text = element.findtext(path)
    if text is None or not text.strip():
        raise ValueError(f"<{element.tag}> has no {path}")
    return text.strip()
