"""Confusion matrices and scores, against counts made by hand and against one argmax a threshold."""

import numpy as np
import pytest

from wsss_core.scores.metrics import confusion, false_rates, iou, mean_iou, sweep


def test_confusion_counts_truth_in_rows_and_leaves_void_out():
    target = np.array([[0, 0, 1], [2, 255, 1]], dtype=np.uint8)
    prediction = np.array([[0, 1, 1], [2, 2, 0]], dtype=np.uint8)
    counts = confusion(prediction, target, classes=3)
    assert counts.dtype == np.int64
    np.testing.assert_array_equal(counts, [[1, 1, 0], [1, 1, 0], [0, 0, 1]])


def test_confusion_does_not_overflow_small_integers():
    many = np.full((300, 300), 20, dtype=np.uint8)
    assert confusion(many, many, classes=81)[20, 20] == 90_000


def by_counting(prediction, target, classes, ignore):
    counts = np.zeros((classes, classes), dtype=np.int64)
    for true, predicted in zip(target.ravel(), prediction.ravel(), strict=True):
        if true != ignore:
            counts[true, predicted] += 1
    return counts


@pytest.mark.parametrize(
    ("classes", "ignore", "dtype"),
    [(21, 255, np.uint8), (81, 255, np.int64), (256, -1, np.int32), (255, 255, np.uint8), (5, 0, np.uint8)],
)
def test_confusion_counts_any_void_value_and_dtype(classes, ignore, dtype):
    rng = np.random.default_rng(1)
    prediction, target = rng.integers(0, classes, (2, 30, 20)).astype(dtype)
    target[rng.random(target.shape) < 0.2] = ignore
    counts = confusion(prediction, target, classes, ignore)
    np.testing.assert_array_equal(counts, by_counting(prediction, target, classes, ignore))


def test_scores_by_hand():
    counts = np.array([[6, 2, 0, 0], [1, 3, 0, 0], [0, 4, 0, 0], [0, 0, 0, 0]])
    np.testing.assert_allclose(iou(counts), [6 / 9, 3 / 10, 0, np.nan])
    assert mean_iou(counts) == pytest.approx((6 / 9 + 3 / 10 + 0) / 3)
    positives, negatives = false_rates(counts)
    np.testing.assert_allclose(positives, [1 / 9, 6 / 10, 0, np.nan])
    np.testing.assert_allclose(negatives, [2 / 9, 1 / 10, 1, np.nan])
    np.testing.assert_allclose((positives + negatives + iou(counts))[:3], 1)


def test_no_scored_pixel_is_an_error_not_a_score():
    with pytest.raises(ValueError, match="no pixel was scored"):
        mean_iou(np.zeros((3, 3), dtype=np.int64))


@pytest.mark.parametrize(
    ("prediction", "target", "message"),
    [
        (np.zeros((2, 3), int), np.zeros((3, 2), int), "differ in shape"),
        (np.full((2, 2), 3), np.zeros((2, 2), int), "prediction holds"),
        (np.full((2, 2), -1), np.zeros((2, 2), int), "prediction holds"),
        (np.zeros((2, 2), int), np.full((2, 2), 3), "ground truth holds 3 to 3, classes are 0 to 2"),
        (np.zeros((1, 2), np.uint8), np.array([[7, 255]], np.uint8), "ground truth holds 7 to 7, classes are 0 to 2"),
        (np.zeros((2, 2), int), np.full((2, 2), 256), "ground truth holds"),
        (np.zeros((2, 2), int), np.full((2, 2), -1), "ground truth holds"),
        (np.zeros((2, 2)), np.zeros((2, 2), int), "must be integers"),
    ],
)
def test_a_value_or_shape_that_cannot_be_scored_is_an_error(prediction, target, message):
    with pytest.raises(ValueError, match=message):
        confusion(prediction, target, classes=3)


def one_at_a_time(scores, labels, target, thresholds, classes):
    values = np.array([0, *labels], dtype=np.int64)
    matrices = []
    for threshold in thresholds:
        plane = np.full((1, *target.shape), threshold, dtype=scores.dtype)
        prediction = values[np.concatenate([plane, scores]).argmax(axis=0)]
        matrices.append(confusion(prediction, target, classes))
    return np.stack(matrices)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("labels", [[4], [7, 2], [1, 5, 3]])
def test_sweep_equals_the_loop_over_thresholds_also_on_ties(dtype, labels):
    rng = np.random.default_rng(9)
    thresholds = np.arange(1, 17) * 0.05
    scores = rng.random((len(labels), 37, 41)).astype(dtype)
    # a third of the scores are thresholds themselves, another third two equal classes
    edges = rng.choice(thresholds, size=scores.shape).astype(dtype)
    scores[:, ::3] = edges[:, ::3]
    scores[:, 1::3] = scores[:1, 1::3]
    target = rng.choice([0, 1, 2, 3, 4, 5, 7, 255], size=(37, 41)).astype(np.uint8)

    matrices = sweep(scores, labels, target, thresholds, classes=8)

    assert matrices.dtype == np.int64
    np.testing.assert_array_equal(matrices, one_at_a_time(scores, labels, target, thresholds, 8))


@pytest.mark.parametrize("count", [1, 80, 300])
def test_sweep_equals_the_loop_for_any_number_of_thresholds(count):
    rng = np.random.default_rng(4)
    scores = rng.random((5, 23, 31), dtype=np.float32)
    thresholds = np.sort(rng.random(count))
    target = rng.choice([*range(9), 255], size=(23, 31)).astype(np.uint8)
    matrices = sweep(scores, [8, 1, 3, 2, 5], target, thresholds, classes=9)
    np.testing.assert_array_equal(matrices, one_at_a_time(scores, [8, 1, 3, 2, 5], target, thresholds, 9))


def test_a_score_at_the_threshold_is_background():
    scores = np.full((1, 1, 1), 0.3, dtype=np.float32)
    target = np.ones((1, 1), dtype=np.uint8)
    matrices = sweep(scores, [1], target, [0.29, 0.3, 0.31], classes=2)
    np.testing.assert_array_equal(matrices[:, 1], [[0, 1], [1, 0], [1, 0]])


def test_an_image_without_labels_is_all_background():
    target = np.array([[0, 2, 255]], dtype=np.uint8)
    matrices = sweep(np.zeros((0, 1, 3), np.float32), [], target, [0.1, 0.2], classes=3)
    np.testing.assert_array_equal(matrices, [[[1, 0, 0], [0, 0, 0], [1, 0, 0]]] * 2)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"thresholds": [0.2, 0.1]}, "must increase"),
        ({"thresholds": [0.2, 0.2]}, "must increase"),
        ({"labels": [0]}, "different mask values"),
        ({"labels": [3]}, "different mask values"),
        ({"labels": [1, 2]}, "do not fit"),
        ({"scores": np.full((1, 2, 2), np.nan)}, "NaN"),
    ],
)
def test_sweep_refuses_what_it_cannot_count(changed, message):
    arguments = {
        "scores": np.zeros((1, 2, 2)),
        "labels": [1],
        "target": np.zeros((2, 2), dtype=np.uint8),
        "thresholds": [0.1, 0.2],
        "classes": 3,
    }
    with pytest.raises(ValueError, match=message):
        sweep(**arguments | changed)
