"""The moving average of a network against a loop written by hand."""

import copy

import pytest
import torch
from torch import nn

from wsss_core.fitting.averaging import Average
from wsss_core.recipes.settings import AverageSettings


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2, bias=False))


def train_a_little(net: nn.Module, number: int) -> None:
    """Moves weights and BatchNorm's statistics."""
    generator = torch.Generator().manual_seed(number)
    net(torch.randn(5, 3, generator=generator)).square().mean().backward()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter -= 0.5 * parameter.grad
            parameter.grad = None


def copied(net: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in net.state_dict().items()}


@pytest.mark.parametrize(
    ("every", "warmup_epochs", "weights"),
    [
        # weight of the past at each of the nine updates; None where the average stays as it is
        (1, 0, [1 / 2, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6]),
        (1, 1, [0, 0, 0, 1 / 2, 0.6, 0.6, 0.6, 0.6, 0.6]),
        (2, 1, [0, 0, 0, None, 1 / 2, None, 0.6, None, 0.6]),
        (4, 1, [0, 0, 0, None, None, None, 1 / 2, None, None]),
        (2, 9, [0] * 9),
    ],
)
def test_the_average_is_that_of_a_loop_by_hand(every, warmup_epochs, weights):
    """Epochs of three updates; 1 - 1 / (1 + n) is 1/2, 2/3, ..., of which the second is above the largest, 0.6."""
    net = network()
    average = Average(net, AverageSettings(decay=0.6, every=every, warmup_epochs=warmup_epochs), epoch_updates=3)
    expected = copied(net)
    for number, past in enumerate(weights):
        train_a_little(net, number)
        average.update()
        if past is not None:
            for name, value in net.state_dict().items():
                mixed = past * expected[name] + (1 - past) * value if value.is_floating_point() else value.clone()
                expected[name] = mixed
        torch.testing.assert_close(dict(average.model.state_dict()), expected, msg=f"update {number + 1}")
    assert {"1.running_mean", "1.running_var", "1.num_batches_tracked"} <= expected.keys()


def test_the_network_that_is_trained_does_not_feel_the_average():
    with_average, alone = network(), network()
    average = Average(with_average, AverageSettings(decay=0.9, every=1, warmup_epochs=0), epoch_updates=3)
    for number in range(4):
        train_a_little(with_average, number)
        average.update()
        train_a_little(alone, number)
    assert all(torch.equal(value, alone.state_dict()[name]) for name, value in with_average.state_dict().items())
    assert all(p.requires_grad for p in with_average.parameters())
    assert not any(p.requires_grad for p in average.model.parameters())


def test_a_resumed_average_goes_on_with_its_count(tmp_path):
    settings = AverageSettings(decay=0.9, every=2, warmup_epochs=1)
    net = network()
    average = Average(net, settings, epoch_updates=3)
    for number in range(6):
        train_a_little(net, number)
        average.update()
    torch.save(average.state_dict(), tmp_path / "average.pt")
    other = copy.deepcopy(net)
    resumed = Average(other, settings, epoch_updates=3)
    resumed.load_state_dict(torch.load(tmp_path / "average.pt", weights_only=True))
    for number in range(6, 10):
        for one, mean in ((net, average), (other, resumed)):
            train_a_little(one, number)
            mean.update()
    for name, value in average.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name
