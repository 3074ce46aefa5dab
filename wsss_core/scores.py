"""Scores of priors, saliency, pseudo masks and segmentation, as result files that explain themselves.

Confusion matrices are added over the whole split before any division. An image whose map or mask is missing or
unreadable stops the evaluation: the denominator never shrinks.
"""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from wsss_core.cam_store import CamStore
from wsss_core.cams import full_size
from wsss_core.data.classes import VOID, Classes, DataError
from wsss_core.data.manifest import Manifest, Row
from wsss_core.data.masks import read_mask
from wsss_core.files import whole
from wsss_core.jobs import provenance
from wsss_core.metrics import confusion, false_rates, iou, mean_iou, sweep
from wsss_core.parallel import in_processes
from wsss_core.pseudo_masks import pseudo_masks, read_saliency

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SweepSettings:
    """Background thresholds to try, increasing; ``fixed`` is the one reported beside the best."""

    thresholds: tuple[float, ...]
    fixed: float

    def all(self) -> list[float]:
        return sorted({*self.thresholds, self.fixed})


def evaluate_cams(
    *, manifest: Manifest, classes: Classes, cams: CamStore, settings: SweepSettings, workers: int = 1
) -> dict:
    """Score CAMs with a constant background plane, for all thresholds in one pass.

    Returns:
        What ``swept`` says; image-level labels restrict the classes of each image, as in every published table.
    """
    task = partial(_sweep_cams, cams=cams, classes=classes, thresholds=settings.all())
    return swept(_total(task, manifest, workers), settings, classes, manifest)


def _sweep_cams(row: Row, *, cams: CamStore, classes: Classes, thresholds: Sequence[float]) -> np.ndarray:
    labels, maps = full_size(cams, row.id)
    return sweep(maps, labels + 1, ground_truth(row, classes), thresholds, len(classes) + 1)


def evaluate_saliency(
    *,
    manifest: Manifest,
    classes: Classes,
    cams: CamStore,
    coarse: Path,
    refined: Path,
    settings: SweepSettings,
    workers: int = 1,
) -> dict:
    """Score CAMs with ``1 - saliency`` as the background plane, and the saliency itself against all objects.

    Args:
        coarse: folder of binary pseudo-saliency (C²AM-H after its CRF); salient pixels take the best class.
        refined: folder of PoolNet's maps, whose scores are the main ones.
        settings: thresholds of the saliency for its own, two-class score.
    """
    task = partial(
        _saliency_confusions,
        cams=cams,
        coarse=coarse,
        refined=refined,
        classes=classes,
        thresholds=settings.all(),
    )
    size = len(classes) + 1
    total = _total(task, manifest, workers)
    refined_scores, coarse_scores = total[: size * size], total[size * size : 2 * size * size]
    pairs = total[2 * size * size :].reshape(2, -1, 2, 2)
    scores = {
        **fixed(refined_scores.reshape(size, size), classes, manifest),
        "decision": "best class where its CAM exceeds 1 - saliency",
        "coarse": {"miou": mean_iou(coarse_scores.reshape(size, size))},
    }
    for name, matrices in zip(("coarse", "refined"), pairs, strict=True):
        best, miou = _best(matrices)
        scores.setdefault(name, {})["foreground_background"] = {
            "miou": miou,
            "threshold": settings.all()[best],
        }
    return scores


def _saliency_confusions(
    row: Row, *, cams: CamStore, coarse: Path, refined: Path, classes: Classes, thresholds: Sequence[float]
) -> np.ndarray:
    labels, maps = full_size(cams, row.id)
    target = ground_truth(row, classes)
    objects = np.where((target > 0) & (target < 255), 1, target)
    by_class, by_saliency = [], []
    for folder in (refined, coarse):
        saliency = read_saliency(folder, row)
        plane = 1 - saliency
        values = np.array([0, *(labels + 1)])
        best = np.concatenate([plane[None], maps]).argmax(axis=0)
        by_class.append(confusion(values[best], target, len(classes) + 1))
        by_saliency.append(sweep(saliency[None], [1], objects, thresholds, 2))
    return np.concatenate([part.ravel() for part in (*by_class, *by_saliency[::-1])])


def evaluate_pseudo_masks(
    *,
    manifest: Manifest,
    classes: Classes,
    walked: CamStore,
    iterations: int,
    confidence: float,
    settings: SweepSettings,
    workers: int = 1,
) -> dict:
    """Score pseudo masks at several background thresholds, each after the label CRF."""
    task = partial(
        _pseudo_confusions,
        walked=walked,
        classes=classes,
        thresholds=settings.all(),
        iterations=iterations,
        confidence=confidence,
    )
    scores = swept(_total(task, manifest, workers), settings, classes, manifest)
    return {**scores, "crf": {"kind": "labels", "iterations": iterations, "confidence": confidence}}


def _pseudo_confusions(row: Row, *, walked, classes, thresholds, iterations, confidence) -> np.ndarray:
    target = ground_truth(row, classes)
    masks = pseudo_masks(row, walked, thresholds, iterations, confidence)
    return np.stack([confusion(mask, target, len(classes) + 1) for mask in masks])


def evaluate_masks(*, manifest: Manifest, classes: Classes, folder: Path, workers: int = 1) -> dict:
    """Score mask PNGs as they are."""
    total = _total(partial(_mask_confusion, folder=folder, classes=classes), manifest, workers)
    return fixed(total, classes, manifest)


def _mask_confusion(row: Row, *, folder: Path, classes: Classes) -> np.ndarray:
    path = folder / f"{row.id}.png"
    prediction = read_mask(path, classes, (row.height, row.width))
    if (prediction == VOID).any():
        raise DataError(f"{path}: void pixels in a prediction; every pixel needs a class to be scored")
    return confusion(prediction, ground_truth(row, classes), len(classes) + 1)


def ground_truth(row: Row, classes: Classes) -> np.ndarray:
    """The true mask of an image, (H, W) uint8; an image without one cannot be scored."""
    if not row.mask:
        raise DataError(f"image {row.id} has no mask to be scored against: score a split that has masks")
    return read_mask(row.mask, classes, (row.height, row.width))


def swept(total: np.ndarray, settings: SweepSettings, classes: Classes, manifest: Manifest) -> dict:
    """Scores at the best threshold, at the fixed one, and the whole curve; from (T, K, K) matrices."""
    thresholds = settings.all()
    tried = np.isin(thresholds, settings.thresholds)
    best, _ = _best(np.where(tried[:, None, None], total, 0))
    fixed_index = thresholds.index(settings.fixed)
    rates = [false_rates(matrix) for matrix in total]
    return {
        **fixed(total[best], classes, manifest),
        "threshold": thresholds[best],
        "threshold_choice": f"best of {int(tried.sum())}, chosen on the scored split",
        "fixed": {"threshold": settings.fixed, "miou": mean_iou(total[fixed_index])},
        "curve": [
            {
                "threshold": threshold,
                "miou": mean_iou(matrix),
                "false_positives": float(np.nanmean(positives[1:])),
                "false_negatives": float(np.nanmean(negatives[1:])),
            }
            for threshold, matrix, (positives, negatives) in zip(thresholds, total, rates, strict=True)
        ],
    }


def fixed(matrix: np.ndarray, classes: Classes, manifest: Manifest) -> dict:
    """Scores of one (K, K) confusion matrix."""
    names = ("background", *classes.names)
    values = iou(matrix)
    return {
        "miou": mean_iou(matrix),
        "iou": {name: None if np.isnan(v) else float(v) for name, v in zip(names, values, strict=True)},
        "images": len(manifest),
        "pixels": int(matrix.sum()),
    }


def _best(matrices: np.ndarray) -> tuple[int, float]:
    scores = [mean_iou(matrix) if matrix.any() else -1.0 for matrix in matrices]
    best = int(np.argmax(scores))
    return best, scores[best]


def _total(task, manifest: Manifest, workers: int) -> np.ndarray:
    if not len(manifest):
        raise DataError("there are no images to score")
    total, every = None, max(1, len(manifest) // 20)
    for done, matrices in enumerate(in_processes(task, manifest.rows, workers), start=1):
        total = matrices if total is None else total + matrices
        if done % every == 0:
            logger.info("%d of %d images", done, len(manifest))
    return total


def write_result(path: str | Path, scores: dict, **about) -> None:
    """Write a result file: what was scored, the scores, and under ``scoring`` the device, seconds and versions.

    Scoring needs no network: its device is a CPU, wherever the networks ran (their jobs' logs say where).
    """
    logger.info("mIoU %.2f %%", 100 * scores["miou"])
    with whole(path) as partial_path:
        content = {**about, **scores, "scoring": provenance()}
        partial_path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
