"""Hints of C²AM-H: the strongest activations of a classifier, and the loss that follows them."""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from wsss_core.base.files import whole
from wsss_core.data.manifest import Manifest, Row
from wsss_core.maps.sizes import full_size
from wsss_core.maps.store import MapStore, MapWriter


def make_hints(*, manifest: Manifest, cams: MapStore, store: Path) -> None:
    """Keep the strongest class activation of each pixel: the hints of C²AM-H, one map an image."""
    about = {**cams.about, "source": str(cams.path)}
    grid = {"stride": about["stride"], "multiple": about["multiple"]}
    with whole(store) as folder, MapWriter(folder, manifest, **grid, classwise=False, about=about) as out:
        for row in manifest.rows:  # at the CAMs' stride: the loss shrinks hints further
            _, maps = cams[row.id]
            out.append(row.id, maps.max(axis=0, keepdims=True, initial=0))  # an image without labels hints at nothing


def hint_loss(logits: Tensor, hint: Tensor, threshold: float = 0.4, smoothing: float = 0.1) -> Tensor:
    """Push the map towards foreground where the hints of a classifier say so (P-NOC paper, equation 11).

    Only high hints are used: a low one does not tell background from a part that the classifier overlooked.
    Unlike the paper's sum, and like the published code, this is the mean, and the label is smoothed.

    Args:
        logits: (B, 1, h, w).
        hint: (B, 1, H, W) or (B, H, W), in [0, 1]; resized to (h, w).
        threshold: a resized hint of at least this value is foreground.
        smoothing: the target is ``1 - smoothing / 2``.

    Returns:
        A float32 scalar: mean binary cross-entropy over all hinted pixels of the batch, 0 without any.
    """
    hint = hint.reshape(len(hint), 1, *hint.shape[-2:]).float()
    hint = F.interpolate(hint, logits.shape[-2:], mode="bicubic", align_corners=False)
    hinted = (hint >= threshold).float()
    logits = logits.float()  # half precision rounds the logarithm of probabilities near 1 to 0
    target = torch.full_like(logits, 1 - smoothing / 2)
    loss = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    # sums in place of an index: no wait for the device, and no mean of nothing (NaN) without hints
    return (loss * hinted).sum() / hinted.sum().clamp(min=1)


class HintReader:
    """Row -> hint map (H, W) float32; a picklable object, for workers."""

    def __init__(self, hints: MapStore):
        self.hints = hints

    def __call__(self, row: Row) -> np.ndarray:
        return full_size(self.hints, row.id)[1][0]
