"""Folders of masks or grey maps that a stage wrote: the file of an image is ``<folder>/<image id>.png``."""

from pathlib import Path

import numpy as np

from wsss_core.base.jobs import digest_of
from wsss_core.data.classes import Classes
from wsss_core.data.manifest import Row
from wsss_core.data.masks import nearest, read_grey, read_mask, write_mask


def png_of(folder: str | Path, image_id: str) -> Path:
    """The file of an image in a folder."""
    return Path(folder, f"{image_id}.png")


def read_folder_mask(row: Row, *, folder: Path, classes: Classes) -> np.ndarray:
    """The mask of an image, (H, W) uint8 at the size that stages work at, see ``read_mask``."""
    return nearest(read_mask(png_of(folder, row.id), classes, row.own_size), (row.height, row.width))


def write_folder_mask(row: Row, mask: np.ndarray, *, folder: Path, classes: Classes) -> None:
    """Write the mask of an image, (H, W) uint8, at the photo's own size, see ``write_mask``."""
    write_mask(png_of(folder, row.id), nearest(mask, row.own_size), classes)


def read_saliency(folder: Path, row: Row) -> np.ndarray:
    """The saliency of an image, (H, W) float32 in [0, 1]."""
    return read_grey(png_of(folder, row.id), (row.height, row.width)).astype(np.float32) / 255


def folder_digest(folder: Path) -> str:
    """A digest of the names and contents of a folder's PNG files."""
    return digest_of(*[part for path in sorted(folder.glob("*.png")) for part in (path.name, path)])
