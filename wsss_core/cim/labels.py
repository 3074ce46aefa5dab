"""AGPL: labels of proposals from the peaks of class maps (CIM, Li et al., IJCAI 2023)."""

import logging
from functools import partial
from pathlib import Path

import numpy as np

from wsss_core.base.files import reading, whole
from wsss_core.base.jobs import Share
from wsss_core.base.parallel import in_processes
from wsss_core.cim.peak_table import read_peaks
from wsss_core.data.manifest import Manifest
from wsss_core.instances.store import InstanceStore
from wsss_core.maps.memory import processes_for
from wsss_core.recipes.settings import ProposalLabelSettings

logger = logging.getLogger(__name__)

NONE, BACKGROUND = 0, -1
LAYOUT = "wsss-proposal-labels/1"
PIXELS = 2**15


def label_proposals(
    masks: np.ndarray,
    peaks: np.ndarray,
    scores: np.ndarray,
    grid: int | tuple[int, int] = 112,
    support: float = 0.7,
    overlap: float = 0.5,
) -> tuple[np.ndarray, np.ndarray]:
    """Give each proposal the peak that it belongs to.

    The support of a peak are the pixels that lie in more than a share of all the proposals that contain the peak. A
    proposal belongs to the highest peak whose support it overlaps by more than ``overlap``; is background if it
    touches a support and belongs to none; and has no label otherwise. If there is no peak, all are background.

    Args:
        masks: (N, H, W) bool.
        peaks: (P, 3) or (P, 4) integers, the last three of which are class, row and column on the grid.
        scores: (P,), the values of the class maps there.
        grid: side of the class maps, or their height and width. The picture was squashed to it, so that rows and
            columns have factors of their own.
        support: share of the proposals.
        overlap: intersection over union.

    Returns:
        ``cluster`` (N,) int64: -1 background, 0 no label, else the peak from 1, in order of rising scores; and the
        classes of the peaks (P,) in that order, as they were given.

    Raises:
        ValueError: a peak beyond the grid.
    """
    cluster, classes, _ = labels_and_supports(masks, peaks, scores, grid, support, overlap)
    return cluster, classes


def labels_and_supports(
    masks: np.ndarray,
    peaks: np.ndarray,
    scores: np.ndarray,
    grid: int | tuple[int, int],
    support: float,
    overlap: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """``label_proposals``, and the pixels of each peak's support (P,) int64, in the order of the classes."""
    masks, peaks, scores = np.asarray(masks, bool), np.asarray(peaks, np.int64), np.asarray(scores)
    peaks = peaks.reshape(len(scores), -1)[:, -3:] if len(scores) else peaks.reshape(0, 3)
    count, height, width = masks.shape
    peaks = peaks[np.argsort(scores, kind="stable")]
    rows, columns = pixels_of(peaks, grid, (height, width))
    if not len(peaks):
        return np.full(count, BACKGROUND, np.int64), peaks[:, 0], np.zeros(0, np.int64)
    around = masks[:, rows, columns]  # (N, P): which proposals contain which peak
    areas, supported = masks.sum((1, 2), dtype=np.int64), np.zeros(len(peaks))
    shared = np.zeros((count, len(peaks)))
    for begin in range(0, height * width, PIXELS):  # so that not all of the masks are floats at a time
        block = masks.reshape(count, height * width)[:, begin : begin + PIXELS].astype(np.float32)
        votes = around.T.astype(np.float32) @ block  # whole numbers up to 2^24 are exact
        inside = (votes / np.maximum(around.sum(0), 1)[:, None] > support).astype(np.float32)
        supported += inside.sum(1)
        shared += block @ inside.T
    iou = shared / np.maximum(areas[:, None] + supported - shared, 1)
    claims = iou > overlap
    highest = np.where(claims, np.arange(1, len(peaks) + 1), 0).max(1)
    touched = (shared > 0).any(1)
    cluster = np.where(highest > 0, highest, np.where(touched, BACKGROUND, NONE))
    return cluster, peaks[:, 0], supported.astype(np.int64)


def pixels_of(peaks: np.ndarray, grid: int | tuple[int, int], size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the pixels that peaks (P, 3) of class, row and column on a grid stand for.

    Raises:
        ValueError: a peak beyond the grid.
    """
    sides = np.broadcast_to(np.asarray(grid), 2)
    if (peaks[:, 1:] < 0).any() or (peaks[:, 1:] >= sides).any():
        raise ValueError(f"a peak lies beyond the grid of {sides[0]} x {sides[1]} cells")
    return peaks[:, 1] * size[0] // sides[0], peaks[:, 2] * size[1] // sides[1]


class ProposalLabels:
    """The labels of all proposals of a split, as ``make_proposal_labels`` keeps them.

    ``labels[image_id]`` gives ``cluster`` (N,) int64 and the classes from 0 of its clusters (P,) int64, see
    ``label_proposals``; ``support_of(image_id)`` the pixels of their supports (P,) int64.

    Raises:
        ValueError: another file, or a damaged one.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        with (
            reading(path, "cannot be read as labels of proposals", "delete it and run its rule again"),
            open(path, "rb") as file,
            np.load(file, allow_pickle=False) as content,
        ):
            if str(content["layout"]) != LAYOUT:
                raise ValueError(f"it has the layout {content['layout']}")
            self.manifest, self.proposals = str(content["manifest"]), str(content["proposals"])
            self.cluster, self.first_row = content["cluster"], content["first_row"]
            self.classes, self.first_cluster = content["classes"], content["first_cluster"]
            self.support = content["support"]
            ids = content["image_id"].tolist()
        self.places = {image_id: place for place, image_id in enumerate(ids)}

    def __getitem__(self, image_id: str) -> tuple[np.ndarray, np.ndarray]:
        rows, clusters = (self._span(first, image_id) for first in (self.first_row, self.first_cluster))
        return self.cluster[rows].astype(np.int64), self.classes[clusters].astype(np.int64)

    def support_of(self, image_id: str) -> np.ndarray:
        return self.support[self._span(self.first_cluster, image_id)].astype(np.int64)

    def _span(self, first: np.ndarray, image_id: str) -> slice:
        place = self.places[image_id]
        return slice(*first[place : place + 2])

    def check(self, manifest: Manifest, proposals: InstanceStore) -> None:
        """Refuse labels of other images or of other proposals.

        Raises:
            ValueError: they were made from others.
        """
        if (self.manifest, self.proposals) != (manifest.digest(), proposals.digest()):
            raise ValueError(
                f"{self.path} was made from another manifest or from other proposals: delete it and run its rule again"
            )


def make_proposal_labels(
    *,
    manifest: Manifest,
    proposals: Path,
    peaks: Path,
    output: Path,
    settings: ProposalLabelSettings,
    workers: int | Share = 1,
) -> None:
    """Label the proposals of all images by their peaks.

    Args:
        proposals: store of the manifest's proposals.
        peaks: table of ``dump_peaks``; in an image that it does not name, all proposals are background.
        output: a file for ``ProposalLabels``.
        workers: processes.
    """
    store = InstanceStore(proposals)
    store.check(manifest)
    workers = processes_for("make_proposal_labels", manifest, workers)
    work = partial(_labelled, store=store, peaks=read_peaks(peaks), settings=settings)
    found = list(in_processes(work, manifest.ids, workers))
    cluster, classes, support = (np.concatenate([part[place] for part in found]) for place in range(3))
    named, background = (cluster > 0).mean(), (cluster == BACKGROUND).mean()
    without = sum(not (part[0] > 0).any() for part in found)
    logger.info(
        "%.2f clusters an image; of the proposals %.1f %% have a class, %.1f %% are background, %.1f %% have no label; "
        "%d of %d images have no proposal with a class",
        len(classes) / len(found), 100 * named, 100 * background, 100 * (1 - named - background), without, len(found),
    )  # fmt: skip
    first_row, first_cluster = (np.cumsum([0, *(len(part[place]) for part in found)]) for place in (0, 1))
    with whole(output) as unfinished, open(unfinished, "wb") as file:  # a name would get a suffix
        np.savez_compressed(
            file, layout=LAYOUT, manifest=manifest.digest(), proposals=store.digest(), image_id=np.array(manifest.ids),
            cluster=cluster.astype(np.int16), first_row=first_row, classes=classes.astype(np.int16),
            first_cluster=first_cluster, support=support.astype(np.int32),
        )  # fmt: skip


def _labelled(
    image_id: str,
    *,
    store: InstanceStore,
    peaks: dict[str, tuple[np.ndarray, np.ndarray, int]],
    settings: ProposalLabelSettings,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    places, scores, grid = peaks.get(image_id, (np.zeros((0, 3), np.int64), np.zeros(0), 1))
    masks = store[image_id].dense(store.size(image_id))
    return labels_and_supports(masks, places, scores, grid, settings.support, settings.overlap)
