"""Training of AffinityNet's edge branch on affinity labels."""

from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from wsss_core.affinity.network import AffinityNet
from wsss_core.affinity.pairs import affinity_loss
from wsss_core.base.checkpoints import read_model, save_model
from wsss_core.base.jobs import digest_of
from wsss_core.data.classes import Classes
from wsss_core.data.manifest import Manifest
from wsss_core.data.mask_folder import folder_digest, read_folder_mask
from wsss_core.data.samples import MaskedCrops
from wsss_core.fitting.loader import EpochLoader
from wsss_core.fitting.loop import fit, placed
from wsss_core.fitting.optim import PolySGD
from wsss_core.fitting.precision import Precision
from wsss_core.networks.backbones import build_backbone
from wsss_core.recipes.revisions import REVISION
from wsss_core.recipes.settings import AffinitySettings, identity


class AffinityStep:
    """One update of the edge layers, in full precision."""

    def __init__(self, model: AffinityNet, settings: AffinitySettings, classes: int, steps: int, device: torch.device):
        self.model, self.settings, self.classes, self.device = model, settings, classes, device
        # the loss tells affinities apart that half precision cannot
        self.scaler = Precision("float32", device).scaler()
        group = {
            "params": list(model.edge_parameters()),
            "lr": settings.learning_rate,
            "weight_decay": settings.weight_decay,
        }
        self.optimizer = PolySGD([group], updates=steps)

    def state(self) -> dict:
        return {"model": self.model, "optimizer": self.optimizer}

    def __call__(self, batch: dict[str, Tensor], step: int) -> dict[str, Tensor]:
        images = batch["image"].to(self.device, memory_format=torch.channels_last, non_blocking=True)
        masks = batch["mask"].to(self.device, non_blocking=True)
        edge = torch.sigmoid(self.model(images))
        # the pixel in the middle of each cell, as Pillow's nearest resize takes it in the published code
        masks = F.interpolate(masks[:, None], edge.shape[2:], mode="nearest-exact")[:, 0]
        losses = affinity_loss(edge, masks, self.classes, self.settings.radius)
        losses["total"].backward()  # the others are for the history
        self.optimizer.step(self.scaler)
        return {name: value.detach() for name, value in losses.items()}


def train_affinity(
    *,
    manifest: Manifest,
    classes: Classes,
    labels: Path,
    weights: Path | None,
    settings: AffinitySettings,
    output: Path,
    seed: int,
    device: torch.device,
    workers: int = 0,
) -> None:
    """Train AffinityNet and write its checkpoint, history and TensorBoard events.

    Args:
        labels: folder of affinity labels, see ``labels.make_affinity_labels``.
        weights: ImageNet weights of the frozen backbone, or None (then only useful for tests).
    """
    model = AffinityNet(build_backbone(settings.backbone, weights=weights))
    placed(model, device)
    samples = MaskedCrops(
        manifest,
        partial(read_folder_mask, folder=labels, classes=classes),
        resize=settings.resize,
        size=settings.crop,
    )
    loader = EpochLoader(samples, batch_size=settings.batch_size, seed=seed, workers=workers)
    step = AffinityStep(model, settings, len(classes) + 1, settings.epochs * len(loader), device)
    fit(
        step=step,
        loader=loader,
        epochs=settings.epochs,
        state=step.state(),
        output=output,
        digest=digest_of(
            REVISION["train_affinity"],
            list(classes.names),
            identity(settings),
            manifest.digest(),
            seed,
            weights,
            folder_digest(labels),
        ),
        lr=lambda: step.optimizer.lr,
    )
    save_model(output, model, "affinity", {"backbone": settings.backbone})


def load_affinity(path: str | Path) -> AffinityNet:
    """Rebuild a trained AffinityNet from its checkpoint."""
    recipe, state = read_model(path, "affinity")
    model = AffinityNet(build_backbone(recipe["backbone"]))
    model.load_state_dict(state)
    return model
