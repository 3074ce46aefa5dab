"""The network of CIM: features of proposals, and what each branch says of them (Li et al., IJCAI 2023)."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import roi_align

from wsss_core.base.checkpoints import read_model
from wsss_core.data.classes import DataError
from wsss_core.networks.backbones import Backbone, build_backbone
from wsss_core.proposals.overlaps import SIDE

KIND = "cim"
HIGH_RESOLUTION = 32  # sides of pictures are multiples of this where the branches of an HRNet have to meet


class MaskFuse(nn.Module):
    """Features of proposals: those of their boxes, and of their boxes under their masks (RoIAlign and RoICrop).

    Args:
        channels: of the map.
        hidden: units of both hidden layers, and of what comes out.
        scale: one over the stride of the map.
    """

    def __init__(self, channels: int, hidden: int, scale: float):
        super().__init__()
        self.scale = scale
        self.fuse = nn.Conv2d(2 * channels, channels, 3, padding=1)
        self.first = nn.Linear(channels * SIDE * SIDE, hidden)
        self.second = nn.Linear(hidden, hidden)

    def forward(self, features: Tensor, boxes: Tensor, crops: Tensor) -> Tensor:
        """(N, hidden) of the proposals of a picture.

        Args:
            features: (1, D, h, w), the picture's map.
            boxes: (N, 4) x0, y0, x1, y1 in the picture's pixels, the ends exclusive.
            crops: (N, 7, 7) of 0 and 1, what of each box is inside of the mask.
        """
        cut = roi_align(features.float(), [boxes.float()], SIDE, self.scale, sampling_ratio=-1, aligned=True)
        both = torch.cat([cut, crops[:, None].to(cut.dtype) * cut], 1)
        fused = F.relu(self.fuse(both.contiguous(memory_format=torch.channels_last)))
        return F.relu(self.second(F.relu(self.first(fused.flatten(1)))))


class Scores(NamedTuple):
    """What the branches say of N proposals in float32, the anti-noise branch first; column 0 is the background.

    Attributes:
        classification: (K + 1, N, C + 1), sums to 1 over the classes.
        integrity: (K + 1, N, C + 1), or (1, N, C + 1) without the head. Of the anti-noise branch it sums to 1 over the
            proposals, of the others each is between 0 and 1.
    """

    classification: Tensor
    integrity: Tensor

    def of(self, branch: int) -> tuple[Tensor, Tensor | None]:
        """Both of a branch, 0 being the anti-noise one."""
        return self.classification[branch], self.integrity[branch] if branch < len(self.integrity) else None

    def final(self) -> Tensor:
        """Scores of proposals by class from 0, (N, C): the mean over the branches but for the anti-noise one."""
        scores = self.classification[1:] * self.integrity[1:] if len(self.integrity) > 1 else self.classification[1:]
        return scores.mean(0)[:, 1:]


class CimNetwork(nn.Module):
    """A backbone's map, ``MaskFuse``, and two linear layers a branch, of which the second may be left out.

    Args:
        stage: 1 to 4, the stage of the backbone that the map is of.
        classes: without the background.
        branches: without the anti-noise branch.
    """

    def __init__(
        self, backbone: Backbone, *, stage: int, classes: int, hidden: int, branches: int, integrity_head: bool
    ):
        super().__init__()
        self.backbone, self.stage, self.columns = backbone, stage, classes + 1
        self.fuse = MaskFuse(backbone.channels[stage], hidden, 1 / backbone.strides[stage])
        # those of all branches side by side, which start as layers of their own would
        self.classification = nn.Linear(hidden, (branches + 1) * self.columns)
        self.integrity = nn.Linear(hidden, (branches + 1 if integrity_head else 1) * self.columns)
        self.multiple = HIGH_RESOLUTION if hasattr(backbone.network, "transition1") else 1

    def forward(self, image: Tensor, boxes: Tensor, crops: Tensor) -> Scores:
        """The scores of a picture's proposals, see ``MaskFuse``; at least one.

        Args:
            image: (1, 3, H, W), normalised.
        """
        right, below = -image.shape[3] % self.multiple, -image.shape[2] % self.multiple
        if right or below:
            image = F.pad(image, (0, right, 0, below))
        features = self.fuse(self.backbone(image)[self.stage], boxes, crops)
        first, second = (
            layer(features).float().view(len(boxes), -1, self.columns).transpose(0, 1)
            for layer in (self.classification, self.integrity)
        )
        return Scores(first.softmax(2), torch.cat([second[:1].softmax(1), second[1:].sigmoid()]))


@contextmanager
def memory_for(proposals: int) -> Iterator[None]:
    """Say for how many proposals of a picture the device's memory was not enough, and the way out."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise DataError(
            f"{proposals} proposals of a picture do not fit into the device's memory together with CIM's network: set "
            f"limit of the data set's proposals lower, or its longer_sides: {str(error).splitlines()[0]}"
        ) from error


def build_cim(
    *,
    backbone: str,
    output_stride: int,
    stage: int,
    classes: int,
    hidden: int,
    branches: int,
    integrity_head: bool,
    weights: str | Path | None = None,
) -> CimNetwork:
    """Build the network; the stages of its backbone behind the one that is used are left out.

    Args:
        weights: ImageNet weights of the backbone, or None for random ones.

    Raises:
        ValueError: an unknown backbone, or weights of another one.
    """
    trunk = build_backbone(backbone, output_stride=output_stride, weights=weights)
    prune = getattr(trunk.network, "prune_intermediate_layers", None)
    if stage < 4 and prune is not None:
        prune(list(range(stage + 1)))
    return CimNetwork(
        trunk, stage=stage, classes=classes, hidden=hidden, branches=branches, integrity_head=integrity_head
    )


def load_cim(path: str | Path) -> CimNetwork:
    """Rebuild a trained network from its checkpoint."""
    recipe, state = read_model(path, KIND)
    model = build_cim(**_network(recipe))
    model.load_state_dict(state)
    return model


def _network(recipe: dict[str, Any]) -> dict[str, Any]:
    return recipe["network"]
