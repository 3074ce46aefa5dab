"""The losses of image-level labels, and the targets that they take."""

import torch
import torch.nn.functional as F
from torch import Tensor


def smooth(labels: Tensor, smoothing: float) -> Tensor:
    """Labels pulled towards 1/2: ``(1 - a) y + a / 2``."""
    return (1 - smoothing) * labels + smoothing / 2


def label_loss(scores: Tensor, targets: Tensor) -> Tensor:
    """Multi-label soft margin: binary cross-entropy with logits (B, C), mean over batch and classes."""
    return F.binary_cross_entropy_with_logits(scores, targets)


def softmax_label_loss(scores: Tensor, labels: Tensor, single_only: bool = False) -> Tensor:
    """Softmax cross-entropy with the labels over their sum as targets, mean over the batch (ReCAM, table 1).

    An image without labels adds 0.

    Args:
        scores: (B, C) logits.
        labels: (B, C), 1 for a class of the image.
        single_only: images that have not exactly one class take the binary cross-entropy, a mean over classes, instead.
    """
    count = labels.sum(1, keepdim=True)
    softmax = -(F.log_softmax(scores, dim=1) * labels / count.clamp(min=1)).sum(1)
    if not single_only:
        return softmax.mean()
    binary = F.binary_cross_entropy_with_logits(scores, labels, reduction="none").mean(1)
    return torch.where((labels > 0).sum(1) == 1, softmax, binary).mean()
