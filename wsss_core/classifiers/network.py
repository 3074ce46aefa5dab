"""The classification network whose last layer gives class activation maps (CAM)."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Self

from torch import Tensor, nn

from wsss_core.base.checkpoints import read_model
from wsss_core.networks.backbones import Backbone, build_backbone, fix_batch_norm, freeze, read_state

BATCH_NORM = ("trained", "statistics", "fixed")
HEADS = "heads."  # of the names of further heads in a state dict


class Output(NamedTuple):
    """What a classifier makes of images (N, 3, H, W).

    Attributes:
        maps: raw, signed class maps (N, classes, h, w).
        features: the five maps of the backbone; the head sees the last one.
    """

    maps: Tensor
    features: list[Tensor]


class Classifier(nn.Module):
    """Backbone and one 1x1 convolution, without bias unless it is wanted.

    Args:
        batch_norm: ``trained``; ``statistics``, where running statistics stay as they are and scales and shifts are
            trained; or ``fixed``, where these stay as well.
        frozen: the part of the backbone that is never trained and always in eval mode, see ``freeze``.
        dropout: probability that the head misses a channel of the last map in training, as in PSA; None for never.
        usual_head: the head starts from PyTorch's usual values, as IRNet's does, instead of He's.
        head_bias: the head has a bias, as PRM's.

    Attributes:
        head_trained: the head came with the weights that the network starts from.
        head_goes_on: it is trained as a part of what is pretrained, not as a new layer.
        heads: what terms of the loss train beside the head, by the name of the term. They are part of checkpoints, of
            the moving average and of what the optimiser takes for new.
    """

    def __init__(
        self,
        backbone: Backbone,
        classes: int,
        *,
        batch_norm: str = "trained",
        frozen: str = "none",
        dropout: float | None = None,
        usual_head: bool = False,
        head_bias: bool = False,
    ):
        super().__init__()
        if batch_norm not in BATCH_NORM:
            raise ValueError(f"batch_norm must be one of {', '.join(BATCH_NORM)}, not {batch_norm!r}")
        self.backbone = backbone
        self.dropout = nn.Dropout2d(dropout) if dropout else nn.Identity()
        self.head = nn.Conv2d(backbone.channels[-1], classes, 1, bias=head_bias)
        if not usual_head:
            nn.init.kaiming_normal_(self.head.weight)
        self.heads = nn.ModuleDict()
        self.head_trained = self.head_goes_on = False
        self.batch_norm, self.frozen = batch_norm, frozen
        self.train()

    @property
    def scratch(self) -> list[nn.Module]:
        """The modules that do not start from ImageNet weights."""
        return [*([] if self.head_goes_on else [self.head]), *self.heads.values()]

    def forward(self, images: Tensor) -> Output:
        """(N, 3, H, W), normalised -> class maps and features."""
        features = self.backbone(images)
        return Output(self.head(self.dropout(features[-1])), features)

    def maps(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) -> raw class maps (N, classes, h, w)."""
        return self(images).maps  # not self.forward: a call is what ``nn.Module.compile`` compiles

    def cams(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) -> activated class maps (N, classes, h, w) float32, to be added up over scales."""
        active = self.maps(images).float().relu()
        return active.sqrt() if self.backbone.root_cam else active

    def add_head(self, name: str, head: nn.Module) -> nn.Module:
        """Keep a term's own layers among ``heads``, where the network is."""
        self.heads[name] = head.to(self.head.weight.device)
        return head

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        if self.batch_norm != "trained":
            fix_batch_norm(self, affine=self.batch_norm == "fixed")
        freeze(self.backbone, self.frozen)
        return self


def build_classifier(
    backbone: str,
    classes: int,
    *,
    output_stride: int | None,
    weights: str | Path | None,
    batch_norm: str = "trained",
    frozen: str = "none",
    dropouts: Sequence[float] | None = None,
    dropout: float | None = None,
    usual_head: bool = False,
    head_bias: bool = False,
) -> Classifier:
    """A classifier to be trained, from weights of its backbone (see ``load_weights``) or random ones.

    If the weights are a classifier's checkpoint of the same classes, its head is taken as well.

    Args:
        dropouts: those inside the backbone, see ``build_backbone``; ``dropout`` is the one before the head.
    """
    trunk = build_backbone(backbone, output_stride=output_stride, weights=weights, dropouts=dropouts)
    model = Classifier(
        trunk,
        classes,
        batch_norm=batch_norm,
        frozen=frozen,
        dropout=dropout,
        usual_head=usual_head,
        head_bias=head_bias,
    )
    state = read_state(weights).get("state", {}) if weights else {}
    head = {name: state[f"head.{name}"] for name in ("weight", "bias") if f"head.{name}" in state}
    if {name: part.shape for name, part in head.items()} == {n: p.shape for n, p in model.head.named_parameters()}:
        model.head.load_state_dict(head)
        model.head_trained = True
    return model


def logits(maps: Tensor) -> Tensor:
    """Global average pooling: raw class maps (N, C, h, w) -> class logits (N, C)."""
    return maps.mean((2, 3))


def load_classifier(path: str | Path, *, batch_norm: str = "trained", head: str | None = None) -> Classifier:
    """Rebuild a trained classifier from its checkpoint, without the further heads that it was trained with.

    Args:
        head: what of ReCAM's two heads becomes the head, see ``combined_head``; None is the classifier's own.
    """
    recipe, state = read_model(path, "classifier")
    backbone = build_backbone(recipe["backbone"], output_stride=recipe["output_stride"])
    model = Classifier(backbone, recipe["classes"], batch_norm=batch_norm, head_bias="head.bias" in state)
    model.load_state_dict({name: value for name, value in state.items() if not name.startswith(HEADS)})
    if head:
        second = state.get(f"{HEADS}reactivation.weight")
        if second is None:
            raise ValueError(f"{path} has one head, so cams.head cannot be {head}: only ReCAM trains a second one")
        model.head.weight.data = combined_head(model.head.weight.data, second, head)
    return model


def combined_head(first: Tensor, second: Tensor, which: str) -> Tensor:
    """The weights that make ReCAM's maps (ReCAM, table 1): those of a head, their sum or their product.

    Args:
        first, second: of one shape; the weights of the classifier's head and of the one that re-activates.
        which: ``first``, ``second``, ``sum`` or ``product`` (element by element, signs and all).
    """
    match which:
        case "first":
            return first
        case "second":
            return second
        case "sum":
            return first + second
        case "product":
            return first * second
    raise ValueError(f"which must be first, second, sum or product, not {which!r}")
