"""C²AM and C²AM-H: contrastive losses of the two pooled vectors, the loss of the hints, and the training."""

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from wsss_core.cam_store import CamStore
from wsss_core.cams import full_size
from wsss_core.data.images import HintedCrops
from wsss_core.data.loading import EpochLoader
from wsss_core.data.manifest import Manifest, Row
from wsss_core.jobs import digest_of
from wsss_core.models.backbones import build_backbone
from wsss_core.models.c2am import C2AM
from wsss_core.models.classifier import read_model, save_model
from wsss_core.training.loop import Precision, finish, fit
from wsss_core.training.optim import PolySGD, parameter_groups

# cosines are kept off 0 and 1, where the logarithms and their gradients have no bound
SMALLEST_COSINE, LARGEST_COSINE = 0.0005, 0.9995


def c2am_loss(foreground: Tensor, background: Tensor, alpha: float = 0.25) -> dict[str, Tensor]:
    """Contrast the foregrounds and backgrounds of a batch (P-NOC paper, equation 7).

    Unlike the printed equation, and like the published code, all means are over the B * B pairs with the
    diagonal, and the positive terms carry the minus sign that makes them losses. The number of images
    compared at once matters: gradient accumulation does not enlarge it.

    Args:
        foreground: (B, D), one pooled vector an image.
        background: (B, D).
        alpha: how fast the weight of a positive pair, exp(-alpha * rank), falls with its rank.

    Returns:
        ``positive_foreground``, ``positive_background`` and ``negative``: float32 scalars, none below 0,
        whose sum is the loss.
    """
    with torch.autocast(foreground.device.type, enabled=False):  # half precision cannot tell 0.9995 from 1
        foreground = F.normalize(foreground.float(), dim=1)
        background = F.normalize(background.float(), dim=1)
        return {
            "positive_foreground": _attract(foreground @ foreground.T, alpha),
            "positive_background": _attract(background @ background.T, alpha),
            "negative": -torch.log1p(-_bounded(background @ foreground.T)).mean(),
        }


def _attract(cosine: Tensor, alpha: float) -> Tensor:
    """Mean of -log(cosine) over all pairs, near neighbours first."""
    weights = torch.exp(-alpha * _ranks(cosine.detach()))
    return -(weights * torch.log(_bounded(cosine))).mean()


def _ranks(cosine: Tensor) -> Tensor:
    """Rank of column j in the descending order of row i: -1 for i itself, 0 for its nearest neighbour."""
    # an image is first in its own row even beside a copy of it, where rounding would decide
    own = torch.eye(len(cosine), dtype=torch.bool, device=cosine.device)
    order = cosine.masked_fill(own, torch.inf).argsort(dim=1, descending=True, stable=True)
    return order.argsort(dim=1) - 1


def _bounded(cosine: Tensor) -> Tensor:
    return cosine.clamp(SMALLEST_COSINE, LARGEST_COSINE)


def hint_loss(logits: Tensor, hint: Tensor, threshold: float = 0.4, smoothing: float = 0.1) -> Tensor:
    """Push the map towards foreground where the hints of a classifier say so (P-NOC paper, equation 11).

    Only high hints are used: a low one does not tell background from a part that the classifier overlooked.
    Unlike the paper's sum, and like the published code, this is the mean, and the label is smoothed.

    Args:
        logits: (B, 1, h, w).
        hint: (B, 1, H, W) or (B, H, W), in [0, 1]; resized to (h, w).
        threshold: a resized hint of at least this value is foreground.
        smoothing: the target is ``1 - smoothing / 2``.

    Returns:
        A float32 scalar: mean binary cross-entropy over all hinted pixels of the batch, 0 without any.
    """
    hint = hint.reshape(len(hint), 1, *hint.shape[-2:]).float()
    hint = F.interpolate(hint, logits.shape[-2:], mode="bicubic", align_corners=False)
    hinted = (hint >= threshold).float()
    logits = logits.float()
    target = torch.full_like(logits, 1 - smoothing / 2)
    loss = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    # sums in place of an index: no wait for the device, and no mean of nothing (NaN) without hints
    return (loss * hinted).sum() / hinted.sum().clamp(min=1)


@dataclass(frozen=True)
class C2amSettings:
    """Settings of C²AM-H's training; the meanings stand in the schema of config.yaml."""

    backbone: str
    crop: int
    batch_size: int
    accumulation: int
    epochs: int
    learning_rate: float
    weight_decay: float
    alpha: float
    hint_weight: float
    hint_threshold: float
    label_smoothing: float
    precision: str


class C2amStep:
    """One micro-step: the contrastive losses of the batch and the loss of its hints."""

    def __init__(self, model: C2AM, settings: C2amSettings, steps: int, device: torch.device):
        self.model, self.settings, self.device = model, settings, device
        self.precision = Precision(settings.precision, device)
        self.scaler = self.precision.scaler()
        groups = parameter_groups(model, model.scratch, settings.learning_rate, settings.weight_decay)
        self.optimizer = PolySGD(groups, updates=steps // settings.accumulation)

    def state(self) -> dict:
        return {"model": self.model, "optimizer": self.optimizer, "scaler": self.scaler}

    def __call__(self, batch: dict[str, Tensor], step: int) -> dict[str, Tensor]:
        settings = self.settings
        images = batch["image"].to(self.device, memory_format=torch.channels_last, non_blocking=True)
        hints = batch["hint"].to(self.device, non_blocking=True)
        with self.precision.autocast():
            foreground, background, logits = self.model(images)
        losses = c2am_loss(foreground, background, settings.alpha)
        losses["hint"] = hint_loss(logits, hints, settings.hint_threshold, settings.label_smoothing)
        loss = sum(losses.values()) + (settings.hint_weight - 1) * losses["hint"]
        self.scaler.scale(loss).backward()
        if (step + 1) % settings.accumulation == 0:
            self.optimizer.step(self.scaler)
        return {name: value.detach() for name, value in losses.items()}


def train_c2am(
    *,
    manifest: Manifest,
    hints: CamStore,
    weights: Path | None,
    settings: C2amSettings,
    output: Path,
    seed: int,
    device: torch.device,
    workers: int = 0,
) -> None:
    """Train C²AM-H and write its checkpoint, history and TensorBoard events.

    Args:
        hints: one map an image, in [0, 1], see ``saliency.make_hints``.
        weights: ImageNet weights of the backbone, or None to start from random ones.
        output: the checkpoint to write.
    """
    model = C2AM(build_backbone(settings.backbone, weights=weights))
    model.to(device, memory_format=torch.channels_last)
    samples = HintedCrops(manifest, HintReader(hints), size=settings.crop)
    loader = EpochLoader(samples, batch_size=settings.batch_size, seed=seed, workers=workers)
    step = C2amStep(model, settings, settings.epochs * len(loader), device)
    fit(
        step=step,
        loader=loader,
        epochs=settings.epochs,
        state=step.state(),
        output=output,
        digest=digest_of(asdict(settings), manifest.digest(), seed, weights, hints.digest()),
        lr=lambda: step.optimizer.lr,
    )
    save_model(output, model, {"backbone": settings.backbone})
    finish(output)


class HintReader:
    """Row -> hint map (H, W) float32; a picklable object, for workers."""

    def __init__(self, hints: CamStore):
        self.hints = hints

    def __call__(self, row: Row) -> np.ndarray:
        return full_size(self.hints, row.id)[1][0]


def load_c2am(path: str | Path) -> C2AM:
    """Rebuild a trained C²AM network from its checkpoint."""
    recipe, state = read_model(path)
    model = C2AM(build_backbone(recipe["backbone"]))
    model.load_state_dict(state)
    return model
