"""The random walk that spreads class scores up to the edges (IRNet, Ahn et al., CVPR 2019).

The transition matrix T of a map of n pixels has at most 69 entries a column for radius 5, all of them on 69
diagonals. It is never squared: z T^256 is 256 sparse products of the few class rows z, where eight squarings of
the dense matrix cost some 16 n³ operations.
"""

import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from scipy.sparse import dia_array
from torch import Tensor

from wsss_core.affinity.pairs import pair_offsets, path_pixels

Map = TypeVar("Map", np.ndarray, Tensor)

PIXELS_AT_ONCE = 2**18  # some 150 MB of weights at radius 5, or 22 photos of 375 x 500 pixels


def random_walk(cams: Map, edge: Map, radius: int = 5, beta: float = 10, squarings: int = 8) -> Map:
    """Walk 2^squarings steps from the CAMs inside the edges.

    T[i, j] is the affinity of pixels i and j (1 minus the strongest edge on their path; 1 for i = j) to the power
    of ``beta``, divided by the sum of column j. The walk starts at ``cams * (1 - edge)``; each step makes a pixel
    the weighted mean of its neighbours. Computed in double precision: rounding in single precision repeats from
    step to step, and 256 steps add it up to a relative error of 1e-4 to 1e-3.

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
    return random_walks([cams], [edge], radius, beta, squarings)[0]


@torch.no_grad()
def random_walks(
    cams: Sequence[Map], edges: Sequence[Map], radius: int = 5, beta: float = 10, squarings: int = 8
) -> list[Map]:
    """The walks of many images, see ``random_walk``; memory stays bounded, however many there are.

    On a CPU every map walks by itself, on as many threads as torch uses: the result is the same to the last bit
    for any list and any number of threads. On a GPU, where small products leave the card idle, images walk side by
    side as the blocks of one matrix; how they are listed may change the rounding in double precision.

    Args:
        cams: (C, h, w) floats for each image, all of them on one device; C, h and w may differ.
        edges: (h, w) floats in [0, 1] for each image.

    Returns:
        what ``random_walk`` gives for each image.

    Raises:
        ValueError: shapes or numbers of maps that do not fit.
    """
    starts, passable = [], []
    for maps, edge in zip(cams, edges, strict=True):
        if maps.shape[1:] != edge.shape or edge.ndim != 2:
            raise ValueError(f"CAMs {tuple(maps.shape)} and edge map {tuple(edge.shape)} do not fit")
        scores = _double(maps)
        inside = 1 - _double(edge).to(scores.device)
        height, width = edge.shape
        # distinct diagonals need maps that hold a whole neighbourhood; the added pixels are closed
        margin = (0, max(0, 2 * radius - 1 - width), 0, max(0, radius - height))
        starts.append(F.pad(scores * inside, margin))
        passable.append(F.pad(inside**beta, margin))
    walked = []
    for group in _groups([maps.numel() for maps in passable]):
        walk = _walk_one_by_one if starts[group][0].device.type == "cpu" else _walk_side_by_side
        walked += walk(starts[group], passable[group], radius, 2**squarings)
    return [_like(maps, done[:, : maps.shape[1], : maps.shape[2]]) for maps, done in zip(cams, walked, strict=True)]


def transition_diagonals(passable: Tensor, radius: int) -> tuple[Tensor, list[int]]:
    """The symmetric matrix of affinities, before its columns are normalised.

    Args:
        passable: (h, w) of at least radius x (2 * radius - 1) pixels: 1 minus the edge, to the power of beta. That
            power never falls, so that of a path's weakest pixel is the affinity of its pair to that power.

    Returns:
        weights (D, h * w) and D increasing steps; ``weights[k, i]`` belongs to the pixels i and i + steps[k],
        and is 0 where the pair leaves the map.
    """
    height, width = passable.shape
    side = radius - 1
    padded = F.pad(passable, (side, side, 0, side))  # a path that leaves the map meets a closed pixel there
    offsets = pair_offsets(radius)
    steps = [dy * width + dx for dy, dx in offsets]
    middle = len(offsets)
    weights = passable.new_zeros(2 * middle + 1, height * width)
    weights[middle] = 1  # a pixel and itself
    for k, (offset, step) in enumerate(zip(offsets, steps, strict=True), start=1):
        ahead = weights[middle + k].view(height, width)
        ahead.copy_(passable)
        for y, x in path_pixels(offset):
            torch.minimum(ahead, padded[y : y + height, side + x : side + x + width], out=ahead)
        weights[middle - k, step:] = weights[middle + k, :-step]
    return weights, [-step for step in reversed(steps)] + [0, *steps]


def _groups(pixels: Sequence[int]) -> Iterator[slice]:
    """Runs of images with at most ``PIXELS_AT_ONCE`` pixels together, or of one image that has more."""
    first = total = 0
    for index, count in enumerate(pixels):
        if index > first and total + count > PIXELS_AT_ONCE:
            yield slice(first, index)
            first, total = index, 0
        total += count
    if pixels:
        yield slice(first, len(pixels))


def _walk_one_by_one(starts: list[Tensor], passable: list[Tensor], radius: int, times: int) -> list[Tensor]:
    """(C, h, w) of each image after ``times`` steps, a thread a map: SciPy's products let go of Python's lock.

    Threads inside each product would wait for one another after every step, which takes many times as long where
    other jobs run on the same cores.
    """
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        images = []
        for start, inside in zip(starts, passable, strict=True):
            weights, steps = transition_diagonals(inside, radius)
            # SciPy keeps a diagonal by its columns, we by rows: in a symmetric matrix, the diagonal across
            matrix = dia_array((weights.numpy(), [-step for step in steps]), shape=(inside.numel(), inside.numel()))
            images.append([pool.submit(_walk_map, row, matrix, times) for row in start.flatten(1).numpy()])
        return [
            torch.from_numpy(np.array([row.result() for row in rows]).reshape(start.shape))
            for start, rows in zip(starts, images, strict=True)
        ]


def _walk_map(row: np.ndarray, matrix: dia_array, times: int) -> np.ndarray:
    sums = matrix @ np.ones_like(row)
    for _ in range(times):
        row = matrix @ row
        row /= sums  # normalises the columns, without another matrix
    return row


def _walk_side_by_side(starts: list[Tensor], passable: list[Tensor], radius: int, times: int) -> list[Tensor]:
    """(C, h, w) of each image after ``times`` products with one matrix whose blocks are the images.

    All pixels of all images are the rows; the columns are the maps of the image with most of them.
    """
    if not any(map(len, starts)):  # images without a class have nothing to multiply
        return starts
    device, ends = starts[0].device, np.cumsum([maps.numel() for maps in passable]).tolist()
    parts = [slice(end - maps.numel(), end) for end, maps in zip(ends, passable, strict=True)]
    diagonals, pixels = 2 * len(pair_offsets(radius)) + 1, ends[-1]
    z = torch.zeros(pixels, max(map(len, starts)), dtype=torch.float64, device=device)
    values = z.new_empty(pixels, diagonals)
    columns = torch.empty(pixels, diagonals, dtype=torch.int32, device=device)
    for start, inside, part in zip(starts, passable, parts, strict=True):
        weights, steps = transition_diagonals(inside, radius)
        values[part] = (weights / weights.sum(dim=0)).T
        indices = torch.arange(part.start, part.stop, dtype=torch.int32, device=device)
        neighbours = indices[:, None] + torch.tensor(steps, dtype=torch.int32, device=device)
        columns[part] = neighbours.clamp(part.start, part.stop - 1)  # the weights are 0 outside
        z[part, : len(start)] = start.flatten(1).T
    rows = diagonals * torch.arange(pixels + 1, dtype=torch.int32, device=device)
    with warnings.catch_warnings():  # torch calls this layout a beta
        warnings.simplefilter("ignore", UserWarning)
        matrix = torch.sparse_csr_tensor(
            rows, columns.flatten(), values.flatten(), (pixels, pixels), check_invariants=False
        )
    for _ in range(times):
        z = matrix @ z
    return [z[part, : len(start)].T.reshape(start.shape) for start, part in zip(starts, parts, strict=True)]


def _double(values: Map) -> Tensor:
    if isinstance(values, Tensor):
        return values.double()
    return torch.from_numpy(np.array(values, dtype=np.float64))  # a copy: the array may be read-only


def _like(example: Map, maps: Tensor) -> Map:
    """``maps`` as NumPy array or tensor like the example, in its precision, but at least single."""
    if not str(example.dtype).endswith("float64"):
        maps = maps.float()
    return maps if isinstance(example, Tensor) else np.ascontiguousarray(maps.numpy())
