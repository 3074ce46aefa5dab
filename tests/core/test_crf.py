"""The dense CRF, against the library called by its own helpers, and on pictures whose answer is plain."""

import numpy as np
import pytest
from pydensecrf.densecrf import DenseCRF2D
from pydensecrf.utils import unary_from_labels, unary_from_softmax

from wsss_core.maps.crf import LabelCRF, crf_labels, crf_probabilities


@pytest.fixture
def image():
    return np.random.default_rng(3).integers(0, 256, (14, 19, 3), dtype=np.uint8)


def by_the_library(image, unary, gaussian, bilateral, iterations):
    height, width, _ = image.shape
    crf = DenseCRF2D(width, height, len(unary))
    crf.setUnaryEnergy(np.ascontiguousarray(unary, dtype=np.float32))
    crf.addPairwiseGaussian(**gaussian)
    crf.addPairwiseBilateral(rgbim=image, **bilateral)
    return np.array(crf.inference(iterations)).reshape(-1, height, width)


def test_labels_equal_the_library_with_the_published_settings(image):
    labels = np.random.default_rng(4).integers(0, 3, (14, 19), dtype=np.uint8)
    unary = unary_from_labels(labels, 3, gt_prob=0.7, zero_unsure=False)
    expected = by_the_library(
        image, unary, {"sxy": 3, "compat": 3}, {"sxy": 50, "srgb": 5, "compat": 10}, iterations=10
    )
    refined = crf_labels(image, labels, 3)
    assert refined.dtype == np.uint8
    np.testing.assert_array_equal(refined, expected.argmax(axis=0))


def test_probabilities_equal_the_library_with_the_published_settings(image):
    probabilities = np.random.default_rng(5).dirichlet(np.ones(4), size=(14, 19)).transpose(2, 0, 1)
    expected = by_the_library(
        image,
        unary_from_softmax(probabilities),
        {"sxy": 1, "compat": 3},
        {"sxy": 67, "srgb": 3, "compat": 4},
        iterations=10,
    )
    refined = crf_probabilities(image, probabilities)
    assert refined.dtype == np.float32
    np.testing.assert_allclose(refined, expected, atol=1e-5)


@pytest.mark.parametrize("iterations", [0, 10])
def test_several_maps_of_an_image_are_refined_as_one_by_one(image, iterations):
    maps = np.random.default_rng(6).integers(0, 3, (4, 14, 19), dtype=np.uint8)
    together = list(map(LabelCRF(image, 3, iterations, confidence=0.6), maps))
    assert len(together) == 4
    for refined, labels in zip(together, maps, strict=True):
        assert refined.dtype == np.uint8
        np.testing.assert_array_equal(refined, crf_labels(image, labels, 3, iterations, confidence=0.6))


def test_a_map_of_another_shape_is_an_error(image):
    with pytest.raises(ValueError, match=r"labels \(19, 14\) do not fit"):
        LabelCRF(image, 2)(np.zeros((19, 14), int))


def test_labels_follow_the_colours():
    image = np.zeros((20, 20, 3), dtype=np.uint8)
    image[:, 10:] = 200
    labels = np.zeros((20, 20), dtype=np.int64)
    labels[:, 12:] = 1
    labels[5, 5] = 1
    expected = np.repeat(np.arange(20)[None] >= 10, 20, axis=0)
    np.testing.assert_array_equal(crf_labels(image, labels, 2), expected)


def test_without_iterations_the_maps_stay(image):
    labels = np.random.default_rng(4).integers(0, 5, (14, 19), dtype=np.int32)
    np.testing.assert_array_equal(crf_labels(image, labels, 5, iterations=0, confidence=0.3), labels)
    probabilities = np.random.default_rng(5).dirichlet(np.ones(4), size=(14, 19)).transpose(2, 0, 1)
    np.testing.assert_allclose(crf_probabilities(image, probabilities, iterations=0), probabilities, atol=1e-6)


def test_a_probability_of_zero_stays_finite(image):
    probabilities = np.zeros((2, 14, 19), dtype=np.float32)
    probabilities[0] = 1
    assert np.isfinite(crf_probabilities(image, probabilities)).all()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"n_labels": 1}, "at least 2 labels"),
        ({"labels": np.full((14, 19), 2)}, "do not fit in 0 to 1"),
        ({"labels": np.zeros((14, 19))}, "integers"),
        ({"labels": np.zeros((19, 14), int)}, "do not fit an image"),
        ({"confidence": 1.0}, "between 1/2 and 1"),
    ],
)
def test_labels_that_do_not_fit_are_an_error(image, changed, message):
    arguments = {"image": image, "labels": np.zeros((14, 19), int), "n_labels": 2}
    with pytest.raises(ValueError, match=message):
        crf_labels(**arguments | changed)


def test_a_picture_as_pillow_gives_it_is_taken():
    image = np.zeros((6, 8, 3), np.uint8)
    image.flags.writeable = False
    labels = np.zeros((6, 8), np.int64)
    assert (crf_labels(image, labels, 2) == 0).all()
