"""Scores of pseudo masks and of predicted ones."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from wsss_core.affinity.pseudo_masks import pseudo_masks
from wsss_core.base.jobs import Share
from wsss_core.data.classes import Classes
from wsss_core.data.manifest import Manifest, Row
from wsss_core.data.masks import nearest
from wsss_core.maps.memory import processes_for
from wsss_core.maps.store import MapStore
from wsss_core.recipes.settings import PseudoMaskSettings, SweepSettings
from wsss_core.scores.images import write_image_scores
from wsss_core.scores.metrics import confusion
from wsss_core.scores.results import fixed, label_crf, swept_by_labels
from wsss_core.scores.totals import ALL, ground_truth, mask_confusion, one_or_more_classes, together, totals_and_images


def evaluate_pseudo_masks(
    *,
    manifest: Manifest,
    classes: Classes,
    maps: MapStore,
    masks: PseudoMaskSettings,
    settings: SweepSettings,
    images: Path | None = None,
    workers: int | Share = 1,
) -> dict:
    """Score the pseudo masks of class maps at several background thresholds, each after any label CRF.

    Args:
        images: the table to write of the images' own scores at the best threshold, see ``write_image_scores``.
    """
    workers = processes_for("evaluate_pseudo_masks", manifest, workers)
    task = partial(_pseudo_confusions, maps=maps, classes=classes, thresholds=settings.all(), settings=masks)
    groups, kept = totals_and_images(task, manifest, workers, by=one_or_more_classes, images=images is not None)
    scores = swept_by_labels(groups, settings, classes, manifest)
    if images:
        write_image_scores(images, manifest, classes, kept, settings.all().index(scores["threshold"]))
    return {**scores, "crf": label_crf(masks.crf)}


def _pseudo_confusions(
    row: Row, *, maps: MapStore, classes: Classes, thresholds: Sequence[float], settings: PseudoMaskSettings
) -> np.ndarray:
    target = ground_truth(row, classes)
    # one matrix a threshold: a CRF stands in between, so that no histogram gives all of them at once
    masks = pseudo_masks(row, maps, thresholds, settings)
    return np.stack([confusion(nearest(mask, row.own_size), target, len(classes) + 1) for mask in masks])


def evaluate_masks(
    *,
    manifest: Manifest,
    classes: Classes,
    folder: Path,
    images: Path | None = None,
    workers: int | Share = 1,
) -> dict:
    """Score mask PNGs as they are.

    Args:
        images: the table to write of the images' own scores, see ``write_image_scores``.
    """
    workers = processes_for("evaluate_segmentation", manifest, workers)
    task = partial(mask_confusion, folder=folder, classes=classes)
    sums, kept = totals_and_images(task, manifest, workers, by=together, images=images is not None)
    if images:
        write_image_scores(images, manifest, classes, kept)
    return fixed(sums[ALL], classes, manifest)
