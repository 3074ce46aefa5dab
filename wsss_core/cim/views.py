"""Pictures with their proposals, in the sizes and directions that the network sees them in."""

import cv2
import numpy as np
import torch
from torch import Tensor

from wsss_core.instances.store import Instances
from wsss_core.proposals.overlaps import crops_of


def resized(pixels: np.ndarray, longer_side: int) -> np.ndarray:
    """(H, W, 3) uint8 with a longer side of that many pixels: bilinear, then cut to whole numbers, as published."""
    height, width = pixels.shape[:2]
    factor = longer_side / max(height, width)
    size = max(1, round(width * factor)), max(1, round(height * factor))
    # OpenCV's resize, unlike Pillow's, does not smooth what it shrinks
    return cv2.resize(pixels.astype(np.float32), size, interpolation=cv2.INTER_LINEAR).astype(np.uint8)


def view(pixels: np.ndarray, proposals: Instances, longer_side: int, mirror: bool) -> dict[str, Tensor]:
    """A picture as the network takes it.

    The boxes' ends are exclusive: in the mirror image, x is at W - x. (The published code takes W - x - 1, which moves
    boxes by a pixel, and cuts them at W - 1 and H - 1; neither is meant.)

    Args:
        pixels: (H, W, 3) uint8.

    Returns:
        ``pixels`` (h, w, 3) uint8, ``boxes`` (N, 4) float32 in its pixels, ``crops`` (N, 7, 7) bool.
    """
    height, width = pixels.shape[:2]
    shown, boxes, crops = resized(pixels, longer_side), proposals.boxes.astype(np.float32), crops_of(proposals)
    if mirror:
        shown, crops = shown[:, ::-1], crops[:, :, ::-1]
        boxes[:, [0, 2]] = width - boxes[:, [2, 0]]
    return {
        "pixels": torch.from_numpy(np.ascontiguousarray(shown)),
        "boxes": torch.from_numpy(boxes * np.float32(longer_side / max(height, width))),
        "crops": torch.from_numpy(np.ascontiguousarray(crops)),
    }
