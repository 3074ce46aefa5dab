"""DeepLabV3+, the segmentation network."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsss_core.networks.backbones import Backbone

GROUPS = 4
DILATIONS = {16: (6, 12, 18), 8: (12, 24, 36)}  # by output stride: the same reach in pixels of the image


class DeepLabV3Plus(nn.Module):
    """DeepLabV3+ (Chen et al. 2018) with the normalisation and dropouts of P-NOC.

    ``backbone`` holds what is pretrained, ``aspp`` and ``decoder`` what starts from scratch.

    Args:
        backbone: ``backbone(x)`` gives five maps [stem, s1, s2, s3, s4]; has ``channels`` and ``strides``.
        classes: outputs, background included.
        norm: "group" (4 groups) or "batch" in the new layers. With "batch", training needs at least two
            images a batch, since image pooling leaves one value an image and channel.
        width: channels of the new layers, 256 in the paper; the reduced low-level map has 3/16 of them (48).

    Raises:
        ValueError: an output stride other than 8 or 16, an unknown ``norm``, or a ``width`` that 4 groups
            cannot share.
    """

    def __init__(self, backbone: Backbone, classes: int, norm: str = "group", width: int = 256):
        super().__init__()
        stride = backbone.strides[4]
        if stride not in DILATIONS:
            raise ValueError(f"DeepLabV3+ has no dilations for output stride {stride}: use 8 or 16")
        if width < 2 * GROUPS or width % GROUPS:
            raise ValueError(f"width {width}: use a multiple of {GROUPS}, at least {2 * GROUPS}")
        make_norm = _norm(norm)
        self.backbone = backbone
        self.aspp = ASPP(backbone.channels[4], width, DILATIONS[stride], make_norm)
        self.decoder = Decoder(backbone.channels[1], width, classes, make_norm)
        for module in (*self.aspp.modules(), *self.decoder.modules()):
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
        nn.init.zeros_(self.decoder.score.get_parameter("bias"))

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, classes, H, W) of normalised images (N, 3, H, W), of any size."""
        _, low, _, _, high = self.backbone(x)
        return _resize(self.decoder(self.aspp(high), low), x.shape[-2:])


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling: (N, channels, h, w) to (N, width, h, w)."""

    def __init__(self, channels: int, width: int, dilations: tuple[int, ...], make_norm: Callable):
        super().__init__()
        self.branches = nn.ModuleList([_conv(channels, width, 1, make_norm)])
        self.branches.extend(_conv(channels, width, 3, make_norm, dilation) for dilation in dilations)
        self.image = _conv(channels, width, 1, make_norm)
        self.join = _conv((len(self.branches) + 1) * width, width, 1, make_norm)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        # one value an image and channel, everywhere the same
        image = self.image(x.mean(dim=(2, 3), keepdim=True)).expand(-1, -1, *x.shape[-2:])
        branches = [branch(x) for branch in self.branches]
        return self.dropout(self.join(torch.cat([*branches, image], dim=1)))


class Decoder(nn.Module):
    """Refines the ASPP's map by the fine, low-level map of the first stage, and scores the classes."""

    def __init__(self, low_channels: int, width: int, classes: int, make_norm: Callable):
        super().__init__()
        # 48 of 256 channels in the paper; here a multiple of the groups, with two channels each at least
        low_width = GROUPS * max(2, round(width * 48 / 256 / GROUPS))
        self.reduce = _conv(low_channels, low_width, 1, make_norm)
        self.refine = nn.Sequential(
            _conv(width + low_width, width, 3, make_norm),
            nn.Dropout(0.5),
            _conv(width, width, 3, make_norm),
            nn.Dropout(0.1),
        )
        self.score = nn.Conv2d(width, classes, kernel_size=1)

    def forward(self, high: Tensor, low: Tensor) -> Tensor:
        low = self.reduce(low)  # few channels, so that fine detail does not outweigh what the ASPP sees
        high = _resize(high, low.shape[-2:])
        return self.score(self.refine(torch.cat([high, low], dim=1)))


def _norm(name: str) -> Callable[[int], nn.Module]:
    if name == "group":
        return lambda channels: nn.GroupNorm(GROUPS, channels)
    if name == "batch":
        return nn.BatchNorm2d
    raise ValueError(f"norm {name!r}: use 'group' or 'batch'")


def _conv(channels: int, out: int, kernel: int, make_norm: Callable, dilation: int = 1) -> nn.Sequential:
    padding = dilation * (kernel // 2)
    conv = nn.Conv2d(channels, out, kernel, padding=padding, dilation=dilation, bias=False)
    return nn.Sequential(conv, make_norm(out), nn.ReLU(inplace=True))


def _resize(x: Tensor, size: tuple[int, ...]) -> Tensor:
    return F.interpolate(x, size, mode="bilinear", align_corners=True)
