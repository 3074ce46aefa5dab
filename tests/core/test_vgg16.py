"""VGG16: its form, its input, and the three ways in which its weights are published."""

import pytest
import torch
import torch.nn.functional as F

from wsss_core.networks.backbones import build_backbone, load_weights
from wsss_core.networks.vgg16 import VGG16, CaffeVGG16

SHAPES = [(64, 3), (64, 64), (128, 64), (128, 128), (256, 128), *[(256, 256)] * 2, (512, 256), *[(512, 512)] * 5]
CAFFE = ["1_1", "1_2", "2_1", "2_2", "3_1", "3_2", "3_3", "4_1", "4_2", "4_3", "5_1", "5_2", "5_3"]
TORCHVISION = [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28]


@pytest.fixture(scope="module")
def published() -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return [
        (
            torch.randn(out, channels, 3, 3, generator=generator) * (2 / 9 / channels) ** 0.5,
            torch.full((out,), 0.01 * n),
        )
        for n, (out, channels) in enumerate(SHAPES, start=1)
    ]


def named(published, names) -> dict[str, torch.Tensor]:
    state = {}
    for name, (weight, bias) in zip(names, published, strict=True):
        state[f"{name}.weight"], state[f"{name}.bias"] = weight, bias
    return state


@pytest.fixture
def network() -> VGG16:
    return VGG16().eval()


def plain(x, published, count):
    """The first ``count`` convolutions; the pools of PSA and PoolNet are 3x3."""
    for index, (weight, bias) in enumerate(published[:count]):
        if index in (2, 4, 7):
            x = F.max_pool2d(x, 3, 2, padding=1)
        x = F.relu(F.conv2d(x, weight, bias, padding=1))
    return x


def test_the_input_becomes_bgr_in_grey_levels_with_zero_at_the_mean(network):
    seen = []
    network.conv1[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    rgb = torch.tensor([10.0, 20.0, 30.0]) / 255
    x = (rgb - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    network.forward_intermediates(x.view(1, 3, 1, 1).expand(1, 3, 16, 16))
    expected = torch.tensor([30 - 0.406 * 255, 20 - 0.456 * 255, 10 - 0.485 * 255])
    torch.testing.assert_close(seen[0][0, :, 3, 3], expected)
    network.forward_intermediates(torch.zeros(1, 3, 16, 16))
    assert not seen[1].any()


def test_conv5_is_dilated_and_the_fourth_pool_keeps_the_size(network):
    assert {conv.dilation for conv in network.conv5 if isinstance(conv, torch.nn.Conv2d)} == {(2, 2)}
    assert {conv.dilation for conv in network.conv4 if isinstance(conv, torch.nn.Conv2d)} == {(1, 1)}
    sizes = [tuple(m.shape[2:]) for m in network.forward_intermediates(torch.zeros(1, 3, 33, 40))[1]]
    assert sizes == [(17, 20), (9, 10), (5, 5), (5, 5), (5, 5)]
    assert (network.fc6[0].kernel_size, network.fc6[0].dilation) == ((3, 3), (1, 1))
    assert VGG16(reach=12).fc6[0].dilation == VGG16(reach=12).fc6[0].padding == (12, 12)
    assert (network.fc6[2].p, network.fc7[2].p) == (0.5, 0.5)


def test_the_published_weights_give_the_published_maps(network, published, tmp_path):
    torch.save(named(published, [f"conv{name}" for name in CAFFE]), tmp_path / "vgg16_20M.pth")
    load_weights(network, tmp_path / "vgg16_20M.pth")
    x = torch.randn(1, 3, 24, 24)
    grey = (x * 255 * torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)).flip(1)
    with torch.no_grad():
        stem, third, fourth, fifth, _ = network.forward_intermediates(x)[1]
        close = {"rtol": 1e-4, "atol": 1e-3}  # of values up to some hundreds
        torch.testing.assert_close(stem, plain(grey, published, 4), **close)
        torch.testing.assert_close(third, plain(grey, published, 7), **close)
        torch.testing.assert_close(fourth, plain(grey, published, 10), **close)
        out = F.max_pool2d(fourth, 3, 1, padding=1)
        for weight, bias in published[10:]:
            out = F.relu(F.conv2d(out, weight, bias, padding=2, dilation=2))
        torch.testing.assert_close(fifth, out, **close)


def test_weights_of_torchvision_see_what_they_were_trained_on(network, published, tmp_path):
    """They expect normalised RGB, so that the maps are those of the plain network on the pipeline's own input."""
    state = named(published, [f"features.{place}" for place in TORCHVISION])
    torch.save(
        {**state, "classifier.0.weight": torch.ones(2, 2), "pre_logits.fc1.bias": torch.ones(2)}, tmp_path / "tv.pth"
    )
    load_weights(network, tmp_path / "tv.pth")
    x = torch.randn(1, 3, 24, 24)
    with torch.no_grad():
        torch.testing.assert_close(network.forward_intermediates(x)[1][0], plain(x, published, 4), rtol=1e-4, atol=1e-4)


def test_weights_of_poolnet_s_authors_have_their_places_as_names(network, published, tmp_path):
    state = named(published, TORCHVISION)
    torch.save({**state, "31.weight": torch.ones(1024, 512, 3, 3)}, tmp_path / "vgg16-20M.pth")
    load_weights(network, tmp_path / "vgg16-20M.pth")
    convs = [layer for layer in network.modules() if isinstance(layer, torch.nn.Conv2d)]
    for conv, (weight, bias) in zip(convs, published, strict=False):
        assert torch.equal(conv.weight, weight)
        assert torch.equal(conv.bias, bias)


def test_fc6_and_fc7_are_taken_where_the_file_has_them_and_new_elsewhere(network, published, tmp_path):
    convolutions = named(published, [f"conv{name}" for name in CAFFE])
    new = network.fc6[0].weight.clone()
    torch.save(convolutions, tmp_path / "without.pth")
    load_weights(network, tmp_path / "without.pth")
    assert torch.equal(network.fc6[0].weight, new)
    own = network.state_dict()
    tops = {name: torch.rand_like(own[name.replace(".", ".0.")]) for name in ("fc6.weight", "fc6.bias", "fc7.weight")}
    torch.save(
        {**convolutions, **tops, "fc7.bias": torch.ones(1024), "fc8.weight": torch.ones(1)}, tmp_path / "with.pth"
    )
    load_weights(network, tmp_path / "with.pth")
    assert torch.equal(network.fc6[0].weight, tops["fc6.weight"])
    assert torch.equal(network.fc7[0].weight, tops["fc7.weight"])
    assert (network.fc7[0].bias == 1).all()
    torch.save({**convolutions, **tops}, tmp_path / "partly.pth")
    with pytest.raises(ValueError, match=r"partly\.pth does not hold weights of vgg16: 1 tensors are missing \['fc7"):
        load_weights(network, tmp_path / "partly.pth")


def test_a_missing_convolution_is_named(network, published, tmp_path):
    state = named(published, [f"features.{place}" for place in TORCHVISION])
    del state["features.14.bias"]
    torch.save(state, tmp_path / "vgg.pth")
    with pytest.raises(ValueError, match=r"vgg\.pth does not hold weights of vgg16: 1 .* missing \['conv3\.4\.bias'\]"):
        load_weights(network, tmp_path / "vgg.pth")


def test_random_weights_keep_the_signal_alive():
    torch.manual_seed(0)
    last = build_backbone("vgg16").eval()(torch.randn(1, 3, 32, 32))[-1]
    assert 1 < last.std() < 1000  # grey levels come in


def test_poolnet_s_variant_has_pools_alone_and_starts_at_stride_2(published, tmp_path):
    network = CaffeVGG16().eval()
    torch.save(named(published, TORCHVISION), tmp_path / "vgg16-20M.pth")
    load_weights(network, tmp_path / "vgg16-20M.pth")
    x = torch.randn(1, 3, 33, 40)
    with torch.no_grad():
        maps = network(x)
    sizes = [tuple(m.shape[1:]) for m in maps]
    assert sizes == [(128, 17, 20), (256, 9, 10), (512, 5, 5), (512, 3, 3)]
    torch.testing.assert_close(maps[2], plain(x, published, 10))
    out = F.max_pool2d(maps[2], 3, 2, padding=1)
    for weight, bias in published[10:]:
        out = F.relu(F.conv2d(out, weight, bias, padding=1))
    torch.testing.assert_close(maps[3], out)


def test_torchvisions_own_form_has_its_names_its_pools_and_a_dilated_conv5(published, tmp_path):
    state = named(published, [f"features.{place}" for place in TORCHVISION])
    state |= {"pre_logits.fc1.weight": torch.zeros(1), "head.fc.bias": torch.zeros(1)}
    torch.save(state, tmp_path / "vgg16.pth")
    backbone = build_backbone("vgg16_torchvision", weights=tmp_path / "vgg16.pth").eval()
    x, expected = torch.randn(1, 3, 37, 50), []
    with torch.inference_mode():
        maps = backbone(x)
        for index, (weight, bias) in enumerate(published):
            if index in (2, 4, 7):  # after conv1, conv2 and conv3
                x = F.max_pool2d(x, 2)
            dilation = 2 if index >= 10 else 1
            x = F.relu(F.conv2d(x, weight, bias, padding=dilation, dilation=dilation))
            if index in (1, 3, 6, 9, 12):
                expected.append(x)
    assert [tuple(found.shape[1:]) for found in maps] == [
        (64, 37, 50), (128, 18, 25), (256, 9, 12), (512, 4, 6), (512, 4, 6),
    ]  # fmt: skip
    for found, wanted in zip(maps, expected, strict=True):
        torch.testing.assert_close(found, wanted)
    assert (backbone.channels, backbone.strides) == ((64, 128, 256, 512, 512), (1, 2, 4, 8, 8))


def test_torchvisions_own_form_has_no_dropout():
    with pytest.raises(ValueError, match="no layers with dropout"):
        build_backbone("vgg16_torchvision", dropouts=(0.5, 0.5))
