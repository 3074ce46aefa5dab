"""IRNet's instances and the loss of its displacements against the ways that one writes first."""

from collections.abc import Iterator
from functools import partial

import numpy as np
import torch
from scipy.ndimage import map_coordinates
from torch import Tensor

from benchmarks.harness import Comparison, Growth, Options, compare, equal_arrays, growth, relative_difference
from wsss_core.affinity.pairs import EPSILON, displacement_loss, pair_labels, pair_offsets
from wsss_core.instances.displacement import find_centroids

ITERATIONS = 300
PHOTO = (94, 125)  # stride 4 of VOC's 375 x 500 pixels
RADIUS, CLASSES = 10, 21


def run(options: Options) -> Iterator[Comparison | Growth]:
    """Centroids are found on the CPU, whatever the device."""
    objects = field(PHOTO)
    yield compare(
        "centroids",
        f"map of {PHOTO[0]} x {PHOTO[1]}, {ITERATIONS} steps",
        usual="a loop over steps, all pixels in each, SciPy's map_coordinates",
        usual_way=partial(interpolated, objects),
        our_way=partial(find_centroids, objects, ITERATIONS),
        agreement=equal_arrays,
    )
    small = field((24, 32))
    yield compare(
        "centroids",
        f"map of 24 x 32, {ITERATIONS} steps",
        usual="a loop over pixels and steps",
        usual_way=partial(pixel_by_pixel, small),
        our_way=partial(find_centroids, small, ITERATIONS),
        agreement=equal_arrays,
        pairs=3,
        warm_up=False,
    )
    images = 32 if options.device == "cuda" else 4
    displacement, mask = crops(images, 128, options)
    yield compare(
        "displacement loss",
        f"{images} maps of 128 x 128, radius {RADIUS}, with its gradient",
        usual="all pairs gathered by index, autograd",
        usual_way=partial(gradient, gathered, displacement, mask),
        our_way=partial(gradient, ours, displacement, mask),
        agreement=lambda theirs, own: (
            f"losses: {relative_difference(theirs[0], own[0])}; gradients differ by "
            f"{(theirs[1] - own[1]).abs().max() / theirs[1].abs().max():.0e} of the largest"
        ),
        pairs=3,
    )
    sides = {side * side: side for side in (32, 64, 128)}
    yield growth("centroids", "pixels", list(sides), lambda n: partial(find_centroids, field((sides[n], sides[n]))))
    yield growth(
        "displacement loss",
        "pixels",
        list(sides),
        lambda n: partial(gradient, ours, *crops(2, sides[n], options)),
    )


def field(size: tuple[int, int]) -> np.ndarray:
    """Displacements (2, h, w) half the way to the nearest of three places, with waves on them."""
    rows, columns = np.indices(size, np.float32)
    places = np.array([(0.3, 0.25), (0.65, 0.7), (0.2, 0.8)]) * size
    nearest = np.argmin([(rows - y) ** 2 + (columns - x) ** 2 for y, x in places], axis=0)
    to_place = np.moveaxis(places[nearest], -1, 0) - np.stack([rows, columns])
    return (to_place / 2 + 2 * np.sin(np.stack([columns, rows]) / 3)).astype(np.float32)


def interpolated(displacement: np.ndarray) -> np.ndarray:
    """What one writes first."""
    places = np.indices(displacement.shape[1:]).astype(np.float64)
    last = np.array(displacement.shape[1:])[:, None, None] - 1
    for _ in range(ITERATIONS):
        moves = [map_coordinates(channel, places, order=1, mode="nearest") for channel in displacement]
        places = np.clip(places + moves, 0, last)
    return places.round().astype(np.int64)


def pixel_by_pixel(displacement: np.ndarray) -> np.ndarray:
    """The definition."""
    _, height, width = displacement.shape
    ends = np.zeros((2, height, width), np.int64)
    for start in np.ndindex(height, width):
        y, x = start
        for _ in range(ITERATIONS):
            top, left = int(y), int(x)
            v, u = y - top, x - left
            above, below = displacement[:, top], displacement[:, min(top + 1, height - 1)]
            right = min(left + 1, width - 1)
            dy, dx = (1 - v) * ((1 - u) * above[:, left] + u * above[:, right]) + v * (
                (1 - u) * below[:, left] + u * below[:, right]
            )
            y, x = min(max(y + dy, 0), height - 1), min(max(x + dx, 0), width - 1)
        ends[:, *start] = round(y), round(x)
    return ends


def crops(count: int, side: int, options: Options) -> tuple[Tensor, Tensor]:
    """Displacements, and masks of blocks of 0, classes and uncertain pixels."""
    generator = torch.Generator().manual_seed(0)
    displacement = 3 * torch.randn(count, 2, side, side, generator=generator)
    blocks = torch.randint(0, 4, (count, 1, side // 16, side // 16), generator=generator)
    mask = torch.tensor([0, 5, 14, 255], dtype=torch.uint8)[blocks].float()
    mask = torch.nn.functional.interpolate(mask, (side, side))[:, 0].byte()
    return displacement.to(options.device).requires_grad_(), mask.to(options.device)


def gradient(loss, displacement: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    value = loss(displacement, mask)
    (slope,) = torch.autograd.grad(value, displacement)
    return value.detach(), slope


def ours(displacement: Tensor, mask: Tensor) -> Tensor:
    return displacement_loss(displacement, mask, CLASSES, RADIUS)["total"]


def gathered(displacement: Tensor, mask: Tensor) -> Tensor:
    """What one writes first."""
    height, width = displacement.shape[2:]
    offsets = torch.tensor(pair_offsets(RADIUS), device=mask.device)
    rows = torch.arange(height - RADIUS + 1, device=mask.device)[:, None]
    columns = torch.arange(RADIUS - 1, width - RADIUS + 1, device=mask.device)
    sources = (rows * width + columns).flatten()
    targets = sources + offsets @ torch.tensor([[width], [1]], device=mask.device)
    flat = displacement.flatten(2)
    apart = flat[:, :, None, sources] - flat[:, :, targets]
    background, foreground, _ = pair_labels(mask, RADIUS, CLASSES)
    off = (apart - offsets.T[:, :, None]).abs() * foreground[:, None]
    equal = apart.abs() * background[:, None]
    return (off.sum() / (2 * foreground.sum() + EPSILON) + equal.sum() / (2 * background.sum() + EPSILON)) / 2
