"""Training of the plain classifier ("CAM"), which is also the ordinary classifier of OC-CSE, P-OC and P-NOC."""

from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from wsss_core.data.images import LabelledCrops
from wsss_core.data.loading import EpochLoader
from wsss_core.data.manifest import Manifest
from wsss_core.jobs import digest_of
from wsss_core.models.classifier import Classifier, build_classifier, logits, save_model
from wsss_core.training.loop import Precision, finish, fit
from wsss_core.training.optim import PolySGD, parameter_groups


@dataclass(frozen=True)
class ClassifierSettings:
    """What every classifier training shares; the meanings stand in the schema of config.yaml."""

    backbone: str
    output_stride: int
    mode: str
    resize: tuple[int, int]
    crop: int
    augmentation: str
    batch_size: int
    accumulation: int
    epochs: int
    learning_rate: float
    weight_decay: float
    label_smoothing: float
    precision: str


def smooth(labels: Tensor, smoothing: float) -> Tensor:
    """Labels pulled towards 1/2: ``(1 - a) y + a / 2``."""
    return (1 - smoothing) * labels + smoothing / 2


def label_loss(scores: Tensor, targets: Tensor) -> Tensor:
    """Multi-label soft margin: binary cross-entropy with logits, mean over batch and classes."""
    return F.binary_cross_entropy_with_logits(scores, targets)


def label_batches(manifest: Manifest, classes: int, settings: ClassifierSettings, seed: int, workers: int):
    """The training batches of every classifier: ``image`` and ``labels``."""
    samples = LabelledCrops(
        manifest, classes, resize=settings.resize, size=settings.crop, augmentation=settings.augmentation
    )
    return EpochLoader(samples, batch_size=settings.batch_size, seed=seed, workers=workers)


def recipe(settings: ClassifierSettings, classes: int) -> dict:
    """What ``load_classifier`` needs to rebuild the network."""
    return {"backbone": settings.backbone, "output_stride": settings.output_stride, "classes": classes}


class VanillaStep:
    """One micro-step of the plain classifier; gradients are summed over ``accumulation`` steps, as published."""

    def __init__(self, model: Classifier, settings: ClassifierSettings, steps: int, device: torch.device):
        self.model, self.settings, self.device = model, settings, device
        self.precision = Precision(settings.precision, device)
        self.scaler = self.precision.scaler()
        groups = parameter_groups(model, model.scratch, settings.learning_rate, settings.weight_decay)
        self.optimizer = PolySGD(groups, updates=steps // settings.accumulation)

    def state(self) -> dict:
        return {"model": self.model, "optimizer": self.optimizer, "scaler": self.scaler}

    def __call__(self, batch: dict[str, Tensor], step: int) -> dict[str, Tensor]:
        images, labels = to_device(batch, self.device)
        with self.precision.autocast():
            scores = logits(self.model(images))
            loss = label_loss(scores, smooth(labels, self.settings.label_smoothing))
        self.scaler.scale(loss).backward()
        if (step + 1) % self.settings.accumulation == 0:
            self.optimizer.step(self.scaler)
        return {"loss": loss.detach()}


def to_device(batch: dict[str, Tensor], device: torch.device) -> tuple[Tensor, Tensor]:
    """A batch's images, channels last, and labels on the device."""
    images = batch["image"].to(device, memory_format=torch.channels_last, non_blocking=True)
    return images, batch["labels"].to(device, non_blocking=True)


def train_vanilla(
    *,
    manifest: Manifest,
    classes: int,
    weights: Path | None,
    settings: ClassifierSettings,
    output: Path,
    seed: int,
    device: torch.device,
    workers: int = 0,
) -> None:
    """Train the plain classifier and write its checkpoint, history and TensorBoard events.

    Args:
        manifest: images with labels; masks are never opened.
        classes: number of foreground classes.
        weights: ImageNet weights of the backbone, or None to start from random ones.
        output: the checkpoint to write.
    """
    model = build_classifier(
        settings.backbone, classes, output_stride=settings.output_stride, mode=settings.mode, weights=weights
    ).to(device, memory_format=torch.channels_last)
    loader = label_batches(manifest, classes, settings, seed, workers)
    step = VanillaStep(model, settings, settings.epochs * len(loader), device)
    fit(
        step=step,
        loader=loader,
        epochs=settings.epochs,
        state=step.state(),
        output=output,
        digest=digest_of(asdict(settings), manifest.digest(), seed, weights),
        lr=lambda: step.optimizer.lr,
    )
    save_model(output, model, recipe(settings, classes))
    finish(output)
