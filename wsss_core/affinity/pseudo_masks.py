"""Pseudo masks from the refined class maps of a split."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from wsss_core.base.files import whole
from wsss_core.base.jobs import Share
from wsss_core.base.parallel import in_processes
from wsss_core.base.progress import count_progress
from wsss_core.data.classes import Classes
from wsss_core.data.manifest import Manifest, Row
from wsss_core.data.mask_folder import write_folder_mask
from wsss_core.data.pictures import read_picture
from wsss_core.maps.crf import LabelCRF
from wsss_core.maps.memory import processes_for
from wsss_core.maps.sizes import MULTIPLE, cells, enlarge
from wsss_core.maps.store import MapStore
from wsss_core.recipes.settings import PseudoMaskSettings

MAP_STRIDE = 4  # of refined maps, whatever refined them


def make_pseudo_masks(
    *,
    manifest: Manifest,
    classes: Classes,
    maps: MapStore,
    folder: Path,
    settings: PseudoMaskSettings,
    workers: int | Share = 1,
) -> None:
    """Write the pseudo masks of every image as palette PNG.

    Args:
        maps: refined class maps at stride 4, such as those of ``walk.walk_cams``; with ``settings.each_class``, of any
            stride.
    """
    workers = processes_for("make_pseudo_masks", manifest, workers)
    with whole(folder) as partial_folder:
        partial_folder.mkdir()
        task = partial(_write_pseudo_mask, maps=maps, folder=partial_folder, classes=classes, settings=settings)
        count_progress(in_processes(task, manifest.rows, workers), len(manifest))


def _write_pseudo_mask(
    row: Row, *, maps: MapStore, folder: Path, classes: Classes, settings: PseudoMaskSettings
) -> None:
    (mask,) = pseudo_masks(row, maps, [settings.threshold], settings)
    write_folder_mask(row, mask, folder=folder, classes=classes)


def pseudo_masks(
    row: Row, maps: MapStore, thresholds: Sequence[float], settings: PseudoMaskSettings
) -> list[np.ndarray]:
    """Masks (H, W) uint8 of one image at several background thresholds, after the label CRF if there is any."""
    crf, (labels, found) = settings.crf, maps[row.id]
    if not len(labels):
        return [np.zeros((row.height, row.width), np.uint8) for _ in thresholds]
    if settings.each_class:  # as they are kept, and scored
        full = enlarge(found, maps.stride, row.height, row.width)
    else:
        full = finish_maps(found, row.height, row.width)
    best, score = full.argmax(axis=0), full.max(axis=0)
    places = [np.where(score > threshold, best + 1, 0).astype(np.uint8) for threshold in thresholds]
    if crf is not None:
        image = np.asarray(read_picture(row))
        refine = LabelCRF(image, len(labels) + 1, crf.iterations, crf.confidence)  # one set of kernels for all
        places = [refine(place) for place in places]
    values = np.array([0, *(labels + 1)], np.uint8)
    return [values[place] for place in places]


def finish_maps(maps: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bring refined maps to the size of their image: upsample by 4, crop, divide by the largest value.

    The maximum is over all classes and pixels (as in IRNet), so a weak class stays weak beside a strong one.

    Args:
        maps: (C, h, w) floats, at least 0, at stride 4 of the image's sides or of the next multiples of 16.
        height, width: size of the image.

    Returns:
        (C, height, width) float32 in [0, 1]; all 0 if ``maps`` is.

    Raises:
        ValueError: the maps are not those of an image of this size.
    """
    grids = [(cells(height, MAP_STRIDE, m), cells(width, MAP_STRIDE, m)) for m in (MAP_STRIDE, MULTIPLE)]
    if maps.shape[1:] not in grids:
        raise ValueError(f"maps {maps.shape} are not at stride {MAP_STRIDE} of {height} x {width} pixels")

    def enlarged(one: np.ndarray) -> np.ndarray:  # one map at a time, as those of a large image take much memory
        return enlarge(one[None].astype(np.float64), MAP_STRIDE, height, width)[0]

    peak = max((enlarged(one).max() for one in maps), default=0)
    full = np.empty((len(maps), height, width), np.float32)
    for target, one in zip(full, maps, strict=True):
        target[...] = enlarged(one) / max(peak, np.finfo(np.float64).tiny)
    return full
