"""ResNet-38d: the wide ResNet-38 of Wu et al. (2016), model A1, with the dilations of PSA (Ahn and Kwak, CVPR 2018)."""

import re
from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from wsss_core.networks.network import Network

PSA_BLOCK = re.compile(r"b(\d)(?:_(\d))?\.(conv|bn)_branch(\w+)\.(\w+)")
MXNET_BLOCK = re.compile(r"(?:arg|aux):(res|bn)(\d)(?:a|b(\d))_branch([12]\w*?)_(\w+)")
MXNET_KINDS = {"res": "conv", "bn": "bn"}
MXNET_VALUES = {
    "weight": "weight",
    "gamma": "weight",  # trained: the authors never fix it to 1
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_var": "running_var",
}


class ResNet38d(Network):
    """Pre-activation residual blocks at a fixed output stride of 8: (N, 3, H, W) to (N, 64 width, H / 8, W / 8).

    The five maps are those of b2, b3, b4, b5 (as
    their last block leaves them) and of b7 after its BatchNorm and ReLU.

    Args:
        dropouts: probabilities that b6 and b7 lose a channel. P-NOC has (0.3, 0.5), OC-CSE's classifier (0.2, 0.2).
        width: channels of the first convolution, 64 in the paper; all other widths are multiples of it.
    """

    default_cfg: ClassVar = {"architecture": "resnet38d", "classifier": ("fc8",)}
    output_stride = 8
    groups = ("conv1a", "b2", "b3", "b4", "b5", "b6", "b7")

    def __init__(self, *, dropouts: Sequence[float] = (0.3, 0.5), width: int = 64):
        super().__init__()
        w = width
        self.conv1a = nn.Conv2d(3, w, 3, padding=1, bias=False)
        self.b2 = _group(3, w, 2 * w, 2 * w, stride=2)
        self.b3 = _group(3, 2 * w, 4 * w, 4 * w, stride=2)
        self.b4 = _group(6, 4 * w, 8 * w, 8 * w, stride=2)
        self.b5 = _group(3, 8 * w, 8 * w, 16 * w, dilation=2)
        self.b6 = nn.Sequential(Bottleneck(16 * w, 32 * w, dilation=4, dropout=dropouts[0]))
        last = Bottleneck(32 * w, 64 * w, dilation=4, dropout=dropouts[1])
        self.b7 = nn.Sequential(last, nn.BatchNorm2d(64 * w), nn.ReLU())
        self.num_features = 64 * w
        self.feature_info = [
            {"module": name, "num_chs": channels * w, "reduction": stride}
            for name, channels, stride in [("b2", 2, 2), ("b3", 4, 4), ("b4", 8, 8), ("b5", 16, 8), ("b7", 64, 8)]
        ]

    def forward_intermediates(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The last map, and all five."""
        maps = []
        for name in self.groups:
            x = self.get_submodule(name)(x)
            maps.append(x)
        return x, [maps[1], maps[2], maps[3], maps[4], maps[6]]

    def from_published(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Rename the tensors of the authors' MXNet file, or of PSA's checkpoints, to those of this module.

        ImageNet's classifier is left out; names of neither origin are kept as they are.
        """
        return {_own_name(name): value for name, value in state.items() if not name.startswith("arg:linear1000_")}


class Block(nn.Module):
    """BN, ReLU, 3x3 and again, beside a shortcut that is the identity or a 1x1 convolution of the first ReLU.

    The stride is in the first convolution, whose dilation is ``first``; the second has ``dilation``.
    """

    def __init__(self, channels: int, middle: int, out: int, *, stride: int = 1, first: int = 1, dilation: int = 1):
        super().__init__()
        self.bn2a = nn.BatchNorm2d(channels)
        self.conv2a = nn.Conv2d(channels, middle, 3, stride, padding=first, dilation=first, bias=False)
        self.bn2b1 = nn.BatchNorm2d(middle)
        self.conv2b1 = nn.Conv2d(middle, out, 3, padding=dilation, dilation=dilation, bias=False)
        same = stride == 1 and channels == out
        self.conv1 = None if same else nn.Conv2d(channels, out, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        active = F.relu(self.bn2a(x))
        shortcut = x if self.conv1 is None else self.conv1(active)
        return shortcut + self.conv2b1(F.relu(self.bn2b1(self.conv2a(active))))


class Bottleneck(nn.Module):
    """As ``Block``, with 1x1, dilated 3x3 and 1x1 convolutions; the last two lose whole channels by dropout."""

    def __init__(self, channels: int, out: int, *, dilation: int, dropout: float):
        super().__init__()
        self.bn2a = nn.BatchNorm2d(channels)
        self.conv2a = nn.Conv2d(channels, out // 4, 1, bias=False)
        self.bn2b1 = nn.BatchNorm2d(out // 4)
        self.conv2b1 = nn.Conv2d(out // 4, out // 2, 3, padding=dilation, dilation=dilation, bias=False)
        self.bn2b2 = nn.BatchNorm2d(out // 2)
        self.conv2b2 = nn.Conv2d(out // 2, out, 1, bias=False)
        self.conv1 = nn.Conv2d(channels, out, 1, bias=False)
        self.dropout = nn.Dropout2d(dropout)

    def forward(self, x: Tensor) -> Tensor:
        active = F.relu(self.bn2a(x))
        branch = self.conv2b1(self.dropout(F.relu(self.bn2b1(self.conv2a(active)))))
        return self.conv1(active) + self.conv2b2(self.dropout(F.relu(self.bn2b2(branch))))


def _group(blocks: int, channels: int, middle: int, out: int, *, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    # PSA enlarges the dilation after the first convolution of a group
    first = Block(channels, middle, out, stride=stride, dilation=dilation)
    rest = [Block(out, middle, out, first=dilation, dilation=dilation) for _ in range(1, blocks)]
    return nn.Sequential(first, *rest)


def _own_name(name: str) -> str:
    """``arg:res2b1_branch2a_weight`` and ``b2_1.conv_branch2a.weight`` are ``b2.1.conv2a.weight``."""
    if match := PSA_BLOCK.fullmatch(name):
        group, index, kind, branch, value = match.groups()
    elif match := MXNET_BLOCK.fullmatch(name):
        kind, group, index, branch, value = match.groups()
        kind, value = MXNET_KINDS[kind], MXNET_VALUES.get(value, value)
    elif match := re.fullmatch(r"(?:arg:|aux:|)bn7[._](\w+)", name):
        return f"b7.1.{MXNET_VALUES.get(match[1], match[1])}"
    else:
        return "conv1a.weight" if name == "arg:conv1a_weight" else name
    return f"b{group}.{index or 0}.{kind}{branch}.{value}"
