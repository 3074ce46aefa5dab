"""The classes of a data set: their names, their colours and their values in mask files."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wsss_core.base.files import whole

VOID = 255
VOID_COLOUR = (224, 224, 192)
COLUMNS = ("mask_value", "name", "label", "red", "green", "blue")

Colour = tuple[int, int, int]
Entry = tuple[int, str, Colour]  # value in mask files, name, colour


class DataError(ValueError):
    """Data that are missing, unreadable or contradictory; the message names the file and the way out."""


@dataclass(frozen=True)
class Dropped:
    """A class of the data set that a ``classes:`` subset leaves out; its pixels are void."""

    value: int
    name: str
    colour: Colour


@dataclass(frozen=True, eq=False)
class Classes:
    """The foreground classes in label order.

    Labels are 0..C-1 and leave out the background; a mask in memory has 0 for background, label + 1 for a
    class and 255 for void. A mask file keeps the values of the whole data set, also where a subset of the
    classes is used: ``lookup`` turns them into those of memory.

    Attributes:
        names: the C names.
        colours: (C+1, 3) uint8, the palette of the mask values 0..C.
        lookup: (256,) int16, value in a mask file -> 0 background, label + 1, 255 void or dropped,
            -1 a value that no mask may hold.
        dropped: the classes of the data set that are not among ``names``.
    """

    names: tuple[str, ...]
    colours: np.ndarray
    lookup: np.ndarray
    dropped: tuple[Dropped, ...] = ()

    def __len__(self) -> int:
        return len(self.names)

    def label(self, name: str) -> int | None:
        """The label of a name, None for a dropped class; an unknown name is a DataError."""
        if name in self.names:
            return self.names.index(name)
        known = [*self.names, *(other.name for other in self.dropped)]
        if name not in known:
            raise DataError(f"unknown class {name!r}; the classes are {', '.join(known)}")
        return None

    def file_values(self) -> np.ndarray:
        """(C+1,) uint8: the value in a mask file of the mask values 0..C."""
        values = np.flatnonzero((self.lookup >= 0) & (self.lookup != VOID))
        return values[np.argsort(self.lookup[values])].astype(np.uint8)

    def without_subset(self) -> "Classes":
        """All classes of the data set, the dropped ones too."""
        background, *others = self._rows()
        return _assemble(background[3], [(value, name, colour) for value, name, _, colour in others], [])

    def write(self, path: str | Path) -> None:
        """Write a CSV with a row a value in mask files; the background and dropped classes have no label."""
        with whole(path) as partial, open(partial, "w", newline="", encoding="utf-8") as file:
            table = csv.writer(file, lineterminator="\n")
            table.writerow(COLUMNS)
            for value, name, label, colour in self._rows():
                table.writerow([value, name, "" if label is None else label, *colour])

    @classmethod
    def read(cls, path: str | Path) -> "Classes":
        """Read what ``write`` wrote; a file of another form is a DataError."""
        try:
            with open(path, newline="", encoding="utf-8") as file:
                table = csv.DictReader(file)
                rows = [_parse_row(row) for row in table] if tuple(table.fieldnames or ()) == COLUMNS else []
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise DataError(f"{path}: cannot read the table of classes: {error}") from error
        labels = sorted(label for _, _, label, _ in rows if label is not None)
        if not labels or rows[0][:3] != (0, "background", None) or labels != list(range(len(labels))):
            raise DataError(f"{path}: not a table of classes; it needs the columns {', '.join(COLUMNS)}")
        background, *others = rows
        kept = {label: (value, name, colour) for value, name, label, colour in others if label is not None}
        dropped = [(value, name, colour) for value, name, label, colour in others if label is None]
        return _assemble(background[3], [kept[label] for label in labels], dropped)

    def _rows(self) -> list[tuple[int, str, int | None, Colour]]:
        """(value in mask files, name, label or None, colour) by value, the background first."""
        names, labels = ["background", *self.names], [None, *range(len(self))]
        colours = map(tuple, self.colours.tolist())
        rows = list(zip(self.file_values().tolist(), names, labels, colours, strict=True))
        rows += [(other.value, other.name, None, other.colour) for other in self.dropped]
        return sorted(rows, key=lambda row: row[0])


def make_classes(names: Sequence[str], keep: Sequence[str] | None = None, colours: np.ndarray | None = None) -> Classes:
    """Make the classes of a data set whose mask files hold 0, 1..len(names) and 255.

    Args:
        names: every foreground class of the data set, in the order of the mask values 1, 2, ...
        keep: the classes to work with, None for all; their order follows ``names`` and the rest becomes void.
        colours: (len(names)+1, 3) uint8 of the values 0..len(names), None for VOC's palette.

    Raises:
        DataError: a name that is unknown or given twice, no class, or colours that do not tell classes apart.
    """
    names = list(names)
    colours = voc_palette(len(names) + 1) if colours is None else np.asarray(colours, np.uint8)
    _check_names(names, names if keep is None else list(keep))
    _check_colours(colours, len(names) + 1)
    palette = [tuple(colour) for colour in colours.tolist()]
    wanted = set(names if keep is None else keep)
    entries = [(value, name, palette[value]) for value, name in enumerate(names, start=1)]
    kept, dropped = ([entry for entry in entries if (entry[1] in wanted) == keeps] for keeps in (True, False))
    return _assemble(palette[0], kept, dropped)


def described(classes: Classes) -> dict[str, Any]:
    """What a checkpoint says of its classes and its input, as plain values for programs that lack this package.

    ``names`` are those of the foreground, ``colours`` the palette of the mask values 0, 1, ..., the background first;
    ``normalisation`` is what RGB in 0..1 is brought to before it enters the network.
    """
    from wsss_core.data.transforms import MEAN, STD  # loads torch, which jobs without a network do without

    mean, deviation = ([round(value, 6) for value in values.tolist()] for values in (MEAN, STD))
    return {
        "names": list(classes.names),
        "colours": classes.colours.tolist(),
        "normalisation": {"mean": mean, "std": deviation},
    }


def classes_of(said: Mapping[str, Any]) -> Classes:
    """The classes that a checkpoint says it has, see ``described``; mask files hold them as 1, 2, ...

    Raises:
        DataError: names or colours that are missing or cannot be.
    """
    try:
        return make_classes(said["names"], colours=said["colours"])
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"the checkpoint does not describe its classes: {error}") from error


def voc_palette(n: int) -> np.ndarray:
    """(n, 3) uint8, n <= 256: the colours of the VOC devkit, (128, 0, 0), (0, 128, 0), (128, 128, 0), ...

    The bits 0, 1, 2 of an index become the highest bits of red, green and blue, the next three bits the next
    highest, and so on.
    """
    index = np.arange(n)
    palette = np.zeros((n, 3), np.uint8)
    for bit in range(8):
        palette[:, bit % 3] |= ((index >> bit & 1) << 7 - bit // 3).astype(np.uint8)
    return palette


def _assemble(background: Colour, kept: list[Entry], dropped: list[Entry]) -> Classes:
    """Build Classes of the colour of the background and of the classes, those kept in label order."""
    lookup = np.full(256, -1, np.int16)
    lookup[[0, VOID]] = 0, VOID
    for label, (value, *_) in enumerate(kept):
        lookup[value] = label + 1
    for value, *_ in dropped:
        lookup[value] = VOID
    return Classes(
        names=tuple(name for _, name, _ in kept),
        colours=np.array([background, *(colour for *_, colour in kept)], np.uint8),
        lookup=lookup,
        dropped=tuple(Dropped(*entry) for entry in dropped),
    )


def _parse_row(row: dict[str, str]) -> tuple[int, str, int | None, Colour]:
    value, label = int(row["mask_value"]), row["label"]
    if not 0 <= value < VOID:
        raise ValueError(f"mask_value {value} is not within 0..254")
    colour = int(row["red"]), int(row["green"]), int(row["blue"])
    return value, row["name"], int(label) if label else None, colour


def _check_names(names: list[str], keep: list[str]) -> None:
    if not 1 <= len(names) < VOID:
        raise DataError(f"a data set needs 1 to {VOID - 1} classes, not {len(names)}")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice or "" in names or "background" in names:
        raise DataError(
            f"class names must differ and be neither empty nor 'background', which is always mask value 0; "
            f"given: {', '.join(names)}"
        )
    unknown = [name for name in keep if name not in names]
    if unknown or not keep:
        wrong = f"unknown classes {', '.join(unknown)}" if unknown else "the subset of classes is empty"
        raise DataError(f"{wrong}; the data set has {', '.join(names)}")


def _check_colours(colours: np.ndarray, rows: int) -> None:
    if colours.shape != (rows, 3):
        raise DataError(f"{rows} colours of 3 values are needed, got an array of shape {colours.shape}")
    distinct = {tuple(colour) for colour in colours.tolist()} | {VOID_COLOUR}
    if len(distinct) != rows + 1:
        raise DataError(f"the colours must differ from each other and from {VOID_COLOUR}, the colour of void")
