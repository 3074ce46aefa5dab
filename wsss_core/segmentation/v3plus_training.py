"""What DeepLabV3+ has of its own in training, after P-NOC: crops, groups and loss."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from wsss_core.data.manifest import Manifest, Row
from wsss_core.data.samples import MaskedCrops
from wsss_core.fitting.loader import EpochLoader
from wsss_core.fitting.optim import PolySGD, parameter_groups
from wsss_core.networks.backbones import build_backbone
from wsss_core.recipes.settings import DeeplabV3PlusSettings
from wsss_core.segmentation.losses import segmentation_loss
from wsss_core.segmentation.step import MaskStep
from wsss_core.segmentation.v3plus import DeepLabV3Plus


def build_deeplabv3plus(
    backbone: str, classes: int, *, output_stride: int, norm: str, width: int, weights: str | Path | None = None
) -> DeepLabV3Plus:
    """Make a DeepLabV3+ by the name of its backbone, with a file of its weights or random ones."""
    return DeepLabV3Plus(build_backbone(backbone, output_stride=output_stride, weights=weights), classes, norm, width)


class DeeplabV3PlusStep(MaskStep):
    """One micro-step of DeepLabV3+, of ``steps`` in the whole training."""

    def __init__(self, model: DeepLabV3Plus, settings: DeeplabV3PlusSettings, steps: int, device: torch.device):
        optimizer = PolySGD(
            parameter_groups(model, [model.aspp, model.decoder], settings.learning_rate, settings.weight_decay),
            updates=steps // settings.accumulation,
            momentum=settings.momentum,
            nesterov=settings.nesterov,
        )
        super().__init__(
            model, optimizer, accumulation=settings.accumulation, precision=settings.precision, device=device
        )
        self.smoothing = settings.label_smoothing

    def outputs(self, images: Tensor) -> Tensor:
        return self.model(images)

    def loss(self, outputs: Tensor, masks: Tensor) -> Tensor:
        return segmentation_loss(outputs, masks, self.smoothing)


def prepare_v3plus(
    model: DeepLabV3Plus,
    settings: DeeplabV3PlusSettings,
    manifest: Manifest,
    read_mask: Callable[[Row], np.ndarray],
    *,
    seed: int,
    device: torch.device,
    workers: int,
) -> tuple[EpochLoader, int, DeeplabV3PlusStep]:
    """Batches, number of epochs and step of a training; ``read_mask`` gives (H, W) uint8."""
    samples = MaskedCrops(
        manifest, read_mask, resize=settings.resize, size=settings.crop, augmentation=settings.augmentation
    )
    loader = EpochLoader(samples, batch_size=settings.batch_size, seed=seed, workers=workers)
    return loader, settings.epochs, DeeplabV3PlusStep(model, settings, settings.epochs * len(loader), device)
