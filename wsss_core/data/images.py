"""Images of a manifest as training samples and as inputs at several scales."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from wsss_core.data.classes import VOID, DataError
from wsss_core.data.manifest import Manifest, Row
from wsss_core.data.transforms import (
    AUGMENTATIONS,
    crop,
    crop_window,
    normalize,
    resize_longer_side,
    to_tensor,
)


def read_image(path: str | Path) -> Image.Image:
    """Decode a picture to RGB; one that is missing, cut short or no picture is an error that names it."""
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (OSError, SyntaxError, ValueError) as error:  # Pillow raises all of them for broken files
        raise DataError(f"cannot read the image {path}: {error}") from error


class LabelledCrops(Dataset):
    """Random crops with image-level labels, for classifiers.

    The order is that of the published runs: longer side at random, mirror, colour, normalise, crop (padding is the
    mean colour).

    Args:
        resize: smallest and largest longer side, in pixels.
        augmentation: ``none``, ``jitter`` or ``randaug``.
    """

    def __init__(self, manifest: Manifest, classes: int, *, resize: Sequence[int], size: int, augmentation: str):
        self.rows = manifest.rows
        self.labels = manifest.multi_hot(classes)
        self.resize, self.size, self.augment = resize, size, AUGMENTATIONS[augmentation]

    def __len__(self) -> int:
        return len(self.rows)

    def sample(self, index: int, rng: np.random.Generator) -> dict[str, Tensor]:
        """``image`` (3, size, size) and ``labels`` (classes,)."""
        image = resize_longer_side(read_image(self.rows[index].image), _length(self.resize, rng))
        if rng.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        pixels = normalize(self.augment(image, rng))
        window = crop_window(*pixels.shape[:2], self.size, rng)
        return {
            "image": to_tensor(crop(pixels, window, self.size, 0.0)),
            "labels": torch.from_numpy(self.labels[index]),
        }


class MaskedCrops(Dataset):
    """Random crops with a mask of class ids; padding of the mask is void.

    Args:
        read_mask: row -> (H, W) uint8; pseudo masks or affinity labels, never ground truth in a weak recipe.
        augmentation: ``none`` or ``jitter``; others move the image but not its mask.
    """

    def __init__(
        self,
        manifest: Manifest,
        read_mask: Callable[[Row], np.ndarray],
        *,
        resize: Sequence[int],
        size: int,
        augmentation: str = "none",
    ):
        self.rows, self.read_mask = manifest.rows, read_mask
        self.resize, self.size, self.augment = resize, size, AUGMENTATIONS[augmentation]

    def __len__(self) -> int:
        return len(self.rows)

    def sample(self, index: int, rng: np.random.Generator) -> dict[str, Tensor]:
        """``image`` (3, size, size) and ``mask`` (size, size) uint8."""
        row, length = self.rows[index], _length(self.resize, rng)
        image = resize_longer_side(read_image(row.image), length)
        mask = resize_longer_side(Image.fromarray(self.read_mask(row)), length, Image.Resampling.NEAREST)
        if rng.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            mask = mask.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        pixels, labels = normalize(self.augment(image, rng)), np.asarray(mask)
        window = crop_window(*pixels.shape[:2], self.size, rng)
        return {
            "image": to_tensor(crop(pixels, window, self.size, 0.0)),
            "mask": torch.from_numpy(crop(labels, window, self.size, VOID)),
        }


class ScaledImages(Dataset):
    """Every image of a manifest at several scales, normalised, for inference; the first axis is the scale."""

    def __init__(self, manifest: Manifest, scales: Sequence[float]):
        self.rows, self.scales = manifest.rows, scales

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[int, list[Tensor]]:
        image = read_image(self.rows[index].image)
        width, height = image.size
        sizes = [(max(1, round(width * s)), max(1, round(height * s))) for s in self.scales]
        scaled = [image if size == image.size else image.resize(size, Image.Resampling.BICUBIC) for size in sizes]
        return index, [to_tensor(normalize(view)) for view in scaled]


def _length(resize: Sequence[int], rng: np.random.Generator) -> int:
    smallest, largest = resize
    return int(rng.integers(smallest, largest + 1))
