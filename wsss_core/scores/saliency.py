"""Scores of saliency, by the masks that it makes of CAMs and of the known classes."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from wsss_core.base.jobs import Share
from wsss_core.data.classes import VOID, Classes
from wsss_core.data.manifest import Manifest, Row
from wsss_core.data.mask_folder import read_saliency
from wsss_core.data.masks import nearest
from wsss_core.data.pictures import read_picture
from wsss_core.maps.crf import LabelCRF
from wsss_core.maps.memory import processes_for
from wsss_core.maps.sizes import full_size
from wsss_core.maps.store import MapStore
from wsss_core.recipes.settings import LabelCrf, SaliencyScoreSettings, SweepSettings
from wsss_core.scores.metrics import confusion, iou, mean_iou, sweep
from wsss_core.scores.results import best_of, fixed, label_crf, swept
from wsss_core.scores.totals import ground_truth, total


def evaluate_saliency(
    *,
    manifest: Manifest,
    classes: Classes,
    cams: MapStore,
    coarse: Path,
    refined: Path | None,
    settings: SweepSettings,
    workers: int | Share = 1,
) -> dict:
    """Score CAMs with ``1 - saliency`` as the background plane, and the saliency itself against all objects.

    Args:
        coarse: folder of binary pseudo-saliency (C²AM's after its CRF); salient pixels take the best class.
        refined: folder of PoolNet's maps, whose scores are the main ones; without them those of ``coarse`` are.
        settings: thresholds of the saliency for its own, two-class score.

    Returns:
        The main scores; ``coarse`` and, if given, ``refined``, each with ``miou`` and ``foreground_background``, the
        score of the saliency with all objects as one class.
    """
    workers = processes_for("evaluate_saliency", manifest, workers)
    folders = _given(coarse, refined)
    task = partial(
        _saliency_confusions, folders=list(folders.values()), cams=cams, classes=classes, thresholds=settings.all()
    )
    size, steps = len(classes) + 1, len(settings.all())
    counts = _unpacked(total(task, manifest, workers), [(size, size), (steps, 2, 2)] * len(folders))
    of_classes, of_objects = counts[::2], counts[1::2]
    return {
        **fixed(of_classes[-1], classes, manifest),
        "decision": "best class where its CAM exceeds 1 - saliency",
        **{
            name: {"miou": mean_iou(matrix), **_of_objects(objects, settings)}
            for name, matrix, objects in zip(folders, of_classes, of_objects, strict=True)
        },
    }


def _given(coarse: Path, refined: Path | None) -> Mapping[str, Path]:
    """The folders of maps that a run has, by name; the main scores are those of the last one."""
    return {"coarse": coarse} if refined is None else {"coarse": coarse, "refined": refined}


def _saliency_confusions(
    row: Row, *, folders: Sequence[Path], cams: MapStore, classes: Classes, thresholds: Sequence[float]
) -> np.ndarray:
    labels, maps = full_size(cams, row.id)
    maps, target = nearest(maps, row.own_size), ground_truth(row, classes)
    values = np.array([0, *(labels + 1)])
    parts = []
    for folder in folders:
        saliency = nearest(read_saliency(folder, row), row.own_size)
        best = np.concatenate([1 - saliency[None], maps]).argmax(axis=0)  # a tie is background
        parts.append(confusion(values[best], target, len(classes) + 1))
        parts.append(sweep(saliency[None], [1], _objects(target), thresholds, 2))
    return _packed(parts)


def evaluate_saliency_gt(
    *,
    manifest: Manifest,
    classes: Classes,
    coarse: MapStore,
    refined: Path | None,
    crf: LabelCrf | None,
    settings: SaliencyScoreSettings,
    workers: int | Share = 1,
) -> dict:
    """Score saliency as if the classes of all objects were known (rows "GT" of Table 6 of the P-NOC paper).

    A salient pixel has its true class; one whose truth is background has a class drawn from the image's labels, or
    background where the image has none. The draw depends on the image's id alone, and only shifts false positives
    between classes; the published code draws without a seed.

    Args:
        coarse: C²AM's maps, which the thresholds cut, column "P." of the table.
        refined: folder of PoolNet's maps, column "R.", whose scores are the main ones; without them those of
            ``coarse`` are.
        crf: the CRF of each mask that is cut from ``coarse``, that of the binary pseudo-saliency.
        settings: thresholds above which a pixel is salient, and the CRF of each mask that is cut from ``refined``.

    Returns:
        What ``swept`` says of the main scores; ``coarse`` and, if given, ``refined``, each with ``miou``, ``iou``,
        ``threshold``, ``crf`` and ``foreground_background``, the score with all objects as one class.
    """
    workers = processes_for("evaluate_saliency_gt", manifest, workers)
    readers: dict[str, tuple[Callable[[Row], np.ndarray], LabelCrf | None]] = {
        "coarse": (partial(_coarse_map, coarse), crf)
    }
    if refined is not None:
        readers["refined"] = partial(read_saliency, refined), settings.crf
    task = partial(_known_class_confusions, readers=list(readers.values()), classes=classes, thresholds=settings.all())
    size, steps = len(classes) + 1, len(settings.all())
    counts = _unpacked(total(task, manifest, workers), [(steps, size, size), (steps, 2, 2)] * len(readers))
    scores = [swept(matrices, settings, classes, manifest) for matrices in counts[::2]]
    own = [label_crf(after) for _, after in readers.values()]
    return {
        **scores[-1],
        "ground_truth_used": True,
        "decision": "true class where salient; where that is background, a random class of the image's labels",
        "crf": own[-1],
        **{
            name: {key: found[key] for key in ("miou", "iou", "threshold")}
            | {"crf": after}
            | _of_objects(objects, settings)
            for name, found, after, objects in zip(readers, scores, own, counts[1::2], strict=True)
        },
    }


def _coarse_map(maps: MapStore, row: Row) -> np.ndarray:
    """C²AM's map of an image, (H, W) float32 in [0, 1); 0 without any class, as in the binary pseudo-saliency."""
    if not row.labels:
        return np.zeros((row.height, row.width), np.float32)
    return full_size(maps, row.id)[1][0]


def _known_class_confusions(
    row: Row,
    *,
    readers: Sequence[tuple[Callable[[Row], np.ndarray], LabelCrf | None]],
    classes: Classes,
    thresholds: Sequence[float],
) -> np.ndarray:
    target = ground_truth(row, classes)
    known, objects, size = _known_classes(row, target), _objects(target), len(classes) + 1
    parts = []
    for read, crf in readers:
        saliency = read(row)
        if crf is not None:
            # after a CRF a lower threshold need not cover a higher one's mask: each is counted on its own
            masks = [nearest(mask, row.own_size) for mask in _refined_masks(row, saliency, thresholds, crf)]
            parts.append(np.stack([confusion(known * mask, target, size) for mask in masks]))
            parts.append(np.stack([confusion(mask, objects, 2) for mask in masks]))
        else:
            saliency, labels = nearest(saliency, row.own_size), np.unique(known[known > 0])
            planes = np.where(known == labels[:, None, None], saliency, np.float32(-1))  # -1 exceeds no threshold
            parts.append(sweep(planes, labels, target, thresholds, size))
            parts.append(sweep(saliency[None], [1], objects, thresholds, 2))
    return _packed(parts)


def _known_classes(row: Row, target: np.ndarray) -> np.ndarray:
    """(H, W) uint8: the class of each pixel if it is salient, 0 where it can have none."""
    own = np.array(row.labels, np.uint8) + np.uint8(1)
    # seeded by the id itself: Python's hash of a text differs between processes
    drawn = (
        np.random.default_rng(list(row.id.encode())).choice(own, target.shape) if len(own) else np.zeros_like(target)
    )
    return np.where(target == 0, drawn, np.where(target == VOID, 0, target)).astype(np.uint8)


def _refined_masks(row: Row, saliency: np.ndarray, thresholds: Sequence[float], crf: LabelCrf) -> list[np.ndarray]:
    """A binary mask (H, W) uint8 for each threshold, after the label CRF."""
    refine = LabelCRF(np.asarray(read_picture(row)), 2, crf.iterations, crf.confidence)
    masks, before = [], None
    for threshold in thresholds:
        salient = (saliency > np.float32(threshold)).astype(np.uint8)
        if before is None or not np.array_equal(salient, before):  # maps may have no value in between
            refined = refine(salient)
        masks.append(refined)
        before = salient
    return masks


def _objects(target: np.ndarray) -> np.ndarray:
    """The ground truth with all objects as class 1; void stays."""
    return np.where((target > 0) & (target != VOID), 1, target)


def _of_objects(matrices: np.ndarray, settings: SweepSettings) -> dict:
    """The entry of the score with two classes, at the best threshold; from (T, 2, 2) matrices."""
    tried = np.isin(settings.all(), settings.tried())
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
    """All matrices of an image as one vector, for ``total`` to add up."""
    return np.concatenate([part.ravel() for part in parts])


def _unpacked(total: np.ndarray, shapes: Sequence[tuple[int, ...]]) -> list[np.ndarray]:
    """Arrays of these shapes from what ``_packed`` made of them."""
    ends = np.cumsum([np.prod(shape) for shape in shapes])
    return [part.reshape(shape) for part, shape in zip(np.split(total, ends[:-1]), shapes, strict=True)]
