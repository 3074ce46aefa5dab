"""Affinity labels, pairs and the loss, against truth tables and loops written the slow way."""

import math

import numpy as np
import pytest
import torch

from wsss_core.affinity import labels as module
from wsss_core.affinity.labels import affinity_labels
from wsss_core.affinity.pairs import (
    affinity_loss,
    displacement_loss,
    pair_affinities,
    pair_labels,
    pair_offsets,
    path_pixels,
)


@pytest.fixture
def calls(monkeypatch):
    """Replace the CRF by the identity and record what it was asked."""
    made = []

    def identity(image, n_labels, iterations, confidence):
        return lambda labels: made.append((n_labels, iterations, confidence)) or labels

    monkeypatch.setattr(module, "LabelCRF", identity)
    return made


def picture(width):
    return np.zeros((1, width, 3), dtype=np.uint8)


def test_labels_without_saliency_by_truth_table(calls):
    # above both thresholds; between them; below both; the other class; on the high; on the low threshold
    cams = np.array([[[0.9, 0.3, 0.1, 0.5, 0.4, 0.1]], [[0.2, 0.1, 0.05, 0.6, 0.0, 0.0]]], dtype=np.float32)
    labels = affinity_labels(picture(6), cams, [15, 3])
    assert labels.dtype == np.uint8
    assert labels.tolist() == [[15, 255, 0, 3, 255, 0]]
    assert calls == [(3, 10, 0.7), (3, 10, 0.7)]


def test_labels_with_saliency_by_truth_table(calls):
    # CAM and saliency; CAM alone; saliency alone; neither; saliency on the threshold
    cams = np.array([[[0.9, 0.9, 0.2, 0.2, 0.9]]], dtype=np.float32)
    saliency = np.array([[0.8, 0.05, 0.8, 0.05, 0.1]])
    labels = affinity_labels(picture(5), cams, [7], saliency, iterations=4, confidence=0.9)
    assert labels.tolist() == [[7, 0, 255, 0, 0]]
    assert calls == [(2, 4, 0.9), (2, 4, 0.9)]


def test_a_class_may_grow_outside_the_salient_part(monkeypatch):
    def grow(image, n_labels, *_):  # the CAMs' map, which has three labels here, grows everywhere
        return lambda labels: labels if n_labels == 2 else np.full_like(labels, 2)

    monkeypatch.setattr(module, "LabelCRF", grow)
    labels = affinity_labels(picture(3), np.zeros((2, 1, 3)), [4, 9], np.zeros((1, 3)))
    assert labels.tolist() == [[9, 9, 9]]


def test_an_image_without_classes_is_background_or_uncertain(calls):
    none = np.zeros((0, 1, 3), dtype=np.float32)
    assert affinity_labels(picture(3), none, []).tolist() == [[0, 0, 0]]
    assert affinity_labels(picture(3), none, [], np.array([[0.0, 0.5, 1.0]])).tolist() == [[0, 255, 255]]
    assert calls == [(2, 10, 0.7)]


def test_labels_with_the_true_crf_are_clean():
    image = np.zeros((24, 24, 3), dtype=np.uint8)
    image[:, 12:] = 220
    cams = np.zeros((1, 24, 24), dtype=np.float32)
    cams[0, :, 14:] = 0.9
    labels = affinity_labels(image, cams, [5])
    assert (labels[:, :12] == 0).all()
    assert (labels[:, 12:] == 5).all()


@pytest.mark.parametrize("changed", [{"cams": np.zeros((2, 1, 3))}, {"saliency": np.zeros((3, 1))}])
def test_maps_that_do_not_fit_are_an_error(changed):
    arguments = {"image": picture(3), "cams": np.zeros((1, 1, 3)), "classes": [1]}
    with pytest.raises(ValueError, match="fit"):
        affinity_labels(**arguments | changed)


def test_the_number_of_offsets_is_the_published_one():
    assert len(pair_offsets(5)) == 34
    assert len(pair_offsets(10)) == 152
    assert all(dy > 0 or (dy == 0 and dx > 0) for dy, dx in pair_offsets(10))


def test_paths_by_hand():
    assert path_pixels((0, 3)) == ((0, 0), (0, 1), (0, 2), (0, 3))
    assert path_pixels((1, -1)) == ((0, -1), (0, 0), (1, -1), (1, 0))
    # of a square, all but the two corners beside the line
    assert path_pixels((2, 2)) == ((0, 0), (0, 1), (1, 0), (1, 1), (1, 2), (2, 1), (2, 2))


def test_the_number_of_sources_is_the_published_one():
    assert pair_affinities(torch.zeros(128, 128), 10).shape == (152, 119 * 110)
    assert pair_labels(torch.zeros(2, 128, 128, dtype=torch.uint8), 10, 21)[0].shape == (2, 152, 13_090)


def pairs_of(height, width, radius):
    """Every pair as (offset number, source number, source, target, path), one at a time."""
    for number, (dy, dx) in enumerate(pair_offsets(radius)):
        sources = [(y, x) for y in range(height - radius + 1) for x in range(radius - 1, width - radius + 1)]
        for place, (y, x) in enumerate(sources):
            path = [(y + py, x + px) for py, px in path_pixels((dy, dx))]
            yield number, place, (y, x), (y + dy, x + dx), path


def test_affinities_equal_one_minus_the_strongest_edge_of_each_path():
    edge = torch.rand(2, 1, 7, 11, generator=torch.Generator().manual_seed(1))
    affinities = pair_affinities(edge, 4)
    for number, place, _, _, path in pairs_of(7, 11, 4):
        strongest = torch.stack([edge[:, 0, y, x] for y, x in path]).amax(dim=0)
        torch.testing.assert_close(affinities[:, number, place], 1 - strongest)


def test_the_gradient_goes_to_the_strongest_edge():
    edge = torch.rand(1, 5, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    edge.requires_grad_()
    weights = torch.rand(1, len(pair_offsets(3)), 15, dtype=torch.float64)
    (pair_affinities(edge, 3) * weights).sum().backward()
    expected = torch.zeros_like(edge)
    for number, place, _, _, path in pairs_of(5, 9, 3):
        y, x = max(path, key=lambda pixel: edge[0, *pixel].item())
        expected[0, y, x] -= weights[0, number, place]
    torch.testing.assert_close(edge.grad, expected)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
def test_pair_labels_equal_a_loop(dtype):
    choices = torch.tensor([0, 0, 1, 2, 255], dtype=dtype)
    mask = choices[torch.randint(0, 5, (6, 9), generator=torch.Generator().manual_seed(3))]
    background, foreground, different = pair_labels(mask, 3, 3)
    assert background.dtype == torch.bool
    for number, place, source, target, _ in pairs_of(6, 9, 3):
        a, b = mask[source].item(), mask[target].item()
        valid = a < 3 and b < 3
        assert background[number, place] == (valid and a == b == 0)
        assert foreground[number, place] == (valid and a == b > 0)
        assert different[number, place] == (valid and a != b)


def test_loss_by_hand():
    # radius 2 on 2 x 3: one source, (0, 1), with targets to the right, below left, below and below right
    mask = torch.tensor([[[9, 1, 1], [0, 255, 1]]])
    edge = torch.tensor([[[[0.0, 0.2, 0.5], [0.1, 0.9, 0.3]]]])
    loss = affinity_loss(edge, mask, classes=2, radius=2)
    right, below_right, below_left = 1 - 0.5, 1 - 0.9, 1 - 0.9
    positive = -(math.log(right + 1e-5) + math.log(below_right + 1e-5)) / (2 + 1e-5)
    negative = -math.log(1 + 1e-5 - below_left) / (1 + 1e-5)
    assert loss["positive_background"] == 0
    assert loss["positive_foreground"].item() == pytest.approx(positive, rel=1e-5)
    assert loss["negative"].item() == pytest.approx(negative, rel=1e-5)
    assert loss["total"].item() == pytest.approx(positive / 4 + negative / 2, rel=1e-5)


def test_loss_stays_finite_at_the_ends_and_without_pairs():
    mask = torch.randint(0, 3, (2, 8, 12), generator=torch.Generator().manual_seed(4))
    for value in (0.0, 1.0):
        edge = torch.full((2, 1, 8, 12), value, requires_grad=True)
        loss = affinity_loss(edge, mask, classes=3, radius=4)
        loss["total"].backward()
        assert loss["total"].isfinite()
        assert edge.grad.isfinite().all()
    uncertain = torch.full_like(mask, 255)
    assert affinity_loss(edge, uncertain, classes=3, radius=4)["total"] == 0


def test_a_map_without_a_single_source_is_an_error():
    with pytest.raises(ValueError, match="too small for pairs of radius 5"):
        pair_affinities(torch.zeros(8, 8), 5)


# --- displacements -------------------------------------------------------------------------------------------------


def test_displacement_loss_by_hand():
    # radius 2 on 2 x 3: one source, (0, 1), with targets to the right, below left, below and below right
    mask = torch.tensor([[[9, 1, 1], [0, 255, 1]]])
    dy = torch.tensor([[9.0, 0.5, 0.0], [9.0, 9.0, 0.25]])
    dx = torch.tensor([[9.0, 1.0, 3.0], [9.0, 9.0, -1.0]])
    loss = displacement_loss(torch.stack([dy, dx])[None], mask, classes=2, radius=2)
    right = abs(0.5 - 0.0 - 0) + abs(1.0 - 3.0 - 1)
    below_right = abs(0.5 - 0.25 - 1) + abs(1.0 + 1.0 - 1)
    assert loss["foreground"].item() == pytest.approx((right + below_right) / (2 * 2 + 1e-5), rel=1e-6)
    assert loss["background"] == 0
    assert loss["total"] == loss["foreground"] / 2
    background = displacement_loss(torch.stack([dy, dx])[None], torch.zeros_like(mask), classes=2, radius=2)
    lengths = [0.5 + 2.0, 8.5 + 8.0, 8.5 + 8.0, 0.25 + 2.0]  # no way is taken off
    assert background["background"].item() == pytest.approx(sum(lengths) / (2 * 4 + 1e-5), rel=1e-6)
    assert background["foreground"] == 0


def straightforward(displacement, mask, classes, radius):
    """The loss pair by pair, by autograd."""
    parts = {"foreground": [], "background": []}
    offsets = pair_offsets(radius)
    for number, _, (y, x), (v, u), _ in pairs_of(*mask.shape[1:], radius):
        for image, labels in zip(displacement, mask, strict=True):
            if labels[y, x] == labels[v, u] and labels[y, x] < classes:
                kind = "foreground" if labels[y, x] else "background"
                way = torch.tensor(offsets[number]) if labels[y, x] else 0
                parts[kind].append((image[:, y, x] - image[:, v, u] - way).abs().sum())
    return {kind: sum(residuals) / (2 * len(residuals) + 1e-5) for kind, residuals in parts.items()}


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
def test_displacement_loss_and_its_gradient_equal_a_loop(dtype):
    generator = torch.Generator().manual_seed(5)
    displacement = torch.randn(2, 2, 6, 9, generator=generator, requires_grad=True)
    mask = torch.tensor([0, 0, 1, 2, 255], dtype=dtype)[torch.randint(0, 5, (2, 6, 9), generator=generator)]
    loss, expected = displacement_loss(displacement, mask, 3, 3), straightforward(displacement, mask, 3, 3)
    for kind, weight in (("foreground", 1.0), ("background", 0.3)):
        torch.testing.assert_close(loss[kind], expected[kind])
        (found,) = torch.autograd.grad(weight * loss[kind], displacement, retain_graph=True)
        (wanted,) = torch.autograd.grad(weight * expected[kind], displacement, retain_graph=True)
        torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(loss["total"], (expected["foreground"] + expected["background"]) / 2)


def test_displacements_to_one_place_cost_nothing():
    rows, columns = torch.meshgrid(torch.arange(12.0), torch.arange(20.0), indexing="ij")
    to_middle = torch.stack([6 - rows, 9 - columns])[None]
    loss = displacement_loss(to_middle, torch.ones(1, 12, 20, dtype=torch.uint8), 2, radius=5)
    assert loss["total"] == 0
    away = displacement_loss(-to_middle, torch.ones(1, 12, 20, dtype=torch.uint8), 2, radius=5)
    assert away["foreground"] > 1


def test_displacement_loss_without_pairs_is_zero():
    displacement = torch.randn(1, 2, 8, 12, requires_grad=True)
    loss = displacement_loss(displacement, torch.full((1, 8, 12), 255), 3, radius=4)
    loss["total"].backward()
    assert loss["total"] == 0
    assert not displacement.grad.any()
    with pytest.raises(ValueError, match="too small for pairs of radius 5"):
        displacement_loss(torch.zeros(1, 2, 8, 8), torch.zeros(1, 8, 8), 3, radius=5)
