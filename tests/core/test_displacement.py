"""From displacements to instances, against loops over pixels and values worked out by hand."""

import math

import numpy as np
import pytest
from scipy import ndimage

from wsss_core.instances.displacement import detect, find_centroids, instance_map, split_by_instance


def loop_centroids(displacement: np.ndarray, iterations: int) -> np.ndarray:
    """One pixel after the other, one step after the other."""
    _, height, width = displacement.shape
    ends = np.zeros((2, height, width), np.int64)
    for start in np.ndindex(height, width):
        y, x = map(float, start)
        for _ in range(iterations):
            top, left = math.floor(y), math.floor(x)
            bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
            v, u = y - top, x - left
            move = (
                displacement[:, top, left] * (1 - v) * (1 - u)
                + displacement[:, bottom, left] * v * (1 - u)
                + displacement[:, top, right] * (1 - v) * u
                + displacement[:, bottom, right] * v * u
            )
            y, x = min(max(y + move[0], 0), height - 1), min(max(x + move[1], 0), width - 1)
            y, x = float(np.float32(y)), float(np.float32(x))
        ends[:, *start] = round(y), round(x)
    return ends


def field(kind: str, height: int, width: int) -> np.ndarray:
    rng = np.random.default_rng(3)
    smooth = np.stack([ndimage.gaussian_filter(rng.normal(size=(height, width)), 2) for _ in range(2)])
    return (10 * smooth if kind == "smooth" else rng.normal(0, 3, (2, height, width))).astype(np.float32)


@pytest.mark.parametrize("kind", ["smooth", "noise"])
@pytest.mark.parametrize("shape", [(9, 13), (1, 6), (7, 1)])
@pytest.mark.parametrize("iterations", [1, 10, 60])
def test_centroids_equal_a_loop(kind, shape, iterations):
    displacement = field(kind, *shape)
    before = displacement.copy()
    centroids = find_centroids(displacement, iterations)
    assert centroids.dtype == np.int64
    np.testing.assert_array_equal(centroids, loop_centroids(displacement.astype(np.float64), iterations))
    np.testing.assert_array_equal(displacement, before)


def test_no_steps_and_no_displacements_leave_pixels_where_they_are():
    expected = np.indices((4, 5))
    np.testing.assert_array_equal(find_centroids(field("noise", 4, 5), 0), expected)
    np.testing.assert_array_equal(find_centroids(np.zeros((2, 4, 5), np.float32)), expected)


def test_both_coordinates_move_from_the_same_place():
    # from (0, 0): down by 1 where the pixel is, and to the right by what is there, not by what is one row below
    displacement = np.zeros((2, 3, 4), np.float32)
    displacement[0, 0, 0] = 1
    displacement[1, 0, 0] = 2
    displacement[1, 1, 0] = 3
    assert find_centroids(displacement, 1)[:, 0, 0].tolist() == [1, 2]


def test_displacements_that_are_not_finite_are_an_error():
    displacement = np.zeros((2, 3, 4), np.float32)
    displacement[1, 2, 2] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        find_centroids(displacement)


@pytest.fixture
def discs():
    """Two discs that touch, 1 and 2 in a map of 0, and displacements to the middle of each; outside nothing moves."""
    rows, columns = np.indices((24, 40))
    number = np.zeros((24, 40), np.int64)
    displacement = np.zeros((2, 24, 40), np.float32)
    for index, (y, x) in enumerate(((12, 11), (12, 28)), start=1):
        inside = (rows - y) ** 2 + (columns - x) ** 2 <= 8.5**2
        number[inside] = index
        displacement[:, inside] = np.stack([y - rows, x - columns])[:, inside]
    return number, displacement


def test_two_discs_with_inward_displacements_are_two_instances(discs):
    number, displacement = discs
    instances = instance_map(find_centroids(displacement), displacement)
    assert np.unique(instances).tolist() == [0, 1, 2]
    np.testing.assert_array_equal(instances, number)


def test_pixels_without_a_middle_are_one_more_instance_or_none():
    displacement = np.zeros((2, 1, 6), np.float32)
    displacement[0] = [0, 0, 9, 0, 2.4, 2.5]  # 2.5 is not below the threshold
    centroids = np.array([[[0, 0, 0, 0, 0, 0]], [[0, 1, 2, 3, 4, 5]]])
    assert instance_map(centroids, displacement).tolist() == [[1, 1, 0, 2, 2, 0]]
    centroids[1, 0] = [0, 0, 0, 4, 4, 4]  # no centroid without a middle: numbers start at 0 all the same
    assert instance_map(centroids, displacement).tolist() == [[0, 0, 0, 1, 1, 1]]
    assert instance_map(centroids, displacement, threshold=9.5).tolist() == [[0] * 6]
    displacement[1] = 2.5  # the length counts, not one coordinate
    assert instance_map(centroids, displacement).tolist() == [[0] * 6]


def test_middles_touch_along_sides_only():
    displacement = np.array([[[0, 9], [9, 0]], [[0, 0], [0, 0]]], np.float32)
    instances = instance_map(np.indices((2, 2)), displacement)
    assert instances.tolist() == [[1, 0], [0, 2]]


def test_maps_of_a_class_stay_together():
    cams = np.array([[[1.0, 2.0, 3.0]], [[4.0, 5.0, 0.0]]], np.float32)
    split = split_by_instance(cams, np.array([[1, 0, 1]]))
    assert split.dtype == np.float32
    assert split.tolist() == [[[0, 2, 0]], [[1, 0, 3]], [[0, 5, 0]], [[4, 0, 0]]]
    assert split_by_instance(cams[:0], np.array([[1, 0, 1]])).shape == (0, 1, 3)


# --- detections ----------------------------------------------------------------------------------------------------


def test_detections_of_a_toy():
    # two classes, 15 and 3, two instances; a picture of 2 x 6; the largest value is 2
    maps = np.zeros((4, 2, 6), np.float32)
    maps[0, :, :2] = [[2.0, 1.0], [0.6, 0.2]]  # the last is below the background
    maps[1, 0, 5] = 0.8  # one pixel
    maps[2, 0] = [1.9, 0.9, 0.5, 0.52, 0, 0]  # loses, background (0.5 is on it), wins
    maps[3, 1, 4:] = [1.0, 1.4]
    maps[3, 0, 5] = 0.8  # as much as map 1: the first of them
    scores, labels, masks = detect(maps, [15, 3], 2, background=0.25, smallest=0.1)
    assert scores.dtype == np.float32
    assert labels.tolist() == [15, 15, 3, 3]
    assert scores.tolist() == pytest.approx([1.0, 0.0, 0.0, 0.7])  # one pixel of twelve is too small
    assert masks.dtype == bool
    assert masks.astype(int).tolist() == [
        [[1, 1, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0]],
        [[0, 0, 0, 0, 0, 1], [0, 0, 0, 0, 0, 0]],
        [[0, 0, 0, 1, 0, 0], [0, 0, 0, 0, 0, 0]],
        [[0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 1, 1]],
    ]
    again = detect(maps / 2, np.array([15, 3]), np.array([[0, 1]]), smallest=0.1)  # n by the map of instances
    assert all(np.array_equal(a, b) for a, b in zip((scores, labels, masks), again, strict=True))


def test_pieces_of_a_map_are_objects_of_their_own():
    maps = np.zeros((1, 3, 5), np.float32)
    maps[0] = [[1, 0, 0, 0, 0.9], [0, 0.8, 0, 0.7, 0], [0, 0, 0, 0.6, 0]]  # corners do not touch
    scores, labels, masks = detect(maps, [4], 1)
    assert scores.tolist() == pytest.approx([1, 0.9, 0.8, 0.7])
    assert labels.tolist() == [4] * 4
    assert masks.sum((1, 2)).tolist() == [1, 1, 1, 2]


def test_an_object_of_just_the_smallest_share_has_a_score():
    maps = np.zeros((1, 10, 10), np.float32)
    maps[0, 0, 0] = maps[0, 5, 5] = maps[0, 5, 6] = 1
    assert detect(maps, [0], 1, smallest=0.01)[0].tolist() == [1, 1]
    assert detect(maps, [0], 1, smallest=0.011)[0].tolist() == [0, 1]


@pytest.mark.parametrize("maps", [np.zeros((2, 4, 5)), np.zeros((0, 4, 5))])
def test_nothing_is_no_object(maps):
    scores, labels, masks = detect(maps, [7] * len(maps), 1)
    assert (scores.shape, labels.shape, masks.shape) == ((0,), (0,), (0, 4, 5))


def test_maps_that_do_not_fit_are_an_error():
    with pytest.raises(ValueError, match="3 maps are not those of 2 classes and 2 instances"):
        detect(np.zeros((3, 4, 5)), [1, 2], 2)
