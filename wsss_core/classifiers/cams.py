"""The class activation maps of a classifier, as a store."""

from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import nn

from wsss_core.base.files import whole
from wsss_core.data.manifest import Manifest
from wsss_core.maps.inference import dump_scaled, scaled_batches
from wsss_core.maps.store import MapWriter


@dataclass(frozen=True)
class CamSettings:
    """Test-time scales, the stride at which maps are kept (1 keeps them at full size), and arithmetic.

    Attributes:
        dtype: ``float16``, or ``uint8`` for 255 steps in half the space, see ``maps.store``.
        precision: ``float16``, ``bfloat16`` or ``float32`` of the network on a GPU; a CPU always uses float32.
    """

    scales: tuple[float, ...]
    stride: int
    dtype: str
    precision: str


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
        store: the store to create, see ``maps.store``.
        about: plain values to keep with the store (run, data set, ...).
        workers: processes that decode images; they change the speed alone.
    """
    # PSA's VGG16 takes the square root of its maps
    activate = (lambda maps: maps.relu().sqrt()) if model.backbone.root_cam else torch.relu
    batches = scaled_batches(
        model, manifest, settings.scales, lambda a, b: activate(a) + activate(b), device, workers, settings.precision
    )
    about = {**about, "settings": asdict(settings)}
    with (
        whole(store) as partial,
        MapWriter(partial, manifest, stride=settings.stride, classwise=True, about=about, dtype=settings.dtype) as out,
    ):
        dump_scaled(batches, manifest, out, stride=settings.stride)
