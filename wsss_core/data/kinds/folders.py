"""A data set of the user's own: folders of images and masks, lists of ids and a table of labels."""

import filecmp
from collections.abc import Callable, Container, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from wsss_core.data.classes import VOID, Classes, DataError
from wsss_core.data.decoding import PICTURES
from wsss_core.data.manifest import Manifest, build_manifest, of_subset, raise_faults, read_ids
from wsss_core.data.masks import read_mask
from wsss_core.recipes.config import RecipeError
from wsss_core.recipes.kinds import Declared
from wsss_core.recipes.label_table import IMAGE_SUFFIXES, read_class_folders, read_table


def names_of(declared: Declared) -> Sequence[str]:
    """The names that are declared."""
    return declared["names"]


def manifest_of(declared: Declared, *, subset: str, classes: Classes, workers: int) -> Manifest:
    """``folder_manifest`` of a declared data set; images without any class are background.

    ``labelled`` is what a plan adds to the declaration: whether the subset needs labels.
    """
    split = of_subset(declared["lists"], subset)
    return folder_manifest(
        images=declared["images"],
        masks=declared["masks"],
        split=split,
        without=[listed for name, listed in declared["lists"].items() if split is None and listed and name != subset],
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
    split: str | Path | None,
    labels: str | Path,
    classes: Classes,
    without: Sequence[str | Path] = (),
    image_suffixes: Sequence[str] = IMAGE_SUFFIXES,
    labelled: bool = True,
    drop_unlabelled: bool = True,
    require_masks: bool = False,
    workers: int = 8,
) -> Manifest:
    """Build the manifest of a split of a data set that is declared by its folders alone.

    Args:
        images: folder of ``<id>.jpg`` and the like, see ``image_suffixes``; with labels from folders, of
            ``<class>/<id>.jpg``, beside images without labels.
        masks: folder of ``<id>.png``, or None; an image without a mask can be trained on, not scored.
        split: text file of image ids, one a line; or a folder of photos of its own; or None for all images with labels.
        labels: CSV with the columns image_id and classes, names joined by ";"; or the word "folders": an image has the
            class of its folder, and of every folder that holds a copy of it; or the word "masks": an image
            then has the classes that its mask shows. That uses masks as a source of image-level labels and of
            nothing else, yet it is more than weak supervision grants where nobody has drawn masks.
        classes: the classes; images that only have classes dropped by a subset are left out.
        without: lists or folders, as ``split``, of images that are not among all images with labels.
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
    if str(labels) == "masks":
        known: Mapping[str, object] = mask_paths
        labels_of = _mask_labels(mask_paths, classes)
    else:
        table = _class_folders(images, classes, image_paths) if str(labels) == "folders" else read_label_table(labels)
        known, labels_of = table, partial(_row_of, table)
    if split is None:
        ids = sorted(known.keys() - {id for listed in without for id in _members(listed, image_suffixes)})
        if not ids:
            raise DataError(f"{images}: no image has labels that is not in {', '.join(map(str, without))}")
    else:
        ids = _members(split, image_suffixes)
        image_paths |= _by_stem(split, image_suffixes) if Path(split).is_dir() else {}
    read = f"with one of the suffixes {', '.join(image_suffixes)}"
    _check_present(ids, image_paths, f"{split or labels}: images that are not in {images} {read}")
    raise_faults([fault for id in ids if (fault := _unknown_class(id, labels_of(id), labels, classes))])
    if labelled:
        said = {"masks": f"labels from masks: images without a mask in {masks}",
                "folders": f"{images}: images of {split} that are in no folder of a class"}  # fmt: skip
        _check_present(ids, known, said.get(str(labels), f"{labels}: images of {split} without a row"))
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


def _class_folders(images: str | Path, classes: Classes, paths: dict[str, Path]) -> dict[str, list[str]]:
    """Labels from ``<images>/<class>/<id>.jpg``; ``paths`` by id gets these images too.

    Raises:
        DataError: a folder that is no class, or one id with two pictures.
    """
    try:
        found = read_class_folders(images, classes.without_subset().names)
    except RecipeError as error:
        raise DataError(str(error)) from error
    for id, files in found.items():
        copies = [*([paths[id]] if id in paths else []), *files]
        for copy in copies[1:]:
            if not filecmp.cmp(copies[0], copy, shallow=False):
                raise DataError(f"{copies[0]} and {copy} have the same id and are two pictures: rename one of them")
        paths[id] = files[0]
    return {id: [path.parent.name for path in files] for id, files in found.items()}


def _members(listed: str | Path, suffixes: Sequence[str]) -> list[str]:
    """The image ids of a text file, or of a folder of photos."""
    if not Path(listed).is_dir():
        return read_ids(listed)
    if not (ids := sorted(_by_stem(listed, suffixes))):
        raise DataError(f"{listed}: no photo with one of the suffixes {', '.join(suffixes)} in the folder")
    return ids


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
