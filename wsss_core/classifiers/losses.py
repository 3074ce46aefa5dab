"""The losses of image-level labels, and the targets that they take."""

import torch.nn.functional as F
from torch import Tensor


def smooth(labels: Tensor, smoothing: float) -> Tensor:
    """Labels pulled towards 1/2: ``(1 - a) y + a / 2``."""
    return (1 - smoothing) * labels + smoothing / 2


def label_loss(scores: Tensor, targets: Tensor) -> Tensor:
    """Multi-label soft margin: binary cross-entropy with logits (B, C), mean over batch and classes."""
    return F.binary_cross_entropy_with_logits(scores, targets)
