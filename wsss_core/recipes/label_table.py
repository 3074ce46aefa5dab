"""Labels of a data set of one's own, from a table or from folders, read when planning and by the job alike."""

import csv
import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from wsss_core.recipes.config import RecipeError
from wsss_core.recipes.names import unknown

COLUMNS = ("image_id", "classes")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp", ".bmp")

Labels = Mapping[str, Sequence[str]]


def read_table(path: str | Path) -> dict[str, list[str]]:
    """Read a CSV with the columns image_id and classes; names are joined by ";", none is an empty cell.

    Raises:
        RecipeError: another form, a row with more or fewer cells than the head, an image without an id or with two
            rows; file and line are named.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:  # spreadsheets write a byte order mark
            table = csv.reader(file, strict=True)
            head = next(table, [])
            if not set(COLUMNS) <= set(head):
                raise ValueError(f"the columns {' and '.join(COLUMNS)} are needed, it has {head}")
            if doubled := sorted({name for name in head if head.count(name) > 1}):
                raise ValueError(f"the column {doubled[0]} stands more than once in its head")
            rows = [(table.line_num, row) for row in table if row]
    except (OSError, ValueError, csv.Error) as error:
        raise RecipeError(f"{path}: cannot be read as a table of labels: {error}") from error
    labels: dict[str, list[str]] = {}
    lines: dict[str, int] = {}
    for line, row in rows:
        if len(row) != len(head):
            raise RecipeError(
                f"{path}, line {line}: {','.join(row)!r} has {len(row)} cells, the head has {len(head)}: join names "
                "by ;, and leave the cell of an image without any class empty, as in 'a001,'"
            )
        id, names = (row[head.index(name)].strip() for name in COLUMNS)
        if not id:
            raise RecipeError(f"{path}, line {line}: the image_id is empty")
        if id in labels:
            raise RecipeError(f"{path}, line {line}: image {id} has more than one row, the first is line {lines[id]}")
        labels[id] = [name.strip() for name in names.split(";") if name.strip()]
        lines[id] = line
    return labels


def read_class_folders(folder: str | Path, names: Sequence[str]) -> dict[str, list[Path]]:
    """The images in ``<folder>/<class>/``, by id; an image of several classes lies in several folders.

    Returns:
        id -> its files, in the order of the folders' names; the name of a file's folder is its class.

    Raises:
        RecipeError: a folder that is no class, or not one image in any of them.
    """
    found: dict[str, list[Path]] = {}
    for place in sorted(path for path in Path(folder).iterdir() if path.is_dir() and path.name[0] != "."):
        if place.name not in names:
            raise RecipeError(
                f"{place}: {unknown('class', place.name, names, 'names has')}; rename the folder, or move it elsewhere"
            )
        for path in sorted(place.iterdir()):
            if path.suffix.lower() in IMAGE_SUFFIXES:
                found.setdefault(path.stem, []).append(path)
    if not found:
        raise RecipeError(f"{folder}: no image in a folder of a class, such as {folder}/{names[0]}/*.jpg")
    return found


def check_classes(labels: Labels, names: Collection[str], source: str | Path) -> None:
    """Refuse labels that are no classes.

    Raises:
        RecipeError: with the first image and the names that are near.
    """
    for id, given in labels.items():
        for name in given:
            if name not in names:
                raise RecipeError(f"{source}: image {id}: {unknown('class', name, names, 'names has')}")


def digest_of_rows(labels: Labels, ids: Collection[str], without: str | None = None) -> str:
    """A digest of the labels of some images; others and the order of all do not count.

    Raises:
        RecipeError: if ``without`` is given, with that message where an image has no labels, not even none.
    """
    missing = sorted(set(ids) - labels.keys())
    if without and missing:
        shown = ", ".join(missing[:10]) + (", ..." if len(missing) > 10 else "")
        raise RecipeError(f"{without} ({len(missing)} of {len(ids)}): {shown}")
    said = [(id, sorted(set(labels[id]))) for id in sorted(set(ids)) if id in labels]
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()
