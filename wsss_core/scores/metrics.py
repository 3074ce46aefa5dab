"""Scores from one integer confusion matrix; add matrices over the data set, then divide.

A confusion matrix is (classes, classes) int64, rows ground truth; ``classes`` counts the background.
"""

import math
from collections.abc import Sequence

import numpy as np


def confusion(prediction: np.ndarray, target: np.ndarray, classes: int, ignore: int = 255) -> np.ndarray:
    """Count the pixels of each (ground truth, prediction) pair.

    Args:
        prediction: integers in 0..classes-1, any shape.
        target: the same shape, integers in 0..classes-1 or ``ignore``, whose pixels are not counted.
        classes: number of classes, background included.
        ignore: value of the ground truth that marks void pixels.

    Returns:
        (classes, classes) int64, rows ground truth, columns prediction.

    Raises:
        ValueError: different shapes, or a value that is no class.
    """
    if prediction.shape != target.shape:
        raise ValueError(f"prediction {prediction.shape} and ground truth {target.shape} differ in shape")
    _check_range("prediction", prediction, classes)
    return _histogram(target, [(prediction, classes)], classes, ignore)


def iou(confusion: np.ndarray) -> np.ndarray:
    """Intersection over union of each class, TP / (P + T - TP).

    Returns:
        (classes,) float64; NaN for a class that neither the ground truth nor the prediction holds.
    """
    return _share(np.diagonal(confusion), confusion)


def mean_iou(confusion: np.ndarray) -> float:
    """Mean of ``iou`` over the classes that occur, background included.

    Raises:
        ValueError: not a single pixel was counted.
    """
    if not confusion.any():
        raise ValueError("no pixel was scored: the ground truth is void everywhere, or there is no image")
    return float(np.nanmean(iou(confusion)))


def false_rates(confusion: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """False positives and false negatives of each class as shares of the union, as P-NOC reports them.

    They are (P - TP) / (P + T - TP) and (T - TP) / (P + T - TP), so with the IoU they sum to 1; they are not
    the rates of a classifier. P-NOC plots their means over the foreground classes, ``[1:]``.

    Returns:
        two (classes,) float64, NaN where ``iou`` is.
    """
    hits = np.diagonal(confusion)
    return _share(confusion.sum(axis=0) - hits, confusion), _share(confusion.sum(axis=1) - hits, confusion)


def sweep(
    scores: np.ndarray,
    labels: Sequence[int] | np.ndarray,
    target: np.ndarray,
    thresholds: Sequence[float],
    classes: int,
    ignore: int = 255,
) -> np.ndarray:
    """Confusion matrices of one image at all background thresholds, from one pass over its pixels.

    At a threshold a pixel takes the class of its highest score (the first of equal ones) if that score is
    above the threshold, and background otherwise: an argmax with a constant plane in front. The thresholds
    are compared in the dtype of the scores, as such a plane would be. A pixel's class wins at the thresholds
    below its score and at no other, so a histogram of (ground truth, best class, number of thresholds below
    the score) holds all matrices; sums over its last axis give them, equal to the loop's to the last pixel.

    Args:
        scores: (C', H, W) floats, a map for each class that the image is labelled with.
        labels: C' mask values of these maps, 1..classes-1; none makes the image all background.
        target: (H, W) integers in 0..classes-1 or ``ignore``.
        thresholds: T increasing numbers.

    Returns:
        (T, classes, classes) int64, rows ground truth.

    Raises:
        ValueError: shapes that do not fit, thresholds out of order, values that are no class, NaN scores.
    """
    values, steps = np.asarray(labels, dtype=np.intp), np.asarray(thresholds, dtype=np.float64)
    _check_sweep(scores, values, target, steps, classes)
    if not len(values):
        scores, values = np.full((1, *target.shape), -np.inf), np.array([0])  # never above a threshold
    best, highest = _best(scores)
    below = _below(highest, steps.astype(scores.dtype))
    histogram = _histogram(target, [(best, len(values)), (below, len(steps) + 1)], classes, ignore)
    return _matrices(histogram.reshape(classes, len(values), -1), values)


def _matrices(histogram: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(T, K, K) confusion matrices from a (K, C', T + 1) histogram."""
    classes, _, steps = histogram.shape
    won = histogram[:, :, :0:-1].cumsum(axis=2)[:, :, ::-1]  # (K, C', T): pixels whose score is above threshold t
    matrices = np.zeros((steps - 1, classes, classes), dtype=np.int64)
    matrices[:, :, labels] = won.transpose(2, 0, 1)
    matrices[:, :, 0] = (histogram.sum(axis=(1, 2))[:, None] - won.sum(axis=1)).T
    return matrices


def _best(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Row of the highest score, the first of equal ones, and that score, both (H, W)."""
    highest, best = scores[0], np.zeros(scores.shape[1:], _unsigned(len(scores)))
    for row in range(1, len(scores)):  # five to ten times as fast as an argmax over the slowest axis
        np.maximum(best, np.multiply(scores[row] > highest, row, dtype=best.dtype), out=best)
        highest = np.maximum(highest, scores[row])
    if np.isnan(highest).any():
        raise ValueError("the scores hold NaN")
    return best, highest


def _below(highest: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Number of thresholds below each score; comparing with all of them has no branches, unlike a binary search."""
    below, exceeds = np.zeros(highest.shape, _unsigned(len(thresholds) + 1)), np.empty(highest.shape, bool)
    for threshold in thresholds:
        np.add(below, np.greater(highest, threshold, out=exceeds).view(np.uint8), out=below)
    return below


def _histogram(target: np.ndarray, columns: Sequence[tuple[np.ndarray, int]], classes: int, ignore: int) -> np.ndarray:
    """Pixels of each ground truth and each combination of columns, (classes, product of the sizes) int64.

    The values of the ground truth are the rows as they are, up to 255 in most data: void pixels are a row that is
    dropped and wrong values are rows that must be empty, which costs less than a look at every pixel.

    Args:
        columns: pairs of an array like ``target``, and the number of its values.
    """
    if ignore < 0:
        target, ignore = np.where(target == ignore, classes, target), classes
    rows, size = max(classes, ignore + 1), math.prod(size for _, size in columns)
    _check_range("ground truth", target, classes, rows)
    cells = target.astype(_unsigned(rows * size))  # small numbers: the passes cost what they read and write
    for values, number in columns:
        cells *= number
        cells += values.astype(cells.dtype, copy=False)
    histogram = np.bincount(cells.ravel(), minlength=rows * size).reshape(rows, size)
    histogram[ignore] = 0
    if histogram[classes:].any():
        _check_range("ground truth", target[target != ignore], classes)
    return histogram[:classes]


def _unsigned(values: int) -> np.dtype:
    """The smallest unsigned dtype that holds 0..values-1."""
    return np.min_scalar_type(values - 1)


def _share(part: np.ndarray, confusion: np.ndarray) -> np.ndarray:
    union = confusion.sum(axis=0) + confusion.sum(axis=1) - np.diagonal(confusion)
    share = np.full(len(confusion), np.nan)  # stays where a class occurs nowhere: no score, rather than 0 or 1
    return np.divide(part, union, out=share, where=union > 0)


def _check_range(what: str, values: np.ndarray, classes: int, bound: int | None = None) -> None:
    """Refuse all but integers from 0 to below ``bound``, the number of classes if not given."""
    if not np.issubdtype(values.dtype, np.integer):
        raise ValueError(f"the {what} must be integers, not {values.dtype}")
    if values.size and (values.min() < 0 or values.max() >= (bound or classes)):
        raise ValueError(f"the {what} holds {values.min()} to {values.max()}, classes are 0 to {classes - 1}")


def _check_sweep(
    scores: np.ndarray, labels: np.ndarray, target: np.ndarray, thresholds: np.ndarray, classes: int
) -> None:
    if scores.shape != (len(labels), *target.shape):
        raise ValueError(f"scores {scores.shape} do not fit {len(labels)} labels on {target.shape} pixels")
    if labels.size and (labels.min() < 1 or labels.max() >= classes or len(set(labels)) != len(labels)):
        raise ValueError(f"labels {labels.tolist()} must be different mask values in 1 to {classes - 1}")
    if thresholds.ndim != 1 or not (np.diff(thresholds) > 0).all():
        raise ValueError(f"thresholds must increase, not {thresholds.tolist()}")
