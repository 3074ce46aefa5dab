"""Scores of pseudo masks and of predicted ones."""

from functools import partial
from pathlib import Path

import numpy as np

from wsss_core.affinity.pseudo_masks import pseudo_masks
from wsss_core.data.classes import Classes
from wsss_core.data.manifest import Manifest, Row
from wsss_core.maps.store import MapStore
from wsss_core.scores.metrics import confusion
from wsss_core.scores.results import SweepSettings, fixed, swept
from wsss_core.scores.totals import ground_truth, mask_confusion, total


def evaluate_pseudo_masks(
    *,
    manifest: Manifest,
    classes: Classes,
    walked: MapStore,
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
    scores = swept(total(task, manifest, workers), settings, classes, manifest)
    return {**scores, "crf": {"kind": "labels", "iterations": iterations, "confidence": confidence}}


def _pseudo_confusions(row: Row, *, walked, classes, thresholds, iterations, confidence) -> np.ndarray:
    target = ground_truth(row, classes)
    masks = pseudo_masks(row, walked, thresholds, iterations, confidence)
    return np.stack([confusion(mask, target, len(classes) + 1) for mask in masks])


def evaluate_masks(*, manifest: Manifest, classes: Classes, folder: Path, workers: int = 1) -> dict:
    """Score mask PNGs as they are."""
    return fixed(total(partial(mask_confusion, folder=folder, classes=classes), manifest, workers), classes, manifest)
