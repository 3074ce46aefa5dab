"""VGG16 (Simonyan and Zisserman 2015) as PSA changes it, and its convolutions, which PoolNet shares."""

import re
from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsss_core.data.transforms import STD
from wsss_core.networks.network import Network

GROUPS = ((3, 64, 2), (64, 128, 2), (128, 256, 3), (256, 512, 3), (512, 512, 3))  # input, channels, convolutions
# where the convolutions stand in the list of layers of torchvision and of PoolNet's authors
POSITIONS = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
PLACES = [(group, index) for group, (*_, count) in enumerate(GROUPS, start=1) for index in range(count)]
BY_POSITION = {str(position): place for position, place in zip(POSITIONS, PLACES, strict=True)}
SCALE = 255 * STD[::-1]  # from normalised values to grey levels: blue, green, red


class Convolutions(nn.Module):
    """The thirteen convolutions in groups conv1 to conv5, each but the last followed by a 3x3 max-pool.

    The input is blue, green, red in grey levels, minus their means, as Caffe's weights want it.

    Args:
        dense: the fourth pool keeps the size and conv5 has dilation 2, for a stride of 8 in place of 16.
    """

    def __init__(self, *, dense: bool):
        super().__init__()
        dilations = (1, 1, 1, 1, 2 if dense else 1)
        groups = (_group(*group, dilation) for group, dilation in zip(GROUPS, dilations, strict=True))
        self.conv1, self.conv2, self.conv3, self.conv4, self.conv5 = groups
        self.last_pool = 1 if dense else 2

    def five_maps(self, x: Tensor) -> list[Tensor]:
        """Maps after the last ReLU of each group: 64, 128, 256, 512 and 512 channels."""
        maps = [self.conv1(x)]
        for group, stride in [(self.conv2, 2), (self.conv3, 2), (self.conv4, 2), (self.conv5, self.last_pool)]:
            maps.append(group(F.max_pool2d(maps[-1], 3, stride, padding=1)))
        return maps


class VGG16(Convolutions, Network):
    """Fully convolutional, at a fixed output stride of 8: (N, 3, H, W) normalised RGB to (N, 1024, H / 8, W / 8).

    The five maps are those of conv2 to conv5 and of fc7. CAMs are the square root of its positive class maps
    (``root_cam``), as PSA takes them.

    Args:
        dropouts: probabilities that fc6 and fc7 lose a channel.
        reach: dilation of fc6. PSA's classifier has 1, its AffinityNet 4, DeepLab-LargeFOV 12.
    """

    default_cfg: ClassVar = {"architecture": "vgg16", "classifier": ("fc8", "classifier", "pre_logits", "head")}
    output_stride = 8
    root_cam = True
    groups = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7")
    feature_info = (
        {"module": "conv2", "num_chs": 128, "reduction": 2},
        {"module": "conv3", "num_chs": 256, "reduction": 4},
        {"module": "conv4", "num_chs": 512, "reduction": 8},
        {"module": "conv5", "num_chs": 512, "reduction": 8},
        {"module": "fc7", "num_chs": 1024, "reduction": 8},
    )
    num_features = 1024
    scale: Tensor

    def __init__(self, *, dropouts: Sequence[float] = (0.5, 0.5), reach: int = 1):
        super().__init__(dense=True)
        fc6, fc7 = nn.Conv2d(512, 1024, 3, padding=reach, dilation=reach), nn.Conv2d(1024, 1024, 1)
        self.fc6 = nn.Sequential(_started(fc6), nn.ReLU(inplace=True), nn.Dropout2d(dropouts[0]))
        self.fc7 = nn.Sequential(_started(fc7), nn.ReLU(inplace=True), nn.Dropout2d(dropouts[1]))
        self.register_buffer("scale", torch.tensor(SCALE.copy()).view(3, 1, 1), persistent=False)

    def forward_intermediates(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The last map, and all five."""
        # 0 stays 0, so that erased pixels and padding keep the mean colour; ImageNet's and Caffe's differ by one level
        maps = self.five_maps(x.flip(1) * self.scale)
        last = self.fc7(self.fc6(maps[-1]))
        return last, [*maps[1:], last]

    def from_published(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """As ``published_convolutions``; fc6 and fc7 are new where the file lacks them."""
        renamed = published_convolutions(state)
        own = {name: value for name, value in self.state_dict().items() if name.startswith("fc")}
        there = {name: renamed.pop(old) for name in own if (old := name.replace(".0.", ".")) in renamed}
        return {**renamed, **(there or own)}


class TorchvisionVGG16(Network):
    """The convolutions as torchvision trained them, at a fixed output stride of 8, as CIM takes them.

    Input and weights are torchvision's: normalised RGB, and 2x2 pools; those after conv4 and conv5 are left out, and
    conv5 has dilation 2. The five maps are those of conv1 to conv5, each after its last ReLU.
    """

    default_cfg: ClassVar = {"architecture": "vgg16_torchvision", "classifier": ("classifier", "pre_logits", "head")}
    output_stride = 8
    feature_info = tuple(
        {"module": f"features.{position}", "num_chs": channels, "reduction": stride}
        for position, channels, stride in ((2, 64, 1), (7, 128, 2), (14, 256, 4), (21, 512, 8), (28, 512, 8))
    )
    num_features = 512

    def __init__(self, *, dropouts: Sequence[float] = ()):
        if dropouts:
            raise ValueError("vgg16_torchvision has no layers with dropout")
        super().__init__()
        self.features = nn.ModuleDict()
        for position, (group, index) in zip(POSITIONS, PLACES, strict=True):
            channels, out, _ = GROUPS[group - 1]
            dilation = 2 if group == len(GROUPS) else 1
            self.features[str(position)] = nn.Conv2d(
                out if index else channels, out, 3, padding=dilation, dilation=dilation
            )

    def forward_intermediates(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The last map, and all five."""
        maps: list[Tensor] = []
        for position, (group, index) in zip(POSITIONS, PLACES, strict=True):
            if index == 0 and 1 < group < len(GROUPS):
                x = F.max_pool2d(x, 2)
            x = F.relu(self.features[str(position)](x))
            if index == GROUPS[group - 1][2] - 1:
                maps.append(x)
        return x, maps


class CaffeVGG16(Convolutions):
    """The variant of PoolNet: maps after relu2_2, relu3_3, relu4_3 and relu5_3 at strides 2, 4, 8 and 16."""

    default_cfg: ClassVar = {
        "architecture": "vgg16_caffe",
        "classifier": ("fc6", "fc7", "fc8", "classifier", "pre_logits", "head"),
    }
    channels = (128, 256, 512, 512)
    strides = (2, 4, 8, 16)

    def __init__(self) -> None:
        super().__init__(dense=False)

    def forward(self, x: Tensor) -> list[Tensor]:
        return self.five_maps(x)[1:]

    def from_published(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return published_convolutions(state)


def published_convolutions(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the convolutions of a VGG16 file to those of ``Convolutions``; other names are kept.

    Known are ``conv1_1.weight`` (Caffe's names, PSA), ``0.weight`` (``vgg16_20M.pth`` of PoolNet's authors) and
    ``features.0.weight`` (torchvision and timm). The last expects normalised RGB: its first convolution is changed
    to give the same numbers from blue, green and red in grey levels.
    """
    # what follows the convolutions under a bare number is a classifier of another input size
    renamed = {_own_name(name): value for name, value in state.items()}
    renamed = {name: value for name, value in renamed.items() if not name[:1].isdigit()}
    if "features.0.weight" in state:
        scale = torch.tensor(SCALE.copy()).view(1, 3, 1, 1)
        renamed["conv1.0.weight"] = renamed["conv1.0.weight"].flip(1) / scale
    return renamed


def _own_name(name: str) -> str:
    """``features.2.weight``, ``2.weight`` and ``conv1_2.weight`` are ``conv1.2.weight``."""
    if match := re.fullmatch(r"(?:features\.)?(\d+)\.(weight|bias)", name):
        position, value = match.groups()
        if position in BY_POSITION:
            group, index = BY_POSITION[position]
            return f"conv{group}.{2 * index}.{value}"
    if match := re.fullmatch(r"conv([1-5])_([1-3])\.(weight|bias)", name):
        return f"conv{match[1]}.{2 * int(match[2]) - 2}.{match[3]}"
    return name


def _group(channels: int, out: int, count: int, dilation: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for _ in range(count):
        conv = nn.Conv2d(channels, out, 3, padding=dilation, dilation=dilation)
        layers += [_started(conv), nn.ReLU(inplace=True)]
        channels = out
    return nn.Sequential(*layers)


def _started(conv: nn.Conv2d) -> nn.Conv2d:
    """Kaiming-normal weights and no offsets: without BatchNorm, PyTorch's own start would lose the signal."""
    nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return conv
