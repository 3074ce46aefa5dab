"""The table of image-level labels of a data set of one's own, read when planning and by the job alike."""

import csv
import hashlib
import json
from collections.abc import Collection
from pathlib import Path

from wsss_core.recipes.config import RecipeError

COLUMNS = ("image_id", "classes")


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


def digest_of_rows(path: str | Path, ids: Collection[str], without: str | None = None) -> str:
    """A digest of what a table says of some images; rows of others and the order of all do not count.

    Raises:
        RecipeError: as ``read_table``; and if ``without`` is given, with that message where an image has no row.
    """
    labels = read_table(path)
    missing = sorted(set(ids) - labels.keys())
    if without and missing:
        shown = ", ".join(missing[:10]) + (", ..." if len(missing) > 10 else "")
        raise RecipeError(f"{without} ({len(missing)} of {len(ids)}): {shown}")
    said = [(id, sorted(set(labels[id]))) for id in sorted(set(ids)) if id in labels]
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()
