"""Average precision of instances, by COCO's protocol and by that of the literature on VOC.

They differ in what becomes of a detection whose best object is taken already (COCO: the next one that overlaps enough;
VOC: wrong), in how the curve is averaged (at 101 recalls; its area), and in classes without true objects (COCO: 0
if there are detections of it; VOC: left out). COCO looks at 100 detections of a class in a picture and lets crowds be.
"""

import contextlib
import io
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import cv2
import numpy as np
from pycocotools import mask as run_lengths
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from wsss_core.data.classes import Classes
from wsss_core.data.manifest import Manifest
from wsss_core.instances.store import Instances, InstanceStore, instances_of
from wsss_core.proposals.recall import evaluate_proposals
from wsss_core.recipes.settings import InstanceScoreSettings

Protocol = Literal["coco", "voc"]
PROTOCOLS: tuple[Protocol, ...] = ("coco", "voc")
COCO_THRESHOLDS = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))
LIMIT = 100  # detections of a class in a picture that COCO's protocol looks at
TOUCHING = 5  # side of the square by which an object is widened to see whether it touches another one


def instance_ap(
    truth: Sequence[Sequence[tuple[np.ndarray, int]]],
    detections: Sequence[Sequence[tuple[np.ndarray, int, float]]],
    thresholds: Sequence[float],
    classes: int,
    protocol: Protocol = "coco",
) -> np.ndarray:
    """Average precision of instances.

    Args:
        truth: for each image its objects as (mask (H, W), class from 0).
        detections: for each image what was found, as (mask (H, W), class from 0, score).
        thresholds: overlaps (IoU) from which a detection is right.
        classes: how many there are.
        protocol: ``coco`` or ``voc``, see the module.

    Returns:
        (thresholds, classes) in [0, 1]; nan for a class without true objects, unless the protocol is ``coco`` and there
        are detections of it: 0.
    """
    return average_precision(
        [_of_pairs([(mask, label, 1.0) for mask, label in objects]) for objects in truth],
        [_of_pairs(found) for found in detections],
        thresholds,
        classes,
        protocol,
    )


def _of_pairs(found: Sequence[tuple[np.ndarray, int, float]]) -> Instances:
    if not found:
        return instances_of(np.zeros((0, 1, 1)), [])
    masks, labels, scores = zip(*found, strict=True)
    return instances_of(np.stack(masks), labels, scores)


def average_precision(
    truth: Sequence[Instances],
    detections: Sequence[Instances],
    thresholds: Sequence[float],
    classes: int,
    protocol: Protocol,
) -> np.ndarray:
    """As ``instance_ap``, of one ``Instances`` an image; true ones may be crowds."""
    if len(truth) != len(detections):
        raise ValueError(f"{len(truth)} images have true objects, {len(detections)} have detections")
    if protocol not in PROTOCOLS:
        raise ValueError(f"unknown protocol {protocol!r}; there are {', '.join(PROTOCOLS)}")
    if not truth:
        return np.full((len(thresholds), classes), np.nan)
    found = (_coco if protocol == "coco" else _voc)(truth, detections, thresholds, classes)
    found[:, ~_present(truth, classes)] = np.nan
    if protocol == "coco":
        found[:, ~_present(truth, classes) & _present(detections, classes)] = 0
    return found


def _present(images: Sequence[Instances], classes: int) -> np.ndarray:
    """(classes,) bool: which classes there is an object of, crowds apart."""
    return sum((np.bincount(one.labels[~one.crowd], minlength=classes) for one in images), np.zeros(classes, int)) > 0


def _coco(
    truth: Sequence[Instances], detections: Sequence[Instances], thresholds: Sequence[float], classes: int
) -> np.ndarray:
    """pycocotools' precision at 101 recalls, meant."""
    gt, dt = COCO(), COCO()
    sizes = [  # asked for with any mask, though run lengths have their own
        {"id": image, "height": 1, "width": 1} for image in range(len(truth))
    ]
    for api, images in ((gt, truth), (dt, detections)):
        rows = [(image, place) for image, one in enumerate(images) for place in range(len(one.masks))]
        api.dataset = {
            "images": sizes,
            "categories": [{"id": label} for label in range(classes)],
            "annotations": [
                {
                    "id": number,  # from 1: pycocotools takes 0 for no match
                    "image_id": image,
                    "category_id": int(images[image].labels[place]),
                    "segmentation": images[image].masks[place],
                    "score": float(images[image].scores[place]),
                    "area": int(images[image].areas[place]),
                    "iscrowd": int(images[image].crowd[place]),
                }
                for number, (image, place) in enumerate(rows, start=1)
            ],
        }
    with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does
        gt.createIndex()
        dt.createIndex()
        evaluation = COCOeval(gt, dt, "segm")
        evaluation.params.iouThrs = np.array(thresholds, float)
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
        evaluation.params.maxDets = [LIMIT]
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"][:, :, :, 0, -1]  # (thresholds, recalls, classes)
    return precision.mean(axis=1)


def _voc(
    truth: Sequence[Instances], detections: Sequence[Instances], thresholds: Sequence[float], classes: int
) -> np.ndarray:
    """The area under the falling envelope of the curve; all detections of a class by score, over the whole set."""
    result = np.zeros((len(thresholds), classes))
    for label in range(classes):
        scores, best, objects, first = [], [], [], 0  # of each detection: its score, its best overlap and object
        for true, found in zip(truth, detections, strict=True):
            ours, theirs = found.kept(found.labels == label), true.kept((true.labels == label) & ~true.crowd)
            overlap = np.zeros((len(ours.masks), 1))
            if ours.masks and theirs.masks:
                overlap = run_lengths.iou(ours.masks, theirs.masks, [0] * len(theirs.masks))
            scores.append(ours.scores)
            best.append(overlap.max(axis=1))
            objects.append(first + overlap.argmax(axis=1))
            first += max(1, len(theirs.masks))
        order = np.argsort(-np.concatenate(scores), kind="stable")
        overlaps, matched = np.concatenate(best)[order], np.concatenate(objects)[order]
        count = sum(int(((one.labels == label) & ~one.crowd).sum()) for one in truth)
        for row, threshold in enumerate(thresholds):
            enough = np.flatnonzero(overlaps >= threshold)
            right = np.zeros(len(order), bool)
            right[enough[np.unique(matched[enough], return_index=True)[1]]] = True  # of each object, the first one
            result[row, label] = _area(right, count)
    return result


def _area(right: np.ndarray, count: int) -> float:
    """The area under the envelope of precision over recall; ``right`` says it of each detection, by falling score."""
    hits = right.cumsum()
    precision = hits / np.arange(1, len(right) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float(envelope[right].sum() / max(count, 1))  # recall rises by 1 / count at each hit


def evaluate_instances(
    *,
    manifest: Manifest,
    classes: Classes,
    truth: InstanceStore,
    detections: InstanceStore,
    settings: InstanceScoreSettings,
    proposals: InstanceStore | None = None,
) -> dict[str, Any]:
    """Score the instances of a split.

    Beside the scores of all pictures stand those of some, told apart by the true objects: with several of a class, and
    with two of a class that touch.

    Args:
        proposals: what the instances were chosen from, or those that a detector has learnt from, if anything; then
            their recall stands beside, which no choice can exceed, though a detector can.

    Raises:
        StoreError: the truth is of another manifest, or an image has no instances in the store.
    """
    truth.check(manifest)
    true = [truth[row.id] for row in manifest]
    found = [detections[row.id] for row in manifest]
    several = np.array([_several(one) for one in true])
    touching = np.array([mixed and _touch(one) for mixed, one in zip(several, true, strict=True)])
    groups = {"several_of_a_class": several, "touching": touching}
    whole = _scores(true, found, settings, classes)
    return {
        **whole,
        **{
            name: _scores(_of(true, which), _of(found, which), settings, classes, detailed=False)
            for name, which in groups.items()
        },
        "true_objects_from": truth.about["truth"],
        **({} if proposals is None else {"proposals": _limits(manifest, proposals, truth, settings)}),
    }


def _limits(
    manifest: Manifest, proposals: InstanceStore, truth: InstanceStore, settings: InstanceScoreSettings
) -> dict[str, Any]:
    """What the best choice among proposals would find at each overlap, their number, what they were learnt from."""
    found = evaluate_proposals(
        manifest=manifest, proposals=proposals, truth=truth, counts=(), thresholds=settings.thresholds
    )
    names = {"a_picture": found["proposals"], "supervision": found["supervision"]}
    return {"recall": found["first"]["all"]["recall"], **names}


def _scores(
    truth: list[Instances],
    detections: list[Instances],
    settings: InstanceScoreSettings,
    classes: Classes,
    *,
    detailed: bool = True,
) -> dict[str, Any]:
    thresholds = sorted({*settings.thresholds, *COCO_THRESHOLDS})
    found = {
        protocol: average_precision(truth, detections, thresholds, len(classes), protocol) for protocol in PROTOCOLS
    }
    own = [thresholds.index(threshold) for threshold in settings.thresholds]
    every = [thresholds.index(threshold) for threshold in COCO_THRESHOLDS]
    counts = sum((_counts(one, len(classes)) for one in truth), np.zeros(len(classes), int))
    scores: dict[str, Any] = {
        "ap": {name: _named(settings, [_mean(values[row]) for row in own]) for name, values in found.items()},
        "coco_ap": _mean(found["coco"][every]),  # of the thresholds 0.5 to 0.95
        "images": len(truth),
        "objects": int(counts.sum()),
        "instances": sum(len(one.masks) for one in detections),
    }
    if not detailed:
        return scores
    return scores | {
        "by_class": {
            name: {
                "objects": int(counts[label]),
                **{kind: _named(settings, values[own, label].tolist()) for kind, values in found.items()},
            }
            for label, name in enumerate(classes.names)
        },
        "crowds": int(sum(one.crowd.sum() for one in truth)),
        "instances_of_a_class_and_picture_scored": {"coco": LIMIT, "voc": None},
    }


def _named(settings: InstanceScoreSettings, values: Sequence[float | None]) -> Mapping[str, float | None]:
    pairs = zip(settings.thresholds, values, strict=True)
    return {f"{threshold:g}": None if value is None or np.isnan(value) else value for threshold, value in pairs}


def _mean(values: np.ndarray) -> float | None:
    """The mean over the classes that there is a value of; None where there is none."""
    return None if np.isnan(values).all() else float(np.nanmean(values))


def _of(images: list[Instances], which: np.ndarray) -> list[Instances]:
    return [images[place] for place in np.flatnonzero(which)]


def _counts(objects: Instances, classes: int) -> np.ndarray:
    return np.bincount(objects.labels[~objects.crowd], minlength=classes)


def _several(objects: Instances) -> bool:
    """Whether two objects are of one class."""
    return bool((np.unique(objects.labels[~objects.crowd], return_counts=True)[1] > 1).any())


def _touch(objects: Instances) -> bool:
    """Whether two objects of a class have no more than a border of two pixels between them."""
    single = objects.kept(~objects.crowd)
    masks, square = single.dense(), np.ones((TOUCHING, TOUCHING), np.uint8)
    return any(
        (cv2.dilate(masks[one].astype(np.uint8), square).astype(bool) & masks[other]).any()
        for one in range(len(masks))
        for other in range(one)
        if single.labels[one] == single.labels[other]
    )
