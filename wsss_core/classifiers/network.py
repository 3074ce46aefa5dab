"""The classification network whose last layer gives class activation maps (CAM)."""

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor, nn

from wsss_core.base.checkpoints import read_model
from wsss_core.networks.backbones import Backbone, build_backbone, fix_batch_norm, freeze, read_state


class Classifier(nn.Module):
    """Backbone and one 1x1 convolution without bias; its output is the raw, signed class maps.

    Args:
        mode: ``normal``, or ``fix``: BatchNorm keeps its running statistics and is not trained.
        frozen: the part of the backbone that is never trained and always in eval mode, see ``freeze``.
    """

    def __init__(self, backbone: Backbone, classes: int, *, mode: str = "normal", frozen: str = "none"):
        super().__init__()
        if mode not in ("normal", "fix"):
            raise ValueError(f"mode must be normal or fix, not {mode!r}")
        self.backbone = backbone
        self.head = nn.Conv2d(backbone.channels[-1], classes, 1, bias=False)
        nn.init.kaiming_normal_(self.head.weight)
        self.mode, self.frozen = mode, frozen
        self.train()

    @property
    def scratch(self) -> list[nn.Module]:
        """The modules that do not start from ImageNet weights."""
        return [self.head]

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) -> raw class maps (N, classes, h, w)."""
        return self.head(self.backbone(x)[-1])

    def train(self, mode: bool = True):
        super().train(mode)
        if self.mode == "fix":
            fix_batch_norm(self)
        freeze(self.backbone, self.frozen)
        return self


def build_classifier(
    backbone: str,
    classes: int,
    *,
    output_stride: int | None,
    mode: str,
    weights: str | Path | None,
    frozen: str = "none",
    dropouts: Sequence[float] | None = None,
) -> Classifier:
    """A classifier to be trained, from weights of its backbone (see ``load_weights``) or random ones.

    If the weights are a classifier's checkpoint of the same classes, its head is taken as well.
    """
    trunk = build_backbone(backbone, output_stride=output_stride, weights=weights, dropouts=dropouts)
    model = Classifier(trunk, classes, mode=mode, frozen=frozen)
    head = read_state(weights).get("state", {}).get("head.weight") if weights else None
    if head is not None and head.shape == model.head.weight.shape:
        model.head.load_state_dict({"weight": head})
    return model


def logits(maps: Tensor) -> Tensor:
    """Global average pooling: raw class maps (N, C, h, w) -> class logits (N, C)."""
    return maps.mean((2, 3))


def load_classifier(path: str | Path, *, mode: str = "normal") -> Classifier:
    """Rebuild a trained classifier from its checkpoint."""
    recipe, state = read_model(path, "classifier")
    backbone = build_backbone(recipe["backbone"], output_stride=recipe["output_stride"])
    model = Classifier(backbone, recipe["classes"], mode=mode)
    model.load_state_dict(state)
    return model
