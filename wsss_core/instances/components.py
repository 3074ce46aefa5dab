"""Instances as connected components of class masks: what one has without anything that tells objects apart."""

from functools import partial
from itertools import starmap
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from wsss_core.base.files import whole
from wsss_core.base.jobs import Share
from wsss_core.base.parallel import in_processes
from wsss_core.base.progress import count_progress
from wsss_core.data.classes import VOID, Classes
from wsss_core.data.manifest import Manifest, Row
from wsss_core.data.mask_folder import read_folder_mask
from wsss_core.instances.store import Instances, InstanceWriter, instances_of
from wsss_core.maps.memory import processes_for
from wsss_core.maps.sizes import enlarge
from wsss_core.maps.store import MapStore
from wsss_core.recipes.settings import ComponentSettings, identity


def components(mask: np.ndarray, limit: int | None = None, smallest: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """The connected components of each class of a mask, the largest ones first.

    Pixels belong together that share a side, as in IRNet.

    Args:
        mask: (H, W) uint8, 0 background, label + 1, 255 void.
        limit: most components; None for all.
        smallest: components of fewer pixels are left out.

    Returns:
        Masks (D, H, W) bool and labels (D,) int.
    """
    found = []
    for value in np.unique(mask[(mask != 0) & (mask != VOID)]).tolist():
        _, numbers, stats, _ = cv2.connectedComponentsWithStats((mask == value).astype(np.uint8), connectivity=4)
        areas = stats[1:, cv2.CC_STAT_AREA].tolist()
        found += [(-area, value - 1, number, numbers) for number, area in enumerate(areas, 1) if area >= smallest]
    found.sort(key=lambda one: one[:3])
    kept = found[:limit]  # however many scraps there are, only these become masks
    masks = np.array([numbers == number for *_, number, numbers in kept], bool).reshape(-1, *mask.shape)
    return masks, np.array([label for _, label, *_ in kept], int)


def make_components(
    *,
    manifest: Manifest,
    classes: Classes,
    masks: Path,
    maps: MapStore,
    store: Path,
    settings: ComponentSettings,
    about: dict[str, Any],
    workers: int | Share = 1,
) -> None:
    """Store the components of the pseudo masks of every image.

    The score of a component is the largest value of its class's map inside, as that of IRNet's instances is, of maps
    whose largest value in the picture is 1; of one below ``settings.smallest`` it is 0.

    Args:
        masks: folder of the pseudo masks.
        maps: the class maps that the masks were cut from.
        store: the store to create, see ``instances.store``.
    """
    workers = processes_for("make_components", manifest, workers)
    task = partial(_components_of, folder=masks, classes=classes, maps=maps, settings=settings)
    about = {**about, "settings": identity(settings), "source": str(masks)}
    with whole(store) as folder, InstanceWriter(folder, manifest, about=about) as out:
        pairs = zip(manifest.ids, in_processes(task, manifest.rows, workers), strict=True)
        count_progress(starmap(out.write, pairs), len(manifest))


def _components_of(
    row: Row, *, folder: Path, classes: Classes, maps: MapStore, settings: ComponentSettings
) -> Instances:
    masks, labels = components(read_folder_mask(row, folder=folder, classes=classes), settings.limit)
    if not len(masks):
        return instances_of(masks, [])
    present, values = maps[row.id]
    full = enlarge(values, maps.stride, row.height, row.width)
    largest = full.max(axis=(1, 2), initial=0).max(initial=0)
    places = {label: place for place, label in enumerate(present.tolist())}
    scores = [
        0.0 if mask.sum() < settings.smallest * mask.size else float(full[places[label]][mask].max() / (largest or 1.0))
        for mask, label in zip(masks, labels.tolist(), strict=True)
    ]
    return instances_of(masks, labels, scores)
