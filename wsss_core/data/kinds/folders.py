"""A data set of the user's own: folders of images and masks, lists of ids and a table of labels."""

import csv
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from wsss_core.data.classes import VOID, Classes, DataError
from wsss_core.data.manifest import Manifest, build_manifest, of_subset, read_ids
from wsss_core.data.masks import read_mask
from wsss_core.recipes.kinds import Declared

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
LABEL_COLUMNS = ("image_id", "classes")


def names_of(declared: Declared) -> Sequence[str]:
    """The names that are declared."""
    return declared["names"]


def manifest_of(declared: Declared, *, subset: str, classes: Classes, workers: int) -> Manifest:
    """``folder_manifest`` of a declared data set; images without any class are background."""
    return folder_manifest(
        images=declared["images"],
        masks=declared["masks"],
        split=of_subset(declared["lists"], subset),
        labels=declared["labels"],
        classes=classes,
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
    drop_unlabelled: bool = True,
    require_masks: bool = False,
    workers: int = 8,
) -> Manifest:
    """Build the manifest of a split of a data set that is declared by its folders alone.

    Args:
        images: folder of ``<id>.jpg``, ``.jpeg`` or ``.png``.
        masks: folder of ``<id>.png``, or None; an image without a mask can be trained on, not scored.
        split: text file of image ids, one a line.
        labels: CSV with the columns image_id and classes, names joined by ";", or the word "masks": an image
            then has the classes that its mask shows. That uses masks as a source of image-level labels and of
            nothing else, yet it is more than weak supervision grants where nobody has drawn masks.
        classes: the classes; images that only have classes dropped by a subset are left out.
        image_suffixes: the suffixes of images, in either case.
        drop_unlabelled: leave out images without any class.
        require_masks: an image without a mask is an error, as it is where the split is to be scored.
        workers: threads that check the images.

    Raises:
        DataError: a missing or broken file, or an image of the split without a row in the table of labels.
    """
    image_paths = _by_stem(images, image_suffixes)
    mask_paths = {} if masks is None else _by_stem(masks, (".png",))
    ids = read_ids(split)
    _check_present(ids, image_paths, f"{split}: images that are not in {images}")
    if str(labels) == "masks":
        _check_present(ids, mask_paths, f"labels from masks: images without a mask in {masks}")
        labels_of = _mask_labels(mask_paths, classes)
    else:
        table = read_label_table(labels)
        _check_present(ids, table, f"{labels}: images of {split} without a row")
        labels_of = table.__getitem__
    return build_manifest(
        ids=ids,
        image_of=image_paths.__getitem__,
        mask_of=mask_paths.get,
        labels_of=labels_of,
        classes=classes,
        drop_unlabelled=drop_unlabelled,
        require_masks=require_masks,
        workers=workers,
    )


def read_label_table(path: str | Path) -> dict[str, list[str]]:
    """Read a CSV with the columns image_id and classes; names are joined by ";", none is an empty cell."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:  # spreadsheets write a byte order mark
            table = csv.DictReader(file)
            if not set(LABEL_COLUMNS) <= set(table.fieldnames or ()):
                raise ValueError(f"the columns {' and '.join(LABEL_COLUMNS)} are needed, it has {table.fieldnames}")
            rows = [(row["image_id"].strip(), row["classes"] or "") for row in table]
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as a table of labels: {error}") from error
    labels = {id: [name.strip() for name in names.split(";") if name.strip()] for id, names in rows}
    if len(labels) < len(rows):
        twice = next(id for index, (id, _) in enumerate(rows) if id in {other for other, _ in rows[:index]})
        raise DataError(f"{path}: image {twice} has more than one row")
    return labels


def _mask_labels(paths: dict[str, Path], classes: Classes) -> Callable[[str], list[str]]:
    """The names of the classes, dropped ones too, that the mask of an image shows."""
    every = classes.without_subset()

    def labels_of(id: str) -> list[str]:
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


def _check_present(ids: list[str], there: dict, what: str) -> None:
    missing = [id for id in ids if id not in there]
    if missing:
        shown = ", ".join(missing[:10]) + (", ..." if len(missing) > 10 else "")
        raise DataError(f"{what} ({len(missing)} of {len(ids)}): {shown}")
