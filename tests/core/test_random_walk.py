"""The sparse walk against the dense matrix, built pixel by pixel and squared."""

import numpy as np
import pytest
import torch

from wsss_core.affinity import random_walk as module
from wsss_core.affinity.pairs import pair_offsets, path_pixels
from wsss_core.affinity.random_walk import _walk_side_by_side, random_walk, random_walks


def dense_transitions(edge: torch.Tensor, radius: int, beta: float) -> torch.Tensor:
    """T of a map, (h * w, h * w) float64, by a loop over all pairs."""
    height, width = edge.shape
    affinity = torch.eye(height * width, dtype=torch.float64)
    for y, x in np.ndindex(height, width):
        for dy, dx in pair_offsets(radius):
            if y + dy < height and 0 <= x + dx < width:
                strongest = max(edge[y + py, x + px].item() for py, px in path_pixels((dy, dx)))
                a, b = y * width + x, (y + dy) * width + x + dx
                affinity[a, b] = affinity[b, a] = 1 - strongest
    powered = affinity**beta
    return powered / powered.sum(dim=0)


def dense_walk(cams, edge, radius, beta, squarings):
    transitions = torch.linalg.matrix_power(dense_transitions(edge, radius, beta), 2**squarings)
    start = (cams.double() * (1 - edge.double())).flatten(1)
    return (start @ transitions).reshape(cams.shape)


def maps(classes, height, width, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(classes, height, width, generator=generator), torch.rand(height, width, generator=generator)


@pytest.mark.parametrize("shape", [(14, 17), (6, 6), (3, 20), (20, 3), (1, 1)])
@pytest.mark.parametrize("scale", [1.0, 0.3])
def test_the_sparse_walk_equals_the_dense_one(shape, scale):
    cams, edge = maps(2, *shape)
    edge *= scale
    walked = random_walk(cams, edge)
    assert walked.dtype == torch.float32
    expected = dense_walk(cams, edge, radius=5, beta=10, squarings=8)
    torch.testing.assert_close(walked.double(), expected, rtol=1e-5, atol=1e-12)


def test_double_precision_agrees_to_rounding():
    cams, edge = maps(3, 14, 17)
    walked = random_walk(cams.double(), edge.double(), radius=4, beta=3, squarings=8)
    expected = dense_walk(cams, edge, radius=4, beta=3, squarings=8)
    torch.testing.assert_close(walked, expected, rtol=1e-11, atol=1e-13)


# (classes, height, width) of images in one list: no class, one pixel, a map smaller than a neighbourhood
IMAGES = [(2, 12, 15), (0, 9, 14), (1, 20, 11), (3, 6, 4), (2, 1, 1), (1, 12, 15)]


def many_maps():
    return zip(*(maps(*shape, seed=seed) for seed, shape in enumerate(IMAGES)), strict=True)


@pytest.fixture
def side_by_side(monkeypatch):
    """The way of a GPU, on the CPU."""
    monkeypatch.setattr(module, "_walk_one_by_one", _walk_side_by_side)


def test_walks_of_many_images_are_the_walks_of_each():
    cams, edges = many_maps()
    for found, of_image, edge in zip(random_walks(cams, edges), cams, edges, strict=True):
        assert torch.equal(found, random_walk(of_image, edge))
    assert random_walks([], []) == []


@pytest.mark.parametrize("at_once", [1, 200, 10**6])
def test_images_side_by_side_walk_as_each_does_alone(side_by_side, monkeypatch, at_once):
    monkeypatch.setattr(module, "PIXELS_AT_ONCE", at_once)
    cams, edges = many_maps()
    for found, of_image, edge in zip(random_walks(cams, edges, 4, 3, 6), cams, edges, strict=True):
        expected = dense_walk(of_image, edge, radius=4, beta=3, squarings=6)
        torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-12)


def test_images_without_classes_side_by_side(side_by_side):
    walked = random_walks([torch.zeros(0, 9, 14), torch.zeros(0, 6, 4)], [torch.zeros(9, 14), torch.zeros(6, 4)])
    assert [maps.shape for maps in walked] == [(0, 9, 14), (0, 6, 4)]


def test_groups_hold_no_more_pixels_than_allowed(monkeypatch):
    monkeypatch.setattr(module, "PIXELS_AT_ONCE", 10)
    groups = list(module._groups([4, 6, 1, 30, 2, 3]))
    assert groups == [slice(0, 2), slice(2, 3), slice(3, 4), slice(4, 6)]


@pytest.mark.gpu
def test_the_walk_on_a_gpu_equals_the_one_on_the_cpu():
    cams, edges = many_maps()
    walked = random_walks([maps.cuda() for maps in cams], [edge.cuda() for edge in edges])
    assert all(maps.is_cuda for maps in walked)
    for found, expected in zip(walked, random_walks(cams, edges), strict=True):
        torch.testing.assert_close(found.cpu(), expected)


def test_a_constant_score_stays_where_nothing_is_an_edge():
    # the columns of T sum to 1
    walked = random_walk(torch.full((1, 11, 13), 0.7), torch.zeros(11, 13))
    torch.testing.assert_close(walked, torch.full((1, 11, 13), 0.7))


def test_scores_do_not_cross_a_closed_edge():
    cams, edge = torch.zeros(1, 12, 21), torch.zeros(12, 21)
    cams[:, :, :10] = 1
    edge[:, 10] = 1
    walked = random_walk(cams, edge)
    assert (walked[0, :, 11:] == 0).all()
    assert (walked[0, :, :10] > 0.99).all()


def test_arrays_in_arrays_out():
    cams, edge = maps(2, 10, 12)
    read_only = cams.numpy()
    read_only.flags.writeable = False
    walked = random_walk(read_only, edge.numpy())
    assert isinstance(walked, np.ndarray)
    assert walked.dtype == np.float32
    np.testing.assert_array_equal(walked, random_walk(cams, edge).numpy())
    assert random_walk(cams.half().numpy(), edge.numpy()).dtype == np.float32
    assert random_walk(cams[:0], edge).shape == (0, 10, 12)


def test_maps_of_another_size_than_the_edges_are_an_error():
    with pytest.raises(ValueError, match="do not fit"):
        random_walk(torch.zeros(1, 5, 6), torch.zeros(6, 5))
    with pytest.raises(ValueError, match="shorter"):
        random_walks([torch.zeros(1, 5, 6)] * 2, [torch.zeros(5, 6)])
