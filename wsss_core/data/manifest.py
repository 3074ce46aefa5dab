"""The manifest of a split: its images, masks, sizes and image-level labels as one table."""

import hashlib
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd

from wsss_core.base.files import whole
from wsss_core.data.classes import Classes, DataError
from wsss_core.data.decoding import PUBLISHED, opened, upright
from wsss_core.data.masks import read_mask

logger = logging.getLogger(__name__)

Part = TypeVar("Part")

COLUMNS = ["id", "image", "mask", "height", "width", "labels"]
FULL = ["full_height", "full_width"]  # further columns, where a photo is worked on at less than its size
FAULTS_SHOWN = 10


@dataclass(frozen=True)
class Row:
    """One image: ``mask`` is empty if there is none, ``labels`` are classes from 0 without background.

    ``height`` and ``width`` are those that every stage works at; ``full`` is the photo's own (height, width) where it
    is larger.
    """

    id: str
    image: str
    mask: str
    height: int
    width: int
    labels: tuple[int, ...]
    full: tuple[int, int] | None = None

    @property
    def own_size(self) -> tuple[int, int]:
        """Height and width of the photo and of its true mask."""
        return self.full or (self.height, self.width)


class Manifest:
    """The images of a split in their order.

    Paths stand as they were given; relative ones start at the working directory. The table has the columns
    id, image, mask, height, width and labels, the last with a space between the class indices; and full_height and
    full_width if any photo is worked on at less than its own size.
    """

    def __init__(self, table: pd.DataFrame) -> None:
        if list(table.columns) not in (COLUMNS, COLUMNS + FULL):
            raise DataError(f"a manifest has the columns {COLUMNS}, not {list(table.columns)}")
        if table["id"].duplicated().any():
            twice = table["id"][table["id"].duplicated()].iloc[0]
            raise DataError(f"image id {twice} stands twice in the manifest")
        check_names(table["id"])
        self.table = table.reset_index(drop=True)

    @classmethod
    def of(cls, rows: Sequence[Row]) -> "Manifest":
        """The manifest of these rows."""
        cells = [
            (row.id, row.image, row.mask, row.height, row.width, " ".join(map(str, row.labels)), *row.own_size)
            for row in rows
        ]
        table = pd.DataFrame(cells, columns=COLUMNS + FULL)
        return cls(table if any(row.full for row in rows) else table[COLUMNS])

    @classmethod
    def read(cls, path: str | Path) -> "Manifest":
        """Read a CSV that ``write`` wrote; one of another form is a DataError."""
        text = {"id": str, "image": str, "mask": str, "labels": str}
        try:
            # keep_default_na: an image may be called "NA" or "nan"
            table = pd.read_csv(path, dtype=text, keep_default_na=False, encoding="utf-8-sig")
            manifest = cls(table)
            sides = [name for name in ("height", "width", *FULL) if name in table]
            manifest.table = manifest.table.astype(dict.fromkeys(sides, np.int64))
            if (manifest.table[sides] < 1).any(axis=None):
                raise ValueError("an image without height or width")
            if not manifest.table["labels"].str.fullmatch(r"([0-9]{1,3}( [0-9]{1,3})*)?", flags=re.ASCII).all():
                raise ValueError("labels are numbers with a space between them")
        except (OSError, ValueError, TypeError, OverflowError) as error:
            raise DataError(f"{path}: cannot be read as a manifest: {error}") from error
        return manifest

    def write(self, path: str | Path) -> None:
        """Write the table as CSV."""
        with whole(path) as partial:
            self.table.to_csv(partial, index=False, lineterminator="\n")

    def digest(self) -> str:
        """A digest of the images' ids, sizes and labels; where the files lie does not matter."""
        text = self.table[["id", "height", "width", "labels"]].to_csv(index=False)
        return hashlib.sha256(text.encode()).hexdigest()

    def __len__(self) -> int:
        return len(self.table)

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    @cached_property
    def rows(self) -> list[Row]:
        """The rows in order."""
        return [
            Row(id, image, mask, int(height), int(width), tuple(map(int, labels.split())), _full(own, height, width))
            for id, image, mask, height, width, labels, *own in self.table.itertuples(index=False)
        ]

    def limited(self, longest_side: int | None) -> "Manifest":
        """The same images, the larger ones of them to be worked on at this length of their longer side."""
        return self if longest_side is None else Manifest.of([_limited(row, longest_side) for row in self.rows])

    @property
    def ids(self) -> list[str]:
        """The image ids in order."""
        return self.table["id"].tolist()

    def row(self, id: str) -> Row:
        """The row of an image; an unknown id is a DataError."""
        if id not in self._by_id:
            raise DataError(f"the manifest has no image {id}")
        return self._by_id[id]

    @cached_property
    def _by_id(self) -> dict[str, Row]:
        return {row.id: row for row in self.rows}

    def labelled(self) -> "Manifest":
        """The images with a class; there being none is a DataError.

        Classifiers, C²AM-H and AffinityNet have nothing to learn from the others, which count as background
        everywhere else.
        """
        kept = self.table[self.table["labels"] != ""]
        if kept.empty:
            raise DataError(f"none of the {len(self)} images of the manifest has a class to train with")
        return self if len(kept) == len(self) else Manifest(kept)

    def multi_hot(self, classes: Classes | int) -> np.ndarray:
        """(N, C) float32 of 0 and 1: the labels, for C classes or the classes themselves."""
        count = classes if isinstance(classes, int) else len(classes)
        labels = np.zeros((len(self), count), np.float32)
        for index, row in enumerate(self.rows):
            if max(row.labels, default=0) >= count:
                raise DataError(f"image {row.id} has the label {max(row.labels)}, but there are {count} classes")
            labels[index, list(row.labels)] = 1
        return labels


def build_manifest(
    *,
    ids: Sequence[str],
    image_of: Callable[[str], str | Path],
    mask_of: Callable[[str], str | Path | None],
    labels_of: Callable[[str], Sequence[str]],
    classes: Classes,
    drop_unlabelled: bool,
    require_masks: bool,
    workers: int,
    formats: tuple[str, ...] = PUBLISHED,
) -> Manifest:
    """Build the manifest of a split.

    Every image and mask is decoded once, so that no later stage meets a broken one. Sizes are those of
    the picture turned as its EXIF orientation says, where it has one.

    Args:
        ids: the images in their order.
        image_of: path of an image.
        mask_of: path of its mask, or None; a path that does not exist counts as None.
        labels_of: names of the classes in an image, those dropped by the subset included, in any order.
        drop_unlabelled: leave out images without any class. Images that only have classes dropped by the
            subset are left out in any case.
        require_masks: an image without a mask is an error.
        workers: threads that decode.
        formats: those that images may have, by Pillow's names.

    Raises:
        DataError: an empty split, an id given twice, or faulty files, up to ten of them in one message.
    """
    _check_ids(ids)

    def inspect(id: str) -> Row | DataError | None:
        try:
            names = list(labels_of(id))
            labels = _labels(id, names, classes)
            if not labels and (names or drop_unlabelled):
                return None
            return _inspect(id, Path(image_of(id)), mask_of(id), labels, classes, require_masks, formats)
        except DataError as error:
            return error

    found = []
    every = max(1, len(ids) // 20)
    with ThreadPoolExecutor(max(1, workers)) as pool:
        for done, result in enumerate(pool.map(inspect, ids), start=1):
            found.append(result)
            if done % every == 0:
                logger.info("checked %d of %d images", done, len(ids))
    raise_faults([result for result in found if isinstance(result, DataError)])
    rows = [result for result in found if isinstance(result, Row)]
    if len(rows) < len(found):
        logger.info("left out %d of %d images: none of the classes is in them", len(found) - len(rows), len(found))
    if not rows:
        raise DataError(f"none of the {len(ids)} images of the split has one of {', '.join(classes.names)}")
    return Manifest.of(rows)


def read_ids(path: str | Path) -> list[str]:
    """Read the image ids of a split, one a line; a byte order mark is no part of them.

    Raises:
        DataError: a missing or empty file, or a line that leads elsewhere.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot read the list of images: {error}") from error
    ids = [line.strip() for line in lines if line.strip()]
    if not ids:
        raise DataError(f"{path}: the split is empty; it needs one image id a line")
    for id in ids:
        if ".." in Path(id).parts or "\0" in id:
            raise DataError(f"{path}: {id!r} is no image id, it leads out of the folder of images")
    return ids


def check_names(ids: Iterable[str]) -> None:
    """Refuse an image id that is no plain name of a file: what is made of an image is written under it.

    Raises:
        DataError: with the id.
    """
    for id in ids:
        if not id or id in (".", "..") or any(sign in id for sign in "/\\\0"):
            raise DataError(f"{id!r} is no image id, it leads out of the folder: an id is the plain name of a file")


def of_subset(parts: Mapping[str, Part], subset: str) -> Part:
    """What a data set declares of a subset; one that it does not declare is a DataError."""
    if subset not in parts:
        raise DataError(f"the data set does not declare the subset {subset!r}; it has {', '.join(parts)}")
    return parts[subset]


def _labels(id: str, names: list[str], classes: Classes) -> list[int]:
    try:
        labels = {classes.label(name) for name in names}
    except DataError as error:
        raise DataError(f"image {id}: {error}") from error
    return sorted(label for label in labels if label is not None)


def _inspect(
    id: str,
    image: Path,
    mask: str | Path | None,
    labels: list[int],
    classes: Classes,
    require_masks: bool,
    formats: tuple[str, ...],
) -> Row:
    with opened(image, formats) as picture:
        width, height = upright(image, picture).size
    if mask is not None and Path(mask).is_file():
        read_mask(mask, classes, (height, width))
    elif require_masks:
        raise DataError(f"{mask or image}: the mask does not exist" if mask else f"{image}: there is no mask")
    else:
        mask = None
    return Row(id, str(image), "" if mask is None else str(mask), height, width, tuple(labels))


def _full(own: Sequence[int], height: int, width: int) -> tuple[int, int] | None:
    """The own size of a photo that is worked on at another; the cells of a row without such columns are none."""
    return (int(own[0]), int(own[1])) if own and tuple(own) != (height, width) else None


def _limited(row: Row, longest_side: int) -> Row:
    if max(row.height, row.width) <= longest_side:
        return row
    own = row.own_size
    height, width = (max(1, round(side * longest_side / max(own))) for side in own)
    return replace(row, height=height, width=width, full=own)


def _check_ids(ids: Sequence[str]) -> None:
    if not ids:
        raise DataError("the split is empty: it names no image")
    check_names(ids)
    if len(set(ids)) < len(ids):
        table = pd.Series(list(ids))
        raise DataError(f"the split names image {table[table.duplicated()].iloc[0]} more than once")


def raise_faults(faults: Sequence[DataError]) -> None:
    """Raise the faults of a split as one DataError that shows up to ten of them; none do nothing."""
    if not faults:
        return
    shown = [str(fault) for fault in faults[:FAULTS_SHOWN]]
    if len(faults) > len(shown):
        shown.append(f"and {len(faults) - len(shown)} more")
    if len(faults) == 1:
        raise faults[0]
    raise DataError("\n  ".join([f"{len(faults)} images of the split are faulty:", *shown]))
