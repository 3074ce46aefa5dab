"""Class activation maps: normalisation, multi-scale inference, dump to a store."""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader

from wsss_core.cam_store import CamStore, MapWriter, strided
from wsss_core.data.images import ScaledImages
from wsss_core.data.manifest import Manifest, Row
from wsss_core.files import whole

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CamSettings:
    """Test-time scales, and the stride at which maps are kept (1 keeps them at full size)."""

    scales: tuple[float, ...]
    stride: int


def normalize_cam(maps: Tensor, eps: float = 1e-5) -> Tensor:
    """(..., H, W) -> ReLU, each map divided by its own spatial maximum + eps; in [0, 1)."""
    maps = maps.relu()
    return maps / (maps.amax((-2, -1), keepdim=True) + eps)


def full_size(store: CamStore, image_id: str) -> tuple[np.ndarray, np.ndarray]:
    """Labels (rows,) and maps (rows, H, W) of an image at its own size, each divided by its maximum again."""
    labels, maps = store[image_id]
    size = store.size(image_id)
    if len(maps) and maps.shape[1:] != size:
        resized = F.interpolate(torch.from_numpy(maps)[None], size, mode="bilinear", align_corners=False)[0]
        maps = normalize_cam(resized).numpy()
    return labels, maps.reshape(len(labels), *size)


def mirrored(model: Callable[[Tensor], Tensor], image: Tensor) -> tuple[Tensor, Tensor]:
    """Outputs (C, h, w) of an image (3, H, W) and of its mirror image, the latter mirrored back; one call."""
    ahead, back = model(torch.stack([image, image.flip(2)]).contiguous(memory_format=torch.channels_last))
    return ahead, back.flip(2)


def sum_of_scales(maps: Sequence[Tensor], height: int, width: int, stride: int) -> Tensor:
    """Bilinearly resize maps (C, h_s, w_s) of several scales to the grid of a stride and add them up.

    At stride 1 the published way is kept: resize to the next multiples of 16, then crop to (height, width).
    """
    if stride == 1:
        size = tuple(strided(side, 16) * 16 for side in (height, width))
    else:
        size = strided(height, stride), strided(width, stride)
    if not len(maps[0]):  # no class, and nothing that could be interpolated
        return maps[0].new_zeros(0, strided(height, stride), strided(width, stride))
    total = sum(F.interpolate(m[None], size, mode="bilinear", align_corners=False)[0] for m in maps)
    return total[:, : strided(height, stride), : strided(width, stride)]


@torch.inference_mode()
def scaled_outputs(
    model: nn.Module,
    manifest: Manifest,
    scales: Sequence[float],
    combine: Callable[[Tensor, Tensor], Tensor],
    device: torch.device,
    workers: int,
) -> Iterator[tuple[Row, list[Tensor]]]:
    """Yield each image's row and its outputs (C, h_s, w_s), one a scale, in the manifest's order.

    Args:
        model: (N, 3, H, W) -> (N, C, h, w).
        combine: joins the outputs of an image and of its mirror image.
    """
    model.to(device, memory_format=torch.channels_last).eval()
    loader = DataLoader(
        ScaledImages(manifest, scales), batch_size=None, num_workers=workers, pin_memory=device.type == "cuda"
    )
    every = max(1, len(manifest) // 20)
    for done, (index, views) in enumerate(loader, start=1):
        yield (
            manifest.rows[index],
            [combine(*mirrored(model, view.to(device, non_blocking=True))).float() for view in views],
        )
        if done % every == 0:
            logger.info("%d of %d images", done, len(manifest))


def dump_cams(
    *,
    model: nn.Module,
    manifest: Manifest,
    store: Path,
    settings: CamSettings,
    about: dict,
    device: torch.device,
    workers: int = 0,
) -> None:
    """Store the CAMs of the classes that each image is labelled with (P-NOC's inference, no threshold, no CRF).

    For every scale the ReLU of the maps of image and mirror image are added; scales are resized and added; each
    class map is divided by its maximum + 1e-5.

    Args:
        model: a classifier, (N, 3, H, W) -> raw class maps (N, classes, h, w).
        store: the store to create, see ``cam_store``.
        about: plain values to keep with the store (run, data set, ...).
        workers: processes that decode images; they change the speed alone.
    """
    # PSA's VGG16 takes the square root of its maps
    activate = (lambda maps: maps.relu().sqrt()) if model.backbone.root_cam else torch.relu
    outputs = scaled_outputs(model, manifest, settings.scales, lambda a, b: activate(a) + activate(b), device, workers)
    about = {**about, "settings": asdict(settings)}
    with whole(store) as partial, MapWriter(
        partial, manifest, stride=settings.stride, classwise=True, about=about
    ) as out:  # fmt: skip
        for row, maps in outputs:
            labelled = [m[list(row.labels)] for m in maps]
            total = sum_of_scales(labelled, row.height, row.width, settings.stride)
            out.append(row.id, normalize_cam(total).cpu().numpy())
