"""Tiles, their merging, and the reconstruction loss."""

import pytest
import torch

from wsss_core.classifiers.puzzle import merge, puzzle_maps, reconstruction_loss, tile


@pytest.mark.parametrize("shape", [(2, 3, 8, 8), (3, 2, 6, 10), (1, 1, 2, 2)])
def test_merging_the_tiles_gives_the_images_back(shape):
    x = torch.arange(float(torch.tensor(shape).prod())).reshape(shape)
    assert torch.equal(merge(tile(x)), x)


def test_more_pieces_merge_back_too():
    x = torch.randn(2, 3, 6, 9)
    assert tile(x, pieces=9).shape == (18, 3, 2, 3)
    assert torch.equal(merge(tile(x, pieces=9), pieces=9), x)


def test_tiles_are_in_piece_major_order():
    x = torch.randn(3, 2, 4, 6)
    tiles = tile(x)
    quadrants = [x[:, :, :2, :3], x[:, :, :2, 3:], x[:, :, 2:, :3], x[:, :, 2:, 3:]]
    assert torch.equal(tiles, torch.cat(quadrants))


def test_maps_are_stitched_by_the_batch_at_hand():
    maps = torch.arange(8.0).reshape(8, 1, 1, 1)  # 4 pieces of 2 images
    assert torch.equal(merge(maps), torch.tensor([[[[0.0, 2], [4, 6]]], [[[1.0, 3], [5, 7]]]]))


@pytest.mark.parametrize("size", [(5, 4), (4, 5), (7, 7)])
def test_odd_sizes_are_refused(size):
    with pytest.raises(ValueError, match=f"{size[0]}x{size[1]} image cannot be cut into 2x2"):
        tile(torch.zeros(1, 3, *size))


def test_pieces_that_make_no_square_are_refused():
    with pytest.raises(ValueError, match="square number, not 6"):
        tile(torch.zeros(1, 3, 6, 6), pieces=6)
    with pytest.raises(ValueError, match="6 maps are not a whole number of images"):
        merge(torch.zeros(6, 1, 2, 2))


def test_puzzle_maps_are_those_of_the_tiles():
    x = torch.randn(2, 3, 8, 8)
    maps = puzzle_maps(lambda tiles: tiles.mean((2, 3), keepdim=True), x)
    assert maps.shape == (2, 3, 2, 2)
    torch.testing.assert_close(maps[1, 2, 1, 0], x[1, 2, 4:, :4].mean())


def test_reconstruction_loss_is_a_mean_over_all_channels():
    maps = torch.tensor([[[[1.0, -2.0]], [[5.0, 5.0]], [[0.0, 3.0]]]])  # (1, 3, 1, 2)
    merged = torch.tensor([[[[0.0, 1.0]], [[0.0, 0.0]], [[1.0, 1.0]]]])
    labels = torch.tensor([[1.0, 0.0, 1.0]])
    assert reconstruction_loss(maps, merged, labels).item() == pytest.approx((1 + 3 + 1 + 2) / 6)


def test_both_sides_of_the_reconstruction_are_trained():
    maps, merged = torch.randn(2, 1, 2, 2, 2, requires_grad=True).unbind()
    maps.retain_grad()
    merged.retain_grad()
    reconstruction_loss(maps, merged, torch.ones(1, 2)).backward()
    assert maps.grad.abs().min() > 0
    torch.testing.assert_close(maps.grad, -merged.grad)
