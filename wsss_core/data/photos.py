"""A folder of photos as a manifest, without any list or label."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from wsss_core.data.classes import DataError
from wsss_core.data.decoding import PICTURES, opened, upright
from wsss_core.data.manifest import Manifest, Row
from wsss_core.recipes.label_table import IMAGE_SUFFIXES


def manifest_of_photos(folder: Path, workers: int = 1) -> tuple[Manifest, list[DataError]]:
    """The photos that lie in a folder, in the order of their names; each is decoded once.

    An image id is the name of the file without its suffix.

    Args:
        workers: threads that decode.

    Returns:
        The manifest of those that can be read, without masks and labels; and what is wrong with each of the others.

    Raises:
        DataError: no folder, no photo in it, two of one id, or not one that can be read.
    """
    paths = _photos(folder)
    with ThreadPoolExecutor(max(1, workers)) as pool:
        found = list(pool.map(_inspected, paths))
    rows = [row for row in found if isinstance(row, Row)]
    faults = [fault for fault in found if isinstance(fault, DataError)]
    if not rows:
        raise DataError(f"{folder}: not one of the {len(faults)} photos can be read, the first: {faults[0]}")
    return Manifest.of(rows), faults


def _photos(folder: Path) -> Sequence[Path]:
    if not folder.is_dir():
        raise DataError(f"{folder}: the folder of photos does not exist")
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())
    if not paths:
        inner = next((path for path in sorted(folder.rglob("*")) if path.suffix.lower() in IMAGE_SUFFIXES), None)
        there = f", but there are some in {inner.parent}: name that folder" if inner else ""
        raise DataError(f"{folder}: there is no photo in it ({', '.join(IMAGE_SUFFIXES)}){there}")
    first: dict[str, Path] = {}
    for path in paths:
        if (other := first.setdefault(path.stem, path)) != path:
            raise DataError(f"{other} and {path.name} would both be {path.stem}.png: rename or move one of them")
    return paths


def _inspected(path: Path) -> Row | DataError:
    try:
        with opened(path, PICTURES) as picture:
            width, height = upright(path, picture).size
    except DataError as error:
        return error
    return Row(path.stem, str(path), "", height, width, ())
