"""Sizes of maps: the grid of a stride, and the way back to the size of the image."""

from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:  # stores need ``strided``
    from wsss_core.maps.store import MapStore


def strided(side: int, stride: int) -> int:
    """Length of a side of ``side`` pixels on the grid of a stride."""
    return (side - 1) // stride + 1


def full_size(store: "MapStore", image_id: str) -> tuple[np.ndarray, np.ndarray]:
    """Labels (rows,) and maps (rows, H, W) of an image at its own size, each divided by its maximum again."""
    labels, maps = store[image_id]
    size = store.size(image_id)
    if len(maps) and maps.shape[1:] != size:
        resized = np.empty((len(maps), *size), np.float32)
        for target, source in zip(resized, maps, strict=True):  # bilinear as in torch, in an eighth of its time
            cv2.resize(source, size[::-1], dst=target)
        resized /= resized.max((1, 2), keepdims=True) + 1e-5  # in place: no map of a store is negative
        maps = resized
    return labels, maps.reshape(len(labels), *size)
