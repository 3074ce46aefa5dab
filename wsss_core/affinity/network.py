"""AffinityNet: edges between classes from the features of a frozen backbone."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsss_core.networks.backbones import Backbone

WIDTH = 32  # channels that each tap is brought to
GROUPS = 4
STRIDE = 4  # of the edge map


class AffinityNet(nn.Module):
    """The boundary branch of IRNet (Ahn et al., CVPR 2019), as P-NOC uses it.

    Five maps of the backbone each go through a 1x1 convolution, group normalisation, upsampling to stride 4 and
    ReLU; a last 1x1 convolution gives one edge logit a pixel. The backbone is never trained, nor are its batch
    statistics: it stays in eval mode whatever the mode of the network.

    Args:
        backbone: ``backbone(x)`` returns five maps, stem first, with ``channels`` and ``strides`` of five
            integers each; the stem's stride is 2, those of the others are multiples of 4.

    Raises:
        ValueError: other strides.
    """

    def __init__(self, backbone: Backbone):
        super().__init__()
        stem, *stages = backbone.strides
        if stem != 2 or len(stages) != 4 or any(stride % STRIDE for stride in stages):
            raise ValueError(f"AffinityNet needs strides 2 and four multiples of 4, not {backbone.strides}")
        self.backbone = backbone.requires_grad_(False)
        # the stem's map is at stride 4 after its pooling
        self.branches = nn.ModuleList(
            _branch(channels, stride // STRIDE)
            for channels, stride in zip(backbone.channels, [STRIDE, *stages], strict=True)
        )
        self.edge = nn.Conv2d(len(self.branches) * WIDTH, 1, kernel_size=1)
        self.train(self.training)  # puts the backbone into eval mode

    def train(self, mode: bool = True) -> "AffinityNet":
        """Set the mode of the edge layers; the backbone stays in eval mode."""
        super().train(mode)
        self.backbone.eval()
        return self

    def edge_parameters(self) -> list[nn.Parameter]:
        """The parameters that are trained: all but the backbone's."""
        return [*self.branches.parameters(), *self.edge.parameters()]

    def forward(self, x: Tensor) -> Tensor:
        """Edge logits (N, 1, ceil(H / 4), ceil(W / 4)) of normalised images (N, 3, H, W).

        The sigmoid of a logit is high on a boundary.
        """
        with torch.no_grad():
            stem, *stages = self.backbone(x)
        taps = [F.max_pool2d(stem, kernel_size=3, stride=2, padding=1), *stages]
        height, width = ((side - 1) // STRIDE + 1 for side in x.shape[-2:])
        # upsampled maps may be larger than the grid, where a stride rounded up
        maps = [branch(tap)[..., :height, :width] for branch, tap in zip(self.branches, taps, strict=True)]
        return self.edge(torch.cat(maps, dim=1))


def _branch(channels: int, factor: int) -> nn.Sequential:
    layers = [nn.Conv2d(channels, WIDTH, kernel_size=1, bias=False), nn.GroupNorm(GROUPS, WIDTH)]
    if factor > 1:
        layers.append(nn.Upsample(scale_factor=factor, mode="bilinear", align_corners=False))
    return nn.Sequential(*layers, nn.ReLU(inplace=True))
