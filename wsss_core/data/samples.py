"""Images of a manifest as training samples and as inputs at several scales."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from wsss_core.data.classes import VOID
from wsss_core.data.manifest import Manifest, Row
from wsss_core.data.pictures import Pictures, read_picture
from wsss_core.data.transforms import AUGMENTATIONS, MEAN, STD, crop, crop_window, normalized_crop, resize_longer_side


class LabelledCrops:
    """Random crops with image-level labels, for classifiers.

    The order is that of the published runs: longer side at random, mirror, colour, normalise, crop (padding is the
    mean colour).

    Args:
        resize: smallest and largest longer side, in pixels; ``rescale``, of the picture's own size, goes before it.
        augmentation: ``none``, ``jitter`` or ``randaug``.
        squash: the whole picture is resized to the square in place of the first and the last of these steps.
    """

    def __init__(
        self,
        manifest: Manifest,
        classes: int,
        *,
        resize: Sequence[int],
        rescale: tuple[float, float] | None = None,
        size: int,
        augmentation: str,
        squash: bool = False,
    ):
        self.rows, self.pictures = manifest.rows, Pictures(manifest.rows)
        self.labels = manifest.multi_hot(classes)
        self.resize, self.rescale, self.size = resize, rescale, size
        self.augment, self.squash = AUGMENTATIONS[augmentation], squash

    def __len__(self) -> int:
        return len(self.pictures)

    def sample(self, index: int, rng: np.random.Generator) -> dict[str, Tensor]:
        """``image`` (3, size, size) and ``labels`` (classes,)."""
        image = self.pictures[index]
        if self.squash:
            image = image.resize((self.size, self.size), Image.Resampling.BILINEAR)
        else:
            image = resize_longer_side(image, _longer_side(image, self.resize, self.rescale, rng))
        if rng.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        pixels = np.asarray(self.augment(image, rng))
        window = crop_window(pixels.shape[0], pixels.shape[1], self.size, rng)
        return {
            "image": normalized_crop(pixels, window, self.size),
            "labels": torch.from_numpy(self.labels[index]),
        }


class MaskedCrops:
    """Random crops with a mask of class ids; padding of the mask is void.

    Args:
        read_mask: row -> (H, W) uint8; pseudo masks or affinity labels, never ground truth in a weak recipe.
        resize: smallest and largest longer side, in pixels; ``rescale``, of the picture's own size, goes before it.
        augmentation: ``none`` or ``jitter``; others move the image but not its mask.
    """

    def __init__(
        self,
        manifest: Manifest,
        read_mask: Callable[[Row], np.ndarray],
        *,
        resize: Sequence[int],
        rescale: tuple[float, float] | None = None,
        size: int,
        augmentation: str = "none",
    ):
        self.rows, self.read_mask, self.pictures = manifest.rows, read_mask, Pictures(manifest.rows)
        self.resize, self.rescale, self.size, self.augment = resize, rescale, size, AUGMENTATIONS[augmentation]

    def __len__(self) -> int:
        return len(self.rows)

    def sample(self, index: int, rng: np.random.Generator) -> dict[str, Tensor]:
        """``image`` (3, size, size) and ``mask`` (size, size) uint8."""
        row, image = self.rows[index], self.pictures[index]
        length = _longer_side(image, self.resize, self.rescale, rng)
        image = resize_longer_side(image, length)
        mask = resize_longer_side(Image.fromarray(self.read_mask(row)), length, Image.Resampling.NEAREST)
        if rng.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            mask = mask.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        pixels, labels = np.asarray(self.augment(image, rng)), np.asarray(mask)
        window = crop_window(pixels.shape[0], pixels.shape[1], self.size, rng)
        return {
            "image": normalized_crop(pixels, window, self.size),
            "mask": torch.from_numpy(crop(labels, window, self.size, VOID)),
        }


class ScaledImages(Dataset):
    """Every image of a manifest at several scales, for inference: its index and (H_s, W_s, 3) uint8, one a scale.

    The pixels stay bytes until they are where the network is (see ``network_input``), which costs a quarter of the
    copying.
    """

    def __init__(self, manifest: Manifest, scales: Sequence[float]):
        self.rows, self.scales = manifest.rows, scales

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[int, list[Tensor]]:
        image = read_picture(self.rows[index])
        width, height = image.size
        sizes = [(max(1, round(width * s)), max(1, round(height * s))) for s in self.scales]
        scaled = [image if size == image.size else image.resize(size, Image.Resampling.BICUBIC) for size in sizes]
        return index, [torch.from_numpy(np.array(view)) for view in scaled]


def network_input(pixels: Tensor) -> Tensor:
    """(N, H, W, 3) uint8 -> (N, 3, H, W) float32 in channels_last, normalised as ``transforms.normalize`` does."""
    mean, deviation = (torch.from_numpy(values).to(pixels.device, non_blocking=True) for values in (MEAN, STD))
    return ((pixels.float() / 255 - mean) / deviation).permute(0, 3, 1, 2)


def _longer_side(
    image: Image.Image, resize: Sequence[int], rescale: tuple[float, float] | None, rng: np.random.Generator
) -> float:
    """A random length of the longer side: a share of the image's own, or of ``resize``."""
    return rng.uniform(*rescale) * max(image.size) if rescale else _length(resize, rng)


def _length(resize: Sequence[int], rng: np.random.Generator) -> int:
    smallest, largest = resize
    return int(rng.integers(smallest, largest + 1))
