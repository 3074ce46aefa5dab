"""Scores of CAMs."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from wsss_core.base.jobs import Share
from wsss_core.data.classes import Classes
from wsss_core.data.manifest import Manifest, Row
from wsss_core.data.masks import nearest
from wsss_core.maps.memory import processes_for
from wsss_core.maps.sizes import full_size
from wsss_core.maps.store import MapStore
from wsss_core.recipes.settings import SweepSettings
from wsss_core.scores.images import write_image_scores
from wsss_core.scores.metrics import sweep
from wsss_core.scores.results import swept_by_labels
from wsss_core.scores.totals import ground_truth, one_or_more_classes, totals_and_images


def evaluate_cams(
    *,
    manifest: Manifest,
    classes: Classes,
    cams: MapStore,
    settings: SweepSettings,
    images: Path | None = None,
    workers: int | Share = 1,
) -> dict:
    """Score CAMs with a constant background plane, for all thresholds in one pass.

    Args:
        images: the table to write of the images' own scores at the best threshold, see ``write_image_scores``.

    Returns:
        What ``swept_by_labels`` says; labels restrict the classes of each image, as in every published table.
    """
    workers = processes_for("evaluate_cams", manifest, workers)
    task = partial(_sweep_cams, cams=cams, classes=classes, thresholds=settings.all())
    groups, kept = totals_and_images(task, manifest, workers, by=one_or_more_classes, images=images is not None)
    scores = swept_by_labels(groups, settings, classes, manifest)
    if images:
        write_image_scores(images, manifest, classes, kept, settings.all().index(scores["threshold"]))
    return scores


def _sweep_cams(row: Row, *, cams: MapStore, classes: Classes, thresholds: Sequence[float]) -> np.ndarray:
    labels, maps = full_size(cams, row.id)
    # in a mask, values count the background
    return sweep(nearest(maps, row.own_size), labels + 1, ground_truth(row, classes), thresholds, len(classes) + 1)
