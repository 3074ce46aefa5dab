"""Our own proposals: unions of superpixels, in the spirit of MCG and of selective search, for pictures without others.

Every candidate is a set of superpixels, a row of a matrix, so that areas, overlaps, borders and what lies around are
products of small matrices and no pixel is looked at twice. Nothing is drawn at random.
"""

import heapq
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count

import cv2
import numpy as np
from skimage.segmentation import slic

from wsss_core.instances.store import Instances, instances_of
from wsss_core.recipes.settings import GroupingSettings

BINS = 25
COMPACTNESS, SIGMA = 8.0, 1.0  # of SLIC


@dataclass(frozen=True)
class Regions:
    """The superpixels of a picture and their neighbours.

    Attributes:
        labels: (H, W) int64, which superpixel a pixel belongs to, S of them.
        area: (S,) pixels.
        colour: (S, 75) float64, pixels by bin of L, a and b.
        box: (S, 4) int64, x0, y0, x1, y1, the ends exclusive.
        edge: (S,) pixels on the picture's edge.
        pairs: (E, 2) int64, neighbours, the lower one first.
        length: (E,) pairs of pixels across their common border.
        gradient: (E,) sum of the gradient over these, each in [0, 1].
    """

    labels: np.ndarray
    area: np.ndarray
    colour: np.ndarray
    box: np.ndarray
    edge: np.ndarray
    pairs: np.ndarray
    length: np.ndarray
    gradient: np.ndarray


def group_superpixels(image: np.ndarray, settings: GroupingSettings) -> Instances:
    """Proposals of a picture, the best first; there may be none.

    Args:
        image: (H, W, 3) uint8, RGB.
    """
    regions = find_regions(image, settings.superpixels)
    candidates = find_candidates(regions, settings)
    order, values = ranked(regions, candidates, boundary_scores(regions, candidates), settings)
    masks = (candidate[regions.labels] for candidate in candidates[order])  # one at a time
    return instances_of(masks, [-1] * len(order), values)


def find_regions(image: np.ndarray, superpixels: int) -> Regions:
    """Superpixels of a picture (SLIC, Achanta et al., TPAMI 2012) and the graph of their neighbours."""
    found = slic(image, superpixels, compactness=COMPACTNESS, sigma=SIGMA, start_label=0, channel_axis=-1)
    _, flat = np.unique(found, return_inverse=True)
    labels = flat.reshape(found.shape).astype(np.int64)
    number = int(labels.max()) + 1
    lab = cv2.cvtColor((image / np.float32(255)).astype(np.float32), cv2.COLOR_RGB2LAB)
    area = np.bincount(labels.ravel(), minlength=number)
    ys, xs = np.indices(labels.shape).reshape(2, -1)
    low, high = np.full((2, number), 2**31), np.zeros((2, number), np.int64)
    for axis, places in enumerate((xs, ys)):
        np.minimum.at(low[axis], labels.ravel(), places)
        np.maximum.at(high[axis], labels.ravel(), places + 1)
    rim = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    strength = _gradient(lab)
    sides = [
        np.stack([labels[:, :-1].ravel(), labels[:, 1:].ravel()]),
        np.stack([labels[:-1].ravel(), labels[1:].ravel()]),
    ]
    across = [np.maximum(strength[:, :-1], strength[:, 1:]).ravel(), np.maximum(strength[:-1], strength[1:]).ravel()]
    both, values = np.concatenate(sides, 1), np.concatenate(across)
    border = both[0] != both[1]
    both, values = np.sort(both[:, border], 0), values[border]
    keys, place = np.unique(both[0] * number + both[1], return_inverse=True)
    return Regions(
        labels=labels,
        area=area,
        colour=_histograms(lab, labels, number),
        box=np.concatenate([low, high]).T.astype(np.int64),
        edge=np.bincount(rim, minlength=number),
        pairs=np.stack([keys // number, keys % number], 1),
        length=np.bincount(place, minlength=len(keys)),
        gradient=np.bincount(place, values, minlength=len(keys)),
    )


def _gradient(lab: np.ndarray) -> np.ndarray:
    """How fast colours change, (H, W) in [0, 1]: Sobel over three scales and three channels."""
    total = np.zeros(lab.shape[:2], np.float32)
    for sigma in (0.0, 1.0, 2.0):
        smooth = cv2.GaussianBlur(lab, (0, 0), sigma) if sigma else lab
        across, down = (cv2.Sobel(smooth, cv2.CV_32F, x, y, ksize=3) for x, y in ((1, 0), (0, 1)))
        total += np.sqrt((across**2 + down**2).sum(2))
    return np.minimum(total / max(float(np.quantile(total, 0.98)), 1e-6), 1)


def _histograms(lab: np.ndarray, labels: np.ndarray, number: int) -> np.ndarray:
    low, span = np.array([0, -128, -128], np.float32), np.array([100, 256, 256], np.float32)
    bins = np.clip((lab - low) / span * BINS, 0, BINS - 1).astype(np.int64)
    keys = (labels[..., None] * 3 + np.arange(3)) * BINS + bins
    return np.bincount(keys.ravel(), minlength=number * 3 * BINS).reshape(number, 3 * BINS).astype(np.float64)


class _Merger:
    """Regions that are merged two by two until one is left, the cheapest pair first."""

    def __init__(self, regions: Regions):
        number = len(regions.area)
        total = 2 * number - 1
        self.pixels, self.count = float(regions.labels.size), number
        self.area, self.colour = np.zeros(total), np.zeros((total, regions.colour.shape[1]))
        self.area[:number], self.colour[:number] = regions.area, regions.colour
        self.box = [tuple(box) for box in regions.box.tolist()]
        self.borders: list[dict[int, tuple[float, float]]] = [{} for _ in range(number)]
        sums = zip(regions.pairs.tolist(), regions.length.tolist(), regions.gradient.tolist(), strict=True)
        for (a, b), length, gradient in sums:
            self.borders[a][b] = self.borders[b][a] = (length, gradient)

    def run(self, cost: Callable[["_Merger", int, list[int]], np.ndarray]) -> np.ndarray:
        """The sets of superpixels of all regions, the superpixels first: (2 S - 1, S) bool, or fewer rows."""
        members = np.zeros((2 * self.count - 1, self.count), bool)
        members[np.arange(self.count), np.arange(self.count)] = True
        tick = count()  # of equal costs the older pair
        heap: list[tuple[float, int, int, int]] = []
        alive = set(range(self.count))

        def push(a: int, others: list[int]) -> None:
            if others:
                for b, value in zip(others, cost(self, a, others).tolist(), strict=True):
                    heapq.heappush(heap, (value, next(tick), a, b))

        for a in range(self.count):
            push(a, [b for b in self.borders[a] if b > a])
        while heap:
            _, _, a, b = heapq.heappop(heap)
            if a not in alive or b not in alive:
                continue
            alive -= {a, b}
            new = self._merge(a, b)
            members[new] = members[a] | members[b]
            alive.add(new)
            push(new, list(self.borders[new]))
        return members[: len(self.borders)]

    def _merge(self, a: int, b: int) -> int:
        new = len(self.borders)
        self.area[new] = self.area[a] + self.area[b]
        self.colour[new] = self.colour[a] + self.colour[b]
        one, two = self.box[a], self.box[b]
        self.box.append((min(one[0], two[0]), min(one[1], two[1]), max(one[2], two[2]), max(one[3], two[3])))
        joined: dict[int, tuple[float, float]] = {}
        for old in (a, b):
            for other, (length, gradient) in self.borders[old].items():
                if other not in (a, b):
                    before = joined.get(other, (0.0, 0.0))
                    joined[other] = (before[0] + length, before[1] + gradient)
        for other, border in joined.items():
            self.borders[other].pop(a, None)
            self.borders[other].pop(b, None)
            self.borders[other][new] = border
        self.borders.append(joined)
        self.borders[a], self.borders[b] = {}, {}
        return new

    def boundary(self, a: int, others: list[int]) -> np.ndarray:
        """Mean gradient of the common border."""
        borders = [self.borders[a][b] for b in others]
        return np.array([gradient / length for length, gradient in borders])

    def colours(self, a: int, others: list[int]) -> np.ndarray:
        """1 minus the common part of the histograms."""
        own, theirs = self.colour[a] / (3 * self.area[a]), self.colour[others] / (3 * self.area[others])[:, None]
        return 1 - np.minimum(own, theirs).sum(1)

    def size(self, a: int, others: list[int]) -> np.ndarray:
        """Share of the picture."""
        return (self.area[a] + self.area[others]) / self.pixels

    def fill(self, a: int, others: list[int]) -> np.ndarray:
        """Share of the picture that the common box holds beside the two."""
        left, top, right, bottom = np.array([self.box[b] for b in others]).T
        x0, y0, x1, y1 = self.box[a]
        box = (np.maximum(right, x1) - np.minimum(left, x0)) * (np.maximum(bottom, y1) - np.minimum(top, y0))
        return box / self.pixels - self.size(a, others)


COSTS: tuple[Callable[[_Merger, int, list[int]], np.ndarray], ...] = (
    lambda m, a, others: m.colours(a, others),
    lambda m, a, others: m.boundary(a, others),
    lambda m, a, others: m.colours(a, others) + m.boundary(a, others) + m.size(a, others) + m.fill(a, others),
    lambda m, a, others: (0.2 + m.boundary(a, others)) * m.size(a, others) ** 0.5,
)


def find_candidates(regions: Regions, settings: GroupingSettings) -> np.ndarray:
    """Sets of superpixels (P, S) bool: the regions of four greedy merges, of a size within the settings, each once."""
    found = np.concatenate([_Merger(regions).run(cost) for cost in COSTS])
    share = found @ regions.area / regions.labels.size
    found = found[(share >= settings.smallest) & (share <= settings.largest)]
    _, first = np.unique(np.packbits(found, axis=1), axis=0, return_index=True)
    return found[np.sort(first)]


def intersections(candidates: np.ndarray, area: np.ndarray) -> np.ndarray:
    """Pixels that candidates (P, S) share, (P, P) float64: exact, since all are unions of the same superpixels."""
    rows = candidates.astype(np.float64)
    return (rows * area) @ rows.T


def boundary_scores(regions: Regions, candidates: np.ndarray) -> np.ndarray:
    """A strong border all around, of which the picture's edge is no good part, and a little for size: (P,).

    Weak borders inside do not help: of 200 proposals of a photo of COCO, taking half of their gradient off found 0.24
    of the objects, and leaving them alone 0.30.
    """
    around = (candidates[:, regions.pairs[:, 0]] ^ candidates[:, regions.pairs[:, 1]]).astype(np.float64)
    length = around @ regions.length
    strength = around @ regions.gradient / np.maximum(length, 1)
    touching = candidates @ regions.edge
    share = candidates @ regions.area / regions.labels.size
    return strength - 0.3 * touching / np.maximum(touching + length, 1) + 0.15 * np.log10(share + 1e-4)


def ranked(
    regions: Regions, candidates: np.ndarray, scores: np.ndarray, settings: GroupingSettings
) -> tuple[np.ndarray, np.ndarray]:
    """The places of the best candidates, and their scores in [0, 1]; alike ones are left out.

    One after the other the candidate of the best mixture of score and of difference from those before it (maximal
    marginal relevance, as MCG has it).
    """
    if not len(candidates):
        return np.zeros(0, np.int64), np.zeros(0)
    shared = intersections(candidates, regions.area)
    area = np.diag(shared)
    iou = shared / (area[:, None] + area - shared)
    span = max(float(np.ptp(scores)), 1e-9)
    values = (scores - scores.min()) / span
    left, nearest = np.ones(len(values), bool), np.zeros(len(values))
    order: list[int] = []
    while left.any() and len(order) < settings.limit:
        mixed = (1 - settings.diversity) * values - settings.diversity * nearest
        best = int(np.where(left, mixed, -np.inf).argmax())
        order.append(best)
        nearest = np.maximum(nearest, iou[best])
        left &= iou[best] < settings.duplicates
    return np.array(order), values[order]
