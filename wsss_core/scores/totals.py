"""Confusion matrices of a split, added up over processes that share nothing."""

import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from wsss_core.base.parallel import in_processes
from wsss_core.data.classes import VOID, Classes, DataError
from wsss_core.data.manifest import Manifest, Row
from wsss_core.data.mask_folder import png_of
from wsss_core.data.masks import read_mask
from wsss_core.scores.images import ImageCounts, image_counts
from wsss_core.scores.metrics import confusion

logger = logging.getLogger(__name__)

ALL = "all"
CHUNKS_PER_WORKER = 20  # a worker may be left alone with one of them, a twentieth of its work


def total(task: Callable[[Row], np.ndarray], manifest: Manifest, workers: int) -> np.ndarray:
    """Sum of ``task(row)`` over the images of a split, see ``totals``."""
    return totals(task, manifest, workers, by=together)[ALL]


def one_or_more_classes(row: Row) -> str:
    """``single`` for an image with one class, ``multi`` for one with several, ``none`` for the rest."""
    return ("none", "single", "multi")[min(len(row.labels), 2)]


def together(row: Row) -> str:
    """``ALL`` for every image."""
    return ALL


def totals(
    task: Callable[[Row], np.ndarray], manifest: Manifest, workers: int, *, by: Callable[[Row], str]
) -> dict[str, np.ndarray]:
    """Sums of ``task(row)`` over each group of a split's images, by the group's name.

    Workers sum over some images each and send one sum, since what 80 classes and 16 thresholds make of an image
    is 0.8 MB. Integers are the same in any order, so the number of workers does not change the result.

    Args:
        task: gives integers of one shape for each row; see ``parallel.in_processes`` about what it can be.
        by: the name of an image's group.

    Raises:
        DataError: there is no image; or a ValueError of the task, with the name of the image.
    """
    return totals_and_images(task, manifest, workers, by=by, images=False)[0]


def totals_and_images(
    task: Callable[[Row], np.ndarray],
    manifest: Manifest,
    workers: int,
    *,
    by: Callable[[Row], str],
    images: bool = True,
) -> tuple[dict[str, np.ndarray], list[ImageCounts]]:
    """As ``totals``, and what is kept of each image's own matrices, in the order of the manifest.

    Args:
        task: as for ``totals``; (K, K) or (T, K, K) where images are kept.
        images: keep them; without, there are none.
    """
    if not len(manifest):
        raise DataError("there are no images to score")
    count, workers = len(manifest), max(1, workers)
    size = max(1, count // (CHUNKS_PER_WORKER * workers))
    chunks = [manifest.rows[start : start + size] for start in range(0, count, size)]
    result: dict[str, np.ndarray] = {}
    kept: list[ImageCounts] = []
    done, every = 0, max(1, count // 20)
    work = partial(_sums, task=task, by=by, images=images)
    for chunk, (part, own_images) in zip(chunks, in_processes(work, chunks, workers), strict=True):
        for group, own in part.items():
            result[group] = result.get(group, 0) + own
        kept += own_images
        before, done = done, done + len(chunk)
        if done // every > before // every:
            logger.info("%d of %d images", done, count)
    return result, kept


def _sums(
    rows: Sequence[Row], *, task: Callable[[Row], np.ndarray], by: Callable[[Row], str], images: bool
) -> tuple[dict[str, np.ndarray], list[ImageCounts]]:
    sums: dict[str, np.ndarray] = {}
    kept = []
    for row in rows:
        own = _named(task, row)
        sums[by(row)] = sums.get(by(row), 0) + own
        if images:
            kept.append(image_counts(own))
    return sums, kept


def _named(task: Callable[[Row], np.ndarray], row: Row) -> np.ndarray:
    try:
        return task(row)
    except ValueError as error:
        if type(error) is not ValueError:  # errors of data and stores name their file
            raise
        raise DataError(f"image {row.id}: {error}") from error


def mask_confusion(row: Row, *, folder: Path, classes: Classes) -> np.ndarray:
    """Confusion matrix of an image's mask in a folder."""
    prediction = read_mask(png_of(folder, row.id), classes, row.own_size)
    if (prediction == VOID).any():
        raise DataError(
            f"{png_of(folder, row.id)}: void pixels in a prediction; every pixel needs a class to be scored"
        )
    return confusion(prediction, ground_truth(row, classes), len(classes) + 1)


def ground_truth(row: Row, classes: Classes) -> np.ndarray:
    """The true mask of an image, (H, W) uint8 at the photo's own size; an image without one cannot be scored."""
    if not row.mask:
        raise DataError(f"image {row.id} has no mask to be scored against: score a split that has masks")
    return read_mask(row.mask, classes, row.own_size)
