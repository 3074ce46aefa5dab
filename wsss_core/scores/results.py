"""Scores of priors, saliency, pseudo masks and segmentation, as result files that explain themselves.

Confusion matrices are added over the whole split before any division. An image whose map or mask is missing or
unreadable stops the evaluation: the denominator never shrinks.
"""

import json
import logging
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from wsss_core.base.files import whole
from wsss_core.base.jobs import provenance
from wsss_core.data.classes import Classes, DataError
from wsss_core.data.manifest import Manifest
from wsss_core.recipes.settings import LabelCrf, SweepSettings, plain
from wsss_core.scores.metrics import false_rates, iou, mean_iou
from wsss_core.scores.totals import one_or_more_classes

logger = logging.getLogger(__name__)


def swept(matrices: np.ndarray, settings: SweepSettings, classes: Classes, manifest: Manifest) -> dict:
    """Scores at the best threshold, at the fixed one, and the whole curve; from (T, K, K) matrices."""
    thresholds = settings.all()
    tried = np.isin(thresholds, settings.tried())
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
            {"threshold": threshold, **_miou_and_rates(matrix)}  # rates as P-NOC plots them
            for threshold, matrix in zip(thresholds, matrices, strict=True)
        ],
    }


def swept_by_labels(
    groups: Mapping[str, np.ndarray], settings: SweepSettings, classes: Classes, manifest: Manifest
) -> dict:
    """What ``swept`` says of all images, and ``by_labels``: the same on those with one class and with several.

    Args:
        groups: (T, K, K) matrices by ``totals.one_or_more_classes``.
    """
    scores = swept(sum(groups.values(), np.zeros((), int)), settings, classes, manifest)
    best, counts = settings.all().index(scores["threshold"]), Counter(map(one_or_more_classes, manifest.rows))
    return scores | {
        "by_labels": {
            name: {"images": counts[name], **_miou_and_rates(groups[name][best])}
            for name in ("single", "multi")
            if name in groups
        }
    }


def _miou_and_rates(matrix: np.ndarray) -> dict[str, float]:
    """The mIoU of a (K, K) matrix, and how far objects are found too large or too small, means over their classes."""
    positives, negatives = false_rates(matrix)
    return {
        "miou": mean_iou(matrix),
        "false_positives": float(np.nanmean(positives[1:])),
        "false_negatives": float(np.nanmean(negatives[1:])),
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
        "confusion": matrix.tolist(),  # rows are the truth, columns what was found, in the order of the IoUs
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
            text = numbers_in_lines(json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False))
        except ValueError as error:
            raise ValueError(f"{path} is not written: one of {', '.join(scores)} is not a finite number") from error
        partial_path.write_text(text + "\n", encoding="utf-8")


def numbers_in_lines(text: str) -> str:
    """Indented JSON with each list of numbers on a line of its own, as a matrix of 80 classes has 6,561."""
    return re.sub(r"\[\s+([^][{}\"]+?)\s+\]", lambda found: f"[{' '.join(found[1].split())}]", text)
