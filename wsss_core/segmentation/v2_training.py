"""What DeepLabV2 has of its own in training, after deeplab-pytorch: images, updates, groups and schedule."""

from collections.abc import Callable, Sequence

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from wsss_core.data.classes import VOID
from wsss_core.data.manifest import Manifest, Row
from wsss_core.data.pictures import Pictures
from wsss_core.data.transforms import normalize, to_tensor
from wsss_core.fitting.loader import CountedLoader, EpochLoader
from wsss_core.fitting.optim import PolySGD, parameter_groups
from wsss_core.fitting.schedules import poly
from wsss_core.recipes.settings import DeeplabV2Settings
from wsss_core.segmentation.losses import multi_scale_loss
from wsss_core.segmentation.step import MaskStep
from wsss_core.segmentation.v2 import DeepLabV2


class ScaledCrops:
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
        row, scale = self.rows[index], self.scales[int(rng.integers(len(self.scales)))]
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


class SteppedPolySGD(PolySGD):
    """``PolySGD`` whose learning rates change at every so many updates only."""

    def __init__(self, groups: list[dict], *, updates: int, momentum: float, every: int):
        super().__init__(groups, updates=updates, momentum=momentum)
        # in place of PolySGD's own schedule, which its hook looks up by this name
        self.decay = torch.optim.lr_scheduler.LambdaLR(self.sgd, lambda update: poly(update // every * every, updates))


class DeeplabV2Step(MaskStep):
    """One micro-step of DeepLabV2."""

    def __init__(self, model: DeepLabV2, settings: DeeplabV2Settings, device: torch.device):
        # Caffe's factors: 1 for the backbone, 10 for weights and 20, without decay, for biases of the pyramid
        groups = parameter_groups(model, [model.aspp], settings.learning_rate, settings.weight_decay)
        optimizer = SteppedPolySGD(
            groups, updates=settings.updates, momentum=settings.momentum, every=settings.decay_every
        )
        super().__init__(
            model, optimizer, accumulation=settings.accumulation, precision=settings.precision, device=device
        )

    def outputs(self, images: Tensor) -> list[Tensor]:
        return self.model(images, every_scale=True)

    def loss(self, outputs: list[Tensor], masks: Tensor) -> Tensor:
        return multi_scale_loss(outputs, masks)


def prepare_v2(
    model: DeepLabV2,
    settings: DeeplabV2Settings,
    manifest: Manifest,
    read_mask: Callable[[Row], np.ndarray],
    *,
    seed: int,
    device: torch.device,
    workers: int,
) -> tuple[EpochLoader, int, DeeplabV2Step]:
    """Batches, number of epochs and step of a training; ``read_mask`` gives (H, W) uint8."""
    samples = ScaledCrops(manifest, read_mask, scales=settings.scales, size=settings.crop, padding=model.padding)
    batches = settings.updates * settings.accumulation
    loader = CountedLoader(samples, batches=batches, batch_size=settings.batch_size, seed=seed, workers=workers)
    return loader, loader.epochs, DeeplabV2Step(model, settings, device)
