"""AffinityNet on a small backbone: sizes, what is trained, and the layout of both branches."""

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


# --- the displacement branch ---------------------------------------------------------------------------------------


@pytest.fixture
def both():
    torch.manual_seed(7)
    return AffinityNet(FakeBackbone(), displacement=True)


@pytest.mark.parametrize("strides", [(2, 4, 8, 16, 16), (2, 4, 8, 16, 32), (2, 4, 8, 8, 8), (2, 4, 4, 8, 8)])
@pytest.mark.parametrize("size", [(64, 64), (61, 83), (33, 50)])
def test_displacements_are_at_stride_4_for_any_size(strides, size):
    net = AffinityNet(FakeBackbone(strides=strides), displacement=True)
    edge, displacement = net.both(torch.randn(2, 3, *size))
    height, width = ((side - 1) // 4 + 1 for side in size)
    assert edge.shape == (2, 1, height, width)
    assert displacement.shape == (2, 2, height, width)


def test_the_displacements_equal_the_layers_written_out(both):
    x = torch.randn(1, 3, 45, 54)
    both.eval()
    both.displacement_mean += torch.tensor([0.5, -2.0])
    stem, *stages = both.backbone(x)
    taps = [F.max_pool2d(stem, 3, 2, 1), *stages]
    branch = both.displacement

    def layer(y, convolution, norm, groups, factor):
        y = F.group_norm(F.conv2d(y, convolution.weight), groups, norm.weight, norm.bias)
        y = F.interpolate(y, scale_factor=factor, mode="bilinear", align_corners=False) if factor > 1 else y
        return y.relu()

    one = layer(taps[0], *branch.fine[0][:2], groups=8, factor=1)
    two = layer(taps[1], *branch.fine[1][:2], groups=16, factor=1)
    three, four, five = (
        layer(tap, *part[:2], groups=16, factor=factor)[..., :6, :7]
        for tap, part, factor in zip(taps[2:], branch.coarse, (1, 2, 2), strict=True)
    )
    above = layer(torch.cat([three, four, five], 1), *branch.joined[:2], groups=16, factor=2)[..., :12, :14]
    joined, last = branch.last
    expected = F.conv2d(layer(torch.cat([one, two, above], 1), *joined[:2], groups=16, factor=1), last.weight)
    edge, displacement = both.both(x)
    torch.testing.assert_close(displacement, expected - torch.tensor([0.5, -2.0])[:, None, None])
    torch.testing.assert_close(edge, both(x))
    assert (one.shape[1], two.shape[1], five.shape[1]) == (64, 128, 256)
    both.train()
    torch.testing.assert_close(both.both(x)[1], expected)  # the mean is not subtracted in training


def test_the_displacement_branch_learns_beside_the_edges(both):
    trainable = {id(parameter) for parameter in both.parameters() if parameter.requires_grad}
    own = {id(parameter) for parameter in both.displacement_parameters()}
    assert trainable == own | {id(parameter) for parameter in both.edge_parameters()}
    convolutions = 4 * 64 + 3 * 128 + (5 + 6 + 7) * 256 + 768 * 256 + 448 * 256 + 256 * 2
    assert sum(p.numel() for p in both.displacement_parameters()) == convolutions + 2 * (64 + 128 + 5 * 256)
    both.both(torch.randn(2, 3, 32, 32))[1].sum().backward()
    assert all(parameter.grad is None for parameter in both.edge_parameters())
    assert all(parameter.grad is not None for parameter in both.displacement_parameters())


def test_the_edges_start_as_they_do_alone(net, both):
    alone, beside = net.state_dict(), both.state_dict()
    assert set(beside) - set(alone) == {name for name in beside if name.startswith("displacement")}
    assert all(torch.equal(value, beside[name]) for name, value in alone.items())


def test_a_net_without_displacements_says_where_they_are_set(net):
    assert net.displacement_parameters() == []
    with pytest.raises(ValueError, match="`displacement: true` under affinity"):
        net.both(torch.zeros(1, 3, 32, 32))


def test_other_strides_are_refused():
    with pytest.raises(ValueError, match="strides"):
        AffinityNet(FakeBackbone(strides=(4, 4, 8, 16, 16)))
