"""Masks and grey maps as PNG files."""

from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from wsss_core.base.files import whole
from wsss_core.data.classes import VOID, VOID_COLOUR, Classes, DataError
from wsss_core.data.decoding import MASKS, opened

# A third of zlib's usual time for a few per cent of size: a run writes tens of thousands of maps.
COMPRESS_LEVEL = 3


def read_mask(path: str | Path, classes: Classes, size: tuple[int, int] | None = None) -> np.ndarray:
    """Read a mask: a PNG with a palette or in grey holds values, one in RGB holds the classes' colours.

    Args:
        path: the file; its values are those of the whole data set (see ``Classes``).
        size: (height, width) of the image that it belongs to, checked if given.

    Returns:
        (H, W) uint8: 0 background, label + 1, 255 void or a class that the subset drops.

    Raises:
        DataError: an unreadable file, another size, or a value or colour that no class has.
    """
    stored, mode = _open(path, size)
    if mode in ("RGB", "RGBA"):
        return _from_colours(path, stored[..., :3], classes)
    if mode not in ("P", "L", "1"):
        raise DataError(f"{path}: a mask must be an 8-bit PNG with a palette, in grey or in RGB, not {mode}")
    mask = cv2.LUT(stored.astype(np.uint8, copy=False), classes.lookup)  # five times as fast as NumPy's indexing
    if mask.min() < 0:
        wrong = np.unique(stored[mask < 0]).tolist()
        allowed = np.flatnonzero(classes.lookup >= 0).tolist()
        raise DataError(f"{path}: mask values {wrong} belong to no class; the data set has {allowed}")
    return mask.astype(np.uint8)


def write_mask(path: str | Path, mask: np.ndarray, classes: Classes) -> None:
    """Write a mask as a palette PNG that ``read_mask`` reads back with the same classes.

    The file holds the values of the whole data set: a run on a subset of VOC writes cow as 10, as VOC does.

    Args:
        mask: (H, W) uint8 with 0..C and 255; another value is a ValueError.
    """
    if mask.dtype != np.uint8 or mask.ndim != 2:
        raise ValueError(f"a mask is (H, W) uint8, got {mask.shape} {mask.dtype}")
    values = np.full(256, VOID, np.uint8)
    values[: len(classes) + 1] = classes.file_values()
    if ((mask > len(classes)) & (mask != VOID)).any():
        raise ValueError(f"{path}: a mask of {len(classes)} classes cannot hold {np.unique(mask).tolist()}")
    palette = np.zeros((256, 3), np.uint8)
    palette[classes.file_values()] = classes.colours
    for other in classes.dropped:
        palette[other.value] = other.colour
    palette[VOID] = VOID_COLOUR
    image = Image.fromarray(values[mask])
    image.putpalette(palette.tobytes())
    with whole(path) as partial:
        image.save(partial, format="PNG", compress_level=COMPRESS_LEVEL)


def write_grey(path: str | Path, map: np.ndarray) -> None:
    """Write an (H, W) uint8 map as a grey PNG."""
    if map.dtype != np.uint8 or map.ndim != 2:
        raise ValueError(f"a grey map is (H, W) uint8, got {map.shape} {map.dtype}")
    with whole(path) as partial:
        Image.fromarray(map).save(partial, format="PNG", compress_level=COMPRESS_LEVEL)


def read_grey(path: str | Path, size: tuple[int, int] | None = None) -> np.ndarray:
    """Read an 8-bit grey PNG as (H, W) uint8; an unreadable file, another mode or size is a DataError."""
    stored, mode = _open(path, size)
    if mode != "L":
        raise DataError(f"{path}: an 8-bit grey PNG is needed, this one is {mode}")
    return stored


def read_numbers(path: str | Path, size: tuple[int, int] | None = None) -> np.ndarray:
    """Read numbers of objects, (H, W) uint8: 0 background, 255 void; another mode or size is a DataError."""
    stored, mode = _open(path, size)
    if mode not in ("P", "L"):
        raise DataError(f"{path}: numbers of objects need an 8-bit PNG with a palette or in grey, this one is {mode}")
    return stored


def nearest(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize (..., h, w) to (..., height, width): each pixel takes the one under its middle, as Pillow's NEAREST does.

    What was enlarged comes back as it was when it is reduced again.
    """
    if values.shape[-2:] == tuple(size):
        return values
    rows, columns = (
        (2 * np.arange(side) + 1) * old // (2 * side) for side, old in zip(size, values.shape[-2:], strict=True)
    )
    return values[..., rows[:, None], columns]


def _open(path: str | Path, size: tuple[int, int] | None) -> tuple[np.ndarray, str]:
    with opened(path, MASKS, "the mask or map") as image:
        if size is not None and image.size[::-1] != tuple(size):  # before it is decoded, whatever it says of itself
            has, needs = (f"{height} x {width}" for height, width in (image.size[::-1], size))
            raise DataError(f"{path}: height x width is {has}, the image's is {needs}")
        return np.array(image), image.mode


def _from_colours(path: str | Path, pixels: np.ndarray, classes: Classes) -> np.ndarray:
    """(H, W, 3) uint8 colours -> (H, W) uint8 mask values."""
    others = [other.colour for other in classes.dropped]
    known = _pack(np.array([*classes.colours.tolist(), *others, VOID_COLOUR], np.uint8))
    values = np.full(len(known), VOID, np.uint8)
    values[: len(classes) + 1] = np.arange(len(classes) + 1)
    order = np.argsort(known)
    packed = _pack(pixels)
    nearest = order[np.searchsorted(known[order], packed).clip(max=len(known) - 1)]
    unknown = known[nearest] != packed
    if unknown.any():
        colour = tuple(pixels[unknown][0].tolist())
        raise DataError(f"{path}: the colour {colour} belongs to no class of the data set")
    return values[nearest]


def _pack(colours: np.ndarray) -> np.ndarray:
    red, green, blue = np.moveaxis(colours.astype(np.int32), -1, 0)
    return red << 16 | green << 8 | blue
