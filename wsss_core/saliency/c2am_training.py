"""Training of C²AM and C²AM-H."""

import logging
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from wsss_core.base.checkpoints import read_model, save_model
from wsss_core.base.jobs import digest_of
from wsss_core.data.manifest import Manifest, Row
from wsss_core.data.pictures import Pictures, read_picture
from wsss_core.data.samples import network_input
from wsss_core.data.transforms import crop, crop_window, normalize, normalized_crop, to_tensor
from wsss_core.fitting.loader import EpochLoader
from wsss_core.fitting.loop import fit, placed
from wsss_core.fitting.optim import PolySGD, parameter_groups
from wsss_core.fitting.precision import Precision
from wsss_core.fitting.snapshots import Snapshots, grey
from wsss_core.maps.store import MapStore
from wsss_core.networks.backbones import build_backbone
from wsss_core.networks.batch_norm import group_batch_norm
from wsss_core.recipes.revisions import REVISION
from wsss_core.recipes.settings import C2amSettings, HintSettings, identity
from wsss_core.saliency.c2am import C2AM, c2am_loss
from wsss_core.saliency.hints import HintReader, hint_loss

logger = logging.getLogger(__name__)


class C2amStep:
    """One micro-step: the contrastive losses of the batch and, with settings of hints, the loss of its hints."""

    def __init__(
        self, model: C2AM, settings: C2amSettings, hints: HintSettings | None, steps: int, device: torch.device
    ):
        self.model, self.settings, self.hints, self.device = model, settings, hints, device
        self.precision = Precision(settings.precision, device)
        self.scaler = self.precision.scaler()
        # batches that are left over at the end of the training make no update
        self.optimizer = PolySGD(_groups(model, settings), updates=steps // settings.accumulation)

    def state(self) -> dict:
        return {"model": self.model, "optimizer": self.optimizer, "scaler": self.scaler}

    def __call__(self, batch: dict[str, Tensor], step: int) -> dict[str, Tensor]:
        settings = self.settings
        images = batch["image"].to(self.device, memory_format=torch.channels_last, non_blocking=True)
        with self.precision.autocast():
            foreground, background, logits = self.model(images)
        losses = c2am_loss(foreground, background, settings.alpha)
        loss = losses["positive_foreground"] + losses["positive_background"] + losses["negative"]
        if self.hints is not None:
            maps = batch["hint"].to(self.device, non_blocking=True)
            losses["hint"] = hint_loss(logits, maps, self.hints.threshold, self.hints.label_smoothing)
            loss = loss + self.hints.weight * losses["hint"]
        self.scaler.scale(loss).backward()  # added up over the batches of an update, not averaged
        if (step + 1) % settings.accumulation == 0:
            self.optimizer.step(self.scaler)
        return {name: value.detach() for name, value in losses.items()}


def _groups(model: C2AM, settings: C2amSettings) -> list[dict]:
    """Parameter groups of P-NOC, or those of the original C²AM.

    The original gives its new convolution the rate of the pretrained ones (``head_rate: 1``) and has the weights
    and biases of BatchNorm in no group; their running statistics go on in both.
    """
    if not settings.train_batch_norm:
        for layer in model.modules():
            if isinstance(layer, nn.modules.batchnorm._BatchNorm):
                layer.requires_grad_(False)
    scratch = [] if settings.head_rate == 1 else model.scratch
    return parameter_groups(model, scratch, settings.learning_rate, settings.weight_decay)


def train_c2am(
    *,
    manifest: Manifest,
    hints: MapStore | None,
    weights: Path | None,
    settings: C2amSettings,
    hint_settings: HintSettings | None,
    output: Path,
    seed: int,
    device: torch.device,
    workers: int = 0,
    pictures: int = 0,
) -> None:
    """Train C²AM-H, or without hints C²AM, and write its checkpoint, history and TensorBoard events.

    Hints decide what is foreground. Without them the border of the training images does, after the training, see
    ``find_direction``; the checkpoint's recipe keeps the answer.

    Args:
        hints: one map an image, in [0, 1], see ``hints.make_hints``; None trains C²AM.
        weights: ImageNet weights of the backbone, or None to start from random ones.
        hint_settings: the loss of the hints, None without them.
        output: the checkpoint to write.
        pictures: epochs from one set of pictures of training images to the next, 0 for none; see ``Snapshots``.

    Raises:
        ValueError: hints without their settings, or the reverse.
    """
    if (hints is None) != (hint_settings is None):
        raise ValueError("C²AM-H takes hints and their settings, C²AM neither of them")
    model = C2AM(build_backbone(settings.backbone, weights=weights))
    group_batch_norm(model, settings.batch_size, settings.batch_norm_group)
    placed(model, device, compiled=settings.compile)
    read_hint, hints_digest = (None, None) if hints is None else (HintReader(hints), hints.digest())
    samples = SquashedCrops(manifest, read_hint, side=squashed_side(settings), size=settings.crop)
    loader = EpochLoader(samples, batch_size=settings.batch_size, seed=seed, workers=workers)
    step = C2amStep(model, settings, hint_settings, settings.epochs * len(loader), device)
    fit(
        step=step,
        loader=loader,
        epochs=settings.epochs,
        state=step.state(),
        output=output,
        digest=digest_of(
            REVISION["train_c2am"],
            identity(settings),
            hint_settings and identity(hint_settings),
            manifest.digest(),
            seed,
            weights,
            hints_digest,
        ),
        lr=lambda: step.optimizer.lr,
        snapshots=Snapshots(pictures, manifest.rows, model, partial(_draw, model)),
    )
    if hints is None:  # nothing in the losses tells the two sides apart
        images = DataLoader(SquashedImages(manifest, settings.crop), settings.batch_size, num_workers=workers)
        model.direction = find_direction(model, images, step.precision, device)
    recipe = {"backbone": settings.backbone, "hints": hints is not None, "direction": model.direction}
    save_model(output, model, "c2am", recipe)


def _draw(model: C2AM, photo: Tensor, row: Row) -> Tensor:
    """The foreground as grey values; without hints it may be the background, as is known at the end alone."""
    return grey(photo, torch.sigmoid(model.salient_logits(network_input(photo)))[0, 0])


def squashed_side(settings: C2amSettings) -> int:
    """Side of the square that training images are squashed to, in pixels."""
    return int(settings.squash * settings.crop)


@torch.inference_mode()
def find_direction(model: C2AM, images: Iterable[Tensor], precision: Precision, device: torch.device) -> int:
    """Tell which side of C²AM's split is foreground: what lies along the borders of pictures mostly is background.

    Args:
        images: batches (B, 3, H, W) of whole, normalised images.

    Returns:
        -1 if the mean of the sigmoid of the logits over the border pixels of all maps exceeds 1/2, else 1.
    """
    model.eval()
    total, count = torch.zeros((), dtype=torch.float64, device=device), 0
    for batch in images:
        with precision.autocast():
            logits = model(batch.to(device, memory_format=torch.channels_last, non_blocking=True))[2]
        total += border_means(torch.sigmoid(logits.float())).double().sum()
        count += len(batch)
    mean = total.item() / count
    logger.info("the border of %d images is foreground with %.3f on average: %s", count, mean,
                "positive logits are background" if mean > 0.5 else "positive logits are foreground")  # fmt: skip
    return -1 if mean > 0.5 else 1


def border_means(maps: Tensor) -> Tensor:
    """Mean over the outermost pixels of each map: (B, 1, h, w) -> (B,)."""
    border = torch.ones(maps.shape[-2:], dtype=torch.bool, device=maps.device)
    border[1:-1, 1:-1] = False
    return maps[:, 0, border].mean(dim=1)


def _squashed(image: Image.Image, side: int) -> Image.Image:
    return image.resize((side, side), Image.Resampling.BILINEAR)


class SquashedCrops:
    """Images squashed to a square, with their hint maps if there are any; cropped and mirrored.

    Args:
        read_hint: row -> (H, W) float32 in [0, 1], or None.
        side: side of the square.
        size: side of the crop.
    """

    def __init__(self, manifest: Manifest, read_hint: Callable[[Row], np.ndarray] | None, *, side: int, size: int):
        self.rows, self.read_hint, self.side, self.size = manifest.rows, read_hint, side, size
        self.pictures = Pictures(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def sample(self, index: int, rng: np.random.Generator) -> dict[str, Tensor]:
        """``image`` (3, size, size), and ``hint`` (1, size, size) if there are hints."""
        # all is drawn before a hint is read: C²AM and C²AM-H see the same crops
        row, window = self.rows[index], crop_window(self.side, self.side, self.size, rng)
        mirrored = rng.random() < 0.5
        pixels = np.asarray(_squashed(self.pictures[index], self.side))
        sample = {"image": normalized_crop(pixels, window, self.size)}
        if self.read_hint is not None:
            hint = np.asarray(_squashed(Image.fromarray(self.read_hint(row)), self.side))
            sample["hint"] = torch.from_numpy(crop(hint, window, self.size, 0.0))[None]  # 0 hints at nothing
        if mirrored:
            sample = {name: value.flip(2) for name, value in sample.items()}
        return sample


class SquashedImages(Dataset):
    """Whole images squashed to a square and normalised, (3, side, side)."""

    def __init__(self, manifest: Manifest, side: int):
        self.rows, self.side = manifest.rows, side

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Tensor:
        return to_tensor(normalize(_squashed(read_picture(self.rows[index]), self.side)))


def load_c2am(path: str | Path) -> C2AM:
    """Rebuild a trained C²AM network, with its direction, from its checkpoint."""
    recipe, state = read_model(path, "c2am")
    model = C2AM(build_backbone(recipe["backbone"]), recipe["direction"])
    model.load_state_dict(state)
    return model
