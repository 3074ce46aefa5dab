"""Prediction of masks with a trained segmentation network."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from wsss_core.cams import scaled_outputs
from wsss_core.crf import crf_probabilities
from wsss_core.data.classes import Classes
from wsss_core.data.images import read_image
from wsss_core.data.manifest import Manifest, Row
from wsss_core.data.masks import write_mask
from wsss_core.files import whole
from wsss_core.parallel import in_processes
from wsss_core.saliency import count_progress


@dataclass(frozen=True)
class PredictionSettings:
    """Test-time scales (each with its mirror image), and steps of the probability CRF (0 for none)."""

    scales: tuple[float, ...]
    iterations: int


def predict_masks(
    *,
    model: nn.Module,
    manifest: Manifest,
    classes: Classes,
    folder: Path,
    settings: PredictionSettings,
    device: torch.device,
    workers: int = 1,
) -> None:
    """Write a mask of every image as palette PNG; labels of the images are not used.

    Logits of an image and its mirror image are added (not averaged, as published), resized, averaged over scales;
    softmax, probability CRF, argmax.
    """
    with whole(folder) as partial_folder:
        partial_folder.mkdir()
        items = _probabilities(model, manifest, settings.scales, device)
        task = partial(_predict, folder=partial_folder, classes=classes, iterations=settings.iterations)
        count_progress(in_processes(task, items, workers), len(manifest))


def _probabilities(model, manifest: Manifest, scales, device) -> Iterator[tuple[Row, np.ndarray]]:
    for row, outputs in scaled_outputs(model, manifest, scales, torch.add, device, workers=0):
        size = row.height, row.width
        resized = [F.interpolate(o[None], size, mode="bilinear", align_corners=False)[0] for o in outputs]
        mean = torch.stack(resized).mean(0)
        yield row, mean.softmax(0).cpu().numpy()


def _predict(item: tuple[Row, np.ndarray], *, folder: Path, classes: Classes, iterations: int) -> None:
    row, probabilities = item
    if iterations:
        probabilities = crf_probabilities(np.asarray(read_image(row.image)), probabilities, iterations)
    write_mask(folder / f"{row.id}.png", probabilities.argmax(0).astype(np.uint8), classes)
