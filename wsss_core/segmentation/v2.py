"""DeepLabV2, the older segmentation network, and the ResNet-101 of its authors."""

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsss_core.data.transforms import MEAN, STD
from wsss_core.networks.backbones import Backbone, build_backbone, fix_batch_norm, read_state
from wsss_core.networks.caffe_resnet import CaffeResNet

OUTPUT_STRIDE = 8
DILATIONS = (6, 12, 18, 24)
INPUT_SCALES = (0.75, 0.5)  # beside the image's own
BGR_MEAN = (104.008, 116.669, 122.675)  # of images in 0..255, as deeplab-pytorch subtracts it


def build_deeplabv2(backbone: str, classes: int, weights: str | Path | None = None) -> "DeepLabV2":
    """Make a DeepLabV2 by the name of its backbone.

    Args:
        backbone: "resnet101_caffe", or a name that ``build_backbone`` knows.
        classes: outputs, background included.
        weights: file of the backbone's weights, or None for random ones.
    """
    if backbone != "resnet101_caffe":
        return DeepLabV2(build_backbone(backbone, output_stride=OUTPUT_STRIDE, weights=weights), classes)
    network = CaffeResNet101()
    if weights is not None:
        network.load_weights(weights)
    return DeepLabV2(network, classes)


class DeepLabV2(nn.Module):
    """DeepLabV2 (Chen et al., TPAMI 2018) with multi-scale inputs, as deeplab-pytorch builds it.

    The atrous spatial pyramid is a sum of four dilated convolutions that score the classes themselves. BatchNorm
    keeps its statistics, whatever the mode of the network, and is not trained.

    Args:
        backbone: ``backbone(x)`` gives five maps, of which the last one is used; has ``channels``.
        classes: outputs, background included.

    Attributes:
        padding: colour (3,) around images in training, such that the backbone's weights see zeros.
    """

    def __init__(self, backbone: Backbone | CaffeResNet, classes: int):
        super().__init__()
        self.backbone = backbone
        branches = [
            nn.Conv2d(backbone.channels[4], classes, kernel_size=3, padding=dilation, dilation=dilation)
            for dilation in DILATIONS
        ]
        for branch in branches:
            nn.init.normal_(branch.weight, std=0.01)
            nn.init.zeros_(branch.get_parameter("bias"))
        self.aspp = nn.ModuleList(branches)
        self.padding = getattr(backbone, "padding", (0.0, 0.0, 0.0))
        self.train()

    def train(self, mode: bool = True) -> "DeepLabV2":
        """Set the mode of all but the BatchNorms."""
        super().train(mode)
        fix_batch_norm(self.backbone)
        return self

    def forward(self, x: Tensor, every_scale: bool = False) -> Tensor | list[Tensor]:
        """Logits of images (N, 3, H, W) of any size, with the usual ImageNet normalisation.

        Returns:
            (N, classes, h, w) at stride 8: at each pixel and class the maximum over the input scales 1, 0.75 and 0.5.
            With ``every_scale`` the four maps that training compares with the labels: those of the three scales,
            each of its own size, and this maximum.
        """
        scores = [self._score(x)]
        for scale in INPUT_SCALES:
            # by its factor, as published: the size is rounded down, while pixels stay exactly 1 / scale apart
            scores.append(self._score(F.interpolate(x, scale_factor=scale, mode="bilinear", align_corners=False)))
        resized = [_resize(score, scores[0].shape[-2:]) for score in scores[1:]]
        highest = torch.stack([scores[0], *resized]).max(0).values
        return [*scores, highest] if every_scale else highest

    def _score(self, x: Tensor) -> Tensor:
        features = self.backbone(x)[4]  # (N, channels, h / 8, w / 8)
        return sum(branch(features) for branch in self.aspp)


class CaffeResNet101(CaffeResNet):
    """ResNet-101 as DeepLab's authors have it in Caffe; five maps [stem, s1, s2, s3, s4] at strides 2, 4, 8, 8, 8.

    In place of the last two strides all 3x3 convolutions of these stages have dilation 2 and 4. Images come with the
    usual ImageNet normalisation and are turned into what Caffe's weights expect: blue, green, red in 0..255
    minus their mean.

    The state dict has the usual names of ResNets without ``fc``.
    """

    strides = (2, 4, 8, 8, 8)
    factor: Tensor
    offset: Tensor

    def __init__(self) -> None:
        super().__init__(blocks=(3, 4, 23, 3), stage_strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4))
        factor, offset = 255 * STD, 255 * MEAN - np.array(BGR_MEAN[::-1], np.float32)
        self.register_buffer("factor", torch.tensor(factor).view(3, 1, 1), persistent=False)
        self.register_buffer("offset", torch.tensor(offset).view(3, 1, 1), persistent=False)
        self.padding = tuple((-offset / factor).tolist())

    def prepare(self, x: Tensor) -> Tensor:
        """Images with ImageNet normalisation, red first, as blue, green, red in 0..255 minus the mean."""
        return (x * self.factor + self.offset).flip(1)

    def load_weights(self, path: str | Path) -> None:
        """Load a state dict with the usual names of ResNets or with those of deeplab-pytorch.

        What follows the last stage (``fc``, ``aspp``) is left out, and so are BatchNorm's counters of batches.

        Raises:
            ValueError: the file does not hold a ResNet-101.
        """
        state, own = usual_names(read_state(path)), self.state_dict()
        state |= {name: value for name, value in own.items() if name.endswith("num_batches_tracked")}
        wrong = sorted(own.keys() ^ state.keys())
        wrong += [name for name in own.keys() & state.keys() if own[name].shape != state[name].shape]
        if wrong:
            raise ValueError(
                f"{path} does not hold weights of a ResNet-101: {len(wrong)} tensors are missing, unknown or of "
                f"another shape {wrong[:3]}; set segmentation.v2.weights in config.yaml to the file of resnet101_caffe"
            )
        self.load_state_dict(state)


def usual_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A ResNet's tensors under their usual names, without those of its last layers.

    deeplab-pytorch (deeplabv1_resnet101-coco.pth and checkpoints of its trainings) counts the stem as layer 1 and
    blocks from 1: ``layer3.block1.conv3x3.bn.weight`` is ``layer2.0.bn2.weight``.
    """
    renamed = {re.sub(r"^(base|scale)\.", "", name): value for name, value in state.items()}
    return {_usual_name(name): value for name, value in renamed.items() if not name.startswith(("fc.", "aspp."))}


def _usual_name(name: str) -> str:
    name = re.sub(r"^layer1\.conv1\.(conv|bn)\.", r"\g<1>1.", name)
    block = re.match(r"layer(\d)\.block(\d+)\.(\w+)\.(conv|bn)\.", name)
    if block is None:
        return name
    stage, number, part, kind = block.groups()
    place = {"reduce": f"{kind}1", "conv3x3": f"{kind}2", "increase": f"{kind}3"}.get(part)
    place = place or f"downsample.{('conv', 'bn').index(kind)}"  # "shortcut", earlier "proj"
    return f"layer{int(stage) - 1}.{int(number) - 1}.{place}.{name[block.end() :]}"


def _resize(x: Tensor, size: tuple[int, ...]) -> Tensor:
    return F.interpolate(x, size, mode="bilinear", align_corners=False)
