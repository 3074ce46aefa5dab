"""DeepLabV3+ and its loss."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from wsss_core.base.checkpoints import save_model
from wsss_core.fitting.optim import parameter_groups
from wsss_core.networks.backbones import build_backbone
from wsss_core.saliency.poolnet_training import saliency_loss
from wsss_core.segmentation.losses import segmentation_loss
from wsss_core.segmentation.training import load_segmentation
from wsss_core.segmentation.v3plus import DeepLabV3Plus


class FakeBackbone(nn.Module):
    """Five maps whose sizes are the image's over the strides, rounded up as strided convolutions do."""

    channels = (2, 4, 4, 6, 8)

    def __init__(self, strides=(2, 4, 8, 16, 16)):
        super().__init__()
        self.strides = strides
        self.convs = nn.ModuleList(
            nn.Conv2d(3, channels, kernel_size=1, stride=stride)
            for channels, stride in zip(self.channels, strides, strict=True)
        )

    def forward(self, x):
        return [conv(x) for conv in self.convs]


def test_resnest269_has_the_published_size_and_parameter_groups():
    with torch.device("meta"):
        net = DeepLabV3Plus(build_backbone("resnest269"), classes=21)
    groups = parameter_groups(net, [net.aspp, net.decoder], lr=0.007, weight_decay=4e-5)
    assert round(sum(p.numel() for p in net.parameters()) / 1e6, 2) == 125.72
    assert [len(group["params"]) for group in groups] == [815, 541, 19, 10]


@pytest.mark.parametrize("norm", ["group", "batch"])
def test_output_has_the_size_of_the_input(norm):
    net = DeepLabV3Plus(FakeBackbone(), classes=5, norm=norm, width=8)
    assert net(torch.randn(2, 3, 353, 500)).shape == (2, 5, 353, 500)


def test_one_image_trains_with_group_norm():
    net = DeepLabV3Plus(FakeBackbone(), classes=3, width=8)
    net(torch.randn(1, 3, 33, 47)).sum().backward()
    assert all(p.grad is not None for name, p in net.named_parameters() if not name.startswith("backbone."))


@pytest.mark.parametrize(("stride", "dilations"), [(16, [1, 6, 12, 18]), (8, [1, 12, 24, 36])])
def test_dilations_follow_the_output_stride(stride, dilations):
    net = DeepLabV3Plus(FakeBackbone((2, 4, 8, stride, stride)), classes=3, width=8)
    assert [branch[0].dilation[0] for branch in net.aspp.branches] == dilations


def test_default_channels_are_those_of_the_paper():
    with torch.device("meta"):
        net = DeepLabV3Plus(FakeBackbone(), classes=21)
    assert net.aspp.join[0].in_channels == 1280
    assert net.decoder.reduce[0].out_channels == 48
    assert net.decoder.refine[0][0].in_channels == 304
    assert [m.p for m in net.modules() if isinstance(m, nn.Dropout)] == [0.5, 0.5, 0.1]
    assert {m.num_groups for m in net.modules() if isinstance(m, nn.GroupNorm)} == {4}


def test_wrong_settings_are_refused_with_the_way_out():
    with pytest.raises(ValueError, match="output stride 32: use 8 or 16"):
        DeepLabV3Plus(FakeBackbone((2, 4, 8, 16, 32)), classes=3)
    with pytest.raises(ValueError, match="'layer': use 'group' or 'batch'"):
        DeepLabV3Plus(FakeBackbone(), classes=3, norm="layer")
    with pytest.raises(ValueError, match="width 30: use a multiple of 4"):
        DeepLabV3Plus(FakeBackbone(), classes=3, width=30)


def test_a_checkpoint_gives_back_its_network(tmp_path):
    net = DeepLabV3Plus(build_backbone("test_resnet"), classes=3, width=8)
    recipe = {
        "network": "v3plus", "backbone": "test_resnet", "output_stride": 16, "norm": "group", "width": 8, "classes": 3,
    }  # fmt: skip
    save_model(tmp_path / "segmentation.pt", net, "segmentation", recipe)
    x = torch.randn(1, 3, 33, 47)
    torch.testing.assert_close(load_segmentation(tmp_path / "segmentation.pt").eval()(x), net.eval()(x))


def test_segmentation_loss_is_the_smoothed_mean_over_valid_pixels():
    logits = torch.tensor([[2.0, 0.0, -1.0], [0.0, 1.0, 0.5], [5.0, 5.0, 5.0]]).T.reshape(1, 3, 1, 3)
    target = torch.tensor([[[0, 2, 255]]], dtype=torch.uint8)
    expected = 0.0
    for scores, label in (([2.0, 0.0, -1.0], 0), ([0.0, 1.0, 0.5], 2)):
        total = math.log(sum(math.exp(score) for score in scores))
        expected += 0.9 * (total - scores[label]) + 0.1 * (total - sum(scores) / 3)
    assert segmentation_loss(logits, target).item() == pytest.approx(expected / 2, rel=1e-5)


def test_segmentation_loss_agrees_with_torch_where_that_is_defined():
    generator = torch.Generator().manual_seed(2)
    logits = torch.randn(2, 4, 5, 6, generator=generator)
    target = torch.randint(0, 4, (2, 5, 6), generator=generator)
    target[0, :2] = 255
    reference = F.cross_entropy(logits, target, ignore_index=255, label_smoothing=0.2)
    torch.testing.assert_close(segmentation_loss(logits, target, smoothing=0.2), reference)


def test_a_batch_of_void_pixels_costs_nothing_and_moves_nothing():
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    loss = segmentation_loss(logits, torch.full((1, 4, 4), 255, dtype=torch.uint8))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_saliency_loss_is_a_sum_over_pixels_shared_among_ten_images():
    logits = torch.tensor([[[[1.0, -2.0]]]])
    target = torch.tensor([[[1.0, 0.25]]])
    # -log(sigmoid(1)) of the first; log(1 + exp(q)) - target * q of the second
    total = math.log1p(math.exp(-1)) + math.log1p(math.exp(-2)) + 0.25 * 2
    assert saliency_loss(logits, target).item() == pytest.approx(total / 10)
    assert saliency_loss(logits, target[:, None], iter_size=1).item() == pytest.approx(total)
