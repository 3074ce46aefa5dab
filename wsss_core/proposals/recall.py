"""How many objects proposals can find at best: an upper limit of the average precision of what is chosen among them."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from pycocotools import mask as run_lengths

from wsss_core.data.manifest import Manifest
from wsss_core.instances.store import Instances, InstanceStore

COUNTS = (10, 20, 50, 100, 200, 500)
THRESHOLDS = (0.5, 0.7, 0.85)


def best_overlaps(proposals: Instances, truth: Instances, counts: Sequence[int]) -> np.ndarray:
    """Best IoU of each true object with the first n proposals, for each n: (counts, objects) float64.

    Crowds are no objects, nor is what has no pixel; where there are fewer proposals than n, all of them count.
    """
    objects = truth.kept(~truth.crowd & (truth.areas > 0))
    if not objects.masks or not proposals.masks:
        return np.zeros((len(counts), len(objects.masks)))
    iou = np.asarray(run_lengths.iou(proposals.masks, objects.masks, [0] * len(objects.masks)), np.float64)
    best = np.maximum.accumulate(iou)
    return best[np.minimum(counts, len(best)) - 1]


def recall(
    pictures: Iterable[tuple[Instances, Instances]],
    counts: Sequence[int] = COUNTS,
    thresholds: Sequence[float] = THRESHOLDS,
) -> dict[str, Any]:
    """The share of true objects that one of the first n proposals overlaps at least that much.

    Args:
        pictures: proposals, the best first, and the truth of each picture.

    Returns:
        ``objects`` and ``proposals`` (mean number of a picture), and ``first``: of each n and of ``all`` a dict with
        ``recall`` by threshold, ``overlap`` (mean best IoU) and ``class_overlap`` (its mean over classes).

    Raises:
        ValueError: there is no true object.
    """
    found, labels, numbers = [], [], []
    everything = [*counts, np.iinfo(np.int64).max]
    for proposals, truth in pictures:
        found.append(best_overlaps(proposals, truth, everything))
        labels.append(truth.labels[~truth.crowd & (truth.areas > 0)])
        numbers.append(len(proposals.masks))
    best = np.concatenate(found, 1) if found else np.zeros((len(everything), 0))
    if not best.shape[1]:
        raise ValueError("the recall of proposals needs true objects, and these pictures have none")
    of_class, label = np.unique(np.concatenate(labels), return_inverse=True)
    sizes = np.bincount(label, minlength=len(of_class))
    return {
        "objects": best.shape[1],
        "proposals": float(np.mean(numbers)),
        "first": {
            name: {
                "recall": {f"{threshold:g}": float((row >= threshold).mean()) for threshold in thresholds},
                "overlap": float(row.mean()),
                "class_overlap": float((np.bincount(label, row) / sizes).mean()),
            }
            for name, row in zip([*map(str, counts), "all"], best, strict=True)
        },
    }


def evaluate_proposals(
    *,
    manifest: Manifest,
    proposals: InstanceStore,
    truth: InstanceStore,
    counts: Sequence[int] = COUNTS,
    thresholds: Sequence[float] = THRESHOLDS,
) -> dict[str, Any]:
    """``recall`` of a split, and what the proposals were learnt from (``supervision``).

    Raises:
        StoreError: stores of another manifest.
        ValueError: there is no true object.
    """
    proposals.check(manifest)
    truth.check(manifest)
    found = recall(((proposals[row.id], truth[row.id]) for row in manifest), counts, thresholds)
    return {
        "images": len(manifest),
        **found,
        "true_objects_from": truth.about["truth"],
        "supervision": proposals.about["supervision"],
    }
