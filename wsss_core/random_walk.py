"""The random walk that spreads class scores up to the edges (IRNet, Ahn et al., CVPR 2019).

The transition matrix T of a map of n pixels has at most 69 entries a column for radius 5, all of them on 69
diagonals. It is never squared: z T^256 is 256 sparse products of the few class rows z, where eight squarings of
the dense matrix cost some 16 n³ operations.
"""

from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from scipy.sparse import dia_array
from torch import Tensor

from wsss_core.affinity import pair_affinities, pair_offsets

Map = TypeVar("Map", np.ndarray, Tensor)

STRIDE = 4  # of the maps that walk


@torch.no_grad()
def random_walk(cams: Map, edge: Map, radius: int = 5, beta: float = 10, squarings: int = 8) -> Map:
    """Walk 2^squarings steps from the CAMs inside the edges.

    T[i, j] is the affinity of pixels i and j (1 minus the strongest edge on their path; 1 for i = j) to the power
    of ``beta``, divided by the sum of column j. The walk starts at ``cams * (1 - edge)``; each step makes a pixel
    the weighted mean of its neighbours. Computed in double precision: rounding in single precision repeats from
    step to step, and 256 steps add it up to a relative error near 1e-3.

    Args:
        cams: (C, h, w) floats, the stride-4 maps of an image's classes.
        edge: (h, w) floats in [0, 1], high on boundaries.
        radius: pixels less than this apart are neighbours.
        beta: power of the affinities; high values keep the walk away from weak edges.
        squarings: the walk is as long as that many squarings of T.

    Returns:
        (C, h, w) of the kind and on the device of ``cams``: float64 if they are, else float32.

    Raises:
        ValueError: shapes that do not fit.
    """
    if cams.shape[1:] != edge.shape or edge.ndim != 2:
        raise ValueError(f"CAMs {tuple(cams.shape)} and edge map {tuple(edge.shape)} do not fit")
    scores = _double(cams)
    edges = _double(edge).to(scores.device)
    height, width = edge.shape
    # distinct diagonals need maps that hold a whole neighbourhood; an edge of 1 shuts the added pixels off
    margin = (0, max(0, 2 * radius - 1 - width), 0, max(0, radius - height))
    start, edges = F.pad(scores * (1 - edges), margin), F.pad(edges, margin, value=1.0)
    weights, steps = transition_diagonals(edges, radius, beta)
    walk = _walk_on_cpu if start.device.type == "cpu" else _walk_on_gpu
    walked = walk(start.flatten(1), weights, steps, 2**squarings)
    return _like(cams, walked.reshape(start.shape)[:, :height, :width])


def transition_diagonals(edge: Tensor, radius: int, beta: float) -> tuple[Tensor, list[int]]:
    """The symmetric matrix of affinities to the power of ``beta``, before its columns are normalised.

    Args:
        edge: (h, w), at least radius x (2 * radius - 1).

    Returns:
        weights (D, h * w) and D increasing steps; ``weights[k, i]`` belongs to the pixels i and i + steps[k],
        and is 0 where the pair leaves the map.
    """
    height, width = edge.shape
    outside = (radius - 1, radius - 1, 0, radius - 1)
    # every pixel is a source on the padded map; a path that leaves the map meets an edge of 1 there
    forward = pair_affinities(F.pad(edge, outside, value=1.0), radius) ** beta
    ahead = [dy * width + dx for dy, dx in pair_offsets(radius)]
    middle = len(ahead)
    weights = edge.new_zeros(2 * middle + 1, height * width)
    weights[middle] = 1
    weights[middle + 1 :] = forward
    for k, step in enumerate(ahead):
        weights[middle - 1 - k, step:] = forward[k, :-step]
    return weights, [-step for step in reversed(ahead)] + [0, *ahead]


@torch.no_grad()
def finish_walk(walked: Map, height: int, width: int) -> Map:
    """Bring walked maps to the size of their image: upsample by 4, crop, divide by the largest value.

    The maximum is over all classes and pixels (as in IRNet), so a weak class stays weak beside a strong one.

    Args:
        walked: (C, h, w) floats, at least 0, with h = ceil(height / 4) and w = ceil(width / 4).
        height, width: size of the image.

    Returns:
        (C, height, width), in [0, 1], of the kind and on the device of ``walked``; all 0 if ``walked`` is.

    Raises:
        ValueError: the maps are not those of an image of this size.
    """
    if tuple(walked.shape[1:]) != ((height - 1) // STRIDE + 1, (width - 1) // STRIDE + 1):
        raise ValueError(f"maps {tuple(walked.shape)} are not at stride {STRIDE} of {height} x {width} pixels")
    if not len(walked):
        return _like(walked, _double(walked).new_zeros(0, height, width))
    maps = F.interpolate(_double(walked)[None], scale_factor=STRIDE, mode="bilinear", align_corners=False)
    maps = maps[0, :, :height, :width]
    return _like(walked, maps / maps.max().clamp(min=torch.finfo(maps.dtype).tiny))


def _walk_on_cpu(z: Tensor, weights: Tensor, steps: list[int], times: int) -> Tensor:
    """(C, n) after ``times`` steps; SciPy's product by diagonals reads memory in order."""
    pixels = z.shape[1]
    # SciPy keeps a diagonal by its columns, we by rows: in a symmetric matrix, the diagonal across
    matrix = dia_array((weights.numpy(), [-step for step in steps]), shape=(pixels, pixels))
    sums = matrix @ np.ones(pixels)
    rows = z.numpy()
    walked = np.empty_like(rows)
    for number, row in enumerate(rows):
        for _ in range(times):
            row = matrix @ row / sums
        walked[number] = row
    return torch.from_numpy(walked)


def _walk_on_gpu(z: Tensor, weights: Tensor, steps: list[int], times: int) -> Tensor:
    """(C, n) after ``times`` steps, each a gather and a sum: few launches, where the CPU's way has many."""
    pixels = torch.arange(z.shape[1], device=z.device)
    neighbours = pixels + torch.tensor(steps, device=z.device)[:, None]
    neighbours = neighbours.clamp(0, z.shape[1] - 1)  # the weights are 0 outside
    weights = weights / weights.sum(dim=0)
    for _ in range(times):
        z = (z[:, neighbours] * weights).sum(dim=1)
    return z


def _double(values: Map) -> Tensor:
    if isinstance(values, Tensor):
        return values.double()
    return torch.from_numpy(np.array(values, dtype=np.float64))  # a copy: the array may be read-only


def _like(example: Map, maps: Tensor) -> Map:
    """``maps`` as NumPy array or tensor like the example, in its precision, but at least single."""
    if not str(example.dtype).endswith("float64"):
        maps = maps.float()
    return maps if isinstance(example, Tensor) else np.ascontiguousarray(maps.numpy())
