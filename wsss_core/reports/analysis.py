"""What the classes of a data set are like, and what that does to their scores: Tables 1 and 3 of P-NOC's paper.

Four properties of a class, on the scored subset: ``O`` is the number of images labelled with it, ``%S`` the mean share
of these images' pixels that it covers, ``%C`` the share of these images that have another label too, ``L`` their mean
number of labels. Shares are in per cent. The background has ``%S`` alone, over all images.
"""

import csv
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import StatisticsError, correlation, mean, stdev

import numpy as np

from wsss_core.base.files import whole
from wsss_core.base.parallel import in_processes
from wsss_core.data.classes import Classes, DataError
from wsss_core.data.manifest import Manifest, Row
from wsss_core.data.masks import read_mask

BACKGROUND = "background"
PROPERTIES = ("O", "%S", "%C", "L")
GROUPINGS = ("size", "frequency", "semantic")

# The paper's groups. Its caption of `singleton` leaves out cat and cow, but its numbers include them.
VOC_GROUPS = {
    "size": {
        "small": ("aeroplane", "bicycle", "bird", "boat", "bottle", "chair", "pottedplant"),
        "mid": ("car", "cow", "person", "tvmonitor"),
        "large": ("bus", "cat", "diningtable", "dog", "horse", "motorbike", "sheep", "sofa", "train"),
    },
    "frequency": {
        "low": ("bicycle", "boat", "bus", "cow", "horse", "sheep"),
        "mid": ("aeroplane", "bottle", "diningtable", "motorbike", "pottedplant", "sofa", "train", "tvmonitor"),
        "high": ("bird", "car", "cat", "chair", "dog", "person"),
    },
    "semantic": {
        "singleton": ("aeroplane", "bird", "boat", "cat", "cow", "sheep", "train"),
        "person": ("person",),
        "animal": ("dog", "horse"),
        "room": ("bottle", "chair", "diningtable", "pottedplant", "sofa", "tvmonitor"),
        "traffic": ("bicycle", "bus", "car", "motorbike"),
    },
}
DECLARED_GROUPS = {"voc": VOC_GROUPS}  # by kind of data set


@dataclass(frozen=True)
class ClassProperties:
    """Properties and groups of the classes.

    Attributes:
        values: property -> {class: value}; a class without an image has no ``%S``, ``%C`` and ``L``.
        groups: grouping -> {group: its classes}.
    """

    values: dict[str, dict[str, float]]
    groups: dict[str, dict[str, tuple[str, ...]]]

    @property
    def classes(self) -> list[str]:
        """The foreground classes in label order."""
        return list(self.values["O"])

    def write(self, path: str | Path) -> None:
        """Write a CSV with a row a class, the background first; what a class does not have is empty."""
        with whole(path) as partial_path, open(partial_path, "w", newline="", encoding="utf-8") as file:
            table = csv.writer(file, lineterminator="\n")
            table.writerow(("class", *PROPERTIES, *GROUPINGS))
            for name in (BACKGROUND, *self.classes):
                values = [self.values[key].get(name, "") for key in PROPERTIES]
                table.writerow([name, *values, *(self._group_of(name, grouping) for grouping in GROUPINGS)])

    def _group_of(self, name: str, grouping: str) -> str:
        return next((group for group, members in self.groups.get(grouping, {}).items() if name in members), "")

    @classmethod
    def read(cls, path: str | Path) -> "ClassProperties":
        """Read what ``write`` wrote; a file of another form is a DataError."""
        try:
            with open(path, newline="", encoding="utf-8") as file:
                rows = list(csv.DictReader(file))
            values = {key: {row["class"]: float(row[key]) for row in rows if row[key]} for key in PROPERTIES}
            groups = {grouping: _members(rows, grouping) for grouping in GROUPINGS}
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise DataError(f"{path}: cannot be read as properties of classes, run its rule again: {error}") from error
        return cls(values, {grouping: members for grouping, members in groups.items() if members})


def _members(rows: Sequence[dict[str, str]], grouping: str) -> dict[str, tuple[str, ...]]:
    names = dict.fromkeys(row[grouping] for row in rows if row[grouping])
    # small, mid, large and low, mid, high are more telling in their order than in that of the classes
    order = [name for name in ("small", "low", "mid", "large", "high") if name in names]
    ranked = order if len(order) == len(names) else names
    return {name: tuple(row["class"] for row in rows if row[grouping] == name) for name in ranked}


def class_properties(*, manifest: Manifest, classes: Classes, kind: str, workers: int = 1) -> ClassProperties:
    """Properties of the classes from the labels and masks of a subset, and their groups.

    Void pixels count as pixels of the image, so the shares of an image's classes may add up to less than 1. The paper
    does not say so, but its own shares of background and classes add up to 94.6 %.

    Args:
        manifest: the images; every one needs a mask.
        kind: kind of the data set. VOC has the paper's groups; elsewhere ``size`` and ``frequency`` are terciles of
            ``%S`` and ``O``, and there are no semantic groups.
        workers: processes that read masks; they change the speed alone.

    Raises:
        DataError: an image without a mask.
    """
    present = manifest.multi_hot(classes) > 0  # (N, C)
    shares = np.stack(list(in_processes(partial(_shares, classes=classes), manifest.rows, workers)))  # (N, C + 1)
    labels, images = present.sum(axis=1, keepdims=True), present.sum(axis=0)
    sums = {
        "%S": 100 * (shares[:, 1:] * present).sum(axis=0),
        "%C": 100 * (present & (labels > 1)).sum(axis=0),
        "L": (present * labels).sum(axis=0),
    }
    values = {"O": dict(zip(classes.names, images.tolist(), strict=True))}
    for key, total in sums.items():
        values[key] = {name: total[i] / images[i] for i, name in enumerate(classes.names) if images[i]}
    values["%S"][BACKGROUND] = 100 * shares[:, 0].mean()
    values = {key: {name: float(value) for name, value in of_class.items()} for key, of_class in values.items()}
    return ClassProperties(values, groups_of(kind, values))


def _shares(row: Row, *, classes: Classes) -> np.ndarray:
    """(C + 1,) shares of the image's pixels that the background and the classes cover."""
    if not row.mask:
        raise DataError(f"image {row.id} has no mask, from which the size of its classes follows")
    mask = read_mask(row.mask, classes, row.own_size)
    return np.bincount(mask.ravel(), minlength=256)[: len(classes) + 1] / mask.size


def groups_of(kind: str, values: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, tuple[str, ...]]]:
    """The groups declared for this kind of data set, as far as it has their classes; else terciles of ``%S``, ``O``."""
    if kind in DECLARED_GROUPS:
        found = {
            grouping: {group: tuple(name for name in names if name in values["O"]) for group, names in groups.items()}
            for grouping, groups in DECLARED_GROUPS[kind].items()
        }
        return {
            grouping: {group: names for group, names in groups.items() if names} for grouping, groups in found.items()
        }
    sizes = {name: values["%S"][name] for name, images in values["O"].items() if images}
    return {
        "size": terciles(sizes, ("small", "mid", "large")),
        "frequency": terciles({name: values["O"][name] for name in sizes}, ("low", "mid", "high")),
    }


def terciles(values: Mapping[str, float], names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Classes by rank of their value in three even groups; of equal values, the earlier class is the lower."""
    ranked, count = sorted(values, key=values.__getitem__), len(values)
    groups = {name: ranked[count * i // 3 : count * (i + 1) // 3] for i, name in enumerate(names)}
    return {name: tuple(of for of in values if of in members) for name, members in groups.items() if members}


def summary(values: Mapping[str, float | None], properties: ClassProperties) -> dict[str, float | None]:
    """What Tables 1 and 3 say about a column of values, one a class.

    Args:
        values: {class: score or property}; None where there is none. The background counts in the overall mean alone.

    Returns:
        ``overall`` (mean), ``deviation`` (sample standard deviation over the foreground, n - 1 below), ``size small``
        and so on (mean of a group), ``correlation O`` and so on (Pearson's, x 100, over the foreground). None where
        there is nothing to take it of.
    """
    known = {name: value for name, value in values.items() if value is not None}
    foreground = {name: value for name, value in known.items() if name != BACKGROUND}
    rows = {
        "overall": _or_none(mean, known.values()),
        "deviation": _or_none(stdev, foreground.values()),
    }
    for grouping, groups in properties.groups.items():
        for group, members in groups.items():
            rows[f"{grouping} {group}"] = _or_none(mean, [known[name] for name in members if name in known])
    for key, of_class in properties.values.items():
        names = [name for name in foreground if name in of_class]
        rho = _or_none(correlation, [foreground[name] for name in names], [of_class[name] for name in names])
        rows[f"correlation {key}"] = None if rho is None else 100 * rho
    return rows


def _or_none(statistic: Callable[..., float], *values: Iterable[float]) -> float | None:
    try:
        return statistic(*(list(of_class) for of_class in values))
    except StatisticsError:  # too few values, or constant ones
        return None
