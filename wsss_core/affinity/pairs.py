"""Labels of pixel pairs for AffinityNet, their affinities on an edge map, and what displacements say of them.

A pair is two pixels of a stride-4 map less than ``radius`` apart: a source and a target at one of
``pair_offsets``. Tensors of pairs are (N, offsets, sources), where the sources are, row by row, the pixels
whose whole neighbourhood lies inside: rows 0..h-radius and columns radius-1..w-radius (AffinityNet, Ahn and
Kwak, CVPR 2018; IRNet, Ahn et al., CVPR 2019).
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

EPSILON = 1e-5  # in the logarithms and denominators of the loss


@lru_cache(maxsize=8)
def pair_offsets(radius: int) -> tuple[tuple[int, int], ...]:
    """Steps (dy, dx) from a source to its targets: the upper half plane, dx² + dy² < radius².

    There are 34 for radius 5 and 152 for radius 10. They are in the order of the target's position in memory.
    """
    if radius < 2:
        raise ValueError(f"radius {radius} leaves no pairs; it must be at least 2")
    return tuple(
        (dy, dx)
        for dy in range(radius)  # one of the two directions of a pair is enough
        for dx in range(1 - radius, radius)
        if (dy, dx) > (0, 0) and dy * dy + dx * dx < radius * radius
    )


@lru_cache(maxsize=1024)
def path_pixels(offset: tuple[int, int]) -> tuple[tuple[int, int], ...]:
    """Pixels (y, x), counted from the source, on the path of a pair.

    They are those of the pair's bounding box less than one pixel away from the line through its ends, both
    ends included.
    """
    dy, dx = offset
    columns = range(min(dx, 0), max(dx, 0) + 1)
    box = [(y, x) for y in range(dy + 1) for x in columns]
    return tuple((y, x) for y, x in box if (dy * x - dx * y) ** 2 < dy * dy + dx * dx)


def pair_labels(mask: Tensor, radius: int, classes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Say of each pair whether its pixels belong together (IRNet).

    A pair counts if both labels are below ``classes``.

    Args:
        mask: (N, h, w) or (h, w) integers: 0 for background, classes, 255 for uncertain.
        radius: pairs are less than this apart.
        classes: number of classes, background included.

    Returns:
        three boolean tensors, (N, offsets, sources) or (offsets, sources): both background; both of one class
        of the foreground; different.
    """
    windows = _windows(mask.reshape(-1, *mask.shape[-2:]), radius)
    dy, dx = torch.tensor(pair_offsets(radius), device=mask.device).T
    target = windows[:, dy, dx + radius - 1].flatten(2)  # (N, offsets, sources)
    source = windows[:, 0, radius - 1].flatten(1)[:, None]  # (N, 1, sources)
    valid = (source < classes) & (target < classes)
    equal = (source == target) & valid
    shape = (*mask.shape[:-2], *valid.shape[1:])
    background, foreground, different = equal & (source == 0), equal & (source > 0), valid & ~equal
    return background.reshape(shape), foreground.reshape(shape), different.reshape(shape)


def pair_affinities(edge: Tensor, radius: int) -> Tensor:
    """Affinity of each pair: 1 minus the strongest edge on its path (IRNet).

    Differentiable; the gradient goes to the pixel of that strongest edge.

    Args:
        edge: (N, 1, h, w), (N, h, w) or (h, w) floats in [0, 1], high on boundaries.
        radius: pairs are less than this apart.

    Returns:
        (N, offsets, sources), or (offsets, sources) for a single map; dtype of ``edge``.
    """
    maps = edge.reshape(-1, *edge.shape[-2:])
    # Maxima of 32-bit ranks take a thirtieth of the time of maxima with their positions, and backpropagation
    # keeps one index a pair, not the values along each path.
    values, order = maps.flatten(1).sort(dim=1)
    ranks = torch.empty_like(order, dtype=torch.int32)
    ranks.scatter_(1, order, torch.arange(order.shape[1], dtype=torch.int32, device=edge.device).expand_as(order))
    highest = _highest_on_path(ranks.reshape(maps.shape), radius).long()
    affinities = 1 - values.gather(1, highest.flatten(1)).reshape(highest.shape)
    return affinities if edge.ndim > 2 else affinities[0]


def affinity_loss(edge: Tensor, mask: Tensor, classes: int, radius: int = 10) -> dict[str, Tensor]:
    """Loss of AffinityNet on one batch (the boundary branch of IRNet).

    Pairs of one label should have an affinity of 1, pairs of different labels one of 0. Each mean is over all
    pairs of its kind in the batch.

    Args:
        edge: (N, 1, h, w) edge probabilities.
        mask: (N, h, w) integers, the labels at the size of ``edge``: 0, classes, 255 for uncertain.
        classes: number of classes, background included.
        radius: pairs are less than this apart.

    Returns:
        scalars ``positive_background``, ``positive_foreground``, ``negative`` and ``total``, which is
        (positive_background + positive_foreground) / 4 + negative / 2.
    """
    affinities = pair_affinities(edge.float(), radius)  # 1 + 1e-5 is 1 in half precision
    background, foreground, different = pair_labels(mask, radius, classes)
    # no pair is both positive and negative, so one logarithm serves both
    losses = -torch.log(torch.where(different, 1 - affinities, affinities) + EPSILON)
    parts = {
        "positive_background": _mean_where(losses, background),
        "positive_foreground": _mean_where(losses, foreground),
        "negative": _mean_where(losses, different),
    }
    positive = (parts["positive_background"] + parts["positive_foreground"]) / 2
    return parts | {"total": (positive + parts["negative"]) / 2}


def displacement_loss(displacement: Tensor, mask: Tensor, classes: int, radius: int = 10) -> dict[str, Tensor]:
    """Loss of IRNet's displacement branch on one batch.

    The displacements of two foreground pixels of one class should differ by the way from one to the other, so that
    both lead to the same place; those of two background pixels should be equal. Whether two pixels of a class are of
    one instance is not known, and pairs of different ones are outvoted. Each mean is over both coordinates of all
    pairs of its kind in the batch; its gradient costs a few maps of memory, however many pairs there are.

    Args:
        displacement: (N, 2, h, w) floats, (dy, dx) in pixels of this grid.
        mask: (N, h, w) integers at the size of ``displacement``: 0, classes, 255 for uncertain.
        classes: number of classes, background included.
        radius: pairs are less than this apart.

    Returns:
        scalars ``foreground``, ``background`` and ``total``, their mean.
    """
    sums, pairs = _PairResiduals.apply(displacement.float(), mask, classes, radius)
    foreground, background = sums / (2 * pairs + EPSILON)
    return {"foreground": foreground, "background": background, "total": (foreground + background) / 2}


class _PairResiduals(torch.autograd.Function):
    """Sums over foreground and background pairs of |D_source - D_target - way|_1, (2,), and numbers of pairs, (2,).

    The way is (dy, dx) from source to target in the foreground, nothing in the background. The gradient is collected
    on the way forward, where autograd would keep several tensors of all pairs.
    """

    @staticmethod
    def forward(ctx: Any, displacement: Tensor, mask: Tensor, classes: int, radius: int) -> tuple[Tensor, Tensor]:
        rows, columns = _sources(displacement.shape[-2:], radius)
        here = (..., slice(rows), slice(radius - 1, radius - 1 + columns))
        source, label = displacement[here], mask[here]
        kinds = torch.stack([(label > 0) & (label < classes), label == 0])
        offsets = pair_offsets(radius)
        ways = torch.tensor([((dy, dx), (0, 0)) for dy, dx in offsets], dtype=source.dtype, device=source.device)
        sums, pairs = source.new_zeros(2), torch.zeros(2, dtype=torch.long, device=source.device)
        gradient = source.new_zeros(2, *displacement.shape)
        for (dy, dx), way in zip(offsets, ways[:, :, None, :, None, None], strict=True):
            there = (..., slice(dy, dy + rows), slice(radius - 1 + dx, radius - 1 + dx + columns))
            counted = kinds & (label == mask[there])  # (kinds, N, rows, columns)
            residual = (source - displacement[there] - way) * counted[:, :, None]
            sums += residual.abs().sum((1, 2, 3, 4))
            pairs += counted.sum((1, 2, 3))
            direction = residual.sign_()
            gradient[here] += direction
            gradient[there] -= direction
        ctx.save_for_backward(gradient)
        ctx.mark_non_differentiable(pairs)
        return sums, pairs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_sums: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return torch.tensordot(of_sums, gradient, dims=1), None, None, None


def _mean_where(values: Tensor, chosen: Tensor) -> Tensor:
    # no index, which would wait for the device; no pair of a kind gives 0
    return torch.where(chosen, values, 0).sum() / (chosen.sum() + EPSILON)


def _windows(maps: Tensor, radius: int) -> Tensor:
    """A view (N, radius, 2 * radius - 1, rows, columns) of maps (N, h, w).

    Entry [n, dy, dx + radius - 1] is the map of the sources' neighbours at (dy, dx).
    """
    rows, columns = _sources(maps.shape[1:], radius)
    return maps.unfold(1, rows, 1).unfold(2, columns, 1)


def _sources(size: Sequence[int], radius: int) -> tuple[int, int]:
    """Rows and columns of the sources on a map of a height and width."""
    height, width = size
    rows, columns = height - radius + 1, width - 2 * radius + 2
    if rows < 1 or columns < 1:
        raise ValueError(f"a map of {(height, width)} pixels is too small for pairs of radius {radius}")
    return rows, columns


@torch.no_grad()
def _highest_on_path(ranks: Tensor, radius: int) -> Tensor:
    """Largest value on each pair's path of maps (N, h, w): (N, offsets, sources)."""
    windows, offsets = _windows(ranks, radius), pair_offsets(radius)
    highest = ranks.new_zeros(len(ranks), len(offsets), *windows.shape[3:])
    for number, offset in enumerate(offsets):
        of_offset = highest[:, number]
        for y, x in path_pixels(offset):
            torch.maximum(of_offset, windows[:, y, x + radius - 1], out=of_offset)
    return highest.flatten(2)
