"""Scores of pseudo masks and of predicted ones."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from wsss_core.affinity.pseudo_masks import pseudo_masks
from wsss_core.data.classes import Classes
from wsss_core.data.manifest import Manifest, Row
from wsss_core.maps.store import MapStore
from wsss_core.recipes.settings import LabelCrf, SweepSettings
from wsss_core.scores.metrics import confusion
from wsss_core.scores.results import fixed, label_crf, swept
from wsss_core.scores.totals import ground_truth, mask_confusion, total


def evaluate_pseudo_masks(
    *,
    manifest: Manifest,
    classes: Classes,
    maps: MapStore,
    crf: LabelCrf | None,
    settings: SweepSettings,
    workers: int = 1,
) -> dict:
    """Score the pseudo masks of refined maps at several background thresholds, each after any label CRF."""
    task = partial(_pseudo_confusions, maps=maps, classes=classes, thresholds=settings.all(), crf=crf)
    return {**swept(total(task, manifest, workers), settings, classes, manifest), "crf": label_crf(crf)}


def _pseudo_confusions(
    row: Row, *, maps: MapStore, classes: Classes, thresholds: Sequence[float], crf: LabelCrf | None
) -> np.ndarray:
    target = ground_truth(row, classes)
    # one matrix a threshold: a CRF stands in between, so that no histogram gives all of them at once
    masks = pseudo_masks(row, maps, thresholds, crf)
    return np.stack([confusion(mask, target, len(classes) + 1) for mask in masks])


def evaluate_masks(*, manifest: Manifest, classes: Classes, folder: Path, workers: int = 1) -> dict:
    """Score mask PNGs as they are."""
    return fixed(total(partial(mask_confusion, folder=folder, classes=classes), manifest, workers), classes, manifest)
