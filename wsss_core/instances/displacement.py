"""From IRNet's displacements to instances (Ahn et al., CVPR 2019, section 5).

Each pixel follows the displacements to a centroid; where they are short lie the middles of instances, and the pixels
that end in one of these regions are an instance. This says nothing of classes: what is of which class is found by the
random walk of each class map, cut into its instances.
"""

from collections.abc import Sequence

import numpy as np
from scipy import ndimage


def find_centroids(displacement: np.ndarray, iterations: int = 300) -> np.ndarray:
    """Where each pixel ends that follows the displacements.

    At each step a pixel moves by the displacement at its place, interpolated bilinearly, and stays inside the map.
    Places are kept in single and interpolated in double precision, as published, so that they are the same places even
    where a field goes round in circles. A pixel that does not move at one step never will, and is left out of the rest.

    Args:
        displacement: (2, h, w) floats, (dy, dx) in pixels of this grid.
        iterations: steps.

    Returns:
        (2, h, w) int64, row and column, to the nearest pixel.

    Raises:
        ValueError: a displacement is not finite.
    """
    field = np.asarray(displacement, np.float32).astype(np.float64)
    if not np.isfinite(field).all():
        raise ValueError("the displacements are not finite: the network that they come from is broken")
    height, width = field.shape[1:]
    # a place is row + column i; a cell's four corners are a + b y + c x + d xy, one look-up a pixel and step
    corners = np.pad(field[0] + 1j * field[1], (0, 1), mode="edge")
    a, below, right = corners[:-1, :-1], corners[1:, :-1], corners[:-1, 1:]
    cells = np.stack([a, below - a, right - a, corners[1:, 1:] - below - right + a], axis=-1).reshape(-1, 4)

    rows, columns = np.indices((height, width))
    places = (rows + 1j * columns).astype(np.complex64).ravel()
    moving, here = np.arange(len(places)), places
    for _ in range(iterations):
        row, column = here.real.astype(np.int32), here.imag.astype(np.int32)
        y, x = here.real - row, here.imag - column  # float64
        of_cell = cells[row * width + column]
        there = here + (of_cell[:, 0] + of_cell[:, 1] * y + (of_cell[:, 2] + of_cell[:, 3] * y) * x)
        there = (there.real.clip(0, height - 1) + 1j * there.imag.clip(0, width - 1)).astype(np.complex64)
        moved = there != here
        moving, here = moving[moved], there[moved]
        if not len(moving):
            break
        places[moving] = here
    return np.stack([places.real, places.imag]).round().astype(np.int64).reshape(2, height, width)


def instance_map(centroids: np.ndarray, displacement: np.ndarray, threshold: float = 2.5) -> np.ndarray:
    """The instance of each pixel, whatever its class.

    Pixels with short displacements, in regions that touch along their sides, are the middles of instances; a pixel is
    of the instance whose middle its centroid lies in. Pixels whose centroid lies in none are one more instance, as
    published, and the first one.

    Args:
        centroids: (2, h, w) integers, see ``find_centroids``.
        displacement: (2, h, w) floats, (dy, dx) in pixels of this grid.
        threshold: a displacement is short below this length.

    Returns:
        (h, w) int64, 0..n-1; each of them is there.
    """
    (rows, columns), (dy, dx) = np.asarray(centroids), np.asarray(displacement)
    middles, _ = ndimage.label(np.sqrt(dx**2 + dy**2) < threshold)
    _, instances = np.unique(middles[rows, columns], return_inverse=True)
    return instances.reshape(middles.shape)


def split_by_instance(cams: np.ndarray, instances: np.ndarray) -> np.ndarray:
    """Cut class maps into instances: (K, h, w) and (h, w) of 0..n-1 -> (K * n, h, w), class after class.

    Of what a class has nowhere in an instance, there is a map of zeros.
    """
    cams, instances = np.asarray(cams), np.asarray(instances)
    inside = instances == np.arange(instances.max() + 1)[:, None, None]
    return (cams[:, None] * inside).reshape(-1, *instances.shape)


def detect(
    maps: np.ndarray,
    labels: Sequence[int] | np.ndarray,
    instances: int | np.ndarray,
    background: float = 0.25,
    smallest: float = 0.01,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Objects of an image by its walked instance maps.

    A pixel belongs to the map that is largest there, or to the background. Each connected piece of a map's pixels,
    touching along their sides, is an object.

    Args:
        maps: (K * n, H, W) floats, at least 0, in the order of ``split_by_instance``; they are divided by the largest
            value of them all.
        labels: (K,) the maps' classes.
        instances: n, or the map of instances that they were cut by.
        background: a pixel is background where no map exceeds this.
        smallest: share of the image below which an object has the score 0.

    Returns:
        scores (D,) float32, the largest value of the object's map inside it; labels (D,) int64; masks (D, H, W) bool.

    Raises:
        ValueError: another number of maps.
    """
    maps, instances = np.asarray(maps), np.asarray(instances)
    count = int(instances.max()) + 1 if instances.ndim else int(instances)
    if len(maps) != len(labels) * count:
        raise ValueError(f"{len(maps)} maps are not those of {len(labels)} classes and {count} instances")
    height, width = maps.shape[1:]
    best = Best(height, width)
    for number, values in enumerate(maps):
        best.add(number, values)
    return best.objects(np.repeat(np.asarray(labels, np.int64), count), background, smallest)


class Best:
    """The largest of many maps at each pixel, and which it is; the first of equal ones. They come one at a time."""

    def __init__(self, height: int, width: int):
        self.values = np.zeros((height, width))
        self.numbers = np.zeros((height, width), np.int64)

    def add(self, number: int, values: np.ndarray) -> None:
        """Add a map (H, W) of floats, at least 0, under a number from 0."""
        above = values > self.values
        self.values[above] = values[above]
        self.numbers[above] = number

    def objects(
        self, labels: np.ndarray, background: float, smallest: float
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """See ``detect``; ``labels`` has the class of each number."""
        values = (self.values / max(self.values.max(), np.finfo(float).tiny)).astype(np.float32)
        won = np.where(values > background, self.numbers + 1, 0)
        scores, classes, masks = list[np.ndarray](), list[np.ndarray](), list[np.ndarray]()
        for number, box in enumerate(ndimage.find_objects(won)):
            if box is None:
                continue
            pieces, count = ndimage.label(won[box] == number + 1)
            places = np.arange(1, count + 1)
            areas = np.bincount(pieces.ravel())[1:]
            highest = ndimage.maximum(values[box], pieces, places).astype(np.float32)
            scores.append(np.where(areas < smallest * won.size, 0, highest))
            classes.append(np.full(count, labels[number]))
            of_map = np.zeros((count, *won.shape), bool)
            of_map[:, *box] = pieces == places[:, None, None]
            masks.append(of_map)
        if not masks:
            return np.zeros(0, np.float32), np.zeros(0, np.int64), np.zeros((0, *won.shape), bool)
        return np.concatenate(scores), np.concatenate(classes), np.concatenate(masks)
