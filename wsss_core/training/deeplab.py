"""Training of DeepLabV3+ on pseudo masks."""

from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from wsss_core.data.classes import Classes
from wsss_core.data.images import MaskedCrops
from wsss_core.data.loading import EpochLoader
from wsss_core.data.manifest import Manifest
from wsss_core.jobs import digest_of
from wsss_core.models.backbones import build_backbone
from wsss_core.models.classifier import read_model, save_model
from wsss_core.models.deeplab import DeepLabV3Plus
from wsss_core.training.affinity import read_label_png
from wsss_core.training.loop import Precision, finish, fit
from wsss_core.training.losses import segmentation_loss
from wsss_core.training.optim import PolySGD, parameter_groups
from wsss_core.training.poolnet import folder_digest


@dataclass(frozen=True)
class DeeplabSettings:
    """Settings of DeepLabV3+'s training; the meanings stand in the schema of config.yaml."""

    backbone: str
    output_stride: int
    norm: str
    width: int
    resize: tuple[int, int]
    crop: int
    augmentation: str
    batch_size: int
    accumulation: int
    epochs: int
    learning_rate: float
    weight_decay: float
    momentum: float
    nesterov: bool
    label_smoothing: float
    precision: str


class DeeplabStep:
    """One micro-step; unlike in the CAM stage the loss is divided by the accumulation count."""

    def __init__(self, model: DeepLabV3Plus, settings: DeeplabSettings, steps: int, device: torch.device):
        self.model, self.settings, self.device = model, settings, device
        self.precision = Precision(settings.precision, device)
        self.scaler = self.precision.scaler()
        self.optimizer = PolySGD(
            parameter_groups(model, [model.aspp, model.decoder], settings.learning_rate, settings.weight_decay),
            updates=steps // settings.accumulation,
            momentum=settings.momentum,
            nesterov=settings.nesterov,
        )

    def state(self) -> dict:
        return {"model": self.model, "optimizer": self.optimizer, "scaler": self.scaler}

    def __call__(self, batch: dict[str, Tensor], step: int) -> dict[str, Tensor]:
        images = batch["image"].to(self.device, memory_format=torch.channels_last, non_blocking=True)
        masks = batch["mask"].to(self.device, non_blocking=True)
        with self.precision.autocast():
            logits = self.model(images)
        loss = segmentation_loss(logits, masks, self.settings.label_smoothing)
        self.scaler.scale(loss / self.settings.accumulation).backward()
        if (step + 1) % self.settings.accumulation == 0:
            self.optimizer.step(self.scaler)
        return {"loss": loss.detach()}


def train_deeplab(
    *,
    manifest: Manifest,
    classes: Classes,
    masks: Path,
    weights: Path | None,
    settings: DeeplabSettings,
    output: Path,
    seed: int,
    device: torch.device,
    workers: int = 0,
) -> None:
    """Train the network and write its last epoch's checkpoint, history and TensorBoard events.

    No checkpoint is selected: the last epoch is kept, so that no label of a validation split has a say.

    Args:
        masks: folder of pseudo masks of the manifest's images.
        weights: ImageNet weights of the backbone, or None to start from random ones.
    """
    backbone = build_backbone(settings.backbone, output_stride=settings.output_stride, weights=weights)
    model = DeepLabV3Plus(backbone, len(classes) + 1, settings.norm, settings.width)
    model.to(device, memory_format=torch.channels_last).train()
    samples = MaskedCrops(
        manifest,
        partial(read_label_png, folder=masks, classes=classes),
        resize=settings.resize,
        size=settings.crop,
        augmentation=settings.augmentation,
    )
    loader = EpochLoader(samples, batch_size=settings.batch_size, seed=seed, workers=workers)
    step = DeeplabStep(model, settings, settings.epochs * len(loader), device)
    fit(
        step=step,
        loader=loader,
        epochs=settings.epochs,
        state=step.state(),
        output=output,
        digest=digest_of(asdict(settings), manifest.digest(), seed, weights, folder_digest(masks)),
        lr=lambda: step.optimizer.lr,
    )
    recipe = {
        "backbone": settings.backbone,
        "output_stride": settings.output_stride,
        "norm": settings.norm,
        "width": settings.width,
        "classes": len(classes) + 1,
    }
    save_model(output, model, recipe)
    finish(output)


def load_deeplab(path: str | Path) -> DeepLabV3Plus:
    """Rebuild a trained network from its checkpoint."""
    recipe, state = read_model(path)
    backbone = build_backbone(recipe["backbone"], output_stride=recipe["output_stride"])
    model = DeepLabV3Plus(backbone, recipe["classes"], recipe["norm"], recipe["width"])
    model.load_state_dict(state)
    return model
