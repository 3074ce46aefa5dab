"""Training of PoolNet on the binary pseudo-saliency of C²AM-H."""

from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from wsss_core.base.checkpoints import read_model, save_model
from wsss_core.base.jobs import Share, digest_of
from wsss_core.data.manifest import Manifest, Row
from wsss_core.data.mask_folder import folder_digest, png_of
from wsss_core.data.masks import read_grey
from wsss_core.data.pictures import Pictures
from wsss_core.fitting.loader import EpochLoader
from wsss_core.fitting.loop import fit, placed
from wsss_core.fitting.snapshots import Snapshots, grey
from wsss_core.maps.memory import processes_for
from wsss_core.networks.backbones import Backbone, load_weights, read_state
from wsss_core.recipes.revisions import REVISION
from wsss_core.recipes.settings import PoolnetSettings, identity
from wsss_core.saliency.poolnet import PoolNet, build_poolnet


class SaliencyPairs:
    """Images at their own size with their pseudo-saliency, randomly mirrored; small images are left out.

    Args:
        smallest_side: a side of images that are left out, in pixels, or less.
        padding: the side that images will be padded to; small images that grow past the other are not left out.
        longest_side: photos with a longer side are reduced to this length of it, and so is their saliency.
    """

    def __init__(
        self,
        manifest: Manifest,
        folder: Path,
        smallest_side: int,
        padding: int = 0,
        longest_side: int | None = None,
    ):
        self.folder = folder
        pairs = zip(manifest.rows, manifest.limited(longest_side).rows, strict=True)
        kept = [(row, seen) for row, seen in pairs if max(min(seen.height, seen.width), padding) > smallest_side]
        self.rows = [row for row, _ in kept]
        self.pictures = Pictures([seen for _, seen in kept])

    def __len__(self) -> int:
        return len(self.rows)

    def sample(self, index: int, rng: np.random.Generator) -> dict[str, Tensor]:
        """``image`` (3, H, W) uint8 RGB and ``saliency`` (1, H, W) uint8, 0 or 255; in between where it was reduced."""
        row, seen = self.rows[index], self.pictures.rows[index]
        pixels = np.asarray(self.pictures[index]).transpose(2, 0, 1)
        saliency = read_grey(png_of(self.folder, row.id), (row.height, row.width))
        if seen != row:
            saliency = cv2.resize(saliency, (seen.width, seen.height), interpolation=cv2.INTER_AREA)
        saliency = saliency[None]
        if rng.random() < 0.5:
            pixels, saliency = pixels[..., ::-1], saliency[..., ::-1]
        return {"image": torch.from_numpy(pixels.copy()), "saliency": torch.from_numpy(saliency.copy())}


def saliency_loss(logits: Tensor, target: Tensor, iter_size: int = 10) -> Tensor:
    """Binary cross-entropy summed over the pixels and divided by ``iter_size``, as PoolNet is trained.

    It is a sum, so large images weigh more than small ones.

    Args:
        logits: (B, 1, H, W).
        target: (B, 1, H, W) or (B, H, W), in [0, 1].
        iter_size: images whose gradients are added up before one update (10, one at a time, in PoolNet);
            the sum of their losses is then the mean of the images' sums.

    Returns:
        A float32 scalar.
    """
    target = target.reshape(logits.shape).to(logits.device, torch.float32)
    return F.binary_cross_entropy_with_logits(logits.float(), target, reduction="sum") / iter_size


class PoolnetStep:
    """One image; Adam updates after every ``accumulation`` images.

    As in the published code, gradients are cleared where an epoch starts, while the count of images runs on.
    """

    def __init__(self, model: PoolNet, settings: PoolnetSettings, epoch_length: int, device: torch.device):
        self.model, self.settings, self.epoch_length, self.device = model, settings, epoch_length, device
        # without the scales and shifts of BatchNorm, which are frozen
        trained = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.Adam(
            trained, lr=settings.learning_rate, weight_decay=settings.weight_decay, foreach=True
        )

    def state(self) -> dict:
        return {"model": self.model, "optimizer": self.optimizer}

    def __call__(self, batch: dict[str, Tensor], step: int) -> dict[str, Tensor]:
        count = self.settings.accumulation
        if step % self.epoch_length == 0:
            self.optimizer.zero_grad()
        images = batch["image"].to(self.device, torch.float32, memory_format=torch.channels_last, non_blocking=True)
        target = batch["saliency"].to(self.device, torch.float32, non_blocking=True) / 255
        images, target = self.model.padded(self.model.preprocess(images)), self.model.padded(target)
        loss = saliency_loss(self.model(images), target, count)
        loss.backward()
        if (step + 1) % count == 0:
            self.optimizer.step()
            self.optimizer.zero_grad()
        # in place of the sum, whose size is that of the image
        return {"loss_a_pixel": loss.detach() * count / target.numel()}


def train_poolnet(
    *,
    manifest: Manifest,
    masks: Path,
    weights: Path | None,
    settings: PoolnetSettings,
    padding: int = 0,
    output: Path,
    seed: int,
    device: torch.device,
    workers: int = 0,
    share: int | Share = 1,
    pictures: int = 0,
) -> None:
    """Train PoolNet and write its checkpoint, history and TensorBoard events.

    Args:
        masks: folder of binary PNGs, see ``masks.make_saliency_masks``.
        weights: the backbone's weights (for those of Caffe the file of PoolNet's authors), or None.
        padding: side that smaller images are padded to with zeros, which are no objects; 0 for none.
        share: of the machine; on a CPU an image that needs more memory is refused before the training.
        pictures: epochs from one set of pictures of training images to the next, 0 for none; see ``Snapshots``.
    """
    if device.type == "cpu":
        processes_for("train_poolnet", manifest.limited(settings.longest_side), share)
    recipe: dict[str, Any] = {
        "backbone": settings.backbone,
        "width": settings.width,
        "padding": padding,
        "smallest_side": settings.smallest_side,
        "longest_side": settings.longest_side,
    }
    model = build_poolnet(**recipe)
    if weights is not None:
        load_backbone(model, settings.backbone, weights)
    placed(model, device)
    # images keep their own sizes, and so come one by one
    pairs = SaliencyPairs(manifest, masks, settings.smallest_side, padding, settings.longest_side)
    loader = EpochLoader(pairs, batch_size=1, seed=seed, workers=workers)
    step = PoolnetStep(model, settings, len(loader), device)
    fit(
        step=step,
        loader=loader,
        epochs=settings.epochs,
        state=step.state(),
        output=output,
        digest=digest_of(
            REVISION["train_poolnet"],
            identity(settings),
            padding,
            manifest.digest(),
            seed,
            weights,
            folder_digest(masks),
        ),
        lr=lambda: settings.learning_rate,
        snapshots=Snapshots(pictures, loader.samples.rows, model, partial(_draw, model)),
    )
    save_model(output, model, "poolnet", recipe)


def _draw(model: PoolNet, photo: Tensor, row: Row) -> Tensor:
    return grey(photo, model.saliency(photo.permute(0, 3, 1, 2).float())[0, 0])


def load_backbone(model: PoolNet, backbone: str, weights: Path) -> None:
    """Load the weights of a PoolNet's backbone, see ``load_weights``.

    Raises:
        ValueError: the file is a checkpoint of this pipeline, and the backbone one of Caffe. They may have the same
            tensors, but not the same input, nor the same strides within a stage.
    """
    if isinstance(model.backbone, Backbone):
        load_weights(model.backbone.network, weights)
    elif "recipe" in read_state(weights):
        raise ValueError(
            f"{weights} was trained by this pipeline and does not fit {backbone}: set saliency.poolnet.weights to "
            "pretrained or to a file of its authors, or saliency.poolnet.backbone to the backbone of that checkpoint"
        )
    else:
        load_weights(model.backbone, weights)


def load_poolnet(path: str | Path) -> PoolNet:
    """Rebuild a trained PoolNet from its checkpoint."""
    recipe, state = read_model(path, "poolnet")
    model = build_poolnet(**recipe)
    model.load_state_dict(state)
    return model
