"""ResNets as they are in Caffe, the backbones of PoolNet and DeepLabV2."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn


class CaffeResNet(nn.Module):
    """A ResNet with the stride in the first 1x1 convolution of a stage, and max-pooling that rounds up.

    The state dict has the usual names of ResNets without ``fc``.

    Args:
        blocks, stage_strides, dilations: of the four stages; the dilation is that of all 3x3 convolutions of a stage.
    """

    channels = (64, 256, 512, 1024, 2048)

    def __init__(self, blocks: Sequence[int], stage_strides: Sequence[int], dilations: Sequence[int]):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, kernel_size=7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1, ceil_mode=True)
        widths = (64, 128, 256, 512)
        stages = zip(self.channels, widths, blocks, stage_strides, dilations, strict=False)
        self.layer1, self.layer2, self.layer3, self.layer4 = (_stage(*stage) for stage in stages)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> list[Tensor]:
        """Maps after the stem (before its pooling) and after each stage."""
        maps = [F.relu(self.bn1(self.conv1(self.prepare(x))))]
        x = self.maxpool(maps[0])
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
            maps.append(x)
        return maps

    def prepare(self, x: Tensor) -> Tensor:
        """Turn images into what the weights expect; here they come like that."""
        return x


class CaffeBottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions beside a shortcut; the stride is in the first of them."""

    def __init__(self, channels: int, planes: int, stride: int, dilation: int, project: bool):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, planes, kernel_size=1, stride=stride, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=dilation, dilation=dilation, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, 4 * planes, kernel_size=1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * planes)
        self.downsample: nn.Module = nn.Identity()
        if project:
            shortcut = nn.Conv2d(channels, 4 * planes, kernel_size=1, stride=stride, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(4 * planes))

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = F.relu(self.bn2(self.conv2(out)))
        return F.relu(self.bn3(self.conv3(out)) + self.downsample(x))


def _stage(channels: int, planes: int, blocks: int, stride: int, dilation: int) -> nn.Sequential:
    first = CaffeBottleneck(channels, planes, stride, dilation, project=True)
    rest = (CaffeBottleneck(4 * planes, planes, 1, dilation, project=False) for _ in range(1, blocks))
    return nn.Sequential(first, *rest)
