"""Losses of the segmentation networks."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor


def segmentation_loss(logits: Tensor, target: Tensor, smoothing: float = 0.1, ignore: int = 255) -> Tensor:
    """Cross-entropy of the pixels with label smoothing, as P-NOC trains DeepLabV3+.

    Args:
        logits: (N, K, H, W).
        target: (N, H, W), integers: 0 to K - 1, or ``ignore``.
        smoothing: share of the target that is spread evenly over all K classes.
        ignore: value of the void pixels, which have no part in the mean.

    Returns:
        A float32 scalar: the mean over the valid pixels of the batch, 0 where all are void.
    """
    target = target.long()
    loss = F.cross_entropy(logits.float(), target, ignore_index=ignore, label_smoothing=smoothing, reduction="sum")
    # cross_entropy's own mean is NaN for a batch of void pixels alone
    return loss / (target != ignore).sum().clamp(min=1)


def multi_scale_loss(outputs: Sequence[Tensor], target: Tensor, ignore: int = 255) -> Tensor:
    """Sum of the cross-entropies of several maps of the same images, as DeepLabV2 is trained (deeplab-pytorch).

    Args:
        outputs: logits (N, K, h, w), each of a size of its own.
        target: (N, H, W) uint8: 0 to K - 1, or ``ignore``. For each map it is shrunk to the pixels in the middle of its
            cells, which are those that Pillow's nearest resize takes in the published code.

    Returns:
        A float32 scalar.
    """
    sizes = [logits.shape[2:] for logits in outputs]
    targets = [F.interpolate(target[:, None], size, mode="nearest-exact")[:, 0] for size in sizes]
    losses = [segmentation_loss(o, t, smoothing=0.0, ignore=ignore) for o, t in zip(outputs, targets, strict=True)]
    return sum(losses[1:], losses[0])
