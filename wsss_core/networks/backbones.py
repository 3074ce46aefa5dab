"""Backbones by name, as five feature maps with a chosen output stride; their weights, frozen parts and masks."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import timm
import torch
import torch.nn.functional as F
from timm.layers import AvgPool2dSame
from timm.models.resnest import ResNestBottleneck
from timm.models.resnet import Bottleneck
from torch import Tensor, nn

from wsss_core.base.files import check_zip, reading, whole
from wsss_core.networks.mxnet_file import read_params
from wsss_core.networks.network import Network
from wsss_core.networks.resnet38d import ResNet38d
from wsss_core.networks.vgg16 import VGG16, TorchvisionVGG16
from wsss_core.recipes import sources

logger = logging.getLogger(__name__)

# The names of the papers beside timm's; the tags are those of the ImageNet files that the papers start from.
TIMM = {
    "resnet50": "resnet50.tv_in1k",
    "resnet50_undilated": "resnet50.tv_in1k",
    "resnet101": "resnet101.tv_in1k",
    "resnet101_undilated": "resnet101.tv_in1k",
    "resnet152": "resnet152.tv_in1k",
    "resnest50": "resnest50d",
    "resnest101": "resnest101e",
    "resnest200": "resnest200e",
    "resnest269": "resnest269e",
}
UNDILATED = ("resnet50_undilated", "resnet101_undilated")
OWN: dict[str, type[ResNet38d] | type[VGG16] | type[TorchvisionVGG16]] = {
    "resnet38d": ResNet38d,
    "vgg16": VGG16,
    "vgg16_torchvision": TorchvisionVGG16,
}
BACKBONES = (*TIMM, *OWN)
FETCHED = {**TIMM, "vgg16": "vgg16.tv_in1k", "vgg16_torchvision": "vgg16.tv_in1k"}
STRIDE = 16  # of the networks that have no stride of their own
LAST_MAPS = {"stem": 0, "first_stage": 1, "second_stage": 2, "all_but_last": 3}  # of the parts that can be frozen
FROZEN = ("none", *LAST_MAPS, "backbone")
WRAPPED = ("module.encoder_q.", "backbone.")  # where MoCo's own checkpoints and OpenMMLab's have the network
# Modules of detectors, as torchvision, Detectron2 and OpenMMLab call them.
DETECTORS = frozenset(
    ["rpn", "rpn_head", "roi_head", "roi_heads", "proposal_generator", "bbox_head", "box_head", "mask_head"]
)


class Backbone(nn.Module):
    """A network without its classifier: one of timm, ``ResNet38d`` or ``VGG16``.

    Calling it on (N, 3, H, W), normalised RGB, gives ``[stem, s1, s2, s3, s4]``: the map at stride 2 and the four
    stages. ``s4`` is what the network's own classifier would pool (for MobileNets that is after the last 1x1
    convolution).

    Attributes:
        channels, strides: five integers each, for the five maps.
        root_cam: whether CAMs are the square root of the positive class maps, as PSA takes them from VGG16.
    """

    def __init__(self, network: Network):
        super().__init__()
        self.network = network
        info = list(network.feature_info)
        if len(info) != 5:
            raise ValueError(f"a backbone needs five feature maps, this one has {len(info)}")
        self.channels = (*(f["num_chs"] for f in info[:-1]), network.num_features)
        self.strides = tuple(f["reduction"] for f in info)
        self.taps = tuple(f["module"] for f in info)
        self.root_cam = getattr(network, "root_cam", False)

    def forward(self, x: Tensor) -> list[Tensor]:
        final, maps = self.network.forward_intermediates(x)
        return [*maps[:-1], final]

    @property
    def groups(self) -> tuple[nn.Module, ...]:
        """The modules whose outputs are the masking depths 1, 2, ...; see ``recipes.depths`` for their number."""
        return tuple(map(self.network.get_submodule, getattr(self.network, "groups", self.taps)))


def build_backbone(
    name: str,
    *,
    output_stride: int | None = None,
    weights: str | Path | None = None,
    dropouts: Sequence[float] | None = None,
) -> Backbone:
    """Build a backbone; ``weights`` is a file of ImageNet weights (see ``load_weights``) or None for random ones.

    Args:
        name: one of ``BACKBONES`` or any name that timm knows.
        output_stride: 8, 16 or 32; strides beyond it become dilations, but for ``UNDILATED``, which have dilation 1
            everywhere. None is 16, or the only one that there is.
        dropouts: the two probabilities of resnet38d or vgg16; None leaves their own.

    Raises:
        ValueError: an unknown name, or a setting that this network does not have.
    """
    if name in OWN:
        network = _own_network(name, output_stride, dropouts)
    elif dropouts is not None:
        raise ValueError(f"{name} takes no dropouts, only {' and '.join(OWN)} do")
    else:
        network = _timm_network(name, output_stride or STRIDE)
    if weights is not None:
        load_weights(network, weights)
    return Backbone(network)


def _own_network(name: str, output_stride: int | None, dropouts: Sequence[float] | None) -> Network:
    make = OWN[name]
    if output_stride not in (None, make.output_stride):
        raise ValueError(
            f"{name} has output stride {make.output_stride}, not {output_stride}; "
            f"set `output_stride: {make.output_stride}` where it is the backbone"
        )
    return make() if dropouts is None else make(dropouts=dropouts)


def _timm_network(name: str, output_stride: int) -> Network:
    network_name = TIMM.get(name, name)
    if not timm.is_model(network_name):
        near = ", ".join(timm.list_models(f"*{name[:6]}*")[:8])
        raise ValueError(f"unknown backbone {name!r}; known: {', '.join(BACKBONES)}, or a timm name ({near} ...)")
    network = timm.create_model(network_name, num_classes=0, output_stride=output_stride)
    _dilate_as_published(network, undilated=name in UNDILATED)
    _pool_as_published(network)
    return cast(Network, network)  # in all but its class


def _dilate_as_published(network: nn.Module, *, undilated: bool) -> None:
    """Start every dilated stage of a ResNet with dilation 1.

    So does P-NOC since August 2023. Timm gives the first block the dilation of the stage before it, which differs
    at an output stride of 8. Half of its stage's dilation, as ResNeSts have it, is the same as timm's.

    Args:
        undilated: all blocks have dilation 1, as in IRNet, CCAM, Puzzle-CAM, ReCAM, AMN and P-NOC until then. Their
            only stride is 16; at 8 their code would leave out another stride and dilate as little, and so does this.
    """
    for block in network.modules():
        if isinstance(block, Bottleneck):
            first = block.downsample is not None and block.conv2.stride == (1, 1)
            if undilated or first:
                block.conv2.dilation = block.conv2.padding = (1, 1)


def _pool_as_published(network: nn.Module) -> None:
    """Give dilated ResNeSts the average pools of their authors' code (Zhang et al. 2020).

    Where dilation takes the place of a stage's stride, the authors keep the 3x3 pool of the main path, with
    stride 1, and pool nothing on the shortcut; timm does the reverse. No other network is changed.
    """
    blocks = [module for module in network.modules() if isinstance(module, ResNestBottleneck)]
    place = "avd_first" if any(block.avd_first is not None for block in blocks) else "avd_last"
    for block in blocks:
        if isinstance(block.downsample, nn.Sequential) and isinstance(block.downsample[0], AvgPool2dSame):
            setattr(block, place, nn.AvgPool2d(3, stride=1, padding=1))
            block.downsample[0] = nn.Identity()


def load_weights(network: nn.Module, path: str | Path) -> None:
    """Load a file of tensors by name, see ``read_state``; the classifier's own tensors are left out.

    A checkpoint of this pipeline serves as well: its backbone is taken. So do those of MoCo and OpenMMLab, with the
    tensors under ``state_dict``, or as the query encoder or the backbone among others. Networks with
    ``from_published`` also take the files of their authors.

    Raises:
        ValueError: the file belongs to another architecture, is none of these formats, or is a detector's, which has
            learnt from boxes or masks.
    """
    state = read_state(path)
    _refuse_detectors(state, path)
    about, rename = getattr(network, "default_cfg", {}), getattr(network, "from_published", None)
    if "recipe" in state:
        prefix = "backbone.network."
        state = {k.removeprefix(prefix): v for k, v in state["state"].items() if k.startswith(prefix)}
    else:
        state = _unwrapped(state)
        state = rename(state) if rename else state
    classifier = about.get("classifier", "fc")
    heads = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    state = {key: value for key, value in state.items() if not key.startswith(tuple(f"{h}." for h in heads))}
    own = network.state_dict()
    missing, unknown = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    shapes = [k for k in own.keys() & state.keys() if own[k].shape != state[k].shape]
    # Files written before PyTorch 0.4.1 have no counters of batches; they do not matter here.
    missing = [key for key in missing if not key.endswith("num_batches_tracked")]
    if missing or unknown or shapes:
        name = about.get("architecture", type(network).__name__)
        raise ValueError(
            f"{path} does not hold weights of {name}: {len(missing)} tensors are missing {missing[:3]}, "
            f"{len(unknown)} are unknown {unknown[:3]}, {len(shapes)} have another shape {shapes[:3]}; "
            "set `backbone` and `weights` in config.yaml to a matching pair"
        )
    network.load_state_dict(state, strict=False)


def _refuse_detectors(state: dict, path: str | Path) -> None:
    inner = [part for part in state.values() if isinstance(part, dict)]
    for name in (str(name) for part in (state, *inner) for name in part):
        if not DETECTORS.isdisjoint(name.split(".")):
            raise ValueError(
                f"{path} holds a detector (its tensor {name}), which has learnt from boxes or masks: no training here "
                "starts from more than ImageNet's labels; set `weights` in config.yaml to pretrained"
            )


def _unwrapped(state: dict) -> dict:
    """The network's tensors by their own names."""
    inner = state.get("state_dict")
    state = inner if isinstance(inner, dict) else state
    for prefix in WRAPPED:
        if own := {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}:
            return own
    return state


def read_state(path: str | Path) -> dict:
    """Read tensors by name from a .safetensors, an MXNet .params or a PyTorch file, without unpickling objects.

    Raises:
        ValueError: a damaged file, or one of another format.
        OSError: the file cannot be read, whatever is in it.
    """
    path = Path(path)
    if not path.is_file():
        page = f" (published: {sources.FILES[path.name]})" if path.name in sources.FILES else ""
        raise FileNotFoundError(f"weights file {path} does not exist{page}; set `weights` in config.yaml")
    if path.suffix == ".params":
        return {name: torch.from_numpy(array) for name, array in read_params(path).items()}
    with reading(path, "is damaged", "download it again, or delete it and run its rule again if one made it"):
        check_zip(path)
    with reading(path, "is not a readable weights file", "download it again, or set `weights` to another"):
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(state, dict):
        raise ValueError(f"{path} holds no tensors by name, but a {type(state).__name__}")
    return state


def fetch_pretrained(name: str, path: str | Path) -> None:
    """Download the ImageNet weights that timm publishes for a backbone and keep them as a state dict.

    Raises:
        ValueError: timm publishes none for this name; the message says where a file may be put instead.
    """
    if not sources.fetched(name):
        # a .params file is known by its suffix, which the place of fetched weights does not have
        place = "" if name in OWN else f"put the file at {path}, or "
        raise ValueError(
            f"the weights of {name} cannot be fetched: get {sources.BACKBONES[name]} ("
            f"{sources.FILES[sources.BACKBONES[name]]}); then {place}set `weights` of the stage that uses it to the "
            "file's path"
        )
    network_name = FETCHED.get(name, name)
    if not timm.is_model(network_name):
        raise ValueError(
            f"the weights of {name} cannot be fetched: put a file at {path}, or set `weights` of the stage that uses "
            "it to the path of one"
        )
    logger.info("downloading the ImageNet weights of %s", network_name)
    network = timm.create_model(network_name, pretrained=True, num_classes=0)
    with whole(path) as partial:
        torch.save(network.state_dict(), partial)


def freeze(backbone: Backbone, part: str) -> None:
    """Put a part of a backbone into eval mode and train it no more; to be called again after a change of mode.

    Args:
        part: ``none``; ``stem``, all that the first map comes from (conv1a and b2 of resnet38d, conv1 and conv2 of
            vgg16); ``first_stage``, ``second_stage`` or ``all_but_last``, all that the second, third or fourth comes
            from; or ``backbone``.

    Raises:
        ValueError: another ``part``.
    """
    if part not in FROZEN:
        raise ValueError(f"frozen must be one of {', '.join(FROZEN)}, not {part!r}")
    for layer in _layers(backbone, part):
        layer.eval()
        layer.requires_grad_(False)


def _layers(backbone: Backbone, part: str) -> list[nn.Module]:
    """The layers of a part: those registered until the end of the module that its map comes from."""
    layers = [module for module in backbone.network.modules() if not list(module.children())]
    if part in ("none", "backbone"):
        return layers if part == "backbone" else []
    tap = backbone.network.get_submodule(backbone.taps[LAST_MAPS[part]])
    return layers[: layers.index(list(tap.modules())[-1]) + 1]


@contextmanager
def masked(backbone: Backbone, depth: int, mask: Tensor) -> Iterator[None]:
    """Multiply what group ``depth`` of a backbone gives by a mask, for the forward passes inside the block.

    Erasing features in place of pixels is an ablation of OC-CSE (Kweon et al., ICCV 2021, supplement).

    Args:
        depth: 1 for the first of ``backbone.groups``; depth 0, the image itself, is for the caller to erase.
        mask: (B, 1, H, W), resized bilinearly to the group's output; gradients flow through it.

    Raises:
        ValueError: the backbone has no such depth.
    """
    groups = backbone.groups
    if not 1 <= depth <= len(groups):
        raise ValueError(f"masking depth {depth}: this backbone has {len(groups)} groups, from 1 to {len(groups)}")

    def erase(module: nn.Module, inputs: tuple, output: Tensor) -> Tensor:
        resized = F.interpolate(mask, output.shape[-2:], mode="bilinear", align_corners=False)
        return output * resized.to(output.dtype)

    hook = groups[depth - 1].register_forward_hook(erase)
    try:
        yield
    finally:
        hook.remove()


def fix_batch_norm(module: nn.Module, *, affine: bool = True) -> None:
    """Make every BatchNorm use its running statistics; to be called again after a change of mode.

    Args:
        affine: its scales and shifts are no longer trained either. ReCAM, IRNet and CIM go on training them.
    """
    for layer in module.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.eval()
            if affine:
                layer.requires_grad_(False)
