"""Confusion matrices of a split, added up over processes that share nothing."""

import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from wsss_core.base.parallel import in_processes
from wsss_core.data.classes import VOID, Classes, DataError
from wsss_core.data.manifest import Manifest, Row
from wsss_core.data.mask_folder import png_of, read_folder_mask
from wsss_core.data.masks import read_mask
from wsss_core.scores.metrics import confusion

logger = logging.getLogger(__name__)

CHUNKS_PER_WORKER = 20  # a worker may be left alone with one of them, a twentieth of its work


def total(task: Callable[[Row], np.ndarray], manifest: Manifest, workers: int) -> np.ndarray:
    """Sum of ``task(row)`` over the images of a split.

    Workers sum over some images each and send one sum, since what 80 classes and 16 thresholds make of an image
    is 0.8 MB. Integers are the same in any order, so the number of workers does not change the result.

    Args:
        task: gives integers of one shape for each row; see ``parallel.in_processes`` about what it can be.

    Raises:
        DataError: there is no image; or a ValueError of the task, with the name of the image.
    """
    if not len(manifest):
        raise DataError("there are no images to score")
    count, workers = len(manifest), max(1, workers)
    size = max(1, count // (CHUNKS_PER_WORKER * workers))
    chunks = [manifest.rows[start : start + size] for start in range(0, count, size)]
    result, done, every = np.zeros((), int), 0, max(1, count // 20)
    for chunk, part in zip(chunks, in_processes(partial(_sum, task=task), chunks, workers), strict=True):
        result, before, done = result + part, done, done + len(chunk)
        if done // every > before // every:
            logger.info("%d of %d images", done, count)
    return result


def _sum(rows: Sequence[Row], *, task: Callable[[Row], np.ndarray]) -> np.ndarray:
    return sum((_named(task, row) for row in rows), np.zeros((), int))


def _named(task: Callable[[Row], np.ndarray], row: Row) -> np.ndarray:
    try:
        return task(row)
    except ValueError as error:
        if type(error) is not ValueError:  # errors of data and stores name their file
            raise
        raise DataError(f"image {row.id}: {error}") from error


def mask_confusion(row: Row, *, folder: Path, classes: Classes) -> np.ndarray:
    """Confusion matrix of an image's mask in a folder."""
    prediction = read_folder_mask(row, folder=folder, classes=classes)
    if (prediction == VOID).any():
        raise DataError(
            f"{png_of(folder, row.id)}: void pixels in a prediction; every pixel needs a class to be scored"
        )
    return confusion(prediction, ground_truth(row, classes), len(classes) + 1)


def ground_truth(row: Row, classes: Classes) -> np.ndarray:
    """The true mask of an image, (H, W) uint8; an image without one cannot be scored."""
    if not row.mask:
        raise DataError(f"image {row.id} has no mask to be scored against: score a split that has masks")
    return read_mask(row.mask, classes, (row.height, row.width))
