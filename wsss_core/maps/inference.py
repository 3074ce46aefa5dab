"""Inference at several scales: which images share a call of the network, and what becomes of its maps."""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader

from wsss_core.data.manifest import Manifest, Row
from wsss_core.data.samples import ScaledImages, network_input
from wsss_core.fitting.precision import Precision
from wsss_core.maps.sizes import cells
from wsss_core.maps.store import MapWriter

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

BYTES_A_PIXEL = 4096  # of free memory on a GPU; the widest network, resnet38d, takes 2400 in float32


def normalize_cam(maps: Tensor, eps: float = 1e-5) -> Tensor:
    """(..., H, W) -> ReLU, each map divided by its own spatial maximum + eps; in [0, 1)."""
    maps = maps.relu()
    return maps / (maps.amax((-2, -1), keepdim=True) + eps)


def mirrored(model: Callable[[Tensor], Tensor], images: Tensor) -> tuple[Tensor, Tensor]:
    """Float32 outputs (N, C, h, w) of images (N, 3, H, W) and of their mirror images, mirrored back; one call."""
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


@torch.inference_mode()
def scaled_batches(
    model: nn.Module,
    manifest: Manifest,
    scales: Sequence[float],
    combine: Callable[[Tensor, Tensor], Tensor],
    device: torch.device,
    workers: int,
    precision: str = "float32",
) -> Iterator[tuple[list[int], list[Tensor]]]:
    """Yield indices of images of equal size and their outputs (N, C, h_s, w_s), one a scale.

    Images are taken together on a GPU alone, and come out of order within a window, see ``Batching``. What is taken
    together changes results by the rounding of floats at most.

    Args:
        model: (N, 3, H, W) -> (N, C, h, w).
        combine: joins the float32 outputs of images and of their mirror images.
        precision: see ``Precision``.
    """
    model.to(device).to(memory_format=torch.channels_last).eval()
    together, arithmetic = batching(device), Precision(precision, device)
    groups = list(equal_sizes(manifest.rows, together))
    images = _decoded(ScaledImages(manifest, scales), groups, workers, device)
    every, done = max(1, len(manifest) // 20), 0

    def outputs(pixels: Tensor) -> Tensor:
        calls = pixels.split(images_a_call(pixels.shape[1], pixels.shape[2], together))
        return torch.cat([combine(*mirrored(model, network_input(part))) for part in calls])

    for group in groups:
        views = [[view.to(device, non_blocking=True) for view in next(images)[1]] for _ in group]
        # cuDNN would look for its fastest kernels at each of the many sizes anew, for longer than these save
        with arithmetic.autocast(), torch.backends.cudnn.flags(enabled=True, benchmark=False):
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
