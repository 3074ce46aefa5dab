"""Saliency: hints from CAMs, maps of C²AM and C²AM-H, binary pseudo-saliency, and PoolNet's final maps."""

import logging
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from wsss_core.cam_store import CamStore, MapWriter
from wsss_core.cams import dump_scaled, full_size, scaled_batches
from wsss_core.crf import crf_labels
from wsss_core.data.images import read_image
from wsss_core.data.manifest import Manifest, Row
from wsss_core.data.masks import write_grey
from wsss_core.files import whole
from wsss_core.parallel import in_processes

if TYPE_CHECKING:  # each worker process would spend seconds on importing timm
    from wsss_core.models.c2am import C2AM
    from wsss_core.models.poolnet import PoolNet

logger = logging.getLogger(__name__)


def make_hints(*, manifest: Manifest, cams: CamStore, store: Path) -> None:
    """Keep the strongest class activation of each pixel: the hints of C²AM-H, one map an image."""
    about = {**cams.about, "source": str(cams.path)}
    with whole(store) as folder, MapWriter(
        folder, manifest, stride=about["stride"], classwise=False, about=about
    ) as out:  # fmt: skip
        for row in manifest.rows:
            _, maps = cams[row.id]
            out.append(row.id, maps.max(axis=0, keepdims=True, initial=0))  # an image without labels hints at nothing


@dataclass(frozen=True)
class C2amMapSettings:
    """Test-time scales, the stride of the store, and ``relu`` or ``sigmoid`` of the logits."""

    scales: tuple[float, ...]
    stride: int
    activation: str


class _Logits(nn.Module):
    def __init__(self, model: "C2AM"):
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model.salient_logits(x)


def dump_saliency(
    *,
    model: "C2AM",
    manifest: Manifest,
    store: Path,
    settings: C2amMapSettings,
    about: dict,
    device: torch.device,
    workers: int = 0,
) -> None:
    """Store C²AM's map of every image: scales and mirror images averaged, divided by the image's maximum.

    Foreground is where the logit is positive, or negative if that is the direction of the network's split.
    """
    activate = {"relu": torch.relu, "sigmoid": torch.sigmoid}[settings.activation]
    batches = scaled_batches(
        _Logits(model), manifest, settings.scales, lambda a, b: activate(a) + activate(b), device, workers
    )
    about = {**about, "settings": asdict(settings)}
    with whole(store) as folder, MapWriter(
        folder, manifest, stride=settings.stride, classwise=False, about=about
    ) as out:  # fmt: skip
        dump_scaled(batches, manifest, out, stride=settings.stride)


@dataclass(frozen=True)
class SaliencyMaskSettings:
    """Threshold of the normalised map, and the label CRF."""

    threshold: float
    iterations: int
    confidence: float


def make_saliency_masks(
    *, manifest: Manifest, maps: CamStore, folder: Path, settings: SaliencyMaskSettings, workers: int = 1
) -> None:
    """Write binary pseudo-saliency (PNG, 0 or 255) of every image: threshold, then label CRF with two labels."""
    with whole(folder) as partial_folder:
        partial_folder.mkdir()
        task = partial(_saliency_mask, maps=maps, folder=partial_folder, settings=settings)
        count_progress(in_processes(task, manifest.rows, workers), len(manifest))


def _saliency_mask(row: Row, *, maps: CamStore, folder: Path, settings: SaliencyMaskSettings) -> None:
    refined = np.zeros((row.height, row.width), np.uint8)
    if row.labels:  # an image without any class has no object that could be salient
        image = np.asarray(read_image(row.image))
        salient = (full_size(maps, row.id)[1][0] > settings.threshold).astype(np.uint8)
        refined = crf_labels(image, salient, 2, settings.iterations, settings.confidence)
    write_grey(folder / f"{row.id}.png", refined * np.uint8(255))


@torch.inference_mode()
def predict_saliency(*, model: "PoolNet", manifest: Manifest, folder: Path, device: torch.device) -> None:
    """Write PoolNet's saliency of every image at its own size, 8 bit PNG of the probability."""
    model.to(device).eval()
    with whole(folder) as partial_folder:
        partial_folder.mkdir()
        count_progress((_predict(model, row, partial_folder, device) for row in manifest.rows), len(manifest))


def _predict(model: "PoolNet", row: Row, folder: Path, device: torch.device) -> None:
    rgb = torch.from_numpy(np.array(read_image(row.image))).permute(2, 0, 1)[None].to(device, torch.float32)
    saliency = torch.sigmoid(model(model.preprocess(rgb)))[0, 0]
    write_grey(folder / f"{row.id}.png", (saliency * 255).round().to(torch.uint8).cpu().numpy())


def count_progress(results, total: int) -> None:
    """Run through an iterable of finished images with some twenty log lines."""
    every = max(1, total // 20)
    for done, _ in enumerate(results, start=1):
        if done % every == 0:
            logger.info("%d of %d images", done, total)
