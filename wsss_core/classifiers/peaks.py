"""Peaks of class maps, after PRM (Zhou et al., CVPR 2018): where they are, and their mean as a class's score."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

ENLARGE = 8  # of maps whose peaks are a class's score


def enlarged(maps: Tensor, factor: int = ENLARGE) -> Tensor:
    """Class maps (B, C, h, w) so many times as large, bilinearly, with the corners where they were."""
    return F.interpolate(maps, scale_factor=factor, mode="bilinear", align_corners=True)


def find_peaks(maps: Tensor, window: int = 3) -> Tensor:
    """The peaks of class maps: (B, C, H, W) -> (P, 4) int64 of batch, class, row and column, in this order.

    A peak is the first maximum of the window around it, outside of which nothing counts, and not below the median of
    its map (the lower one of an even number of cells).

    Args:
        window: side of the window in cells, odd.
    """
    return is_peak(maps, window).nonzero()


def is_peak(maps: Tensor, window: int = 3) -> Tensor:
    """Where the peaks are: (B, C, H, W) bool, of as many axes as the maps."""
    if window % 2 == 0 or window < 1:
        raise ValueError(f"the window of peaks has an odd side, not {window}")
    maps = maps.detach()
    _, first = F.max_pool2d(maps, window, 1, window // 2, return_indices=True)  # pads by -inf; of equal ones the first
    height, width = maps.shape[-2:]
    own = torch.arange(height * width, device=maps.device).view(height, width)
    median = maps.flatten(-2).median(-1).values  # torch's is the lower one
    return (first == own) & (maps >= median[..., None, None])


def peak_scores(maps: Tensor, window: int = 3) -> Tensor:
    """The mean of each class map over its peaks, with PRM's gradient: (B, C, H, W) -> (B, C).

    The gradient of a score reaches each of its peaks whole, not divided by their number, and nothing else. A map
    without a peak has the score 0.
    """
    return _PeakMean.apply(maps, is_peak(maps, window))


class _PeakMean(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, maps: Tensor, peaks: Tensor) -> Tensor:
        context.save_for_backward(peaks)
        return torch.where(peaks, maps, 0).sum((-2, -1)) / peaks.sum((-2, -1)).clamp(min=1)

    @staticmethod
    @once_differentiable
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (peaks,) = context.saved_tensors
        return gradient[..., None, None] * peaks, None
