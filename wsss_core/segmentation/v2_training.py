"""What DeepLabV2 has of its own in training, after deeplab-pytorch: images, iterations, groups and schedule."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from wsss_core.data.classes import VOID
from wsss_core.data.manifest import Manifest, Row
from wsss_core.data.pictures import Pictures
from wsss_core.data.transforms import normalize, to_tensor
from wsss_core.fitting.loader import EpochLoader
from wsss_core.fitting.optim import PolySGD, parameter_groups
from wsss_core.fitting.precision import Precision
from wsss_core.fitting.schedules import poly
from wsss_core.segmentation.losses import multi_scale_loss
from wsss_core.segmentation.v2 import DeepLabV2


@dataclass(frozen=True)
class DeeplabV2Settings:
    """Settings of DeepLabV2's training; the meanings stand in the schema of config.yaml."""

    backbone: str
    scales: tuple[float, ...]
    crop: int
    batch_size: int
    accumulation: int
    iterations: int
    decay_every: int
    learning_rate: float
    weight_decay: float
    momentum: float
    precision: str
    compile: bool


class ScaledCrops(Dataset):
    """Random crops at random scales with a mask of class ids; what the image does not cover is right of it and below.

    Args:
        read_mask: row -> (H, W) uint8.
        scales: factors of the image's size, one of which is drawn; sizes are rounded down.
        padding: normalised colour (3,) of the pixels that no image covers; their mask is void.
    """

    def __init__(
        self,
        manifest: Manifest,
        read_mask: Callable[[Row], np.ndarray],
        *,
        scales: Sequence[float],
        size: int,
        padding: Sequence[float],
    ):
        self.rows, self.read_mask, self.pictures = manifest.rows, read_mask, Pictures(manifest.rows)
        self.scales, self.size, self.padding = scales, size, np.array(padding, np.float32)

    def __len__(self) -> int:
        return len(self.rows)

    def sample(self, index: int, rng: np.random.Generator) -> dict[str, Tensor]:
        """``image`` (3, size, size) float32, ImageNet normalisation, and ``mask`` (size, size) uint8."""
        row, scale = self.rows[index], self.scales[rng.integers(len(self.scales))]
        size = max(1, int(scale * row.width)), max(1, int(scale * row.height))
        # OpenCV's bilinear resize, unlike Pillow's, does not smooth what it shrinks; the published code has it so
        pixels = cv2.resize(normalize(self.pictures[index]), size, interpolation=cv2.INTER_LINEAR)
        mask = np.asarray(Image.fromarray(self.read_mask(row)).resize(size, Image.Resampling.NEAREST))
        pixels, mask = self._padded(pixels, self.padding), self._padded(mask, VOID)
        top, left = (int(rng.integers(side - self.size + 1)) for side in mask.shape)
        window = slice(top, top + self.size), slice(left, left + self.size)
        turn = -1 if rng.random() < 0.5 else 1
        return {
            "image": to_tensor(pixels[window][:, ::turn]),
            "mask": torch.from_numpy(mask[window][:, ::turn].copy()),
        }

    def _padded(self, array: np.ndarray, fill: np.ndarray | int) -> np.ndarray:
        height, width = array.shape[:2]
        canvas = np.empty((max(height, self.size), max(width, self.size), *array.shape[2:]), array.dtype)
        canvas[:] = fill
        canvas[:height, :width] = array
        return canvas


class CountedLoader:
    """Batches of a loader, until there were ``batches`` of them over all epochs; the last epoch ends there."""

    def __init__(self, loader: EpochLoader, batches: int):
        self.loader, self.batches = loader, batches

    def __len__(self) -> int:
        return min(len(self.loader), self.batches)

    @property
    def epochs(self) -> int:
        return -(-self.batches // len(self.loader))

    def epoch(self, epoch: int) -> Iterator[dict]:
        return islice(self.loader.epoch(epoch), self.batches - epoch * len(self.loader))


class SteppedPolySGD(PolySGD):
    """``PolySGD`` whose learning rates change at every so many updates only."""

    def __init__(self, groups: list[dict], *, updates: int, momentum: float, every: int):
        super().__init__(groups, updates=updates, momentum=momentum)
        self.decay = torch.optim.lr_scheduler.LambdaLR(self.sgd, lambda update: poly(update // every * every, updates))


class DeeplabV2Step:
    """One micro-step; an iteration, that is an update, takes ``accumulation`` of them and their mean loss."""

    def __init__(self, model: DeepLabV2, settings: DeeplabV2Settings, device: torch.device):
        self.model, self.settings, self.device = model, settings, device
        self.precision = Precision(settings.precision, device)
        self.scaler = self.precision.scaler()
        # Caffe's factors: 1 for the backbone, 10 for weights and 20, without decay, for biases of the pyramid
        groups = parameter_groups(model, [model.aspp], settings.learning_rate, settings.weight_decay)
        self.optimizer = SteppedPolySGD(
            groups, updates=settings.iterations, momentum=settings.momentum, every=settings.decay_every
        )

    def state(self) -> dict:
        return {"model": self.model, "optimizer": self.optimizer, "scaler": self.scaler}

    def __call__(self, batch: dict[str, Tensor], step: int) -> dict[str, Tensor]:
        images = batch["image"].to(self.device, memory_format=torch.channels_last, non_blocking=True)
        masks = batch["mask"].to(self.device, non_blocking=True)
        with self.precision.autocast():
            outputs = self.model(images, every_scale=True)
        loss = multi_scale_loss(outputs, masks)
        self.scaler.scale(loss / self.settings.accumulation).backward()
        if (step + 1) % self.settings.accumulation == 0:
            self.optimizer.step(self.scaler)
        return {"loss": loss.detach()}
