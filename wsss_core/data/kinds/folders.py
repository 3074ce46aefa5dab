"""A data set of the user's own: folders of images and masks, lists of ids and a table of labels."""

from collections.abc import Callable, Container, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from wsss_core.data.classes import VOID, Classes, DataError
from wsss_core.data.decoding import PICTURES
from wsss_core.data.manifest import Manifest, build_manifest, of_subset, raise_faults, read_ids
from wsss_core.data.masks import read_mask
from wsss_core.recipes.config import RecipeError
from wsss_core.recipes.kinds import Declared
from wsss_core.recipes.label_table import read_table

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp", ".bmp")


def names_of(declared: Declared) -> Sequence[str]:
    """The names that are declared."""
    return declared["names"]


def manifest_of(declared: Declared, *, subset: str, classes: Classes, workers: int) -> Manifest:
    """``folder_manifest`` of a declared data set; images without any class are background.

    ``labelled`` is what a plan adds to the declaration: whether the subset needs labels.
    """
    return folder_manifest(
        images=declared["images"],
        masks=declared["masks"],
        split=of_subset(declared["lists"], subset),
        labels=declared["labels"],
        classes=classes,
        labelled=declared.get("labelled", True),
        drop_unlabelled=False,
        workers=workers,
    )


def folder_manifest(
    *,
    images: str | Path,
    masks: str | Path | None,
    split: str | Path,
    labels: str | Path,
    classes: Classes,
    image_suffixes: Sequence[str] = IMAGE_SUFFIXES,
    labelled: bool = True,
    drop_unlabelled: bool = True,
    require_masks: bool = False,
    workers: int = 8,
) -> Manifest:
    """Build the manifest of a split of a data set that is declared by its folders alone.

    Args:
        images: folder of ``<id>.jpg`` and the like, see ``image_suffixes``.
        masks: folder of ``<id>.png``, or None; an image without a mask can be trained on, not scored.
        split: text file of image ids, one a line.
        labels: CSV with the columns image_id and classes, names joined by ";", or the word "masks": an image
            then has the classes that its mask shows. That uses masks as a source of image-level labels and of
            nothing else, yet it is more than weak supervision grants where nobody has drawn masks.
        classes: the classes; images that only have classes dropped by a subset are left out.
        image_suffixes: the suffixes of images, in either case.
        labelled: an image that the labels say nothing of is an error; otherwise it is one without any class, as it
            may be where it is to be predicted alone.
        drop_unlabelled: leave out images without any class.
        require_masks: an image without a mask is an error, as it is where the split is to be scored.
        workers: threads that check the images.

    Raises:
        DataError: a missing or broken file, or an image of the split without a row in the table of labels.
    """
    image_paths = _by_stem(images, image_suffixes)
    mask_paths = {} if masks is None else _by_stem(masks, (".png",))
    ids = read_ids(split)
    read = f"with one of the suffixes {', '.join(image_suffixes)}"
    _check_present(ids, image_paths, f"{split}: images that are not in {images} {read}")
    if str(labels) == "masks":
        known: Container[str] = mask_paths
        without = f"labels from masks: images without a mask in {masks}"
        labels_of = _mask_labels(mask_paths, classes)
    else:
        table = read_label_table(labels)
        known, without = table, f"{labels}: images of {split} without a row"
        labels_of = partial(_row_of, table)
        raise_faults([fault for id in ids if (fault := _unknown_class(id, labels_of(id), labels, classes))])
    if labelled:
        _check_present(ids, known, without)
    return build_manifest(
        ids=ids,
        image_of=image_paths.__getitem__,
        mask_of=mask_paths.get,
        labels_of=labels_of,
        classes=classes,
        drop_unlabelled=drop_unlabelled,
        require_masks=require_masks,
        workers=workers,
        formats=PICTURES,
    )


def read_label_table(path: str | Path) -> dict[str, list[str]]:
    """``read_table``; what is wrong with the table is a DataError."""
    try:
        return read_table(path)
    except RecipeError as error:
        raise DataError(str(error)) from error


def _row_of(table: dict[str, list[str]], id: str) -> list[str]:
    return table.get(id, [])


def _unknown_class(id: str, names: list[str], labels: str | Path, classes: Classes) -> DataError | None:
    try:
        for name in names:
            classes.label(name)
    except DataError as error:
        return DataError(f"{labels}: image {id}: {error}")
    return None


def _mask_labels(paths: dict[str, Path], classes: Classes) -> Callable[[str], list[str]]:
    """The names of the classes, dropped ones too, that the mask of an image shows."""
    every = classes.without_subset()

    def labels_of(id: str) -> list[str]:
        if id not in paths:
            return []
        values = np.unique(read_mask(paths[id], every)).tolist()
        return [every.names[value - 1] for value in values if value not in (0, VOID)]

    return labels_of


def _by_stem(folder: str | Path, suffixes: Sequence[str]) -> dict[str, Path]:
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"{folder}: the folder does not exist")
    paths: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in suffixes:
            continue
        if path.stem in paths:
            raise DataError(f"{path} and {paths[path.stem].name} have the same id; keep one of them")
        paths[path.stem] = path
    return paths


def _check_present(ids: list[str], there: Container[str], what: str) -> None:
    missing = [id for id in ids if id not in there]
    if missing:
        shown = ", ".join(missing[:10]) + (", ..." if len(missing) > 10 else "")
        raise DataError(f"{what} ({len(missing)} of {len(ids)}): {shown}")
