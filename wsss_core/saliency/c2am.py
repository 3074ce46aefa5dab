"""C²AM: one map that splits an image into foreground and background, learnt without any label; its losses."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsss_core.networks.backbones import Backbone

# cosines are kept off 0 and 1, where the logarithms and their gradients have no bound
SMALLEST_COSINE, LARGEST_COSINE = 0.0005, 0.9995


class C2AM(nn.Module):
    """The network of C²AM (P-NOC paper, section 2.4.4, after Xie et al. 2022) and of C²AM-H.

    Args:
        backbone: ``backbone(x)`` gives five maps [stem, s1, s2, s3, s4]; has ``channels`` and ``strides``.
            Its last two maps must have the same stride, as with an output stride of 16 or 8.
        direction: 1 where positive logits are foreground, -1 where negative ones are.

    Raises:
        ValueError: the last two maps have different strides and cannot be concatenated.
    """

    def __init__(self, backbone: Backbone, direction: int = 1):
        super().__init__()
        s3, s4 = backbone.strides[3:]
        if s3 != s4:
            raise ValueError(
                f"C2AM joins the last two maps of its backbone, but their strides are {s3} and {s4}: "
                "build the backbone with output_stride=16"
            )
        self.backbone = backbone
        self.direction = direction
        self.features = backbone.channels[4] + backbone.channels[3]
        # centred by BatchNorm, so that at the start neither side of the split has all pixels
        self.disentangler = nn.Sequential(
            nn.Conv2d(self.features, 1, kernel_size=3, padding=1, bias=False), nn.BatchNorm2d(1)
        )

    @property
    def scratch(self) -> list[nn.Module]:
        """The modules that do not start from ImageNet weights."""
        return [self.disentangler]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Split normalised images (B, 3, H, W) into two pooled vectors each.

        Returns:
            Foreground and background vectors, (B, D) float32 with D = ``features``, and the logits of the
            map, (B, 1, h, w). Without hints, the losses do not tell which of the two is foreground.
        """
        *_, s3, s4 = self.backbone(x)
        features = torch.cat([s4, s3], dim=1)  # (B, D, h, w)
        logits = self.disentangler(features)
        foreground, background = _pool(features, torch.sigmoid(logits))
        return foreground, background, logits

    def salient_logits(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 1, h, w) logits that are positive where foreground is, in whatever direction it split."""
        return self.direction * self(x)[2]


def _pool(features: Tensor, probability: Tensor) -> tuple[Tensor, Tensor]:
    """Means over the pixels of (B, D, h, w) features, weighted by p and by 1 - p."""
    weights = torch.cat([probability, 1 - probability], dim=1).flatten(2)  # (B, 2, h * w)
    # one product for both, so that the widest tensor of the step is read once
    sums = weights @ features.flatten(2).transpose(1, 2)  # (B, 2, D)
    # divided in float32: a half-precision quotient would lose small features
    foreground, background = (sums.float() / weights.shape[2]).unbind(dim=1)
    return foreground, background


def c2am_loss(foreground: Tensor, background: Tensor, alpha: float = 0.25) -> dict[str, Tensor]:
    """Contrast the foregrounds and backgrounds of a batch (P-NOC paper, equation 7).

    Unlike the printed equation, and like the published code, all means are over the B * B pairs with the
    diagonal, and the positive terms carry the minus sign that makes them losses. The number of images
    compared at once matters: gradient accumulation does not enlarge it.

    Args:
        foreground: (B, D), one pooled vector an image.
        background: (B, D).
        alpha: how fast the weight of a positive pair, exp(-alpha * rank), falls with its rank.

    Returns:
        ``positive_foreground``, ``positive_background`` and ``negative``: float32 scalars, none below 0,
        whose sum is the loss.
    """
    with torch.autocast(foreground.device.type, enabled=False):  # half precision cannot tell 0.9995 from 1
        foreground = F.normalize(foreground.float(), dim=1)
        background = F.normalize(background.float(), dim=1)
        return {
            "positive_foreground": _attract(foreground @ foreground.T, alpha),
            "positive_background": _attract(background @ background.T, alpha),
            "negative": -torch.log1p(-_bounded(background @ foreground.T)).mean(),
        }


def _attract(cosine: Tensor, alpha: float) -> Tensor:
    """Mean of -log(cosine) over all pairs, near neighbours first."""
    weights = torch.exp(-alpha * _ranks(cosine.detach()))  # they weigh the pairs, and are not learnt
    return -(weights * torch.log(_bounded(cosine))).mean()


def _ranks(cosine: Tensor) -> Tensor:
    """Rank of column j in the descending order of row i: -1 for i itself, 0 for its nearest neighbour."""
    # an image is first in its own row even beside a copy of it, where rounding would decide
    own = torch.eye(len(cosine), dtype=torch.bool, device=cosine.device)
    order = cosine.masked_fill(own, torch.inf).argsort(dim=1, descending=True, stable=True)
    return order.argsort(dim=1) - 1


def _bounded(cosine: Tensor) -> Tensor:
    return cosine.clamp(SMALLEST_COSINE, LARGEST_COSINE)
