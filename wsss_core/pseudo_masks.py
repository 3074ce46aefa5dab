"""Affinity labels of a split, the random walk over its CAMs, and the pseudo masks that come out."""

import logging
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from wsss_core.affinity import affinity_labels
from wsss_core.cam_store import CamStore, MapWriter, strided
from wsss_core.cams import full_size, image_by_image, scaled_batches
from wsss_core.crf import LabelCRF
from wsss_core.data.classes import Classes
from wsss_core.data.images import read_image
from wsss_core.data.manifest import Manifest, Row
from wsss_core.data.masks import read_grey, write_mask
from wsss_core.files import whole
from wsss_core.parallel import in_processes
from wsss_core.random_walk import finish_walk, random_walks
from wsss_core.saliency import count_progress

if TYPE_CHECKING:  # see saliency.py
    from wsss_core.models.affinity import AffinityNet

logger = logging.getLogger(__name__)
WALK_STRIDE = 4
WALKS_AT_ONCE = 16  # images whose walks share threads or a card; it changes the speed alone


@dataclass(frozen=True)
class AffinityLabelSettings:
    """Thresholds of CAMs and saliency, and the label CRF; see ``affinity.affinity_labels``."""

    foreground: float
    background: float
    iterations: int
    confidence: float


def make_affinity_labels(
    *,
    manifest: Manifest,
    classes: Classes,
    cams: CamStore,
    saliency: Path | None,
    folder: Path,
    settings: AffinityLabelSettings,
    workers: int = 1,
) -> None:
    """Write the affinity labels of every image as palette PNG: class, 0 background, 255 uncertain.

    Args:
        saliency: folder of 8 bit saliency PNGs, or None for the labels of IRNet.
    """
    with whole(folder) as partial_folder:
        partial_folder.mkdir()
        task = partial(
            _affinity_label,
            cams=cams,
            saliency=saliency,
            folder=partial_folder,
            classes=classes,
            settings=settings,
        )
        count_progress(in_processes(task, manifest.rows, workers), len(manifest))


def _affinity_label(
    row: Row,
    *,
    cams: CamStore,
    saliency: Path | None,
    folder: Path,
    classes: Classes,
    settings: AffinityLabelSettings,
) -> None:
    labels, maps = full_size(cams, row.id)
    salient = None if saliency is None else read_saliency(saliency, row)
    mask = affinity_labels(
        np.asarray(read_image(row.image)),
        maps,
        [int(label) + 1 for label in labels],
        salient,
        **asdict(settings),
    )
    write_mask(folder / f"{row.id}.png", mask, classes)


def read_saliency(folder: Path, row: Row) -> np.ndarray:
    """The saliency of an image, (H, W) float32 in [0, 1]."""
    return read_grey(folder / f"{row.id}.png", (row.height, row.width)).astype(np.float32) / 255


@dataclass(frozen=True)
class WalkSettings:
    """Random walk, see ``random_walk.random_walk``; images are padded to ``padding`` before the edge network."""

    radius: int
    beta: float
    squarings: int
    padding: int


def walk_cams(
    *,
    model: "AffinityNet",
    manifest: Manifest,
    cams: CamStore,
    store: Path,
    settings: WalkSettings,
    about: dict,
    device: torch.device,
    workers: int = 0,
) -> None:
    """Spread every image's CAMs by a random walk that edges hold back, and store the result at stride 4."""
    padded = _Padded(model, settings.padding)
    batches = scaled_batches(padded, manifest, (1.0,), lambda a, b: (a + b) / 2, device, workers)
    outputs = image_by_image(batches, manifest)
    about = {**about, "settings": asdict(settings), "source": str(cams.path)}
    with (
        whole(store) as folder,
        MapWriter(folder, manifest, stride=WALK_STRIDE, classwise=True, about=about) as out,
    ):
        while batch := list(islice(outputs, WALKS_AT_ONCE)):
            edges = [torch.sigmoid(edge_logits[0]) for _, (edge_logits,) in batch]
            maps = [torch.from_numpy(_at_walk_stride(cams, row)).to(device) for row, _ in batch]
            walks = random_walks(maps, edges, settings.radius, settings.beta, settings.squarings)
            for (row, _), walked in zip(batch, walks, strict=True):
                # Only the ratios of an image's maps matter from here on; the scale keeps them in float16's range.
                peak = walked.max() if row.labels else 0
                out.append(row.id, (walked / (peak + 1e-5)).cpu().numpy())


def _at_walk_stride(cams: CamStore, row: Row) -> np.ndarray:
    _, maps = cams[row.id]
    size = strided(row.height, WALK_STRIDE), strided(row.width, WALK_STRIDE)
    if not len(maps):
        return np.zeros((0, *size), np.float32)
    if maps.shape[1:] == size:
        return maps
    return F.interpolate(torch.from_numpy(maps)[None], size, mode="bilinear", align_corners=False)[0].numpy()


class _Padded(torch.nn.Module):
    """Edge logits of images that are first padded bottom/right to at least ``side``, cropped to their own grid."""

    def __init__(self, model: "AffinityNet", side: int):
        super().__init__()
        self.model, self.side = model, side

    def forward(self, x: Tensor) -> Tensor:
        h, w = x.shape[2:]
        padded = F.pad(x, (0, max(0, self.side - w), 0, max(0, self.side - h)))
        return self.model(padded)[:, :, : strided(h, WALK_STRIDE), : strided(w, WALK_STRIDE)]


@dataclass(frozen=True)
class PseudoMaskSettings:
    """Background threshold of the walked maps, and the label CRF."""

    threshold: float
    iterations: int
    confidence: float


def make_pseudo_masks(
    *,
    manifest: Manifest,
    classes: Classes,
    walked: CamStore,
    folder: Path,
    settings: PseudoMaskSettings,
    workers: int = 1,
) -> None:
    """Write the pseudo masks of every image as palette PNG."""
    with whole(folder) as partial_folder:
        partial_folder.mkdir()
        task = partial(_write_pseudo_mask, walked=walked, folder=partial_folder, classes=classes, settings=settings)
        count_progress(in_processes(task, manifest.rows, workers), len(manifest))


def _write_pseudo_mask(
    row: Row, *, walked: CamStore, folder: Path, classes: Classes, settings: PseudoMaskSettings
) -> None:
    (mask,) = pseudo_masks(row, walked, (settings.threshold,), settings.iterations, settings.confidence)
    write_mask(folder / f"{row.id}.png", mask, classes)


def pseudo_masks(row: Row, walked: CamStore, thresholds, iterations: int, confidence: float) -> list[np.ndarray]:
    """Masks (H, W) uint8 of one image at several background thresholds, after the label CRF."""
    labels, maps = walked[row.id]
    values = np.array([0, *(labels + 1)], np.uint8)
    if not len(labels):
        return [np.zeros((row.height, row.width), np.uint8) for _ in thresholds]
    maps = np.asarray(finish_walk(maps, row.height, row.width))
    image = np.asarray(read_image(row.image))
    best, score = maps.argmax(axis=0), maps.max(axis=0)
    refine = LabelCRF(image, len(values), iterations, confidence)
    return [values[refine(np.where(score > threshold, best + 1, 0).astype(np.uint8))] for threshold in thresholds]
