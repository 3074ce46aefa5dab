"""Scores of priors, saliency, pseudo masks and segmentation, as result files that explain themselves.

Confusion matrices are added over the whole split before any division. An image whose map or mask is missing or
unreadable stops the evaluation: the denominator never shrinks.
"""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np

from wsss_core.base.files import whole
from wsss_core.base.jobs import provenance
from wsss_core.data.classes import Classes, DataError
from wsss_core.data.manifest import Manifest
from wsss_core.recipes.settings import LabelCrf, SweepSettings, plain
from wsss_core.scores.metrics import false_rates, iou, mean_iou

logger = logging.getLogger(__name__)


def swept(matrices: np.ndarray, settings: SweepSettings, classes: Classes, manifest: Manifest) -> dict:
    """Scores at the best threshold, at the fixed one, and the whole curve; from (T, K, K) matrices."""
    thresholds = settings.all()
    tried = np.isin(thresholds, settings.thresholds)
    # the fixed threshold is never the best one, unless it is among those to try
    best, _ = best_of(np.where(tried[:, None, None], matrices, 0))
    fixed_index = thresholds.index(settings.fixed)
    rates = [false_rates(matrix) for matrix in matrices]
    if np.isnan(rates)[:, 0, 1:].all(1).any():
        raise DataError("no mask of the scored split shows an object, and none is found: there is nothing to score")
    return {
        **fixed(matrices[best], classes, manifest),
        "threshold": thresholds[best],
        "threshold_choice": f"best of {int(tried.sum())}, chosen on the scored split",
        "fixed": {"threshold": settings.fixed, "miou": mean_iou(matrices[fixed_index])},
        "curve": [
            {
                "threshold": threshold,
                "miou": mean_iou(matrix),
                # of the foreground alone, as P-NOC plots them
                "false_positives": float(np.nanmean(positives[1:])),
                "false_negatives": float(np.nanmean(negatives[1:])),
            }
            for threshold, matrix, (positives, negatives) in zip(thresholds, matrices, rates, strict=True)
        ],
    }


def fixed(matrix: np.ndarray, classes: Classes, manifest: Manifest) -> dict:
    """Scores of one (K, K) confusion matrix."""
    values = dict(zip(("background", *classes.names), iou(matrix), strict=True))
    absent = [name for name, value in values.items() if np.isnan(value)]
    return {
        "miou": mean_iou(matrix),
        "iou": {name: None if np.isnan(value) else float(value) for name, value in values.items()},
        # the published evaluator counts a class that is nowhere as 0; here it is in no mean, and so it is said
        "classes_scored": len(values) - len(absent),
        "classes_absent": absent,
        "images": len(manifest),
        "pixels": int(matrix.sum()),
    }


def best_of(matrices: np.ndarray) -> tuple[int, float]:
    """Index and mIoU of the best of (T, K, K) matrices; those without a pixel are never it."""
    scores = [mean_iou(matrix) if matrix.any() else -1.0 for matrix in matrices]
    best = int(np.argmax(scores))
    return best, scores[best]


def label_crf(crf: LabelCrf | None) -> dict | None:
    """What a result says of the label CRF before the score; null without any."""
    return None if crf is None else {"kind": "labels", **plain(crf)}


def write_result(path: str | Path, scores: dict, *, made_with: dict | None = None, **about: Any) -> None:
    """Write a result file: what was scored, the scores, and under ``scoring`` the device, seconds, versions and commit.

    Args:
        made_with: all that is behind what was scored, by artefact, each with its run and settings; None leaves it out.

    Scoring needs no network: its device is a CPU, wherever the networks ran (their jobs' logs say where).

    Raises:
        ValueError: a number is not finite; JSON has none such.
    """
    if "miou" in scores:
        logger.info("mIoU %.2f %%", 100 * scores["miou"])
    with whole(path) as partial_path:
        behind = {} if made_with is None else {"made_with": made_with}
        content = {**about, **scores, **behind, "scoring": provenance()}
        try:
            text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
        except ValueError as error:
            raise ValueError(f"{path} is not written: one of {', '.join(scores)} is not a finite number") from error
        partial_path.write_text(text + "\n", encoding="utf-8")
