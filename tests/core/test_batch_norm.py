"""BatchNorm over groups of a batch: statistics, running values, gradients, and what stays as it is."""

import copy

import pytest
import torch
from timm.layers import BatchNormAct2d
from torch import nn

from wsss_core.classifiers.puzzle import tile
from wsss_core.networks.backbones import build_backbone, fix_batch_norm
from wsss_core.networks.batch_norm import group_batch_norm

KINDS = {"torch": nn.BatchNorm2d, "timm's with a ReLU": BatchNormAct2d}


def made(kind: str) -> nn.Module:
    torch.manual_seed(0)
    norm = KINDS[kind](3)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    return norm.train()


def grouped(norm: nn.Module, batch_size: int, group: int | None) -> nn.Module:
    copied = copy.deepcopy(norm)
    group_batch_norm(copied, batch_size, group)
    return copied


@pytest.fixture
def batch() -> torch.Tensor:
    """Eight images whose levels and contrasts differ, so that their groups do."""
    x = torch.randn(8, 3, 4, 5, generator=torch.Generator().manual_seed(1))
    return x * torch.arange(1, 9)[:, None, None, None] + torch.arange(8)[:, None, None, None]


def test_values_worked_out_by_hand():
    """Groups 1 3 and 10 20: mean 2 and deviation 1, mean 15 and deviation 5."""
    norm = nn.BatchNorm2d(1, eps=1e-9)
    group_batch_norm(norm, 4, 2)
    out = norm(torch.tensor([1.0, 3, 10, 20]).view(4, 1, 1, 1))
    torch.testing.assert_close(out.flatten(), torch.tensor([-1.0, 1, -1, 1]))
    torch.testing.assert_close(norm.running_mean, torch.tensor([0.1 * 2]))
    torch.testing.assert_close(norm.running_var, torch.tensor([0.9 + 0.1 * 2]))  # unbiased: (1 + 1) / 1
    assert norm.num_batches_tracked == 1


@pytest.mark.parametrize("group", [2, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_groups_are_as_if_they_came_one_after_the_other(kind, group, batch):
    norm = made(kind)
    found, plain = grouped(norm, 8, group), copy.deepcopy(norm)
    expected = torch.cat([plain(part) for part in batch.split(group)])
    out = found(batch)
    assert torch.equal(out, expected)
    assert not torch.allclose(out, norm(batch))
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(2))
    for result in (out, expected):
        (result * weights).sum().backward()
    torch.testing.assert_close(found.weight.grad, plain.weight.grad)
    torch.testing.assert_close(found.bias.grad, plain.bias.grad)


@pytest.mark.parametrize("kind", KINDS)
def test_running_statistics_are_those_of_the_first_group(kind, batch):
    norm = made(kind)
    found, first = grouped(norm, 8, 2), copy.deepcopy(norm)
    for x in (batch, 2 * batch):
        found(x)
        first(x[:2])
    assert found.num_batches_tracked == 2
    assert all(torch.equal(value, first.state_dict()[name]) for name, value in found.state_dict().items())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("group", [None, 8], ids=["null", "the whole batch"])
def test_without_groups_nothing_changes(kind, group, batch):
    norm = made(kind)
    found = grouped(norm, 8, group)
    assert type(found) is KINDS[kind]
    assert torch.equal(found(batch), norm(batch))


@pytest.mark.parametrize("kind", KINDS)
def test_running_statistics_in_place_of_the_batch_s_know_no_groups(kind, batch):
    norm = made(kind)
    found = grouped(norm, 8, 2)
    fix_batch_norm(found)
    fix_batch_norm(norm)
    assert torch.equal(found(batch), norm(batch))
    assert isinstance(found, KINDS[kind])


def test_tiles_come_in_as_many_parts_as_images():
    """Four groups, four pieces: each part is one place of all the images, as DataParallel cuts what is tiled before."""
    images = torch.randn(8, 3, 4, 4, generator=torch.Generator().manual_seed(3))
    images = images + 5 * torch.arange(4).view(2, 2).repeat_interleave(2, 0).repeat_interleave(2, 1)
    found, plain = grouped(made("torch"), 8, 2), made("torch")
    rows = [images[:, :, :2, :2], images[:, :, :2, 2:], images[:, :, 2:, :2], images[:, :, 2:, 2:]]
    torch.testing.assert_close(found(tile(images)), torch.cat([plain(place) for place in rows]))


@pytest.mark.parametrize(("batch_size", "group"), [(8, 3), (4, 8)])
def test_a_batch_that_is_no_whole_number_of_groups_is_refused(batch_size, group):
    with pytest.raises(
        ValueError, match=rf"batch of {batch_size} images .* groups of {group}: set batch_norm_group to"
    ):
        group_batch_norm(nn.BatchNorm2d(1), batch_size, group)


def test_a_network_with_groups_is_the_network_on_parts_of_the_batch():
    """Names, parameters and evaluation are those of the plain one."""
    torch.manual_seed(0)
    plain = build_backbone("test_resnet").train()
    found, x = grouped(plain, 4, 2), torch.randn(4, 3, 32, 32)
    assert list(found.state_dict()) == list(plain.state_dict())
    again = copy.deepcopy(found)  # as a moving average does
    replicas = [copy.deepcopy(plain), copy.deepcopy(plain)]
    expected = [
        torch.cat(maps) for maps in zip(*(net(x[2 * i : 2 * i + 2]) for i, net in enumerate(replicas)), strict=True)
    ]
    for net in (found, again):
        assert all(torch.equal(a, b) for a, b in zip(net(x), expected, strict=True))
        assert all(torch.equal(value, replicas[0].state_dict()[name]) for name, value in net.state_dict().items())
    plain.load_state_dict(found.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(found.eval()(x), plain.eval()(x), strict=True))


def test_groups_can_be_compiled():
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()).train()
    group_batch_norm(plain, 4, 2)
    compiled, x = copy.deepcopy(plain), torch.randn(4, 3, 8, 8)
    compiled.compile(backend="aot_eager", fullgraph=True)
    for _ in range(2):
        torch.testing.assert_close(compiled(x), plain(x))
    torch.testing.assert_close(compiled.state_dict(), plain.state_dict())
