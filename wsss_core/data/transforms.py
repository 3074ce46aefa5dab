"""Image transforms of training; all randomness comes from the numpy generator that is passed in.

Images are PIL RGB, masks PIL "L" (0..255, 255 void), maps float32 arrays (H, W).
"""

from collections.abc import Callable

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor

MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)
BICUBIC = Image.Resampling.BICUBIC
Rng = np.random.Generator
Operation = Callable[[Image.Image, int, Rng], Image.Image]  # its second argument is the strength


def normalize(image: Image.Image | np.ndarray) -> np.ndarray:
    """RGB (H, W, 3) uint8 -> float32, ImageNet mean 0 and deviation 1."""
    return (np.asarray(image, np.float32) / 255 - MEAN) / STD


def to_tensor(pixels: np.ndarray) -> Tensor:
    """(H, W, 3) -> contiguous tensor (3, H, W)."""
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))


def resize_longer_side(image: Image.Image, length: float, resample: Image.Resampling = BICUBIC) -> Image.Image:
    """Resize so that the longer side has ``length`` pixels; the aspect is kept."""
    scale = length / max(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    return image.resize((width, height), resample)


def crop_window(height: int, width: int, size: int, rng: Rng) -> tuple[slice, slice, slice, slice]:
    """Rows and columns of the source and of the (size, size) canvas.

    A side longer than the canvas is cut at a random place, a shorter one is placed at a random offset.
    """
    slices = []
    for side in (height, width):
        spare = side - size
        offset = int(rng.integers(abs(spare) + 1))
        take = min(side, size)
        source, target = (offset, 0) if spare > 0 else (0, offset)
        slices.append((slice(source, source + take), slice(target, target + take)))
    (source_rows, target_rows), (source_columns, target_columns) = slices
    return source_rows, source_columns, target_rows, target_columns


def crop(array: np.ndarray, window: tuple[slice, slice, slice, slice], size: int, fill: float) -> np.ndarray:
    """Apply ``crop_window`` to (H, W) or (H, W, 3); what the source does not cover is ``fill``."""
    rows, columns, to_rows, to_columns = window
    canvas = np.full((size, size, *array.shape[2:]), fill, array.dtype)
    canvas[to_rows, to_columns] = array[rows, columns]
    return canvas


def normalized_crop(pixels: np.ndarray, window: tuple[slice, slice, slice, slice], size: int) -> Tensor:
    """``crop`` of what ``normalize`` makes of the RGB (H, W, 3) uint8 pixels, as (3, size, size) float32; padding is 0.

    The same numbers to the last bit, for a fraction of the time: only what the window covers, a channel after another.
    """
    rows, columns, to_rows, to_columns = window
    canvas = np.zeros((3, size, size), np.float32)
    inside = canvas[:, to_rows, to_columns]
    inside[...] = pixels[rows, columns].transpose(2, 0, 1)
    inside /= 255
    inside -= MEAN[:, None, None]
    inside /= STD[:, None, None]
    return torch.from_numpy(canvas)


def jitter(image: Image.Image, rng: Rng, strength: float = 0.3, hue: float = 0.1) -> Image.Image:
    """Brightness, contrast, saturation (factor 1 +- strength) and hue (+- hue), in random order."""
    # only here, as torchvision takes two seconds to import and most jobs do without
    from torchvision.transforms import functional as TF

    changes = [TF.adjust_brightness, TF.adjust_contrast, TF.adjust_saturation]
    factors = [*rng.uniform(1 - strength, 1 + strength, 3), rng.uniform(-hue, hue)]
    for index in rng.permutation(4):
        change = TF.adjust_hue if index == 3 else changes[index]
        image = change(image, float(factors[index]))
    return image


def randaug(image: Image.Image, rng: Rng, operations: int = 2) -> Image.Image:
    """FixMatch's RandAugment as used by P-NOC: two operations of 14, each applied with probability 0.5, then a cut-out.

    Strengths 1 to 9; enhancing factors stay below 1, that is they only weaken. The cut-out is a black square of 17:
    published code names 16, and draws its rectangle with both ends.
    """
    for index in rng.integers(len(_OPERATIONS), size=operations):
        strength, applied = int(rng.integers(1, 10)), rng.random() < 0.5
        if applied:
            image = _OPERATIONS[index](image, strength, rng)
    return _cut_out(image, rng, 16)


def _cut_out(image: Image.Image, rng: Rng, side: int) -> Image.Image:
    width, height = image.size
    x, y = int(rng.integers(width)), int(rng.integers(height))
    left, top = max(0, x - side // 2), max(0, y - side // 2)
    box = (left, top, min(width, left + side + 1), min(height, top + side + 1))
    image = image.copy()
    image.paste((0, 0, 0), box)
    return image


def _enhance(kind: Callable[[Image.Image], ImageEnhance._Enhance]) -> Operation:
    return lambda image, v, rng: kind(image).enhance(0.09 * v + 0.05)


def _affine(image: Image.Image, matrix: tuple[float, ...]) -> Image.Image:
    return image.transform(image.size, Image.Transform.AFFINE, matrix)


def _sign(rng: Rng) -> int:
    return 1 if rng.random() < 0.5 else -1


def _shear_x(image: Image.Image, v: int, rng: Rng) -> Image.Image:
    return _affine(image, (1, _sign(rng) * 0.03 * v, 0, 0, 1, 0))


def _shear_y(image: Image.Image, v: int, rng: Rng) -> Image.Image:
    return _affine(image, (1, 0, 0, _sign(rng) * 0.03 * v, 1, 0))


def _shift(v: int, side: int, rng: Rng) -> int:
    return int(_sign(rng) * v * 0.3 / 10 * side)  # in this order, as whole pixels are cut off


def _translate_x(image: Image.Image, v: int, rng: Rng) -> Image.Image:
    return _affine(image, (1, 0, _shift(v, image.width, rng), 0, 1, 0))


def _translate_y(image: Image.Image, v: int, rng: Rng) -> Image.Image:
    return _affine(image, (1, 0, 0, 0, 1, _shift(v, image.height, rng)))


_OPERATIONS: list[Operation] = [
    lambda image, v, rng: ImageOps.autocontrast(image),
    _enhance(ImageEnhance.Brightness),
    _enhance(ImageEnhance.Color),
    _enhance(ImageEnhance.Contrast),
    lambda image, v, rng: ImageOps.equalize(image),
    lambda image, v, rng: image,
    lambda image, v, rng: ImageOps.posterize(image, int(0.4 * v) + 4),
    lambda image, v, rng: image.rotate(_sign(rng) * 3 * v),
    _enhance(ImageEnhance.Sharpness),
    _shear_x,
    _shear_y,
    lambda image, v, rng: ImageOps.solarize(image, 256 - int(25.6 * v)),
    _translate_x,
    _translate_y,
]

AUGMENTATIONS: dict[str, Callable[[Image.Image, Rng], Image.Image]] = {
    "none": lambda image, rng: image,
    "jitter": jitter,
    "randaug": randaug,
}
