"""AffinityNet on a small backbone: sizes, what is trained, and its layout."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from wsss_core.affinity.network import AffinityNet


class FakeBackbone(nn.Module):
    """Five maps at the given strides, each by one convolution; the last with batch statistics."""

    def __init__(self, channels=(4, 3, 5, 6, 7), strides=(2, 4, 8, 16, 16)):
        super().__init__()
        self.channels, self.strides = channels, strides
        self.convs = nn.ModuleList(
            nn.Conv2d(3, count, kernel_size=3, stride=stride, padding=1)
            for count, stride in zip(channels, strides, strict=True)
        )
        self.norm = nn.BatchNorm2d(channels[-1])

    def forward(self, x):
        *maps, last = [conv(x) for conv in self.convs]
        return [*maps, self.norm(last)]


@pytest.fixture
def net():
    torch.manual_seed(7)
    return AffinityNet(FakeBackbone())


@pytest.mark.parametrize("strides", [(2, 4, 8, 16, 16), (2, 4, 8, 16, 32), (2, 4, 8, 8, 8)])
@pytest.mark.parametrize("size", [(64, 64), (61, 83), (33, 50)])
def test_the_edge_map_is_at_stride_4_for_any_size(strides, size):
    net = AffinityNet(FakeBackbone(strides=strides))
    height, width = size
    assert net(torch.randn(2, 3, *size)).shape == (2, 1, (height - 1) // 4 + 1, (width - 1) // 4 + 1)


def test_the_logits_equal_the_layers_written_out(net):
    x = torch.randn(1, 3, 45, 54)
    net.eval()
    stem, *stages = net.backbone(x)
    taps = [F.max_pool2d(stem, 3, 2, 1), *stages]
    maps = []
    for tap, factor, (conv, norm, *_) in zip(taps, (1, 1, 2, 4, 4), net.branches, strict=True):
        y = F.group_norm(F.conv2d(tap, conv.weight), 4, norm.weight, norm.bias)
        y = F.interpolate(y, scale_factor=factor, mode="bilinear", align_corners=False)
        maps.append(y.relu()[..., :12, :14])
    expected = F.conv2d(torch.cat(maps, dim=1), net.edge.weight, net.edge.bias)
    torch.testing.assert_close(net(x), expected)


def test_training_leaves_the_backbone_and_its_statistics_alone(net):
    before = {name: value.clone() for name, value in net.backbone.state_dict().items()}
    net.train()
    assert not net.backbone.norm.training
    assert net.edge.training
    optimizer = torch.optim.SGD(net.edge_parameters(), lr=0.1)
    net(torch.randn(2, 3, 32, 32)).sum().backward()
    assert all(parameter.grad is None for parameter in net.backbone.parameters())
    assert all(parameter.grad is not None for parameter in net.edge_parameters())
    optimizer.step()
    for name, value in net.backbone.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


def test_the_edge_parameters_are_all_that_is_trainable(net):
    trainable = [parameter for parameter in net.parameters() if parameter.requires_grad]
    assert {id(p) for p in trainable} == {id(p) for p in net.edge_parameters()}
    # a 1x1 convolution without bias and a normalisation for each tap, then 160 -> 1 with bias
    assert sum(p.numel() for p in net.edge_parameters()) == 32 * (4 + 3 + 5 + 6 + 7) + 5 * 64 + 161


def test_other_strides_are_refused():
    with pytest.raises(ValueError, match="strides"):
        AffinityNet(FakeBackbone(strides=(4, 4, 8, 16, 16)))
