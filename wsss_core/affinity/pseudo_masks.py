"""Pseudo masks from the walked maps of a split."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from wsss_core.base.files import whole
from wsss_core.base.parallel import in_processes
from wsss_core.base.progress import count_progress
from wsss_core.data.classes import Classes
from wsss_core.data.manifest import Manifest, Row
from wsss_core.data.mask_folder import png_of
from wsss_core.data.masks import write_mask
from wsss_core.data.pictures import read_image
from wsss_core.maps.crf import LabelCRF
from wsss_core.maps.sizes import strided
from wsss_core.maps.store import MapStore

WALK_STRIDE = 4  # of the maps that walk


@dataclass(frozen=True)
class PseudoMaskSettings:
    """Background threshold of the walked maps, and the label CRF."""

    threshold: float
    iterations: int
    confidence: float


def make_pseudo_masks(
    *,
    manifest: Manifest,
    classes: Classes,
    walked: MapStore,
    folder: Path,
    settings: PseudoMaskSettings,
    workers: int = 1,
) -> None:
    """Write the pseudo masks of every image as palette PNG."""
    with whole(folder) as partial_folder:
        partial_folder.mkdir()
        task = partial(_write_pseudo_mask, walked=walked, folder=partial_folder, classes=classes, settings=settings)
        count_progress(in_processes(task, manifest.rows, workers), len(manifest))


def _write_pseudo_mask(
    row: Row, *, walked: MapStore, folder: Path, classes: Classes, settings: PseudoMaskSettings
) -> None:
    (mask,) = pseudo_masks(row, walked, (settings.threshold,), settings.iterations, settings.confidence)
    write_mask(png_of(folder, row.id), mask, classes)


def pseudo_masks(row: Row, walked: MapStore, thresholds, iterations: int, confidence: float) -> list[np.ndarray]:
    """Masks (H, W) uint8 of one image at several background thresholds, after the label CRF."""
    labels, maps = walked[row.id]
    values = np.array([0, *(labels + 1)], np.uint8)
    if not len(labels):
        return [np.zeros((row.height, row.width), np.uint8) for _ in thresholds]
    maps = finish_walk(maps, row.height, row.width)
    image = np.asarray(read_image(row.image))
    best, score = maps.argmax(axis=0), maps.max(axis=0)
    refine = LabelCRF(image, len(values), iterations, confidence)
    return [values[refine(np.where(score > threshold, best + 1, 0).astype(np.uint8))] for threshold in thresholds]


def finish_walk(walked: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bring walked maps to the size of their image: upsample by 4, crop, divide by the largest value.

    The maximum is over all classes and pixels (as in IRNet), so a weak class stays weak beside a strong one.

    Args:
        walked: (C, h, w) floats, at least 0, with h = ceil(height / 4) and w = ceil(width / 4).
        height, width: size of the image.

    Returns:
        (C, height, width) float32 in [0, 1]; all 0 if ``walked`` is.

    Raises:
        ValueError: the maps are not those of an image of this size.
    """
    if walked.shape[1:] != (strided(height, WALK_STRIDE), strided(width, WALK_STRIDE)):
        raise ValueError(f"maps {walked.shape} are not at stride {WALK_STRIDE} of {height} x {width} pixels")
    maps = np.empty((len(walked), height, width))
    size = WALK_STRIDE * walked.shape[2], WALK_STRIDE * walked.shape[1]
    for target, source in zip(maps, walked.astype(np.float64), strict=True):  # bilinear, as torch's interpolate
        target[...] = cv2.resize(source, size)[:height, :width]
    maps /= max(maps.max(initial=0), np.finfo(maps.dtype).tiny)
    return maps.astype(np.float32)
