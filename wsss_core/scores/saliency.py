"""Scores of saliency, by the masks that it makes of CAMs and of the known classes."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from wsss_core.data.classes import VOID, Classes
from wsss_core.data.manifest import Manifest, Row
from wsss_core.data.mask_folder import read_saliency
from wsss_core.data.pictures import read_image
from wsss_core.maps.crf import LabelCRF
from wsss_core.maps.sizes import full_size
from wsss_core.maps.store import MapStore
from wsss_core.scores.metrics import confusion, iou, mean_iou, sweep
from wsss_core.scores.results import SweepSettings, best_of, fixed, swept
from wsss_core.scores.totals import ground_truth, total


def evaluate_saliency(
    *,
    manifest: Manifest,
    classes: Classes,
    cams: MapStore,
    coarse: Path,
    refined: Path,
    settings: SweepSettings,
    workers: int = 1,
) -> dict:
    """Score CAMs with ``1 - saliency`` as the background plane, and the saliency itself against all objects.

    Args:
        coarse: folder of binary pseudo-saliency (C²AM's after its CRF); salient pixels take the best class.
        refined: folder of PoolNet's maps, whose scores are the main ones.
        settings: thresholds of the saliency for its own, two-class score.

    Returns:
        The main scores; ``coarse`` and ``refined``, each with ``miou`` and ``foreground_background``, the score of
        the saliency with all objects as one class.
    """
    task = partial(
        _saliency_confusions, coarse=coarse, refined=refined, cams=cams, classes=classes, thresholds=settings.all()
    )
    size, steps = len(classes) + 1, len(settings.all())
    coarse_classes, coarse_objects, refined_classes, refined_objects = _unpacked(
        total(task, manifest, workers), [(size, size), (steps, 2, 2)] * 2
    )
    return {
        **fixed(refined_classes, classes, manifest),
        "decision": "best class where its CAM exceeds 1 - saliency",
        "coarse": {"miou": mean_iou(coarse_classes), **_of_objects(coarse_objects, settings)},
        "refined": {"miou": mean_iou(refined_classes), **_of_objects(refined_objects, settings)},
    }


def _saliency_confusions(
    row: Row, *, coarse: Path, refined: Path, cams: MapStore, classes: Classes, thresholds: Sequence[float]
) -> np.ndarray:
    labels, maps = full_size(cams, row.id)
    target = ground_truth(row, classes)
    values = np.array([0, *(labels + 1)])
    parts = []
    for folder in (coarse, refined):
        saliency = read_saliency(folder, row)
        best = np.concatenate([1 - saliency[None], maps]).argmax(axis=0)
        parts.append(confusion(values[best], target, len(classes) + 1))
        parts.append(sweep(saliency[None], [1], _objects(target), thresholds, 2))
    return _packed(parts)


@dataclass(frozen=True)
class SaliencyScoreSettings(SweepSettings):
    """Thresholds of saliency, and the label CRF of the binary maps that they make; none with 0 iterations."""

    iterations: int
    confidence: float


def evaluate_saliency_gt(
    *,
    manifest: Manifest,
    classes: Classes,
    coarse: Path,
    refined: Path,
    settings: SaliencyScoreSettings,
    workers: int = 1,
) -> dict:
    """Score saliency as if the classes of all objects were known (rows "GT" of Table 6 of the P-NOC paper).

    A salient pixel has its true class; one whose truth is background has a class drawn from the image's labels, or
    background where the image has none. The draw depends on the image's id alone, and only shifts false positives
    between classes; the published code draws without a seed.

    Args:
        coarse: folder of binary pseudo-saliency (C²AM's after its CRF), column "P." of the table.
        refined: folder of PoolNet's maps, column "R.", whose scores are the main ones.
        settings: thresholds above which a pixel is salient, and the CRF of what comes out.

    Returns:
        What ``swept`` says of ``refined``; ``coarse`` and ``refined``, each with ``miou``, ``iou``, ``threshold`` and
        ``foreground_background``, the score with all objects as one class.
    """
    task = partial(_known_class_confusions, coarse=coarse, refined=refined, classes=classes, settings=settings)
    size, steps = len(classes) + 1, len(settings.all())
    coarse_classes, coarse_objects, refined_classes, refined_objects = _unpacked(
        total(task, manifest, workers), [(steps, size, size), (steps, 2, 2)] * 2
    )
    scores = {
        "coarse": swept(coarse_classes, settings, classes, manifest),
        "refined": swept(refined_classes, settings, classes, manifest),
    }
    objects = {"coarse": coarse_objects, "refined": refined_objects}
    entries = {
        name: {key: values[key] for key in ("miou", "iou", "threshold")} | _of_objects(objects[name], settings)
        for name, values in scores.items()
    }
    return {
        **scores["refined"],
        "decision": "true class where salient; where that is background, a random class of the image's labels",
        "crf": {"kind": "labels", "iterations": settings.iterations, "confidence": settings.confidence},
        **entries,
    }


def _known_class_confusions(
    row: Row, *, coarse: Path, refined: Path, classes: Classes, settings: SaliencyScoreSettings
) -> np.ndarray:
    target = ground_truth(row, classes)
    known, objects, size = _known_classes(row, target), _objects(target), len(classes) + 1
    parts = []
    for folder in (coarse, refined):
        saliency = read_saliency(folder, row)
        if settings.iterations:
            masks = _refined_masks(row, saliency, settings)
            parts.append(np.stack([confusion(known * mask, target, size) for mask in masks]))
            parts.append(np.stack([confusion(mask, objects, 2) for mask in masks]))
        else:
            labels = np.unique(known[known > 0])
            planes = np.where(known == labels[:, None, None], saliency, np.float32(-1))  # -1 exceeds no threshold
            parts.append(sweep(planes, labels, target, settings.all(), size))
            parts.append(sweep(saliency[None], [1], objects, settings.all(), 2))
    return _packed(parts)


def _known_classes(row: Row, target: np.ndarray) -> np.ndarray:
    """(H, W) uint8: the class of each pixel if it is salient, 0 where it can have none."""
    own = np.array(row.labels, np.uint8) + np.uint8(1)
    drawn = (
        np.random.default_rng(list(row.id.encode())).choice(own, target.shape) if len(own) else np.zeros_like(target)
    )
    return np.where(target == 0, drawn, np.where(target == VOID, 0, target)).astype(np.uint8)


def _refined_masks(row: Row, saliency: np.ndarray, settings: SaliencyScoreSettings) -> list[np.ndarray]:
    """A binary mask (H, W) uint8 for each threshold, after the label CRF."""
    refine = LabelCRF(np.asarray(read_image(row.image)), 2, settings.iterations, settings.confidence)
    masks, before = [], None
    for threshold in settings.all():
        salient = (saliency > np.float32(threshold)).astype(np.uint8)
        if before is None or not np.array_equal(salient, before):  # binary maps are the same at all thresholds
            refined = refine(salient)
        masks.append(refined)
        before = salient
    return masks


def _objects(target: np.ndarray) -> np.ndarray:
    """The ground truth with all objects as class 1; void stays."""
    return np.where((target > 0) & (target != VOID), 1, target)


def _of_objects(matrices: np.ndarray, settings: SweepSettings) -> dict:
    """The entry of the score with two classes, at the best threshold; from (T, 2, 2) matrices."""
    tried = np.isin(settings.all(), settings.thresholds)
    best, miou = best_of(np.where(tried[:, None, None], matrices, 0))
    values = zip(("background", "foreground"), iou(matrices[best]), strict=True)
    return {
        "foreground_background": {
            "miou": miou,
            "iou": {name: None if np.isnan(value) else float(value) for name, value in values},
            "threshold": settings.all()[best],
            "note": "two classes: not comparable with a mIoU over all classes, as in Table 6 of P-NOC's paper",
        }
    }


def _packed(parts: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate([part.ravel() for part in parts])


def _unpacked(total: np.ndarray, shapes: Sequence[tuple[int, ...]]) -> list[np.ndarray]:
    """Arrays of these shapes from what ``_packed`` made of them."""
    ends = np.cumsum([np.prod(shape) for shape in shapes])
    return [part.reshape(shape) for part, shape in zip(np.split(total, ends[:-1]), shapes, strict=True)]
