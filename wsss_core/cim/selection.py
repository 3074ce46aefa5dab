"""Which proposals are instances, by their scores."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as run_lengths

from wsss_core.base.files import whole
from wsss_core.base.parallel import in_processes
from wsss_core.base.progress import with_progress
from wsss_core.cim.score_store import ScoreStore
from wsss_core.data.manifest import Manifest
from wsss_core.instances.store import Instances, InstanceStore, InstanceWriter
from wsss_core.recipes.settings import SelectionSettings, identity


def select_instances(proposals: Instances, scores: np.ndarray, settings: SelectionSettings) -> Instances:
    """The instances of a picture, in falling order of their scores: proposals, whose masks stay as they are.

    Of each class the better one of two that overlap too much; over all classes the best ones up to a limit.

    Args:
        scores: (N, C) of classes from 0.
    """
    if not proposals.masks:
        return proposals
    overlap = box_overlaps(proposals.boxes) if settings.nms == "box" else _mask_overlaps(proposals)
    places, labels = _without_duplicates(scores, overlap, settings)
    values = scores[places, labels]
    if len(values) > settings.limit:
        kept = values >= np.partition(values, -settings.limit)[-settings.limit]  # with those that tie
        places, labels, values = places[kept], labels[kept], values[kept]
    order = np.argsort(-values, kind="stable")
    chosen = proposals.kept(places[order])
    return chosen._replace(labels=labels[order].astype(np.int16), scores=values[order].astype(np.float32))


def _without_duplicates(
    scores: np.ndarray, overlap: np.ndarray, settings: SelectionSettings
) -> tuple[np.ndarray, np.ndarray]:
    """Places and labels that a greedy NMS of each class leaves."""
    places: list[int] = []
    labels: list[int] = []
    for label, values in enumerate(scores.T):
        order = np.argsort(-values, kind="stable")
        order = order[values[order] > settings.score]
        while len(order):
            best, order = order[0], order[1:]
            places.append(int(best))
            labels.append(label)
            order = order[overlap[best, order] < settings.overlap]
    return np.array(places, np.int64), np.array(labels, np.int64)


def box_overlaps(boxes: np.ndarray) -> np.ndarray:
    """IoU of boxes (N, 4) as CIM's code has it, (N, N) float64: ends, exclusive ones, count as pixels of the box."""
    low, high = boxes[:, :2].astype(np.float64), boxes[:, 2:] + 1.0
    sides = np.minimum(high[:, None], high) - np.maximum(low[:, None], low)
    shared, area = sides.clip(0).prod(2), (high - low).prod(1)
    return shared / (area[:, None] + area - shared)


def _mask_overlaps(proposals: Instances) -> np.ndarray:
    return np.asarray(run_lengths.iou(proposals.masks, proposals.masks, [0] * len(proposals.masks)), np.float64)


def make_cim_instances(
    *,
    manifest: Manifest,
    proposals: Path,
    scores: Path,
    store: Path,
    settings: SelectionSettings,
    about: dict[str, Any],
    workers: int = 1,
) -> None:
    """Store the instances of all images; labels of the images are not used.

    Args:
        proposals, scores: stores of the manifest's proposals and of their scores.
        store: the store to create, see ``instances.store``.
        about: plain values to keep with it (run, data set, ...); what the proposals were learnt from is added.
        workers: processes.

    Raises:
        StoreError: stores of other images or proposals, or damaged ones.
    """
    found, said = InstanceStore(proposals), ScoreStore(scores)
    found.check(manifest)
    said.check(manifest, found)
    about = {**about, "settings": identity(settings), "supervision": found.about.get("supervision", "")}
    work = partial(_selected, proposals=found, scores=said, settings=settings)
    with whole(store) as unfinished, InstanceWriter(unfinished, manifest, about=about) as out:
        for image_id, instances in with_progress(in_processes(work, manifest.ids, workers), len(manifest)):
            out.write(image_id, instances)


def _selected(
    image_id: str, *, proposals: InstanceStore, scores: ScoreStore, settings: SelectionSettings
) -> tuple[str, Instances]:
    return image_id, select_instances(proposals[image_id], scores[image_id], settings)
