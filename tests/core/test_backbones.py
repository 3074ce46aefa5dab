"""Backbones: their strides and dilations, and weights that fit or are refused by name."""

import pytest
import torch
from torch import nn

from wsss_core.models.backbones import BACKBONES, build_backbone, fetch_pretrained, load_weights, read_state


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


@pytest.mark.parametrize("name", BACKBONES)
def test_the_papers_networks_have_the_papers_channels(name):
    with torch.device("meta"):
        backbone = build_backbone(name)
    stem = 64 if name.startswith("resnet") else 128
    assert backbone.channels == (stem, 256, 512, 1024, 2048)
    assert backbone.strides == (2, 4, 8, 16, 16)


def test_a_dilated_stage_starts_with_half_its_dilation():
    with torch.device("meta"):
        network = build_backbone("resnet50", output_stride=16).network
    assert [block.conv2.dilation[0] for block in network.layer4] == [1, 2, 2]
    assert network.layer4[0].conv2.stride == (1, 1)


@pytest.mark.parametrize(("stride", "pooled"), [(8, [2, 1, 1]), (16, [2, 2, 1]), (32, [2, 2, 2])])
def test_resnests_keep_their_average_pools_where_dilation_replaces_a_stride(stride, pooled):
    """The authors' code keeps the pool of the main path with stride 1, and leaves the shortcut unpooled."""
    with torch.device("meta"):
        network = build_backbone("resnest101", output_stride=stride).network
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


@pytest.mark.parametrize("name", ["weights.pt", "weights.safetensors"])
def test_a_broken_file_is_named(network, tmp_path, name):
    path = saved(network.state_dict(), tmp_path / name)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match=rf"{name} is not a readable weights file"):
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
        "wsss_core.models.backbones.timm.create_model", lambda *args, **kwargs: asked.append((args, kwargs)) or network
    )
    fetch_pretrained("resnest101", tmp_path / "weights.pt")
    assert asked == [(("resnest101e",), {"pretrained": True, "num_classes": 0})]
    assert read_state(tmp_path / "weights.pt").keys() == network.state_dict().keys()


def test_weights_that_nobody_publishes_under_timm_are_refused_with_the_place_for_a_file(tmp_path):
    from wsss_core.models.backbones import fetch_pretrained

    with pytest.raises(ValueError, match=r"resnet50_caffe\.pth .* put the file at .*weights\.pt"):
        fetch_pretrained("resnet50_caffe", tmp_path / "weights.pt")
    assert not list(tmp_path.iterdir())
