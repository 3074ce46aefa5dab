"""Scores of CAMs."""

from collections.abc import Sequence
from functools import partial

import numpy as np

from wsss_core.data.classes import Classes
from wsss_core.data.manifest import Manifest, Row
from wsss_core.maps.sizes import full_size
from wsss_core.maps.store import MapStore
from wsss_core.recipes.settings import SweepSettings
from wsss_core.scores.metrics import sweep
from wsss_core.scores.results import swept
from wsss_core.scores.totals import ground_truth, total


def evaluate_cams(
    *, manifest: Manifest, classes: Classes, cams: MapStore, settings: SweepSettings, workers: int = 1
) -> dict:
    """Score CAMs with a constant background plane, for all thresholds in one pass.

    Returns:
        What ``swept`` says; image-level labels restrict the classes of each image, as in every published table.
    """
    task = partial(_sweep_cams, cams=cams, classes=classes, thresholds=settings.all())
    return swept(total(task, manifest, workers), settings, classes, manifest)


def _sweep_cams(row: Row, *, cams: MapStore, classes: Classes, thresholds: Sequence[float]) -> np.ndarray:
    labels, maps = full_size(cams, row.id)
    # in a mask, values count the background
    return sweep(maps, labels + 1, ground_truth(row, classes), thresholds, len(classes) + 1)
