"""Scores an image: a row each, from what is left of its confusion matrices when they were added up."""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from wsss_core.base.files import whole
from wsss_core.data.classes import Classes, DataError
from wsss_core.data.manifest import Manifest

COLUMNS = ("image_id", "labels", "miou", "foreground", "true_foreground", "pixels")
OF_CLASS = "iou "  # with the name of a class: its column


class ImageCounts(NamedTuple):
    """Pixels of an image by class, of the n classes that are in its truth or found at any of T thresholds.

    The whole matrices of 80 classes at 60 thresholds would take 3 MB an image, these take 2 kB.

    Attributes:
        values: (n,) uint8, mask values, increasing.
        truth: (n,) uint32, pixels of the truth.
        found: (T, n) uint32, pixels of the prediction.
        hits: (T, n) uint32, pixels of both.
    """

    values: np.ndarray
    truth: np.ndarray
    found: np.ndarray
    hits: np.ndarray

    def iou(self, threshold: int = 0) -> np.ndarray:
        """(n,) float64: IoU at a threshold, by its index; NaN for a class that is not there at this one."""
        hits, found = self.hits[threshold].astype(float), self.found[threshold]
        union = self.truth + found - hits
        return np.divide(hits, union, out=np.full(len(hits), np.nan), where=union > 0)


def image_counts(matrices: np.ndarray) -> ImageCounts:
    """What is kept of an image's confusion matrices, (K, K) or (T, K, K)."""
    matrices = matrices.reshape(-1, *matrices.shape[-2:])
    found, truth = matrices.sum(axis=1), matrices[0].sum(axis=1)
    values = np.flatnonzero((truth > 0) | (found > 0).any(axis=0))
    hits = matrices[:, values, values]
    return ImageCounts(values.astype(np.uint8), *(kept.astype(np.uint32) for kept in (truth[values], found[:, values],
                                                                                     hits)))  # fmt: skip


def write_image_scores(
    path: Path, manifest: Manifest, classes: Classes, images: Sequence[ImageCounts], threshold: int = 0
) -> None:
    """Write a CSV with a row an image, in the order of the manifest.

    Columns: ``image_id``; ``labels``, names of the image-level labels with a ``;`` between them; ``miou``, the mean of
    the image's own IoUs; ``foreground`` and ``true_foreground``, share of the scored pixels that are no background;
    ``pixels``, those that are scored; and ``iou <class>`` of each class, the background first, empty where a class is
    neither in the truth nor in the prediction. The mean of ``miou`` is not the mIoU of the split, whose matrices are
    added up before any division.

    Args:
        threshold: index of the threshold at which the images are scored.
    """
    names = ["background", *classes.names]
    with whole(path) as partial, open(partial, "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow([*COLUMNS, *(OF_CLASS + name for name in names)])
        for row, counts in zip(manifest, images, strict=True):
            scores = dict(zip(counts.values.tolist(), counts.iou(threshold).tolist(), strict=True))
            known = [score for score in scores.values() if score == score]
            pixels = int(counts.truth.sum())
            inside = counts.values > 0
            shares = [values[inside].sum() / pixels if pixels else None
                      for values in (counts.found[threshold], counts.truth)]  # fmt: skip
            labels = ";".join(classes.names[label] for label in row.labels)
            mean = sum(known) / len(known) if known else None
            table.writerow([row.id, labels, *map(_told, [mean, *shares]), pixels,
                            *(_told(scores.get(value)) for value in range(len(names)))])  # fmt: skip


def _told(score: float | None) -> str:
    return "" if score is None or score != score else f"{score:.6f}"


class ImageScore(NamedTuple):
    """A row of such a table; ``miou`` is None of an image that is void everywhere."""

    image_id: str
    labels: tuple[str, ...]
    miou: float | None
    foreground: float | None
    true_foreground: float | None
    iou: dict[str, float]


def read_image_scores(path: Path) -> list[ImageScore]:
    """Read what ``write_image_scores`` wrote; a file of another form is a DataError."""
    try:
        with open(path, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        return [_read(row) for row in rows]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as scores by image ({error}): run its rule again") from error


def _read(row: dict[str, str]) -> ImageScore:
    miou, foreground, true_foreground = (float(row[name]) if row[name] else None for name in COLUMNS[2:5])
    iou = {
        name.removeprefix(OF_CLASS): float(value) for name, value in row.items() if name.startswith(OF_CLASS) and value
    }
    return ImageScore(row["image_id"], _split(row["labels"]), miou, foreground, true_foreground, iou)


def _split(labels: str) -> tuple[str, ...]:
    return tuple(labels.split(";")) if labels else ()


def by_score(scores: Iterable[ImageScore]) -> list[ImageScore]:
    """Those with a score, the worst first; of equal ones in the order of their ids."""
    return sorted((one for one in scores if one.miou is not None), key=lambda one: (one.miou or 0.0, one.image_id))
