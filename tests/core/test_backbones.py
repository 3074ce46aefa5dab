"""Backbones: their strides and dilations, weights that fit or are refused by name, frozen parts and masks."""

from functools import cache

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from wsss_core.classifiers.network import Classifier
from wsss_core.fitting.optim import parameter_groups
from wsss_core.networks.backbones import (
    BACKBONES,
    build_backbone,
    fetch_pretrained,
    freeze,
    load_weights,
    masked,
    read_state,
)
from wsss_core.recipes.depths import depths


@cache
def without_memory(name: str, stride: int | None = None):
    """A backbone on the meta device: shapes and counts, but no numbers."""
    with torch.device("meta"):
        return build_backbone(name, output_stride=stride).eval()


def dilations(blocks) -> list[int]:
    """Of the 3x3 convolution of each block of a ResNet or ResNeSt."""
    convs = [getattr(block.conv2, "conv", block.conv2) for block in blocks]
    assert all(conv.padding == conv.dilation and conv.kernel_size == (3, 3) for conv in convs)
    return [conv.dilation[0] for conv in convs]


def sizes(backbone, side: int = 64) -> list[int]:
    with torch.no_grad():
        return [side // m.shape[-1] for m in backbone.eval()(torch.zeros(1, 3, side, side))]


@pytest.mark.parametrize(
    ("stride", "strides"), [(8, (2, 4, 8, 8, 8)), (16, (2, 4, 8, 16, 16)), (32, (2, 4, 8, 16, 32))]
)
def test_five_maps_at_the_strides_of_the_output_stride(stride, strides):
    backbone = build_backbone("test_resnet", output_stride=stride)
    assert backbone.strides == strides
    assert sizes(backbone) == list(strides)


def test_channels_are_those_of_the_maps():
    backbone = build_backbone("test_resnet").eval()
    assert tuple(m.shape[1] for m in backbone(torch.zeros(1, 3, 32, 32))) == backbone.channels


def test_odd_sizes_are_rounded_up():
    maps = build_backbone("test_resnet").eval()(torch.zeros(1, 3, 45, 50))
    assert [tuple(m.shape[2:]) for m in maps] == [(23, 25), (12, 13), (6, 7), (3, 4), (3, 4)]


RESNET = (256, 512, 1024, 2048)
TABLE = {  # channels and strides of the five maps
    "resnet50": ((64, *RESNET), (2, 4, 8, 16, 16)),
    "resnet50_undilated": ((64, *RESNET), (2, 4, 8, 16, 16)),
    "resnet101_undilated": ((64, *RESNET), (2, 4, 8, 16, 16)),
    "resnet101": ((64, *RESNET), (2, 4, 8, 16, 16)),
    "resnet152": ((64, *RESNET), (2, 4, 8, 16, 16)),
    "resnest50": ((64, *RESNET), (2, 4, 8, 16, 16)),
    "resnest101": ((128, *RESNET), (2, 4, 8, 16, 16)),
    "resnest200": ((128, *RESNET), (2, 4, 8, 16, 16)),
    "resnest269": ((128, *RESNET), (2, 4, 8, 16, 16)),
    "resnet38d": ((128, 256, 512, 1024, 4096), (2, 4, 8, 8, 8)),
    "vgg16": ((128, 256, 512, 512, 1024), (2, 4, 8, 8, 8)),
    "vgg16_torchvision": ((64, 128, 256, 512, 512), (1, 2, 4, 8, 8)),
}


def test_every_backbone_is_in_the_table():
    assert set(TABLE) == set(BACKBONES)


@pytest.mark.parametrize("name", TABLE)
def test_the_papers_networks_have_the_papers_channels_and_strides(name):
    backbone = without_memory(name)
    channels, strides = TABLE[name]
    assert (backbone.channels, backbone.strides) == (channels, strides)
    shapes = [tuple(m.shape[1:]) for m in backbone(torch.empty(1, 3, 64, 64, device="meta"))]
    assert shapes == [(c, 64 // s, 64 // s) for c, s in zip(channels, strides, strict=True)]


@pytest.mark.parametrize(
    ("name", "counts", "millions"),
    [
        # with a head of 20 classes; as published with P-NOC
        ("resnet50", [106, 53, 1, 0], 23.55),
        ("resnet50_undilated", [106, 53, 1, 0], 23.55),
        ("resnet101", [208, 104, 1, 0], 42.54),
        ("resnest101", [311, 205, 1, 0], 46.27),
        ("resnest269", [815, 541, 1, 0], 108.92),
        # 60.19 M (torchvision), 27.48 and 70.20 M (ResNeSt's authors) less 2.049 of 1000 classes, plus 0.041
        ("resnet152", [310, 155, 1, 0], 58.18),
        ("resnest50", [158, 103, 1, 0], 25.47),
        ("resnest200", [608, 403, 1, 0], 68.19),
        # a trunk of 105.07 M: 43 convolutions, 37 BatchNorms; 15 convolutions with offsets
        ("resnet38d", [80, 37, 1, 0], 105.07 + 0.08),
        ("vgg16", [15, 15, 1, 0], 20.50),
    ],
)
def test_classifiers_have_the_published_groups_and_sizes(name, counts, millions):
    with torch.device("meta"):
        net = Classifier(without_memory(name), 20)
    groups = parameter_groups(net, net.scratch, 0.1, 1e-4)
    assert [len(group["params"]) for group in groups] == counts
    assert sum(p.numel() for p in net.parameters()) / 1e6 == pytest.approx(millions, abs=0.006)


@pytest.mark.parametrize("name", ["resnet50", "resnet101", "resnet152"])
def test_every_dilated_stage_of_a_resnet_starts_without_dilation(name):
    network = without_memory(name).network
    assert set(dilations(network.layer3)) == {1}
    assert dilations(network.layer4) == [1, 2, 2]
    assert network.layer4[0].conv2.stride == (1, 1)
    dense = without_memory(name, 8).network
    assert dilations(dense.layer3) == [1] + [2] * (len(dense.layer3) - 1)
    assert dilations(dense.layer4) == [1, 4, 4]
    assert dense.layer4[0].conv2.stride == dense.layer3[0].conv2.stride == (1, 1)


@pytest.mark.parametrize("stride", [8, 16, 32])
@pytest.mark.parametrize("name", ["resnet50", "resnet101"])
def test_undilated_resnets_have_dilation_1_in_all_blocks(name, stride):
    """As the codes from IRNet on have them: without the stride of a stage, and nothing in its place."""
    plain, undilated = (without_memory(each, stride) for each in (name, f"{name}_undilated"))
    network = undilated.network
    stages = [network.layer1, network.layer2, network.layer3, network.layer4]
    assert [len(stage) for stage in stages] == [3, 4, {"resnet50": 6, "resnet101": 23}[name], 3]
    assert all(dilations(stage) == [1] * len(stage) for stage in stages)
    assert undilated.strides == plain.strides
    strides = [[block.conv2.stride for block in stage] for stage in stages]
    assert strides == [[block.conv2.stride for block in plain.network.get_submodule(f"layer{i}")] for i in range(1, 5)]
    shapes = [{name: value.shape for name, value in each.state_dict().items()} for each in (plain, undilated)]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("name", ["resnest50", "resnest101", "resnest200", "resnest269"])
def test_every_dilated_stage_of_a_resnest_starts_with_half_its_dilation(name):
    network = without_memory(name).network
    assert set(dilations(network.layer3)) == {1}
    assert dilations(network.layer4) == [1] + [2] * (len(network.layer4) - 1)


@pytest.mark.parametrize("name", ["resnest50", "resnest101"])
def test_the_half_of_a_dilation_of_four_is_two(name):
    network = without_memory(name, 8).network
    assert dilations(network.layer3) == [1] + [2] * (len(network.layer3) - 1)
    assert dilations(network.layer4) == [2, 4, 4]


def test_dilations_that_differ_from_timm_s_compute_what_they_should():
    torch.manual_seed(0)
    block = build_backbone("resnet50", output_stride=8).eval().network.layer4[0]
    x = torch.rand(1, 1024, 9, 9)
    out = F.relu(block.bn1(block.conv1(x)))
    out = F.relu(block.bn2(F.conv2d(out, block.conv2.weight, padding=1)))
    expected = F.relu(block.bn3(block.conv3(out)) + block.downsample(x))
    torch.testing.assert_close(block(x), expected)


@pytest.mark.parametrize("name", ["resnet38d", "vgg16"])
def test_networks_of_one_stride_refuse_another_with_the_setting_that_helps(name):
    assert without_memory(name, 8).strides[-1] == 8
    with pytest.raises(ValueError, match=rf"{name} has output stride 8, not 16; set `output_stride: 8`"):
        build_backbone(name, output_stride=16)


def test_dropouts_are_a_setting_of_the_networks_that_have_them():
    with torch.device("meta"):
        chosen = build_backbone("resnet38d", dropouts=(0.2, 0.1)).network
    assert [chosen.b6[0].dropout.p, chosen.b7[0].dropout.p] == [0.2, 0.1]
    default = without_memory("resnet38d").network
    assert [default.b6[0].dropout.p, default.b7[0].dropout.p] == [0.3, 0.5]
    with pytest.raises(ValueError, match="test_resnet takes no dropouts"):
        build_backbone("test_resnet", dropouts=(0.2, 0.2))


def test_vgg16_alone_has_cams_under_a_root():
    assert [name for name in BACKBONES if without_memory(name).root_cam] == ["vgg16"]


@pytest.mark.parametrize(("stride", "pooled"), [(8, [2, 1, 1]), (16, [2, 2, 1]), (32, [2, 2, 2])])
def test_resnests_keep_their_average_pools_where_dilation_replaces_a_stride(stride, pooled):
    """The authors' code keeps the pool of the main path with stride 1, and leaves the shortcut unpooled."""
    network = without_memory("resnest101", stride).network
    firsts = [stage[0] for stage in (network.layer2, network.layer3, network.layer4)]
    assert [(block.avd_last.kernel_size, block.avd_last.stride) for block in firsts] == [(3, s) for s in pooled]
    assert [isinstance(block.downsample[0], nn.Identity) for block in firsts] == [s == 1 for s in pooled]
    assert all(block.avd_last is None for stage in (network.layer3, network.layer4) for block in stage[1:])
    dilations = [block.conv2.conv.dilation[0] for block in network.layer4[:2]]
    assert dilations == {8: [2, 4], 16: [1, 2], 32: [1, 1]}[stride]


def test_a_dilated_resnest_runs():
    assert sizes(build_backbone("resnest14d", output_stride=8), side=32) == [2, 4, 8, 8, 8]


def test_an_unknown_name_lists_what_is_known():
    with pytest.raises(ValueError, match=r"unknown backbone 'resnet5'; known: resnet50, .*a timm name \(.*resnet5"):
        build_backbone("resnet5")


def test_a_network_without_five_maps_is_refused():
    with pytest.raises(ValueError, match="five feature maps, this one has 4"):
        build_backbone("test_convnext", output_stride=32)


# --- weights -------------------------------------------------------------------------------------------------------


@pytest.fixture
def network():
    return build_backbone("test_resnet").network


def saved(state, path):
    if path.suffix == ".safetensors":
        from safetensors.torch import save_file

        save_file(state, path)
    else:
        torch.save(state, path)
    return path


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".safetensors"])
def test_weights_load_without_the_classifier(network, tmp_path, suffix):
    state = {**network.state_dict(), "fc.weight": torch.ones(5, 96), "fc.bias": torch.ones(5)}
    backbone = build_backbone("test_resnet", weights=saved(state, tmp_path / f"weights{suffix}"))
    for name, value in backbone.network.state_dict().items():
        assert torch.equal(value, state[name]), name


def test_old_files_without_counters_of_batches_load(network, tmp_path):
    state = {name: value for name, value in network.state_dict().items() if "num_batches" not in name}
    loaded = build_backbone("test_resnet").network
    load_weights(loaded, saved(state, tmp_path / "old.pth"))
    assert all(torch.equal(value, state[name]) for name, value in loaded.state_dict().items() if name in state)


def under(prefix: str, state: dict) -> dict:
    return {f"{prefix}{name}": value for name, value in state.items()}


MOCO = {  # a ResNet-50 of self-supervised learning, in the forms in which it is handed on
    "bare": lambda own, fc: own | fc,
    # moco_r50_v2-e3b0c442.pth, from OpenSelfSup's extract_backbone_weights.py
    "OpenSelfSup's backbone": lambda own, fc: {"state_dict": own, "author": "OpenSelfSup"},
    # of the whole method: neck, queue and the encoders that share the backbone
    "OpenSelfSup's checkpoint": lambda own, fc: {
        "meta": {"epoch": 200},
        "state_dict": under("backbone.", own) | under("encoder_q.0.", own) | {"neck.mlp.0.weight": torch.ones(2)},
    },
    # moco_v2_200ep_pretrain.pth.tar of its authors, whose key encoder is another network of the same names
    "MoCo's checkpoint": lambda own, fc: {
        "epoch": 200,
        "arch": "resnet50",
        "state_dict": under("module.encoder_q.", own | fc)
        | under("module.encoder_k.", {name: torch.zeros_like(value) for name, value in own.items()})
        | {"module.queue": torch.ones(128, 4)},
        "optimizer": {"param_groups": [{"lr": 0.03}]},
    },
}


@pytest.mark.parametrize("form", MOCO)
def test_self_supervised_weights_load_in_every_form(network, tmp_path, form):
    own = network.state_dict()
    fc = {"fc.0.weight": torch.ones(5, 96), "fc.2.bias": torch.ones(5)}  # the projection, of two layers
    path = saved(MOCO[form](own, fc), tmp_path / "moco_r50_v2-e3b0c442.pth")
    loaded = build_backbone("test_resnet", weights=path).network.state_dict()
    assert loaded.keys() == own.keys()
    assert all(torch.equal(value, own[name]) for name, value in loaded.items())


@pytest.mark.parametrize("name", ["resnet50", "resnet50_undilated"])
def test_a_resnet_has_the_names_and_shapes_of_torchvision(name):
    from torchvision.models import resnet50

    with torch.device("meta"):
        theirs = resnet50().state_dict()
    expected = {key: value.shape for key, value in theirs.items() if not key.startswith("fc.")}
    assert {key: value.shape for key, value in without_memory(name).network.state_dict().items()} == expected


@pytest.mark.parametrize("prefix", ["module.encoder_k.", "encoder_q.0.", "module."])
def test_weights_under_other_names_are_refused(network, tmp_path, prefix):
    path = saved({"state_dict": under(prefix, network.state_dict())}, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match=r"weights\.pth does not hold weights of test_resnet: .* set `backbone` and"):
        load_weights(network, path)


def test_a_wrapped_file_of_another_network_is_refused(tmp_path):
    state = build_backbone("resnet18").network.state_dict()
    path = saved({"state_dict": under("module.encoder_q.", state)}, tmp_path / "moco.pth")
    with pytest.raises(ValueError, match=r"moco\.pth does not hold weights of test_resnet"):
        build_backbone("test_resnet", weights=path)


def test_weights_of_another_architecture_are_refused(network, tmp_path):
    path = saved(network.state_dict(), tmp_path / "test_resnet.pt")
    message = (
        r"test_resnet\.pt does not hold weights of resnet18: .* missing .* unknown .* another shape .*config\.yaml"
    )
    with pytest.raises(ValueError, match=message):
        build_backbone("resnet18", weights=path)


def test_one_missing_or_misshapen_tensor_is_found(network, tmp_path):
    state = network.state_dict()
    first, second = list(state)[:2]
    with pytest.raises(ValueError, match=rf"1 tensors are missing \['{first}'\], 0 are unknown"):
        load_weights(network, saved({k: v for k, v in state.items() if k != first}, tmp_path / "a.pt"))
    with pytest.raises(ValueError, match=rf"0 tensors are missing .* 1 have another shape \['{second}'\]"):
        load_weights(network, saved({**state, second: torch.ones(1)}, tmp_path / "b.pt"))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"weights file .*nowhere\.pt does not exist; set `weights`"):
        build_backbone("test_resnet", weights=tmp_path / "nowhere.pt")


@pytest.mark.parametrize(
    ("name", "where"),
    [
        ("moco_r50_v2-e3b0c442.pth", "github.com/CVI-SZU/CCAM"),
        ("deeplabv1_resnet101-imagenet.pth", "github.com/jbeomlee93/AdvCAM"),
        ("ilsvrc-cls_rna-a1_cls1000_ep-0001.params", "github.com/itijyou/ademxapp"),
    ],
)
def test_the_message_of_a_missing_file_says_who_publishes_it(tmp_path, name, where):
    with pytest.raises(FileNotFoundError, match=rf"{name} does not exist \(published: .*{where}\); set `weights`"):
        read_state(tmp_path / name)


@pytest.mark.parametrize("name", ["weights.pt", "weights.safetensors"])
def test_a_broken_file_is_named(network, tmp_path, name):
    path = saved(network.state_dict(), tmp_path / name)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match=rf"{name} is (damaged|not a readable weights file) .*: download it"):
        read_state(path)


class Anything:
    """Stands for the code that a pickle may hold."""


def test_nothing_is_unpickled(tmp_path):
    torch.save({"weight": Anything()}, tmp_path / "evil.pt")
    with pytest.raises(ValueError, match=r"evil\.pt is not a readable weights file"):
        read_state(tmp_path / "evil.pt")


def test_a_file_without_names_is_refused(tmp_path):
    torch.save([torch.ones(2)], tmp_path / "list.pt")
    with pytest.raises(ValueError, match=r"list\.pt holds no tensors by name, but a list"):
        read_state(tmp_path / "list.pt")


def test_fetched_weights_are_kept_as_a_state_dict(tmp_path, monkeypatch, network):
    """The download itself is timm's; what it is asked for and what is kept is ours."""
    asked = []
    monkeypatch.setattr(
        "wsss_core.networks.backbones.timm.create_model",
        lambda *args, **kwargs: asked.append((args, kwargs)) or network,
    )
    fetch_pretrained("resnest101", tmp_path / "weights.pt")
    assert asked == [(("resnest101e",), {"pretrained": True, "num_classes": 0})]
    assert read_state(tmp_path / "weights.pt").keys() == network.state_dict().keys()


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("resnet50_caffe", "resnet50_caffe.pth"),
        ("resnet101_caffe", "deeplabv1_resnet101-imagenet.pth"),
        ("vgg16_caffe", "vgg16_20M.pth"),
    ],
)
def test_weights_that_nobody_publishes_under_timm_are_refused_with_the_place_for_a_file(tmp_path, name, file):
    with pytest.raises(
        ValueError,
        match=rf"weights of {name} .* get {file} \(.*github\.com/\S+\); then put the file at .*weights\.pt, or set",
    ):
        fetch_pretrained(name, tmp_path / "weights.pt")
    assert not list(tmp_path.iterdir())


def test_the_weights_of_resnet38d_are_to_be_named_by_their_path(tmp_path):
    with pytest.raises(
        ValueError, match=r"get ilsvrc-cls_rna-a1_\S+\.params \(.*github\.com/\S+\); then set `weights`"
    ):
        fetch_pretrained("resnet38d", tmp_path / "weights.pt")


def test_an_unknown_network_is_not_fetched(tmp_path):
    with pytest.raises(ValueError, match=r"weights of resnet5 cannot be fetched: put a file at .*weights\.pt, or set"):
        fetch_pretrained("resnet5", tmp_path / "weights.pt")


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("resnet50", "resnet50.tv_in1k"),
        ("resnet50_undilated", "resnet50.tv_in1k"),
        ("resnet101_undilated", "resnet101.tv_in1k"),
        ("resnest50", "resnest50d"),
        ("vgg16", "vgg16.tv_in1k"),
    ],
)
def test_the_papers_networks_start_from_the_papers_weights(tmp_path, monkeypatch, network, name, published):
    asked = []
    monkeypatch.setattr(
        "wsss_core.networks.backbones.timm.create_model", lambda *args, **kwargs: asked.append(args) or network
    )
    fetch_pretrained(name, tmp_path / "weights.pt")
    assert asked == [(published,)]


# --- frozen parts --------------------------------------------------------------------------------------------------

STEMS = {"resnet50": ("conv1", "bn1"), "resnet38d": ("conv1a", "b2"), "vgg16": ("conv1", "conv2")}
LAST = {"resnet50": ("layer4",), "resnet38d": ("b6", "b7"), "vgg16": ("fc6", "fc7")}


@pytest.mark.parametrize("part", ["none", "stem", "all_but_last", "backbone"])
@pytest.mark.parametrize("name", STEMS)
def test_a_frozen_part_is_not_trained_and_in_eval_mode(name, part):
    with torch.device("meta"):
        backbone = build_backbone(name).train()
    freeze(backbone, part)
    own = {child for child, module in backbone.network.named_children() if list(module.parameters())}
    expected = {"none": set(), "stem": set(STEMS[name]), "all_but_last": own - set(LAST[name]), "backbone": own}[part]
    for child in own:
        module = backbone.network.get_submodule(child)
        assert {p.requires_grad for p in module.parameters()} == {child not in expected}, child
        layers = [layer for layer in module.modules() if not list(layer.children())]
        assert {layer.training for layer in layers} == {child not in expected}, child


def test_an_unknown_part_is_refused():
    with pytest.raises(ValueError, match=r"frozen must be one of none, stem, first_stage, .*, not 'head'"):
        freeze(build_backbone("test_resnet"), "head")


# --- masks ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["resnet50", "resnest101", "resnet38d", "vgg16", "mobilenetv2_100"])
def test_the_recipes_know_how_many_groups_a_backbone_has(name):
    assert depths(name) == len(without_memory(name).groups)


GROUPS = {
    "resnet38d": [(64, 64), (128, 32), (256, 16), (512, 8), (1024, 8), (2048, 8), (4096, 8)],
    "vgg16": [(64, 64), (128, 32), (256, 16), (512, 8), (512, 8), (1024, 8), (1024, 8)],
}


@pytest.mark.parametrize("name", GROUPS)
def test_groups_give_the_tensors_of_the_published_depths(name):
    backbone, shapes = without_memory(name), []
    hooks = [g.register_forward_hook(lambda _, __, out: shapes.append(out.shape[1:])) for g in backbone.groups]
    backbone(torch.empty(1, 3, 64, 64, device="meta"))
    for hook in hooks:
        hook.remove()
    assert [tuple(shape) for shape in shapes] == [(channels, side, side) for channels, side in GROUPS[name]]


@pytest.mark.parametrize("depth", [1, 2, 3, 4, 5])
def test_a_mask_multiplies_the_map_of_its_depth_alone_and_what_follows_from_it(depth):
    torch.manual_seed(0)
    backbone = build_backbone("test_resnet").eval()
    x, mask = torch.randn(2, 3, 32, 32), torch.rand(2, 1, 7, 9)
    with torch.no_grad():
        plain = backbone(x)
        with masked(backbone, depth, mask):
            erased = backbone(x)
        resized = F.interpolate(mask, erased[depth - 1].shape[-2:], mode="bilinear", align_corners=False)
        assert all(torch.equal(a, b) for a, b in zip(plain[: depth - 1], erased, strict=False))
        torch.testing.assert_close(erased[depth - 1], plain[depth - 1] * resized)
        assert not any(torch.equal(a, b) for a, b in zip(plain[depth - 1 :], erased[depth - 1 :], strict=True))
        assert all(torch.equal(a, b) for a, b in zip(plain, backbone(x), strict=True))  # the mask is gone


def test_a_mask_is_taken_off_after_an_error_too():
    backbone = build_backbone("test_resnet").eval()
    x = torch.randn(1, 3, 32, 32)
    before = backbone(x)[-1]
    with pytest.raises(KeyError), masked(backbone, 2, torch.zeros(1, 1, 4, 4)):
        raise KeyError
    assert torch.equal(backbone(x)[-1], before)


def test_gradients_reach_the_mask():
    backbone = build_backbone("test_resnet").eval()
    mask = torch.ones(1, 1, 4, 4, requires_grad=True)
    with masked(backbone, 3, mask):
        backbone(torch.randn(1, 3, 32, 32))[-1].sum().backward()
    assert mask.grad.abs().sum() > 0


@pytest.mark.parametrize("depth", [0, 6])
def test_a_depth_outside_the_network_is_refused_with_the_number_of_groups(depth):
    backbone = build_backbone("test_resnet")
    with pytest.raises(ValueError, match=rf"depth {depth}: .* has 5 groups"), masked(backbone, depth, torch.ones(1)):
        pass
