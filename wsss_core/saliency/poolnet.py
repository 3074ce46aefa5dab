"""PoolNet, the network that turns binary pseudo-saliency into smooth saliency maps.

After Liu et al. 2019. ``resnet50_caffe`` with a width of 1 is the variant that P-NOC trains: 68.26 million
parameters. ``vgg16_caffe`` is the other one of PoolNet's authors, with 52.51 million.
"""

from collections.abc import Callable
from functools import partial
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsss_core.data.transforms import MEAN, STD
from wsss_core.networks.backbones import Backbone, build_backbone, fix_batch_norm
from wsss_core.networks.caffe_resnet import CaffeResNet
from wsss_core.networks.vgg16 import CaffeVGG16

CAFFE_MEAN = (104.00699, 116.66877, 122.67892)  # blue, green, red, in 0..255
LEVELS = (128, 256, 256, 512, 512)  # channels of the decoder at stem, s1, s2, s3, s4
POOLS = (2, 4, 8)
PYRAMID = (1, 3, 5)


def build_poolnet(
    backbone: str,
    *,
    width: float = 1.0,
    output_stride: int | None = None,
    padding: int = 0,
    smallest_side: int = 0,
    longest_side: int | None = None,
) -> "PoolNet":
    """Make a PoolNet by the name of its backbone; weights are loaded afterwards.

    Args:
        backbone: "resnet50_caffe", the network of the paper, "vgg16_caffe", its authors' other one, or a name that
            ``build_backbone`` knows.
        width: factor of the channels of all new layers, 1 in the paper.
        output_stride: of a named backbone, see ``build_backbone``; those of the paper have 16.
        padding, smallest_side, longest_side: see ``PoolNet``.
    """
    make = partial(PoolNet, width=width, padding=padding, smallest_side=smallest_side, longest_side=longest_side)
    if backbone in CAFFE:
        return make(CAFFE[backbone](), prepare=caffe_input, convert=backbone == "resnet50_caffe")
    return make(build_backbone(backbone, output_stride=output_stride))


def caffe_input(images: Tensor) -> Tensor:
    """RGB images (N, 3, H, W), float in 0..255, as BGR minus the mean that Caffe's weights expect."""
    return images.flip(1) - images.new_tensor(CAFFE_MEAN).view(3, 1, 1)


def imagenet_input(images: Tensor) -> Tensor:
    """RGB images (N, 3, H, W), float in 0..255, with the usual ImageNet normalisation."""
    mean = images.new_tensor(MEAN).view(3, 1, 1)
    std = images.new_tensor(STD).view(3, 1, 1)
    return (images / 255 - mean) / std


class PoolNet(nn.Module):
    """Global guidance and feature aggregation over the maps of a backbone (Liu et al. 2019).

    The whole network stays in eval mode, as its authors train it: batches of one image would spoil the
    statistics of the backbone's BatchNorm, whose scales and shifts are frozen too.

    Args:
        backbone: ``backbone(x)`` gives maps, the finest first; has ``channels`` and ``strides``.
        width: factor of the channels of all new layers.
        prepare: what ``preprocess`` does; it belongs to the weights of the backbone.
        convert: bring five maps to the channels of the paper first. Otherwise the maps enter the decoder as they are
            and its width has to be 1, as in the authors' VGG16.
        padding: side that smaller images are padded to, in pixels (see ``padded``); P-NOC's code has 224 on COCO.
        smallest_side: images with a side up to this are doubled by ``saliency``; 100 in P-NOC's code.
        longest_side: of images that the network is made for, in pixels; those who show it larger ones reduce them.
    """

    def __init__(
        self,
        backbone: "Backbone | CaffeResNet50 | CaffeVGG16",
        *,
        width: float = 1.0,
        prepare: Callable[[Tensor], Tensor] = imagenet_input,
        convert: bool = True,
        padding: int = 0,
        smallest_side: int = 0,
        longest_side: int | None = None,
    ):
        super().__init__()
        self.padding, self.smallest_side, self.longest_side = padding, smallest_side, longest_side
        if not convert and width != 1:
            raise ValueError(
                "this PoolNet has no layers that change its backbone's channels: set saliency.poolnet.width to 1"
            )
        # VGG16 has no layers that could change its channels: the decoder takes them as they are
        levels = [max(1, round(width * channels)) for channels in LEVELS] if convert else list(backbone.channels)
        self.backbone = backbone
        self.preprocess = prepare
        self.guidance = Guidance(backbone.channels[-1], levels[-1], guided=levels[:-1], reduce=convert)
        self.convert = nn.ModuleList(map(_conv1x1, backbone.channels, levels) if convert else [])
        self.aggregate = nn.ModuleList(self._aggregations(levels, backbone.strides))
        self.score = nn.Conv2d(levels[0], 1, kernel_size=1)
        self._initialise(width)
        fix_batch_norm(backbone)
        self.train()

    @staticmethod
    def _aggregations(levels: list[int], strides: tuple[int, ...]) -> list["Aggregation"]:
        """Aggregations from the deepest level to the finest, then the last one, which has nothing to fuse."""
        steps = list(zip(levels[1:], levels[:-1], strides[1:], strides[:-1], strict=True))[::-1]
        fused = [Aggregation(source, target, up=deep != fine) for source, target, deep, fine in steps]
        return [*fused, Aggregation(levels[0], levels[0], up=False, fuse=False)]

    def _initialise(self, width: float) -> None:
        """N(0, 0.01) at the paper's width; narrower layers get the deviation that keeps the same gain."""
        for part in (self.guidance, self.convert, self.aggregate, self.score):
            for module in part.modules():
                if isinstance(module, nn.Conv2d):
                    nn.init.normal_(module.weight, std=0.01 / width**0.5)
        nn.init.zeros_(self.score.get_parameter("bias"))

    def train(self, mode: bool = True) -> "PoolNet":
        """Stay in eval mode, whatever ``mode`` says; gradients do not depend on it."""
        return super().train(False)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of saliency, (B, 1, H, W), of preprocessed images (B, 3, H, W) of any size.

        Callers turn images, RGB in 0..255, into ``x`` by ``preprocess``.
        """
        maps = self.backbone(x)
        guides = self.guidance(maps)  # of the backbone's own maps, before their channels change
        if self.convert:
            maps = [convert(features) for convert, features in zip(self.convert, maps, strict=True)]
        *laterals, merged = maps
        *fused, last = self.aggregate  # the last one has nothing left to fuse with
        for aggregate, lateral, guide in zip(fused, laterals[::-1], guides, strict=True):
            merged = aggregate(merged, lateral, guide)
        return _resize(self.score(last(merged)), x.shape[-2:])

    def padded(self, x: Tensor) -> Tensor:
        """Preprocessed images, or targets (B, C, H, W), with zeros right of them and below up to the padding's size."""
        height, width = x.shape[-2:]
        return F.pad(x, (0, max(0, self.padding - width), 0, max(0, self.padding - height)))

    def saliency(self, images: Tensor) -> Tensor:
        """Probabilities (B, 1, H, W) of RGB images (B, 3, H, W) in 0..255, at their own size.

        Small images are padded, and the smallest ones doubled. P-NOC's code squeezes the padded map of an image that is
        both into the image's size; here the image's part of it is taken.
        """
        height, width = images.shape[-2:]
        x = self.padded(self.preprocess(images))
        if min(height, width) > self.smallest_side:
            return torch.sigmoid(self(x)[..., :height, :width])
        doubled = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        logits = self(doubled)[..., : 2 * height, : 2 * width]
        return torch.sigmoid(F.interpolate(logits, (height, width), mode="bilinear", align_corners=False))


class Guidance(nn.Module):
    """Pyramid pooling of the deepest map, told to each of the levels above it.

    Args:
        channels: of the deepest map.
        width: channels of the pyramid.
        guided: channels of the guidance at the other maps, the finest first.
        reduce: bring the deepest map to the width of the pyramid, which it has otherwise.
    """

    def __init__(self, channels: int, width: int, guided: list[int], *, reduce: bool):
        super().__init__()
        self.reduce = nn.Conv2d(channels, width, kernel_size=1, bias=False) if reduce else nn.Identity()
        self.pyramid = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(cells), *_conv1x1(width, width)) for cells in PYRAMID
        )
        self.join = nn.Sequential(_conv3x3((1 + len(PYRAMID)) * width, width), nn.ReLU(inplace=True))
        self.tell = nn.ModuleList(
            nn.Sequential(_conv3x3(width, out), nn.ReLU(inplace=True)) for out in reversed(guided)
        )

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Guidance for all but the deepest map, from the deepest of them to the finest and of their sizes."""
        *others, deepest = maps
        reduced = self.reduce(deepest)
        levels = [_resize(level(reduced), reduced.shape[-2:]) for level in self.pyramid]
        joined = self.join(torch.cat([reduced, *levels], dim=1))
        sizes = [features.shape[-2:] for features in others[::-1]]
        return [tell(_resize(joined, size)) for tell, size in zip(self.tell, sizes, strict=True)]


class Aggregation(nn.Module):
    """Feature aggregation module: context of three pooled sizes, then fusion with the level above.

    Args:
        channels: of the map that comes from below.
        out: of the result, of the lateral map and of the guidance.
        up: resize to the lateral map before the channels change.
        fuse: add the lateral map and the guidance.
    """

    def __init__(self, channels: int, out: int, *, up: bool, fuse: bool = True):
        super().__init__()
        self.contexts = nn.ModuleList(_conv3x3(channels, channels) for _ in POOLS)
        self.change = _conv3x3(channels, out)
        self.fuse = _conv3x3(out, out) if fuse else None
        self.up = up

    def forward(self, x: Tensor, lateral: Tensor | None = None, guide: Tensor | None = None) -> Tensor:
        """(N, channels, h, w) -> (N, out, H, W): of the lateral map's size with ``up``, else of its own."""
        size = x.shape[-2:]
        total = x
        for kernel, conv in zip(POOLS, self.contexts, strict=True):
            total = total + _resize(conv(_pool(x, kernel)), size)  # each pool sees a larger neighbourhood
        total = F.relu(total)
        if self.up and lateral is not None:
            total = _resize(total, lateral.shape[-2:])
        total = self.change(total)
        return total if self.fuse is None else self.fuse(total + lateral + guide)


class CaffeResNet50(CaffeResNet):
    """ResNet-50 of PoolNet's authors; their ``resnet50_caffe.pth`` loads by ``load_weights``.

    The last stage keeps its input's size and has dilation 2.
    """

    default_cfg: ClassVar = {"architecture": "resnet50_caffe", "classifier": "fc"}
    strides = (2, 4, 8, 16, 16)

    def __init__(self) -> None:
        super().__init__(blocks=(3, 4, 6, 3), stage_strides=(1, 2, 2, 1), dilations=(1, 1, 1, 2))


CAFFE: dict[str, Callable[[], CaffeResNet50 | CaffeVGG16]] = {
    "resnet50_caffe": CaffeResNet50,
    "vgg16_caffe": CaffeVGG16,
}


def _conv1x1(channels: int, out: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, out, kernel_size=1, bias=False), nn.ReLU(inplace=True))


def _conv3x3(channels: int, out: int) -> nn.Conv2d:
    return nn.Conv2d(channels, out, kernel_size=3, padding=1, bias=False)


def _pool(x: Tensor, kernel: int) -> Tensor:
    """Average pooling that keeps at least one cell.

    PoolNet stops on images whose deepest map is smaller than its largest pool, 8 (a side of at most
    112 pixels). There the pool is the whole side; maps that hold a full pool are not affected.
    """
    return F.avg_pool2d(x, [min(kernel, side) for side in x.shape[-2:]])


def _resize(x: Tensor, size: tuple[int, ...]) -> Tensor:
    return F.interpolate(x, size, mode="bilinear", align_corners=True)
