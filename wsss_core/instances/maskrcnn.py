"""Mask R-CNN over the backbones of this project, and how pictures enter it."""

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import detection
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from wsss_core.base.checkpoints import read_model
from wsss_core.data.samples import network_input
from wsss_core.networks.backbones import OWN, Backbone, build_backbone, fix_batch_norm, freeze

STRIDES = (4, 8, 16, 32)
MULTIPLE = 32  # sides of a batch, so that the maps of all strides fit onto one another

Target = dict[str, Tensor]


class MaskRCNN(detection.MaskRCNN):  # type: ignore[misc]  # torchvision has no types
    """Mask R-CNN (He et al. 2017) with a feature pyramid: torchvision's, over a backbone of this project.

    Anchors, thresholds and losses are torchvision's. In training, ``model(images, targets)`` gives its five losses by
    name; else ``model(images)`` gives what was found in each picture: ``boxes`` (D, 4) float32 in the pixels of the
    resized picture, ``labels`` (D,) from 1, falling ``scores`` (D,), and ``masks`` (D, 1, 28, 28), the probabilities
    of the places in a box. Images are (3, h, w), normalised and resized, each of its own size (see ``resized``).

    Args:
        backbone: with maps of the strides 4, 8, 16 and 32.
        classes: outputs, background included.
        width: channels of the pyramid and of the heads, 256 in the paper.
        shorter_side, longest_side: what pictures are resized to at inference, see ``scaled_size``.
        training_proposals, test_proposals: regions that the first stage hands to the second.
        samples: regions a picture that the second stage is trained with.
        frozen: part of the backbone that is not trained, see ``freeze``.
        batch_norm: ``trained``, ``statistics`` or ``fixed``, see ``fix_batch_norm``.

    Raises:
        ValueError: maps of other strides.
    """

    def __init__(
        self,
        backbone: Backbone,
        classes: int,
        *,
        width: int = 256,
        shorter_side: int = 800,
        longest_side: int = 1333,
        training_proposals: int = 2000,
        test_proposals: int = 1000,
        samples: int = 512,
        frozen: str = "first_stage",
        batch_norm: str = "fixed",
    ):
        if backbone.strides[1:] != STRIDES:
            raise ValueError(
                f"Mask R-CNN needs maps of the strides 4, 8, 16 and 32, not {backbone.strides[1:]}: name a ResNet, or "
                "another backbone of timm with these"
            )
        hidden = 4 * width
        super().__init__(
            _Pyramid(backbone, width),
            rpn_pre_nms_top_n_train=training_proposals,
            rpn_post_nms_top_n_train=training_proposals,
            rpn_pre_nms_top_n_test=test_proposals,
            rpn_post_nms_top_n_test=test_proposals,
            box_head=TwoMLPHead(width * 7 * 7, hidden),
            box_predictor=FastRCNNPredictor(hidden, classes),
            box_batch_size_per_image=samples,
            mask_head=MaskRCNNHeads(width, (width,) * 4, 1),
            mask_predictor=MaskRCNNPredictor(width, width, classes),
        )
        # torchvision's own normalises and resizes, to sizes that are a pixel short where its floats round down
        self.transform = _Batch()
        self.shorter_side, self.longest_side = shorter_side, longest_side
        self.frozen, self.batch_norm = frozen, batch_norm
        self.train()

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        if self.batch_norm != "trained":
            fix_batch_norm(self.backbone.body, affine=self.batch_norm == "fixed")
        freeze(self.backbone.body, self.frozen)
        return self


class _Pyramid(nn.Module):
    """(N, 3, H, W) -> five maps of ``out_channels`` channels by name, of the strides 4 to 64."""

    def __init__(self, body: Backbone, width: int):
        super().__init__()
        self.body, self.out_channels = body, width
        self.fpn = FeaturePyramidNetwork(list(body.channels[1:]), width, LastLevelMaxPool())

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        stages = self.body(images)[1:]
        return self.fpn(OrderedDict((str(level), stage) for level, stage in enumerate(stages)))


class _Batch(nn.Module):
    """Pictures of several sizes as one tensor; what they do not cover, right and below, has the mean colour."""

    def forward(
        self, images: Sequence[Tensor], targets: list[Target] | None = None
    ) -> tuple[ImageList, list[Target] | None]:
        sizes = [(image.shape[1], image.shape[2]) for image in images]
        height, width = (-(-max(sides) // MULTIPLE) * MULTIPLE for sides in zip(*sizes, strict=True))
        batch = images[0].new_zeros((len(images), height, width, 3)).permute(0, 3, 1, 2)  # channels last
        for canvas, image, (h, w) in zip(batch, images, sizes, strict=True):
            canvas[:, :h, :w] = image
        return ImageList(batch, sizes), targets

    def postprocess(self, result: list[Target], image_sizes: object, original_sizes: object) -> list[Target]:
        """Leave boxes and masks as they are."""
        return result


def scaled_size(height: int, width: int, shorter: int, longest: int) -> tuple[int, int]:
    """Height and width of a picture resized to a shorter side, or to ``longest`` where the longer one would exceed it.

    The other side is rounded, halves up. Whole numbers throughout: the side that decides gets what it was given.
    """
    low, high = sorted((height, width))
    to, of = (shorter, low) if shorter * high <= longest * low else (longest, high)
    height, width = (max(1, (2 * side * to + of) // (2 * of)) for side in (height, width))
    return height, width


def resized(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """(H, W, 3) uint8 -> (3, h, w) float32, normalised; bilinear as torchvision has it, shrinking without smoothing."""
    return F.interpolate(network_input(pixels[None]), size, mode="bilinear", align_corners=False)[0]


def build_maskrcnn(backbone: str, classes: int, *, weights: str | Path | None = None, **further: Any) -> MaskRCNN:
    """Make a Mask R-CNN by the name of its backbone.

    Args:
        classes: outputs, background included.
        weights: a file of ImageNet weights (see ``load_weights``, which refuses detectors'), or None for random ones.
        further: see ``MaskRCNN``.
    """
    stride = None if backbone in OWN else STRIDES[-1]  # those have one only, which is refused as such
    return MaskRCNN(build_backbone(backbone, output_stride=stride, weights=weights), classes, **further)


def load_maskrcnn(path: str | Path) -> MaskRCNN:
    """Rebuild a trained network from its checkpoint."""
    recipe, state = read_model(path, "maskrcnn")
    model = build_maskrcnn(**recipe["network"])
    model.load_state_dict(state)
    return model.eval()
