"""Prediction of masks with a trained segmentation network."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader

from wsss_core.base.files import whole
from wsss_core.base.parallel import in_processes
from wsss_core.base.progress import count_progress
from wsss_core.data.classes import Classes
from wsss_core.data.manifest import Manifest, Row
from wsss_core.data.mask_folder import png_of
from wsss_core.data.masks import write_mask
from wsss_core.data.pictures import read_image
from wsss_core.data.samples import ScaledImages, network_input
from wsss_core.maps.crf import crf_probabilities
from wsss_core.maps.inference import mirrored
from wsss_core.recipes.settings import PredictionSettings


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

    Logits of an image and, if any, its mirror image are added (not averaged, as published), resized, averaged over
    scales; softmax, probability CRF, argmax. The CRF sees the image as it is stored.
    """
    with whole(folder) as partial_folder:
        partial_folder.mkdir()
        # the network runs here, ahead of the processes that run the CRF
        items = _probabilities(model, manifest, settings, device)
        task = partial(_predict, folder=partial_folder, classes=classes, iterations=settings.crf_iterations)
        count_progress(in_processes(task, items, workers), len(manifest))


@torch.inference_mode()
def _probabilities(
    model: nn.Module, manifest: Manifest, settings: PredictionSettings, device: torch.device
) -> Iterator[tuple[Row, np.ndarray]]:
    """Yield each image's row and its class probabilities (K, H, W) before the CRF."""
    model.to(device).to(memory_format=torch.channels_last).eval()
    images = ScaledImages(manifest, settings.scales)
    for index, views in DataLoader(images, batch_size=None, pin_memory=device.type == "cuda"):
        row = manifest.rows[index]
        size = row.height, row.width
        outputs = [_logits(model, view[None].to(device, non_blocking=True), settings.mirror) for view in views]
        # an argmax would call such a pixel background
        if not all(output.isfinite().all() for output in outputs):
            raise FloatingPointError(
                f"the network's logits of image {row.id} are not finite: delete its checkpoint, lower its "
                "learning_rate, or set its precision to float32, in config.yaml, and train it again"
            )
        resized = [F.interpolate(o, size, mode="bilinear", align_corners=False)[0] for o in outputs]
        yield row, torch.stack(resized).mean(0).softmax(0).cpu().numpy()


def _logits(model: nn.Module, pixels: Tensor, mirror: bool) -> Tensor:
    """Logits (1, K, h, w) of an image (1, H, W, 3), to which those of its mirror image may be added."""
    image = network_input(pixels)
    return torch.add(*mirrored(model, image)) if mirror else model(image).float()


def _predict(item: tuple[Row, np.ndarray], *, folder: Path, classes: Classes, iterations: int) -> None:
    row, probabilities = item
    if iterations:
        probabilities = crf_probabilities(np.asarray(read_image(row.image)), probabilities, iterations)
    write_mask(png_of(folder, row.id), probabilities.argmax(0).astype(np.uint8), classes)
