"""Sizes of maps: the grid that a store keeps them on, and the way back to the size of the image.

The published code resizes what a network gives at each scale to the next multiples of 16 of an image's sides, adds the
scales up, and crops the sum to the image. The grid of a stride over these larger sides holds the same maps: enlarged by
the stride and cropped, they are the published ones up to the interpolation between cells.
"""

from collections.abc import Iterator
from itertools import product
from typing import TYPE_CHECKING

import cv2
import numpy as np

Span = tuple[slice, slice]  # of rows and of columns

if TYPE_CHECKING:  # stores need ``cells``
    from wsss_core.maps.store import MapStore

MULTIPLE = 16  # pixels, whatever the stride of the network


def strided(side: int, stride: int) -> int:
    """Length of a side of ``side`` pixels on the grid of a stride."""
    return (side - 1) // stride + 1


def cells(side: int, stride: int, multiple: int = MULTIPLE) -> int:
    """Cells of a stride along a side of ``side`` pixels, which is first rounded up to the next ``multiple``."""
    return strided(side, multiple) * multiple // stride


def tiles(height: int, width: int, side: int, margin: int, step: int = 1) -> Iterator[tuple[Span, Span]]:
    """Cut a picture into parts that are worked on by themselves, each with what surrounds it.

    Args:
        side: length of the longer side of a part with its margins, more than two margins.
        margin: pixels around a part, as far as the picture goes; a multiple of ``step``.
        step: parts begin at its multiples.

    Yields:
        rows and columns of a part, and of the same with its margins. Parts cover every pixel once.
    """
    for (rows, outer_rows), (columns, outer_columns) in product(
        _cuts(height, side, margin, step), _cuts(width, side, margin, step)
    ):
        yield (rows, columns), (outer_rows, outer_columns)


def _cuts(length: int, side: int, margin: int, step: int) -> list[tuple[slice, slice]]:
    if length <= side:
        return [(slice(0, length), slice(0, length))]
    part = max(step, (side - 2 * margin) // step * step)
    return [
        (slice(begin, min(begin + part, length)), slice(max(0, begin - margin), min(begin + part + margin, length)))
        for begin in range(0, length, part)
    ]


def inside(part: Span, outer: Span) -> Span:
    """Where a part lies in what it was cut from with its margins."""
    rows, columns = (slice(a.start - b.start, a.stop - b.start) for a, b in zip(part, outer, strict=True))
    return rows, columns


def enlarge(maps: np.ndarray, stride: int, height: int, width: int) -> np.ndarray:
    """Bilinearly enlarge maps (C, h, w) by their stride and crop them to (C, height, width), of the same dtype."""
    full = np.empty((len(maps), height, width), maps.dtype)
    size = stride * maps.shape[2], stride * maps.shape[1]
    for target, source in zip(full, maps, strict=True):  # as in torch, in an eighth of its time
        target[...] = cv2.resize(source, size)[:height, :width]
    return full


def full_size(store: "MapStore", image_id: str) -> tuple[np.ndarray, np.ndarray]:
    """Labels (rows,) and maps (rows, H, W) of an image at its own size."""
    labels, maps = store[image_id]
    return labels, enlarge(maps, store.stride, *store.size(image_id))
