"""What AGPL's labels of proposals are worth: how many there are of each class, and how many are right."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from pycocotools import mask as run_lengths

from wsss_core.cim.labels import BACKGROUND, ProposalLabels, pixels_of
from wsss_core.data.classes import Classes
from wsss_core.data.manifest import Manifest
from wsss_core.instances.store import Instances, InstanceStore

ENOUGH = 0.5  # overlap (IoU) of a proposal and an object from which on the one stands for the other


def evaluate_proposal_labels(
    *,
    manifest: Manifest,
    classes: Classes,
    labels: ProposalLabels,
    peaks: Mapping[str, tuple[np.ndarray, np.ndarray, int]],
    proposals: InstanceStore,
    truth: InstanceStore | None = None,
) -> dict[str, Any]:
    """Count the labels of a split's proposals and, where true objects are known, compare with them.

    Args:
        peaks: those that the labels were made from (``peak_table.read_peaks``).
        truth: true objects, for this alone; crowds among them do not count.

    Returns:
        ``images`` with a class, and the share of them in which no proposal is labelled with one
        (``images_without_label``); ``proposals``, those of them, and the shares that have a class, are background or
        have no label; ``all`` and ``by_class``, each with

        ``images``; ``clusters``: peaks, those that have lost all of their proposals too; ``labelled``: proposals;
        ``support``: median share of the picture that a peak's support has, None without one; and with a truth
        ``inside``: share of the peaks that lie in an object of their class, None without one; ``right``: share of the
        labelled proposals that overlap an object of their class by at least 0.5, None without one; ``objects`` of the
        class; ``found``: share of them that such a proposal overlaps, None without one.

        With a truth also ``background_on_objects``: share of the background proposals that overlap an object of any
        class as much.

    Raises:
        StoreError, ValueError: labels, proposals and truth are not of this manifest and of each other.
    """
    proposals.check(manifest)
    labels.check(manifest, proposals)
    if truth is not None:
        truth.check(manifest)
    counts = _Counts(len(classes))
    for row in manifest.labelled():
        true = None if truth is None else truth[row.id]
        size = row.height, row.width
        counts.add(proposals[row.id], *labels[row.id], labels.support_of(row.id) / np.prod(size), true)
        counts.images[list(row.labels)] += 1
        if true is not None and row.id in peaks:
            places, _, grid = peaks[row.id]
            counts.point(places[:, 0], *pixels_of(places, grid, size), true, size)
    return counts.result(classes, truth is not None)


class _Counts:
    """Sums over images; of each class where nothing else is said."""

    def __init__(self, classes: int):
        self.pictures, self.empty = 0, 0
        self.states = np.zeros(3, np.int64)  # proposals with a class, of the background, without a label
        self.on_objects = 0  # proposals of the background
        self.images, self.inside, self.labelled, self.right, self.objects, self.found = np.zeros((6, classes), np.int64)
        self.clusters: list[np.ndarray] = []
        self.supports: list[np.ndarray] = []

    def add(
        self,
        proposals: Instances,
        cluster: np.ndarray,
        classes: np.ndarray,
        supports: np.ndarray,
        truth: Instances | None,
    ) -> None:
        """An image's proposals with their clusters; of each cluster its class and its support's share of the image."""
        named, background = cluster > 0, cluster == BACKGROUND
        self.pictures += 1
        self.empty += not named.any()
        self.states += named.sum(), background.sum(), (~named & ~background).sum()
        self.clusters.append(classes)
        self.supports.append(supports)
        own = np.append(classes, -1)[cluster - 1]  # of each proposal; those of no cluster are looked at nowhere
        np.add.at(self.labelled, own[named], 1)
        if truth is None:
            return
        objects = truth.kept(~truth.crowd & (truth.areas > 0))
        np.add.at(self.objects, objects.labels, 1)
        if not objects.masks or not proposals.masks:
            return
        iou = np.asarray(run_lengths.iou(proposals.masks, objects.masks, [0] * len(objects.masks)))
        self.on_objects += int((iou[background] >= ENOUGH).any(1).sum())
        right = (iou >= ENOUGH) & named[:, None] & (own[:, None] == objects.labels)
        np.add.at(self.right, own[right.any(1)], 1)
        np.add.at(self.found, objects.labels[right.any(0)], 1)

    def point(
        self, classes: np.ndarray, rows: np.ndarray, columns: np.ndarray, truth: Instances, size: tuple[int, int]
    ) -> None:
        """An image's peaks: their classes and pixels."""
        objects = truth.kept(~truth.crowd)
        inside = objects.dense(size)[:, rows, columns] & (objects.labels[:, None] == classes)
        np.add.at(self.inside, classes[inside.any(0)], 1)

    def result(self, classes: Classes, compared: bool) -> dict[str, Any]:
        """What ``evaluate_proposal_labels`` returns; ``compared`` where true objects were given."""
        clusters = np.concatenate([np.zeros(0, np.int64), *self.clusters])
        supports = np.concatenate([np.zeros(0), *self.supports])

        def said(which: slice | int, own: np.ndarray, images: int) -> dict[str, Any]:
            """What is said of these classes; ``own`` are the clusters that are theirs."""
            inside, labelled, right, objects, found = (
                int(counts[which].sum())
                for counts in (self.inside, self.labelled, self.right, self.objects, self.found)
            )
            there = supports[own & (supports > 0)]
            return {
                "images": images,
                "clusters": int(own.sum()),
                "labelled": labelled,
                "support": float(np.median(there)) if len(there) else None,
                **(
                    {
                        "inside": _share(inside, int(own.sum())),
                        "right": _share(right, labelled),
                        "objects": objects,
                        "found": _share(found, objects),
                    }
                    if compared
                    else {}
                ),
            }

        named, background, none = self.states.tolist()
        proposals = named + background + none
        return {
            "images": self.pictures,
            "images_without_label": _share(self.empty, self.pictures),
            "proposals": proposals,
            "with_class": _share(named, proposals),
            "background": _share(background, proposals),
            "without_label": _share(none, proposals),
            **({"background_on_objects": _share(self.on_objects, background)} if compared else {}),
            "all": said(slice(None), np.ones(len(clusters), bool), self.pictures),
            "by_class": {
                name: said(label, clusters == label, int(self.images[label]))
                for label, name in enumerate(classes.names)
            },
        }


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
