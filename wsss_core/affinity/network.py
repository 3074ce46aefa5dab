"""AffinityNet: edges between classes, and displacements to instances, from the features of a frozen backbone."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsss_core.networks.backbones import Backbone

WIDTH = 32  # channels that each tap is brought to
GROUPS = 4
STRIDE = 4  # of the edge map


class AffinityNet(nn.Module):
    """The boundary branch of IRNet (Ahn et al., CVPR 2019), as P-NOC uses it; on request the other branch as well.

    Five maps of the backbone each go through a 1x1 convolution, group normalisation, upsampling to stride 4 and
    ReLU; a last 1x1 convolution gives one edge logit a pixel. The backbone is never trained, nor are its batch
    statistics: it stays in eval mode whatever the mode of the network.

    Args:
        backbone: ``backbone(x)`` returns five maps, stem first, with ``channels`` and ``strides`` of five
            integers each; the stem's stride is 2, those of the others are multiples of 4.
        displacement: whether there is a ``DisplacementBranch``, for ``both``. Its layers are drawn after those of the
            edges, which start as they do without it.

    Attributes:
        displacement_mean: (2,) mean displacement, subtracted in eval mode alone; 0 until it is measured.

    Raises:
        ValueError: other strides.
    """

    displacement_mean: Tensor

    def __init__(self, backbone: Backbone, *, displacement: bool = False):
        super().__init__()
        stem, *stages = backbone.strides
        if stem != 2 or len(stages) != 4 or any(stride % STRIDE for stride in stages):
            raise ValueError(f"AffinityNet needs strides 2 and four multiples of 4, not {backbone.strides}")
        self.backbone = backbone.requires_grad_(False)
        strides = [STRIDE, *stages]  # the stem's map is at stride 4 after its pooling
        self.branches = nn.ModuleList(
            _layer(channels, WIDTH, GROUPS, stride // STRIDE)
            for channels, stride in zip(backbone.channels, strides, strict=True)
        )
        self.edge = nn.Conv2d(len(self.branches) * WIDTH, 1, kernel_size=1)
        self.displacement = DisplacementBranch(backbone.channels, strides) if displacement else None
        if displacement:
            self.register_buffer("displacement_mean", torch.zeros(2))
        self.train(self.training)  # puts the backbone into eval mode

    def train(self, mode: bool = True) -> "AffinityNet":
        """Set the mode of the branches; the backbone stays in eval mode."""
        super().train(mode)
        self.backbone.eval()
        return self

    def edge_parameters(self) -> list[nn.Parameter]:
        """The parameters of the edges."""
        return [*self.branches.parameters(), *self.edge.parameters()]

    def displacement_parameters(self) -> list[nn.Parameter]:
        """The parameters of the displacement branch; none without it."""
        return [] if self.displacement is None else list(self.displacement.parameters())

    def forward(self, x: Tensor) -> Tensor:
        """Edge logits (N, 1, ceil(H / 4), ceil(W / 4)) of normalised images (N, 3, H, W).

        The sigmoid of a logit is high on a boundary.
        """
        return self._edge(self._taps(x), *_grid(x))

    def both(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The edge logits of ``forward``, and displacements (N, 2, ceil(H / 4), ceil(W / 4)), in cells of stride 4.

        A displacement (dy, dx) leads from a pixel to the middle of its instance.

        Raises:
            ValueError: there is no displacement branch.
        """
        if self.displacement is None:
            raise ValueError(
                "this AffinityNet has no displacement branch: set `displacement: true` under affinity in config.yaml "
                "and train it again"
            )
        taps, size = self._taps(x), _grid(x)
        displacement = self.displacement(taps, *size)
        if not self.training:
            displacement = displacement - self.displacement_mean[:, None, None]
        return self._edge(taps, *size), displacement

    @torch.no_grad()
    def _taps(self, x: Tensor) -> list[Tensor]:
        stem, *stages = self.backbone(x)
        return [F.max_pool2d(stem, kernel_size=3, stride=2, padding=1), *stages]

    def _edge(self, taps: Sequence[Tensor], height: int, width: int) -> Tensor:
        # upsampled maps may be larger than the grid, where a stride rounded up
        maps = [branch(tap)[..., :height, :width] for branch, tap in zip(self.branches, taps, strict=True)]
        return self.edge(torch.cat(maps, dim=1))


class DisplacementBranch(nn.Module):
    """The displacement branch of IRNet.

    The three coarse taps meet at the stride of the first of them, and then the two fine ones at stride 4. Widths are
    the published ones whatever the backbone, as in the boundary branch.

    Args:
        channels, strides: those of five taps, fine to coarse.
    """

    def __init__(self, channels: Sequence[int], strides: Sequence[int]):
        super().__init__()
        self.fine = nn.ModuleList(
            _layer(count, width, groups, stride // STRIDE)
            for count, stride, width, groups in zip(channels[:2], strides[:2], (64, 128), (8, 16), strict=True)
        )
        self.coarse = nn.ModuleList(
            _layer(count, 256, 16, stride // strides[2])
            for count, stride in zip(channels[2:], strides[2:], strict=True)
        )
        self.joined = _layer(3 * 256, 256, 16, strides[2] // STRIDE)
        self.last = nn.Sequential(_layer(64 + 128 + 256, 256, 16, 1), nn.Conv2d(256, 2, kernel_size=1, bias=False))

    def forward(self, taps: Sequence[Tensor], height: int, width: int) -> Tensor:
        """(N, 2, height, width), the grid of stride 4, of five taps."""
        rows, columns = taps[2].shape[-2:]
        coarse = [layer(tap)[..., :rows, :columns] for layer, tap in zip(self.coarse, taps[2:], strict=True)]
        maps = [layer(tap) for layer, tap in zip(self.fine, taps[:2], strict=True)]
        maps.append(self.joined(torch.cat(coarse, dim=1)))
        return self.last(torch.cat([m[..., :height, :width] for m in maps], dim=1))


def _grid(x: Tensor) -> tuple[int, int]:
    """Height and width at stride 4 of images (N, 3, H, W)."""
    height, width = x.shape[-2:]
    return (height - 1) // STRIDE + 1, (width - 1) // STRIDE + 1


def _layer(channels: int, width: int, groups: int, factor: int) -> nn.Sequential:
    layers = [nn.Conv2d(channels, width, kernel_size=1, bias=False), nn.GroupNorm(groups, width)]
    if factor > 1:
        layers.append(nn.Upsample(scale_factor=factor, mode="bilinear", align_corners=False))
    return nn.Sequential(*layers, nn.ReLU(inplace=True))
