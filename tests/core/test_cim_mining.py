"""Mining of whole instances: the golden example, the miner's rules one by one, sampling, assignment, losses."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from wsss_core.cim.losses import cluster_loss, image_loss, refinement_losses
from wsss_core.cim.mining import Mined, Targets, assign, mine, mine_mist, sampled
from wsss_core.proposals.overlaps import overlaps

CLASSES = 20
LABELS = torch.tensor([1, 15])  # columns
RECTANGLES = [
    (0, 6, 0, 6), (0, 4, 0, 4), (1, 6, 1, 6), (6, 12, 6, 12), (7, 11, 7, 11),
    (0, 12, 0, 12), (0, 6, 6, 12), (4, 8, 4, 8), (0, 3, 8, 12), (6, 12, 0, 3),
]  # fmt: skip
# of branches 1 to 3: pseudo truth, column of each proposal, whether it is whole, losses before their factors
GOLDEN = [
    ([0, 2, 6, 7, 9], [1, 1, 15, 0, 0, 1, 15, 15, 15, 1], [1, 0, 1, 0, 0, 0, 1, 1, 0, 1],
     (0.074253, 0.002439, 0.089243)),
    ([0, 1, 4, 6, 9], [15, 15, 15, 1, 1, 0, 15, 0, 0, 1], [1, 1, 1, 0, 1, 0, 1, 0, 0, 1],
     (0.158875, 0.008167, 0.108199)),
    ([0, 3, 8], [15, 0, 15, 1, 0, 0, 0, 0, 1, -1], [1, 0, 0, 1, 0, 0, 0, 0, 1, 0],
     (0.363584, 0.002528, 0.139015)),
]  # fmt: skip


def rectangles(side: int, *corners: tuple[int, int, int, int]) -> np.ndarray:
    """Masks of rows from the first to before the second and columns from the third to before the fourth."""
    masks = np.zeros((len(corners), side, side), bool)
    for mask, (top, bottom, left, right) in zip(masks, corners, strict=True):
        mask[top:bottom, left:right] = True
    return masks


def of(masks: np.ndarray) -> tuple[Tensor, Tensor]:
    iou, containment = overlaps(masks)
    return torch.from_numpy(iou), torch.from_numpy(containment)


def branch(k: int) -> tuple[Tensor, Tensor]:
    """Scores of the golden example's branch k, 0 being the anti-noise branch."""
    n, c = torch.arange(10.0, dtype=torch.float64)[:, None], torch.arange(CLASSES + 1.0, dtype=torch.float64)
    classification = (2 * torch.sin(1 + 1.3 * n + 0.7 * c + k)).softmax(1)
    logits = 2 * torch.cos(0.5 + 0.9 * n + 1.1 * c + k)
    return classification, logits.sigmoid() if k else logits.softmax(0)


def hot(columns: Tensor) -> Tensor:
    labels = torch.zeros(CLASSES + 1, dtype=torch.float64)
    labels[0] = labels[columns] = 1
    return labels


@pytest.mark.parametrize("k", [1, 2, 3])
def test_the_golden_example_to_six_digits(k):
    index, classes, whole, losses = GOLDEN[k - 1]
    iou, containment = of(rectangles(12, *RECTANGLES))
    foreground = round(0.25 + 0.1 * (k - 1), 6)
    mined = mine(*branch(k - 1), iou, containment, LABELS, 0.3, foreground)
    assert mined.places.tolist() == index
    targets = assign(mined, iou, foreground, round(0.5 + 0.1 * (k - 1), 6))
    assert targets.classes.tolist() == classes
    assert targets.whole.int().tolist() == whole
    found = refinement_losses(*branch(k), targets, hot(LABELS), factor=(3, 1, 1)[k - 1])
    assert [found[name].item() for name in ("class", "integrity", "bag")] == pytest.approx(losses, abs=5e-7)


def test_the_golden_weights_of_branch_1():
    mined = mine(*branch(0), *of(rectangles(12, *RECTANGLES)), LABELS, 0.3, 0.25)
    assert mined.weights.tolist() == pytest.approx([0.006924, 0.048025, 0.000310, 0.003774, 0.000686], abs=5e-7)


def test_the_golden_losses_of_the_anti_noise_branch():
    classification, integrity = branch(0)
    assert image_loss(classification, integrity, hot(LABELS)).item() == pytest.approx(0.433926, abs=5e-7)
    cluster = torch.tensor([1, -1, 1, 2, -1, 0, 0, -1, 0, 0])
    assert cluster_loss(classification, cluster, LABELS).item() == pytest.approx(2.481927, abs=5e-7)
    assert cluster_loss(classification, cluster, LABELS, form="ce").item() == pytest.approx(40.130990, abs=5e-7)


def test_the_dense_form_says_the_same_as_the_short_one():
    iou, containment = of(rectangles(12, *RECTANGLES))
    short, dense = (mine(*branch(0), iou, containment, LABELS, 0.3, 0.25, dense=dense) for dense in (False, True))
    there = dense.classes > 0
    assert all(torch.equal(a, b[there]) for a, b in zip(short, dense, strict=True))
    targets = [assign(found, iou, 0.25, 0.5) for found in (short, dense)]
    assert all(torch.equal(a, b) for a, b in zip(*targets, strict=True))


def test_labels_may_be_columns_or_zeros_and_ones():
    given = *branch(0), *of(rectangles(12, *RECTANGLES))
    for labels in (LABELS, LABELS.tolist(), hot(LABELS)):
        assert mine(*given, labels, 0.3, 0.25).places.tolist() == GOLDEN[0][0]
        assert mine_mist(*given[:3], labels, 0.3, 0.25).classes.unique().tolist() == [1, 15]


def the_slow_way(y, t, iou, containment, labels, seeds, nms):
    """The strategy as one writes it down, seed by seed."""
    count = len(y)
    small = (containment > 0.85).sum(1) < 0.9 * count
    found = {}
    for c in labels.tolist():
        kept = []
        for i in y[:, c].argsort(descending=True, stable=True)[: math.ceil(seeds * count)].tolist():
            if all(iou[i, j] < nms for j in kept):
                kept.append(i)
        for seed in kept:
            over = [i for i in range(count) if containment[i, seed] > 0.85 and small[i]]
            if not over:
                continue
            best = max(over, key=lambda i: (t[i, c], -i))
            weight = (y[best, c] * t[best, c]).item()
            if best not in found or weight > found[best][1]:
                found[best] = c, weight
    return [(i, *found[i]) for i in sorted(found)]


@pytest.mark.parametrize("seed", range(8))
def test_random_pictures_against_the_slow_way(seed):
    rng = np.random.default_rng(seed)
    corners = rng.integers(0, 24, (40, 2, 2))
    low, high = corners.min(1), corners.max(1) + 1 + rng.integers(0, 8, (40, 2))
    masks = rectangles(32, *zip(low[:, 0], high[:, 0], low[:, 1], high[:, 1], strict=True))
    iou, containment = of(masks)
    y = torch.from_numpy(rng.normal(size=(40, 6))).mul(2).softmax(1)
    t = torch.from_numpy(rng.normal(size=(40, 6))).sigmoid()
    labels = torch.tensor([2, 5, 3])
    mined = mine(y, t, iou, containment, labels, 0.2, 0.4)
    expected = the_slow_way(y, t, iou, containment, labels, 0.2, 0.4)
    assert list(zip(mined.places.tolist(), mined.classes.tolist(), strict=True)) == [(i, c) for i, c, _ in expected]
    assert mined.weights.tolist() == pytest.approx([weight for *_, weight in expected])


# --- the miner's rules --------------------------------------------------------------------------------------------


PARTS = rectangles(20, (2, 8, 2, 8), (8, 14, 2, 8), (2, 14, 2, 8), (0, 20, 0, 20), (15, 19, 12, 18))
#                  two parts, the whole of them, the whole picture, something else


def scores(columns: dict[int, list[float]]) -> Tensor:
    found = torch.full((5, 4), 0.01, dtype=torch.float64)
    for column, values in columns.items():
        found[:, column] = torch.tensor(values)
    return found


def test_of_part_whole_and_whole_picture_the_miner_returns_the_whole():
    classification = scores({2: [0.9, 0.8, 0.5, 0.4, 0.1]})  # parts look most like the class
    integrity = scores({2: [0.2, 0.2, 0.7, 0.9, 0.1]})  # and the picture most like something whole
    mined = mine(classification, integrity, *of(PARTS), torch.tensor([2]), 0.4, 0.25)
    # the whole picture contains all five
    assert mined.places.tolist() == [2]
    assert mined.classes.tolist() == [2]
    assert mined.weights.tolist() == pytest.approx([0.5 * 0.7])


def test_a_picture_sized_proposal_may_be_mined_where_it_contains_few():
    classification, integrity = scores({2: [0.9, 0.8, 0.5, 0.4, 0.1]}), scores({2: [0.2, 0.2, 0.7, 0.9, 0.1]})
    mined = mine(classification, integrity, *of(PARTS), torch.tensor([2]), 0.4, 0.25, largest=1.1)
    assert mined.places.tolist() == [3]


def test_a_seed_that_only_the_picture_contains_is_dropped():
    classification = scores({1: [0.1, 0.1, 0.1, 0.9, 0.1]})
    mined = mine(classification, scores({}), *of(PARTS), torch.tensor([1]), 0.2, 0.25)
    assert [len(part) for part in mined] == [0, 0, 0]


def test_containment_is_strict():
    masks = rectangles(40, (0, 20, 0, 1), (0, 17, 0, 1), (0, 40, 5, 6))  # 17 of 20 pixels are a share of 0.85
    mined = mine(torch.tensor([[0, 1.0], [0, 0], [0, 0]]), torch.tensor([[0, 0.1], [0, 0.9], [0, 0.5]]), *of(masks),
                 torch.tensor([1]), 0.3, 0.5)  # fmt: skip
    assert mined.places.tolist() == [0]


def test_a_proposal_of_two_classes_keeps_the_one_of_its_larger_weight():
    classification = scores({1: [0.1, 0.1, 0.1, 0.1, 0.5], 3: [0.1, 0.1, 0.1, 0.1, 0.6]})
    mined = mine(classification, scores({1: [0.5] * 5, 3: [0.5] * 5}), *of(PARTS), torch.tensor([1, 3]), 0.2, 0.25)
    assert (mined.places.tolist(), mined.classes.tolist()) == ([4], [3])
    assert mined.weights.tolist() == pytest.approx([0.3])


def test_seeds_give_way_from_an_equal_overlap_on():
    iou = torch.tensor([[1, 0.25, 0.25], [0.25, 1, 0.2], [0.25, 0.2, 1]])
    y = torch.tensor([[0, 0.9], [0, 0.8], [0, 0.7]])
    assert mine_mist(y, None, iou, torch.tensor([1]), 1.0, 0.25).places.tolist() == [0]
    # the second gave way to the first, and so does not stand in the third's way
    iou[0, 2] = iou[2, 0] = 0.1
    iou[1, 2] = iou[2, 1] = 0.9
    assert mine_mist(y, None, iou, torch.tensor([1]), 1.0, 0.25).places.tolist() == [0, 2]


def test_mist_ranks_by_the_product_and_keeps_its_seeds():
    y, t = torch.tensor([[0, 0.9], [0, 0.8]]), torch.tensor([[0, 0.1], [0, 0.9]])
    iou = torch.tensor([[1, 0.6], [0.6, 1]])
    mined = mine_mist(y, t, iou, torch.tensor([1]), 1.0, 0.5)
    assert mined.places.tolist() == [1]
    assert mined.weights.tolist() == pytest.approx([0.72])
    assert mine_mist(y, None, iou, torch.tensor([1]), 1.0, 0.5).weights.tolist() == pytest.approx([0.9])


def test_nothing_of_mining_has_a_gradient():
    y, t = (part.requires_grad_() for part in branch(0))
    mined = mine(y, t, *of(rectangles(12, *RECTANGLES)), LABELS, 0.3, 0.25)
    assert not mined.weights.requires_grad


# --- sampling -----------------------------------------------------------------------------------------------------


def mined(classes: list[int], weights: list[float]) -> Mined:
    return Mined(torch.arange(len(classes)), torch.tensor(classes), torch.tensor(weights, dtype=torch.float64))


def test_draws_are_those_of_numpy_from_the_same_uniform_numbers():
    weights = [0.2, 0.05, 0.4, 0.1, 0.05, 0.2]
    before = mined([4, 7, 4, 4, 7, 4], weights)
    for seed in range(20):
        uniform = np.random.RandomState(seed).random_sample((2, 6))
        kept = set()
        for row, (places, share) in enumerate([([0, 2, 3, 5], [0.2, 0.4, 0.1, 0.2]), ([1, 4], [0.05, 0.05])]):
            bounds = np.cumsum(share) / sum(share)
            kept |= {places[int(np.searchsorted(bounds, u, side="right"))] for u in uniform[row, : len(places)]}
        after = sampled(before, torch.tensor([4, 7]), torch.from_numpy(uniform))
        assert set(after.classes.nonzero()[:, 0].tolist()) == kept
        assert torch.equal(after.weights, before.weights)


def test_legacy_choice_draws_the_same():
    shares = np.array([0.2, 0.4, 0.1, 0.2]) / 0.9
    for seed in range(10):
        chosen = np.random.RandomState(seed).choice(4, 4, p=shares)
        uniform = np.random.RandomState(seed).random_sample((1, 4))
        uniform = np.concatenate([uniform, np.zeros((1, 3))], 1)  # more than there are pseudo truths
        after = sampled(mined([1] * 4, [0.2, 0.4, 0.1, 0.2]), torch.tensor([1]), torch.from_numpy(uniform))
        assert after.classes.nonzero()[:, 0].tolist() == sorted(set(chosen.tolist()))


def test_one_of_a_class_always_remains_even_where_weights_have_underflown():
    after = sampled(mined([3, 3, 5], [0.0, 0.0, 1e-30]), torch.tensor([3, 5]), torch.full((2, 3), 0.99))
    assert after.classes.tolist() == [0, 3, 5]


def test_how_often_one_is_kept_follows_its_weight():
    uniform = torch.from_numpy(np.random.default_rng(0).random((4000, 1, 2)))
    kept = [sampled(mined([1, 1], [0.9, 0.1]), torch.tensor([1]), row).classes.tolist() for row in uniform]
    first, second = np.mean(kept, axis=0)
    assert first == pytest.approx(1 - 0.1**2, abs=0.02)
    assert second == pytest.approx(1 - 0.9**2, abs=0.03)


# --- assignment ---------------------------------------------------------------------------------------------------


def test_overlaps_decide_at_their_limits_as_specified():
    iou = torch.eye(6, dtype=torch.float64)
    iou[1:, 0] = torch.tensor([0.25, 0.2499, 0.5, 0.5001, 0.0])
    targets = assign(Mined(torch.tensor([0]), torch.tensor([7]), torch.tensor([0.4])), iou, 0.25, 0.5)
    assert targets.classes.tolist() == [7, 7, 0, 7, 7, -1]
    assert targets.whole.tolist() == [1, 0, 0, 0, 1, 0]
    assert targets.weights.tolist() == pytest.approx([0.4] * 5 + [0])  # background has the weight, too


def test_of_equal_overlaps_the_lower_proposal_counts():
    iou = torch.eye(3)
    iou[2] = torch.tensor([0.5, 0.5, 1])
    targets = assign(Mined(torch.tensor([0, 1]), torch.tensor([9, 2]), torch.tensor([0.1, 0.8])), iou, 0.25, 0.5)
    assert targets.classes.tolist() == [9, 2, 9]


def test_without_pseudo_truth_everything_is_ignored_and_no_loss_remains():
    nothing = Mined(torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64), torch.zeros(0))
    dense = Mined(torch.arange(3), torch.zeros(3, dtype=torch.int64), torch.zeros(3))
    labels = torch.tensor([1.0, 1, 0])
    for found in (nothing, dense):
        targets = assign(found, torch.eye(3), 0.25, 0.5)
        assert targets.classes.tolist() == [-1] * 3
        y = torch.rand(3, 3, requires_grad=True)
        losses = refinement_losses(y.softmax(1), y.sigmoid(), targets, labels)
        assert [loss.item() for loss in losses.values()] == [0, 0, 0]
        sum(losses.values()).backward()
        assert y.grad.eq(0).all()


# --- losses -------------------------------------------------------------------------------------------------------


def targets(classes, whole, weights) -> Targets:
    return Targets(torch.tensor(classes), torch.tensor(whole, dtype=torch.float64), torch.tensor(weights))


def test_refinement_losses_by_hand():
    y = torch.tensor([[0.2, 0.5, 0.3], [0.6, 0.3, 0.1], [0.1, 0.1, 0.8]], dtype=torch.float64)
    t = torch.tensor([[0.9, 0.6, 0.5], [0.4, 0.3, 0.2], [0.1, 0.1, 0.7]], dtype=torch.float64)
    found = refinement_losses(y, t, targets([1, 0, -1], [1, 0, 0], [0.5, 0.25, 0.0]), torch.tensor([1.0, 1, 0]))
    assert found["class"].item() == pytest.approx((0.5 * -math.log(0.5) + 0.25 * -math.log(0.6)) / 2)
    assert found["integrity"].item() == pytest.approx(0.5 * 0.4**2 / 2)
    bag = 0.25 * -math.log(0.24) + 0.5 * -math.log(0.3) + -math.log(1 - 0.56)
    assert found["bag"].item() == pytest.approx(bag / 3)


def test_without_the_integrity_head_the_bag_takes_the_classes_alone():
    y = torch.tensor([[0.3, 0.7], [0.6, 0.4]], dtype=torch.float64)
    found = refinement_losses(y, None, targets([1, 0], [1, 0], [1.0, 1.0]), torch.tensor([1.0, 1]))
    assert found["integrity"].item() == 0
    assert found["bag"].item() == pytest.approx(-(math.log(0.6) + math.log(0.7)) / 2)


def test_proposals_without_a_label_are_in_no_cluster_loss():
    y = torch.rand(4, 3, dtype=torch.float64).softmax(1).requires_grad_()
    cluster_loss(y, torch.tensor([1, 0, -1, 1]), torch.tensor([2])).backward()
    assert y.grad.ne(0).any(1).tolist() == [True, False, True, True]


def test_clusters_against_a_loop_over_them():
    torch.manual_seed(0)
    y = torch.randn(12, 5, dtype=torch.float64).softmax(1)
    cluster, classes = torch.tensor([1, 1, 3, -1, 0, 3, 3, -1, 1, 0, 1, 3]), torch.tensor([2, 4, 1])  # none of 2
    total, size = 0.0, 0
    for members, column in [([0, 1, 8, 10], 2), ([2, 5, 6, 11], 1), ([3], 0), ([7], 0)]:
        mean, wanted = y[members].mean(0), torch.eye(5, dtype=torch.float64)[column]
        total += len(members) * torch.nn.functional.binary_cross_entropy(mean, wanted).item()
        size += len(members)
    assert cluster_loss(y, cluster, classes, weight=1.0).item() == pytest.approx(total / size)


def test_a_picture_without_clusters_has_the_loss_of_its_background():
    y = torch.tensor([[0.8, 0.2]], dtype=torch.float64)
    found = cluster_loss(y, torch.tensor([-1]), torch.zeros(0, dtype=torch.int64), form="ce", weight=1.0)
    assert found.item() == pytest.approx(-math.log(0.8), rel=1e-5)


def test_an_unknown_form_of_the_cluster_loss_is_named():
    with pytest.raises(ValueError, match="bce or ce, not 'mean'"):
        cluster_loss(torch.rand(1, 2), torch.tensor([-1]), torch.tensor([1]), form="mean")
