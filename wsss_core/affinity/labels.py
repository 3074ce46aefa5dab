"""Affinity labels: what of an image's CAMs and saliency is likely right, for AffinityNet to learn from."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from wsss_core.base.files import whole
from wsss_core.base.jobs import Share
from wsss_core.base.parallel import in_processes
from wsss_core.base.progress import count_progress
from wsss_core.data.classes import Classes
from wsss_core.data.manifest import Manifest, Row
from wsss_core.data.mask_folder import read_saliency, write_folder_mask
from wsss_core.data.pictures import read_picture
from wsss_core.maps.crf import LabelCRF
from wsss_core.maps.memory import processes_for
from wsss_core.maps.sizes import full_size
from wsss_core.maps.store import MapStore
from wsss_core.recipes.settings import AffinityLabelSettings, CamLabelSettings, plain

UNCERTAIN = 255


def affinity_labels(
    image: np.ndarray,
    cams: np.ndarray,
    classes: Sequence[int],
    saliency: np.ndarray | None = None,
    foreground: float = 0.4,
    background: float = 0.1,
    iterations: int = 10,
    confidence: float = 0.7,
) -> np.ndarray:
    """Keep the labels of one image that are likely right, and mark the rest as uncertain.

    Without saliency (IRNet), CAMs cut at the high threshold give the classes; the pixels without a class that
    have none at the low threshold either are background. With saliency (P-NOC), the saliency cut at
    ``background`` decides about the background, and also takes the class from CAM pixels that it leaves out.
    Every one of these maps goes through the label CRF.

    Args:
        image: (H, W, 3) uint8, RGB.
        cams: (C', H, W) floats in [0, 1], a map for each class of the image.
        classes: C' mask values of these maps, 1..254; none gives no class pixels.
        saliency: (H, W) floats in [0, 1], or None.
        foreground: threshold that a CAM must exceed for its class.
        background: threshold of CAMs, or of saliency, at or below which a pixel is background.
        iterations, confidence: settings of ``crf_labels``.

    Returns:
        (H, W) uint8: mask values, 0 for background, 255 for uncertain.

    Raises:
        ValueError: shapes that do not fit.
    """
    _check_maps(image, cams, classes, saliency)

    def kernels(count: int) -> Callable[[np.ndarray], np.ndarray]:
        # with a single label there is nothing to refine
        return LabelCRF(image, count + 1, iterations, confidence) if count else np.asarray

    best = _best_rows(cams, foreground)
    # an image's kernels serve all its maps with one number of labels
    refine = kernels(len(classes) if saliency is None else 1)
    if saliency is None:
        possible = refine(_best_rows(cams, background))
    else:
        possible = refine((saliency > background).astype(np.uint8))
        best = best * possible  # no class where the saliency sees no object
        if len(classes) != 1:
            del refine  # those of a large image take gigabytes: never two at a time
            refine = kernels(len(classes))
    certain = refine(best)
    values = np.array([0, *classes], dtype=np.uint8)  # mask values of the CRF's labels
    return np.where((certain == 0) & (possible > 0), np.uint8(UNCERTAIN), values[certain])


def _best_rows(cams: np.ndarray, threshold: float) -> np.ndarray:
    """(H, W) uint8: 0 where no CAM is above the threshold, else 1 + the row of the highest CAM."""
    if not len(cams):
        return np.zeros(cams.shape[1:], dtype=np.uint8)
    plane = np.full_like(cams[:1], threshold)  # the first of equal values wins: a CAM has to exceed it
    return np.concatenate([plane, cams]).argmax(axis=0).astype(np.uint8)


def _check_maps(image: np.ndarray, cams: np.ndarray, classes: Sequence[int], saliency: np.ndarray | None) -> None:
    if cams.shape != (len(classes), *image.shape[:2]):
        raise ValueError(f"CAMs {cams.shape} do not fit {len(classes)} classes of an image {image.shape}")
    if saliency is not None and saliency.shape != image.shape[:2]:
        raise ValueError(f"saliency {saliency.shape} does not fit an image {image.shape}")


def make_affinity_labels(
    *,
    manifest: Manifest,
    classes: Classes,
    cams: MapStore,
    saliency: Path | None,
    folder: Path,
    settings: AffinityLabelSettings | CamLabelSettings,
    workers: int | Share = 1,
) -> None:
    """Write the affinity labels of every image as palette PNG: class, 0 background, 255 uncertain.

    Args:
        saliency: folder of 8 bit saliency PNGs, or None for the labels of IRNet.
    """
    workers = processes_for("make_affinity_labels", manifest, workers)
    with whole(folder) as partial_folder:
        partial_folder.mkdir()
        task = partial(
            _affinity_label,
            cams=cams,
            saliency=saliency,
            folder=partial_folder,
            classes=classes,
            settings=settings,
        )
        count_progress(in_processes(task, manifest.rows, workers), len(manifest))


def _affinity_label(
    row: Row,
    *,
    cams: MapStore,
    saliency: Path | None,
    folder: Path,
    classes: Classes,
    settings: AffinityLabelSettings | CamLabelSettings,
) -> None:
    labels, maps = full_size(cams, row.id)
    salient = None if saliency is None else read_saliency(saliency, row)
    mask = affinity_labels(
        np.asarray(read_picture(row)),
        maps,
        [int(label) + 1 for label in labels],
        salient,
        settings.foreground,
        settings.background,
        **(plain(settings.crf) if settings.crf else {"iterations": 0}),
    )
    write_folder_mask(row, mask, folder=folder, classes=classes)
