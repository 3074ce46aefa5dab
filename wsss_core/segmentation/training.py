"""Training of the segmentation network, DeepLabV3+ or DeepLabV2, on pseudo masks or on true ones."""

import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from wsss_core.base.checkpoints import read_model, save_model
from wsss_core.base.jobs import digest_of
from wsss_core.data.classes import Classes, DataError
from wsss_core.data.manifest import Manifest, Row
from wsss_core.data.mask_folder import folder_digest, read_folder_mask
from wsss_core.data.masks import read_mask
from wsss_core.data.samples import MaskedCrops
from wsss_core.fitting.loader import EpochLoader
from wsss_core.fitting.loop import finish, fit, placed
from wsss_core.fitting.optim import PolySGD, parameter_groups
from wsss_core.fitting.precision import Precision
from wsss_core.networks.backbones import build_backbone
from wsss_core.segmentation.losses import segmentation_loss
from wsss_core.segmentation.v2 import DeepLabV2, build_deeplabv2
from wsss_core.segmentation.v2_training import CountedLoader, DeeplabV2Settings, DeeplabV2Step, ScaledCrops
from wsss_core.segmentation.v3plus import DeepLabV3Plus

logger = logging.getLogger(__name__)


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
    compile: bool


NETWORK_SETTINGS = {"v3plus": DeeplabSettings, "v2": DeeplabV2Settings}  # by deeplab.network of config.yaml


class DeeplabStep:
    """One micro-step of DeepLabV3+; unlike in the CAM stage the loss is divided by the accumulation count."""

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
    masks: Path | None,
    weights: Path | None,
    settings: DeeplabSettings | DeeplabV2Settings,
    output: Path,
    seed: int,
    device: torch.device,
    workers: int = 0,
) -> None:
    """Train the network that the settings belong to; write its last checkpoint, history and TensorBoard events.

    No checkpoint is selected: the last one is kept, so that no label of a validation split has a say.

    Args:
        masks: folder of pseudo masks of the manifest's images, or None to train on the manifest's own, true masks.
        weights: ImageNet weights of the backbone, or None to start from random ones.

    Raises:
        DataError: true masks are asked for, and an image has none.
    """
    read, masks_digest = _training_masks(manifest, masks, classes)
    recipe = _recipe(settings) | {
        "classes": len(classes) + 1,
        "masks": "ground_truth" if masks is None else "pseudo_masks",
    }
    model = placed(_build(recipe, weights).train(), device, compiled=settings.compile)
    prepare = _prepare_v2 if isinstance(settings, DeeplabV2Settings) else _prepare_v3plus
    loader, epochs, step = prepare(model, settings, manifest, read, seed=seed, device=device, workers=workers)
    fit(
        step=step,
        loader=loader,
        epochs=epochs,
        state=step.state(),
        output=output,
        digest=digest_of(asdict(settings), manifest.digest(), seed, weights, masks_digest),
        lr=lambda: step.optimizer.lr,
    )
    save_model(output, model, "segmentation", recipe)
    finish(output)


def load_deeplab(path: str | Path) -> DeepLabV3Plus | DeepLabV2:
    """Rebuild a trained network from its checkpoint."""
    recipe, state = read_model(path, "segmentation")
    model = _build(recipe)
    model.load_state_dict(state)
    return model


def _recipe(settings: DeeplabSettings | DeeplabV2Settings) -> dict:
    """The plain values that, with the number of classes, make the network."""
    if isinstance(settings, DeeplabV2Settings):
        return {"network": "v2", "backbone": settings.backbone}
    names = ("backbone", "output_stride", "norm", "width")
    return {"network": "v3plus"} | {name: getattr(settings, name) for name in names}


def _build(recipe: dict, weights: Path | None = None) -> DeepLabV3Plus | DeepLabV2:
    if recipe.get("network") == "v2":  # checkpoints of the first version name no network
        return build_deeplabv2(recipe["backbone"], recipe["classes"], weights)
    backbone = build_backbone(recipe["backbone"], output_stride=recipe["output_stride"], weights=weights)
    return DeepLabV3Plus(backbone, recipe["classes"], recipe["norm"], recipe["width"])


def _prepare_v3plus(model, settings: DeeplabSettings, manifest, read, *, seed, device, workers):
    """Batches, number of epochs and step of DeepLabV3+."""
    samples = MaskedCrops(
        manifest, read, resize=settings.resize, size=settings.crop, augmentation=settings.augmentation
    )
    loader = EpochLoader(samples, batch_size=settings.batch_size, seed=seed, workers=workers)
    return loader, settings.epochs, DeeplabStep(model, settings, settings.epochs * len(loader), device)


def _prepare_v2(model, settings: DeeplabV2Settings, manifest, read, *, seed, device, workers):
    """Batches, number of epochs and step of DeepLabV2."""
    samples = ScaledCrops(manifest, read, scales=settings.scales, size=settings.crop, padding=model.padding)
    batches = EpochLoader(samples, batch_size=settings.batch_size, seed=seed, workers=workers, drop_last=False)
    loader = CountedLoader(batches, settings.iterations * settings.accumulation)
    return loader, loader.epochs, DeeplabV2Step(model, settings, device)


def _training_masks(
    manifest: Manifest, masks: Path | None, classes: Classes
) -> tuple[Callable[[Row], np.ndarray], str]:
    """What reads the mask of a row, and a digest of all masks."""
    if masks is not None:
        return partial(read_folder_mask, folder=masks, classes=classes), folder_digest(masks)
    bare = [row.id for row in manifest if not row.mask]
    if bare:
        raise DataError(
            f"{len(bare)} of {len(manifest)} training images have no true mask, the first is {bare[0]}: add the masks, "
            "train on a split that has them, or leave out the run's pseudo_masks: ground_truth"
        )
    logger.info("training on the true masks of all %d images: this network is fully supervised", len(manifest))
    return partial(_true_mask, classes=classes), digest_of(*(Path(row.mask) for row in manifest))


def _true_mask(row: Row, *, classes: Classes) -> np.ndarray:
    return read_mask(row.mask, classes, (row.height, row.width))
