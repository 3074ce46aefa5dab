"""Backbones by their timm name, as five feature maps with a chosen output stride."""

import logging
from pathlib import Path

import timm
import torch
from timm.layers import AvgPool2dSame
from timm.models.resnest import ResNestBottleneck
from torch import Tensor, nn

from wsss_core.files import whole

logger = logging.getLogger(__name__)

# The names of the papers beside timm's. Strides, dilations and ImageNet files are the official ones.
BACKBONES = {
    "resnet50": "resnet50",
    "resnet101": "resnet101",
    "resnest101": "resnest101e",
    "resnest269": "resnest269e",
}


class Backbone(nn.Module):
    """A timm network without its classifier.

    Calling it on (N, 3, H, W) gives ``[stem, s1, s2, s3, s4]``: the map at stride 2 and the four stages. ``s4``
    is what the network's own classifier would pool (for MobileNets that is after the last 1x1 convolution).

    Attributes:
        channels, strides: five integers each, for the five maps.
    """

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network
        info = list(network.feature_info)
        if len(info) != 5:
            raise ValueError(f"a backbone needs five feature maps, this one has {len(info)}")
        self.channels = (*(f["num_chs"] for f in info[:-1]), network.num_features)
        self.strides = tuple(f["reduction"] for f in info)

    def forward(self, x: Tensor) -> list[Tensor]:
        final, maps = self.network.forward_intermediates(x)
        return [*maps[:-1], final]


def build_backbone(name: str, *, output_stride: int = 16, weights: str | Path | None = None) -> Backbone:
    """Build a backbone; ``weights`` is a file of ImageNet weights (see ``load_weights``) or None for random ones.

    Args:
        name: one of ``BACKBONES`` or any name that timm knows.
        output_stride: 8, 16 or 32; strides beyond it become dilations.
    """
    network_name = BACKBONES.get(name, name)
    if not timm.is_model(network_name):
        near = ", ".join(timm.list_models(f"*{name[:6]}*")[:8])
        raise ValueError(f"unknown backbone {name!r}; known: {', '.join(BACKBONES)}, or a timm name ({near} ...)")
    network = timm.create_model(network_name, num_classes=0, output_stride=output_stride)
    _pool_as_published(network)
    if weights is not None:
        load_weights(network, weights)
    return Backbone(network)


def _pool_as_published(network: nn.Module) -> None:
    """Give dilated ResNeSts the average pools of their authors' code (Zhang et al. 2020).

    Where dilation takes the place of a stage's stride, the authors keep the 3x3 pool of the main path, with
    stride 1, and pool nothing on the shortcut; timm does the reverse. No other network is changed.
    """
    blocks = [module for module in network.modules() if isinstance(module, ResNestBottleneck)]
    place = "avd_first" if any(block.avd_first is not None for block in blocks) else "avd_last"
    for block in blocks:
        if block.downsample is not None and isinstance(block.downsample[0], AvgPool2dSame):
            setattr(block, place, nn.AvgPool2d(3, stride=1, padding=1))
            block.downsample[0] = nn.Identity()


def load_weights(network: nn.Module, path: str | Path) -> None:
    """Load a state dict (.pt, .pth or .safetensors); the classifier's own tensors are left out.

    A checkpoint of this pipeline serves as well: its backbone is taken.

    Raises:
        ValueError: the file belongs to another architecture, or is none of these formats.
    """
    state = read_state(path)
    if "recipe" in state:
        prefix = "backbone.network."
        state = {k.removeprefix(prefix): v for k, v in state["state"].items() if k.startswith(prefix)}
    classifier = network.default_cfg.get("classifier", "fc")
    heads = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    state = {key: value for key, value in state.items() if not key.startswith(tuple(f"{h}." for h in heads))}
    own = network.state_dict()
    missing, unknown = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    shapes = [k for k in own.keys() & state.keys() if own[k].shape != state[k].shape]
    # Files written before PyTorch 0.4.1 have no counters of batches; they do not matter here.
    missing = [key for key in missing if not key.endswith("num_batches_tracked")]
    if missing or unknown or shapes:
        name = network.default_cfg.get("architecture", type(network).__name__)
        raise ValueError(
            f"{path} does not hold weights of {name}: {len(missing)} tensors are missing {missing[:3]}, "
            f"{len(unknown)} are unknown {unknown[:3]}, {len(shapes)} have another shape {shapes[:3]}; "
            "set `backbone` and `weights` in config.yaml to a matching pair"
        )
    network.load_state_dict(state, strict=False)


def read_state(path: str | Path) -> dict:
    """Read tensors by name from a .safetensors file or a PyTorch file, without unpickling objects."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"weights file {path} does not exist; set `weights` in config.yaml")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(f"{path} is not a readable weights file ({error})") from error
    if not isinstance(state, dict):
        raise ValueError(f"{path} holds no tensors by name, but a {type(state).__name__}")
    return state


def fetch_pretrained(name: str, path: str | Path) -> None:
    """Download the ImageNet weights that timm publishes for a backbone and keep them as a state dict.

    Raises:
        ValueError: timm publishes none for this name; the message says where a file may be put instead.
    """
    network_name = BACKBONES.get(name, name)
    if not timm.is_model(network_name):
        source = " (PoolNet's authors publish resnet50_caffe.pth with their code)" if name == "resnet50_caffe" else ""
        raise ValueError(
            f"the weights of {name} cannot be fetched{source}: put the file at {path}, or set `weights` of the "
            "stage that uses it to its path"
        )
    logger.info("downloading the ImageNet weights of %s", network_name)
    network = timm.create_model(network_name, pretrained=True, num_classes=0)
    with whole(path) as partial:
        torch.save(network.state_dict(), partial)


def fix_batch_norm(module: nn.Module) -> None:
    """Make every BatchNorm use its running statistics; its affine parameters are no longer trained."""
    for layer in module.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.eval()
            layer.requires_grad_(False)
