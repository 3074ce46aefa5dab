"""Our own proposals: groups of superpixels, their scores and their order."""

import numpy as np
import pytest

from wsss_core.instances.store import instances_of
from wsss_core.proposals.grouping import (
    COSTS,
    _Merger,
    boundary_scores,
    find_candidates,
    find_regions,
    group_superpixels,
    intersections,
    ranked,
)
from wsss_core.proposals.overlaps import boxes, overlaps_of
from wsss_core.proposals.recall import best_overlaps
from wsss_core.recipes.settings import GroupingSettings


@pytest.fixture(scope="module")
def scene() -> tuple[np.ndarray, np.ndarray]:
    """A noisy picture with a two-coloured thing and another one, and the masks of thing, half of it, and the other."""
    truth = np.zeros((3, 60, 80), bool)
    truth[0, 10:40, 10:34], truth[1, 10:40, 10:22], truth[2, 30:52, 50:70] = True, True, True
    colours = np.full((60, 80, 3), 90)
    colours[truth[0]], colours[truth[1]], colours[truth[2]] = (200, 60, 60), (170, 90, 60), (60, 60, 200)
    return (colours + np.random.default_rng(0).integers(-8, 9, colours.shape)).astype(np.uint8), truth


SETTINGS = GroupingSettings(superpixels=60, smallest=0.01, limit=30)


def test_things_and_their_parts_are_among_the_first(scene):
    image, truth = scene
    found = group_superpixels(image, SETTINGS)
    best = best_overlaps(found, instances_of(truth, [0, 0, 0]), [5, 30])
    assert (best[0, [0, 2]] > 0.85).all()
    assert (best[1] > 0.85).all()
    assert (found.labels == -1).all()


def test_grouping_is_the_same_every_time(scene):
    one, other = (group_superpixels(scene[0], SETTINGS) for _ in range(2))
    assert one.masks == other.masks
    assert np.array_equal(one.scores, other.scores)


def test_areas_number_and_likeness_stay_within_the_settings(scene):
    settings = GroupingSettings(superpixels=60, smallest=0.05, largest=0.4, duplicates=0.7, limit=9)
    found = group_superpixels(scene[0], settings)
    share = found.areas / (60 * 80)
    assert len(found.masks) <= 9
    assert share.min() >= 0.05
    assert share.max() <= 0.4
    iou, _ = overlaps_of(found.masks)
    assert (iou[~np.eye(len(iou), dtype=bool)] < 0.7).all()


def test_no_candidate_of_a_size_means_no_proposal(scene):
    found = group_superpixels(scene[0], GroupingSettings(superpixels=60, smallest=0.99, largest=1.0))
    assert len(found.masks) <= 1  # the picture itself at most
    assert group_superpixels(scene[0], GroupingSettings(smallest=0.9, largest=0.9)).masks == []


def test_a_flat_picture_is_no_error():
    found = group_superpixels(np.full((30, 40, 3), 100, np.uint8), GroupingSettings(superpixels=12, limit=5))
    assert 0 < len(found.masks) <= 5


def test_a_tiny_picture_is_no_error():
    assert len(group_superpixels(np.zeros((1, 1, 3), np.uint8), GroupingSettings(largest=1.0)).masks) == 1


def test_borders_of_superpixels_are_those_of_pixels(scene):
    regions = find_regions(scene[0], 40)
    labels, counted = regions.labels, {}
    for one, other in ((labels[:, :-1], labels[:, 1:]), (labels[:-1], labels[1:])):
        for a, b in zip(one.ravel().tolist(), other.ravel().tolist(), strict=True):
            if a != b:
                counted[min(a, b), max(a, b)] = counted.get((min(a, b), max(a, b)), 0) + 1
    assert dict(zip(map(tuple, regions.pairs.tolist()), regions.length.tolist(), strict=True)) == counted
    assert (regions.gradient >= 0).all()
    assert (regions.gradient <= regions.length).all()
    assert regions.area.tolist() == [int((labels == n).sum()) for n in range(len(regions.area))]
    assert np.array_equal(regions.box, boxes(np.stack([labels == n for n in range(len(regions.area))])))
    assert regions.colour.sum(1).tolist() == (3 * regions.area).tolist()


@pytest.mark.parametrize("cost", range(len(COSTS)))
def test_a_merge_is_a_tree_of_connected_regions(scene, cost):
    regions = find_regions(scene[0], 40)
    number = len(regions.area)
    members = _Merger(regions).run(COSTS[cost])
    assert members.shape == (2 * number - 1, number)
    assert np.array_equal(members[:number], np.eye(number, dtype=bool))
    assert members[-1].all()
    sizes = members.sum(1)
    for row in members[number:]:  # each is two earlier ones without a common part
        inside = members[(members & ~row).sum(1) == 0]
        below = inside[inside.sum(1) < row.sum()]
        largest = below[below.sum(1).argmax()]
        assert ((below == (row & ~largest)).all(1)).any()
    assert sizes[number:].min() == 2


def test_intersections_are_those_of_pixels(scene):
    regions = find_regions(scene[0], 40)
    candidates = find_candidates(regions, SETTINGS)
    dense = candidates[:, regions.labels].reshape(len(candidates), -1).astype(int)
    assert np.array_equal(intersections(candidates, regions.area), dense @ dense.T)


def test_a_strong_border_scores_above_one_through_plain_ground(scene):
    regions = find_regions(scene[0], 60)
    thing = np.array([(scene[1][2] & (regions.labels == n)).sum() > 0.5 * a for n, a in enumerate(regions.area)])
    left, top, right, bottom = regions.box.T
    ground = (left >= 36) & (bottom <= 30) & (top > 0) & (right < 80)
    thing_score, ground_score = boundary_scores(regions, np.stack([thing, ground]))
    assert thing_score > ground_score + 0.3


def test_the_order_mixes_score_and_difference(scene):
    regions = find_regions(scene[0], 40)
    number = len(regions.area)
    candidates = np.zeros((3, number), bool)
    candidates[0, :10], candidates[1, :8], candidates[2, 20:30] = True, True, True
    order, values = ranked(regions, candidates, np.array([1.0, 0.9, 0.5]), GroupingSettings(diversity=0.0))
    assert (order.tolist(), values.tolist()) == ([0, 1, 2], pytest.approx([1, 0.8, 0]))
    order, _ = ranked(regions, candidates, np.array([1.0, 0.9, 0.5]), GroupingSettings(diversity=0.6))
    assert order.tolist() == [0, 2, 1]
