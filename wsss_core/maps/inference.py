"""Inference at several scales: which images share a call of the network, and what becomes of its maps."""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce
from math import log2
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader

from wsss_core.data.classes import DataError
from wsss_core.data.manifest import Manifest, Row
from wsss_core.data.samples import ScaledImages, network_input
from wsss_core.fitting.precision import Precision
from wsss_core.maps.sizes import cells, inside, strided, tiles
from wsss_core.maps.store import MapWriter

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

# A larger view of an image goes through the network in tiles, each with what surrounds it.
WHOLE = 2**22  # pixels; no photo of VOC or COCO has a third of it at twice its size
TILE, MARGIN, COARSEST = 1536, 256, 32  # pixels; the last is the coarsest grid of any network
SUMMED = 2**26  # pixels of maps at the size of the image that are in memory together
BYTES_A_PIXEL = 4096  # of free memory on a GPU; the widest network, resnet38d, takes 2400 in float32


def normalize_cam(maps: Tensor, eps: float = 1e-5) -> Tensor:
    """(..., H, W) -> ReLU, each map divided by its own spatial maximum + eps; in [0, 1)."""
    maps = maps.relu()
    return maps / (maps.amax((-2, -1), keepdim=True) + eps)


def mirrored(model: Callable[[Tensor], Tensor], images: Tensor) -> tuple[Tensor, Tensor]:
    """Float32 outputs (N, C, h, w) of images (N, 3, H, W) and of their mirror images, mirrored back.

    One call, but for large images: two take half of the memory.
    """
    if images.shape[2] * images.shape[3] > WHOLE:
        ahead, back = (model(view).float() for view in (images, images.flip(3)))
        return ahead, back.flip(3)
    both = torch.cat([images, images.flip(3)]).contiguous(memory_format=torch.channels_last)
    ahead, back = model(both).float().chunk(2)
    return ahead, back.flip(3)


def sum_of_scales(maps: Sequence[Tensor], height: int, width: int, stride: int) -> Tensor:
    """Bilinearly resize maps (C, h_s, w_s) of several scales to the grid of ``cells``, and add them up."""
    size = cells(height, stride), cells(width, stride)
    if not len(maps[0]):  # no class, and nothing that could be interpolated
        return maps[0].new_zeros(0, *size)
    return reduce(torch.add, (F.interpolate(m[None], size, mode="bilinear", align_corners=False)[0] for m in maps))


def normalized_sum(maps: Sequence[Tensor], height: int, width: int, stride: int) -> Tensor:
    """``sum_of_scales``, each map divided by its maximum + 1e-5.

    The maximum is that of the published map, at the size of the image: a peak lies between the cells of a coarser grid,
    and a division by the highest cell would raise all of the map. Cells beyond the image may exceed 1.
    """
    at_once = max(1, SUMMED // (height * width))
    if len(maps[0]) > at_once:
        parts = zip(*(m.split(at_once) for m in maps), strict=True)
        return torch.cat([normalized_sum(part, height, width, stride) for part in parts])
    full = sum_of_scales(maps, height, width, 1)
    peaks = full[:, :height, :width].amax((1, 2), keepdim=True)
    total = full if stride == 1 else sum_of_scales(maps, height, width, stride)
    return total / (peaks + 1e-5)


@dataclass(frozen=True)
class Batching:
    """Which images share a call of the network: those of equal size among ``window`` rows, up to ``pixels`` a call.

    Mirror images count as pixels too; an image that has more of them is a call of its own.
    """

    window: int
    pixels: int


def batching(device: torch.device) -> Batching:
    """One image a call on a CPU, where more are slower; on a GPU as many as fill it and fit into its free memory."""
    if device.type != "cuda":
        return Batching(window=1, pixels=0)
    free, _ = torch.cuda.mem_get_info(device)
    return Batching(window=256, pixels=min(2**23, free // BYTES_A_PIXEL))


def images_a_call(height: int, width: int, batching: Batching) -> int:
    """Images of a size that one call takes together with their mirror images, at least 1."""
    return max(1, batching.pixels // (2 * height * width))


def equal_sizes(rows: Sequence[Row], batching: Batching) -> Iterator[list[int]]:
    """Lists of indices of rows of equal size, of as many as a call takes at scale 1."""
    for begin in range(0, len(rows), batching.window):
        found: dict[tuple[int, int], list[int]] = {}
        for index, row in enumerate(rows[begin : begin + batching.window], start=begin):
            found.setdefault((row.height, row.width), []).append(index)
        for size, indices in found.items():
            most = images_a_call(*size, batching)
            yield from (indices[i : i + most] for i in range(0, len(indices), most))


def in_tiles(look: Callable[[Tensor], Tensor], pixels: Tensor) -> Tensor:
    """``look`` at images (N, H, W, 3), at those of more than ``WHOLE`` pixels tile by tile: maps (N, C, h, w).

    Tiles begin on the network's grid, and MARGIN pixels around a tile are looked at with it, which is what a cell
    mostly depends on. A layer that averages over the whole image averages over a tile instead.
    """
    height, width = pixels.shape[1:3]
    if height * width <= WHOLE:
        return look(pixels)
    whole = None
    for part, outer in tiles(height, width, TILE, MARGIN, COARSEST):
        maps = look(pixels[:, *outer])
        if whole is None:  # strides are powers of two, and only sides that end elsewhere have a part of a cell
            stride = 2 ** round(log2((outer[1].stop - outer[1].start) / maps.shape[3]))
            whole = maps.new_zeros(*maps.shape[:2], strided(height, stride), strided(width, stride))
        target, source = (
            [slice(side.start // stride, strided(side.stop, stride)) for side in span]
            for span in (part, inside(part, outer))
        )
        whole[:, :, *target] = maps[:, :, *source]
    assert whole is not None
    return whole


@contextmanager
def named(row: Row) -> Iterator[None]:
    """Say with which image the device's memory was not enough, and the way out."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        height, width = row.own_size
        raise DataError(
            f"{row.image} of {width} x {height} pixels and the network do not fit into the device's memory: set "
            f"longest_side of the data set, such as 1024 (docs/data.md, Large photos): {str(error).splitlines()[0]}"
        ) from error


@torch.inference_mode()
def scaled_batches(
    model: nn.Module,
    manifest: Manifest,
    scales: Sequence[float],
    combine: Callable[[Tensor, Tensor], Tensor],
    device: torch.device,
    workers: int,
    precision: str = "float32",
    *,
    tiled: bool = True,
) -> Iterator[tuple[list[int], list[Tensor]]]:
    """Yield indices of images of equal size and their outputs (N, C, h_s, w_s), one a scale.

    Images are taken together on a GPU alone, and come out of order within a window, see ``Batching``. What is taken
    together changes results by the rounding of floats at most.

    Args:
        model: (N, 3, H, W) -> (N, C, h, w).
        combine: joins the float32 outputs of images and of their mirror images.
        precision: see ``Precision``.
        tiled: whether large views go through the network in tiles, see ``in_tiles``.
    """
    model.to(device).to(memory_format=torch.channels_last).eval()
    together, arithmetic = batching(device), Precision(precision, device)
    groups = list(equal_sizes(manifest.rows, together))
    images = _decoded(ScaledImages(manifest, scales), groups, workers, device)
    every, done = max(1, len(manifest) // 20), 0

    def outputs(pixels: Tensor) -> Tensor:
        calls = pixels.split(images_a_call(pixels.shape[1], pixels.shape[2], together))
        return torch.cat([in_tiles(look, part) if tiled else look(part) for part in calls])

    def look(pixels: Tensor) -> Tensor:
        return combine(*mirrored(model, network_input(pixels)))

    for group in groups:
        views = [[view.to(device, non_blocking=True) for view in next(images)[1]] for _ in group]
        # cuDNN would look for its fastest kernels at each of the many sizes anew, for longer than these save
        with (
            named(manifest.rows[group[0]]),
            arithmetic.autocast(),
            torch.backends.cudnn.flags(enabled=True, benchmark=False),
        ):
            maps = [outputs(torch.stack(pixels)) for pixels in zip(*views, strict=True)]
        yield group, maps
        done += len(group)
        if done // every > (done - len(group)) // every:
            logger.info("%d of %d images", done, len(manifest))


def _decoded(images: ScaledImages, groups: list[list[int]], workers: int, device: torch.device) -> Iterator:
    """The images of the groups in their order; while the network has one group, the workers decode the next."""
    loader = DataLoader(
        images,
        batch_size=None,
        sampler=[index for group in groups for index in group],
        num_workers=workers,
        prefetch_factor=max(2, -(-max(map(len, groups)) // workers)) if workers else None,
        pin_memory=device.type == "cuda",
    )
    return iter(loader)


def image_by_image(
    batches: Iterable[tuple[list[int], list[Tensor]]], manifest: Manifest
) -> Iterator[tuple[Row, list[Tensor]]]:
    """Yield each image's row and its outputs (C, h_s, w_s) of ``scaled_batches``, in the manifest's order."""
    found = (pair for group, maps in batches for pair in zip(group, zip(*maps, strict=True), strict=True))
    return ((manifest.rows[index], list(maps)) for index, maps in in_order(found))


def in_order(found: Iterable[tuple[int, Result]]) -> Iterator[tuple[int, Result]]:
    """Sort pairs whose first values are 0, 1, ... out of order; a pair is kept until those before it have come."""
    waiting: dict[int, Result] = {}
    due = 0
    for index, result in found:
        waiting[index] = result
        while due in waiting:
            yield due, waiting.pop(due)
            due += 1


def dump_scaled(
    batches: Iterable[tuple[list[int], list[Tensor]]], manifest: Manifest, out: MapWriter, *, stride: int
) -> None:
    """Write the ``normalized_sum`` of the scales of ``scaled_batches``.

    Kept are the channels of an image's labels, or channel 0 if the writer is not classwise.
    """

    def finished(group: list[int], outputs: list[Tensor]) -> Iterator[tuple[int, np.ndarray]]:
        rows = [manifest.rows[index] for index in group]
        labels = [row.labels if out.classwise else (0,) for row in rows]
        kept = [(place, label) for place, found in enumerate(labels) for label in found]
        images, channels = torch.tensor(kept, dtype=torch.long).view(-1, 2).T.to(outputs[0].device)
        total = normalized_sum([m[images, channels] for m in outputs], rows[0].height, rows[0].width, stride)
        if out.dtype == "uint8":
            total = total.clamp(max=1)
        maps = total.cpu().numpy()  # one copy a batch: each waits for the GPU
        return zip(group, np.split(maps, np.cumsum([len(found) for found in labels])[:-1]), strict=True)

    for index, maps in in_order(pair for group, outputs in batches for pair in finished(group, outputs)):
        out.append(manifest.rows[index].id, maps)
