"""PoolNet: its exact form, its small form, and the sizes it takes."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from wsss_core.models.poolnet import (
    Aggregation,
    CaffeResNet50,
    PoolNet,
    build_poolnet,
    caffe_input,
    imagenet_input,
)


class FakeBackbone(nn.Module):
    """Five maps whose sizes are the image's over the strides, rounded up as strided convolutions do."""

    channels = (2, 3, 4, 5, 6)
    strides = (2, 4, 8, 16, 16)

    def __init__(self):
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Sequential(nn.Conv2d(3, channels, 1, stride=stride), nn.BatchNorm2d(channels))
            for channels, stride in zip(self.channels, self.strides, strict=True)
        )

    def forward(self, x):
        return [conv(x) for conv in self.convs]


def test_the_paper_s_network_has_68_26_million_parameters():
    with torch.device("meta"):
        net = build_poolnet("resnet50_caffe")
    assert round(sum(p.numel() for p in net.parameters()) / 1e6, 2) == 68.26
    biased = [name for name, m in net.named_modules() if isinstance(m, nn.Conv2d) and m.bias is not None]
    assert biased == ["score"]


def test_the_backbone_s_maps_have_the_sizes_of_caffe():
    with torch.device("meta"):
        maps = CaffeResNet50()(torch.empty(1, 3, 353, 500))
    # 250 columns give 126 where the window may hang over the edge, 125 where it may not
    assert [tuple(m.shape[1:]) for m in maps] == [
        (64, 177, 250),
        (256, 89, 126),
        (512, 45, 63),
        (1024, 23, 32),
        (2048, 23, 32),
    ]


def test_the_stride_is_in_the_first_convolution_and_the_last_stage_is_dilated():
    with torch.device("meta"):
        net = CaffeResNet50()
    assert net.layer2[0].conv1.stride == (2, 2)
    assert net.layer2[0].conv2.stride == (1, 1)
    assert net.layer4[0].conv1.stride == (1, 1)
    assert {block.conv2.dilation for block in net.layer4} == {(2, 2)}


def test_a_caffe_state_dict_loads_without_its_classifier():
    net = CaffeResNet50()
    state = {name: value for name, value in net.state_dict().items() if "num_batches" not in name}
    usual = {"conv1.weight", "bn1.running_var", "layer1.0.downsample.1.bias", "layer3.5.conv3.weight"}
    assert usual <= set(state)
    state["bn1.bias"] = torch.arange(64.0)
    net.load_weights({**state, "fc.weight": torch.zeros(1000, 2048), "fc.bias": torch.zeros(1000)})
    assert torch.equal(net.bn1.bias, torch.arange(64.0))
    del state["layer4.2.bn3.weight"]
    with pytest.raises(RuntimeError, match=r"layer4\.2\.bn3\.weight"):
        net.load_weights(state)


@pytest.mark.parametrize("size", [(353, 500), (64, 97), (17, 16)])
def test_output_has_the_size_of_the_input(size):
    net = PoolNet(FakeBackbone(), width=1 / 64)
    assert net(torch.randn(2, 3, *size)).shape == (2, 1, *size)


def test_every_layer_takes_part():
    torch.manual_seed(0)
    net = PoolNet(FakeBackbone(), width=1 / 32)
    for parameter in net.parameters():
        parameter.data.abs_()  # no ReLU cuts the gradient
    net(torch.rand(1, 3, 64, 64)).sum().backward()
    still = [name for name, p in net.named_parameters() if p.requires_grad and not p.grad.abs().sum() > 0]
    assert still == []


def test_batchnorm_stays_fixed_and_frozen_while_training():
    net = PoolNet(FakeBackbone(), width=1 / 64).train()
    before = {name: value.clone() for name, value in net.named_buffers()}
    net(torch.randn(2, 3, 32, 32)).sum().backward()
    assert not any(module.training for module in net.modules())
    assert all(torch.equal(value, before[name]) for name, value in net.named_buffers())
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms
    assert not any(p.requires_grad for norm in norms for p in norm.parameters())


def test_new_layers_start_at_a_deviation_of_one_hundredth():
    torch.manual_seed(0)
    net = PoolNet(FakeBackbone())
    assert net.aggregate[0].change.weight.std().item() == pytest.approx(0.01, rel=0.01)
    assert net.score.bias.item() == 0
    narrow = PoolNet(FakeBackbone(), width=0.25)
    assert narrow.aggregate[0].change.weight.std().item() == pytest.approx(0.02, rel=0.01)


def test_aggregation_adds_pooled_contexts_then_the_level_above():
    torch.manual_seed(0)
    x, lateral, guide = torch.randn(1, 4, 9, 11), torch.randn(1, 2, 18, 21), torch.randn(1, 2, 18, 21)
    part = Aggregation(4, 2, up=True)

    total = x.clone()
    for kernel, conv in zip((2, 4, 8), part.contexts, strict=True):
        pooled = nn.AvgPool2d(kernel, kernel)(x)
        total += F.interpolate(conv(pooled), (9, 11), mode="bilinear", align_corners=True)
    up = F.interpolate(total.clamp(min=0), (18, 21), mode="bilinear", align_corners=True)
    expected = part.fuse(part.change(up) + lateral + guide)

    torch.testing.assert_close(part(x, lateral, guide), expected)


def test_caffe_input_is_bgr_minus_the_mean():
    image = torch.tensor([10.0, 20.0, 30.0]).view(1, 3, 1, 1)
    expected = torch.tensor([30 - 104.00699, 20 - 116.66877, 10 - 122.67892])
    torch.testing.assert_close(caffe_input(image).flatten(), expected)


def test_preprocessing_belongs_to_the_backbone_s_weights():
    with torch.device("meta"):
        assert build_poolnet("resnet50_caffe").preprocess is caffe_input
    images = torch.full((1, 3, 2, 2), 255.0)
    expected = torch.tensor([(1 - 0.485) / 0.229, (1 - 0.456) / 0.224, (1 - 0.406) / 0.225])
    net = PoolNet(FakeBackbone(), width=1 / 64)
    assert net.preprocess is imagenet_input
    torch.testing.assert_close(net.preprocess(images)[0, :, 0, 0], expected)
