"""Groups of parameters, and SGD without momentum whose rate falls with the updates."""

import pytest
import torch
from torch import nn

from wsss_core.fitting.optim import FOUR, TWO, Grouping, PolySGD, parameter_groups

NO_SCALER = torch.amp.GradScaler("cpu", enabled=False)


class Net(nn.Module):
    """One parameter for each group."""

    def __init__(self):
        super().__init__()
        self.old = nn.Linear(2, 2)
        self.new = nn.Linear(2, 2)


def groups_of(net: Net, lr=0.1, weight_decay=0.01) -> list[dict]:
    return parameter_groups(net, [net.new], lr, weight_decay)


def test_groups_have_their_rates_and_decays():
    net = Net()
    groups = groups_of(net)
    members = [net.old.weight, net.old.bias, net.new.weight, net.new.bias]
    assert [group["params"][0] is member for group, member in zip(groups, members, strict=True)] == [True] * 4
    assert [group["lr"] for group in groups] == pytest.approx([0.1, 0.2, 1.0, 2.0])
    assert [group["weight_decay"] for group in groups] == [0.01, 0.0, 0.01, 0.0]


def test_four_groups_are_the_usual_ones():
    net = Net()
    given, usual = parameter_groups(net, [net.new], 0.1, 0.01, FOUR), groups_of(net)
    assert [(g["lr"], g["weight_decay"]) for g in given] == [(g["lr"], g["weight_decay"]) for g in usual]


def test_two_groups_differ_in_where_they_start_from_alone():
    net = Net()
    groups = parameter_groups(net, [net.new], 0.1, 0.01, TWO)
    found = {id(p): (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}
    by_hand = {"old.weight": 0.1, "old.bias": 0.1, "new.weight": 1.0, "new.bias": 1.0}
    assert {name: found[id(p)] for name, p in net.named_parameters()} == {n: (lr, 0.01) for n, lr in by_hand.items()}
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    optimizer = PolySGD(groups, updates=4)
    for p in net.parameters():
        p.grad = torch.full_like(p, 3.0)
    optimizer.step(NO_SCALER)
    for name, p in net.named_parameters():
        torch.testing.assert_close(p.detach(), before[name] - by_hand[name] * (3.0 + 0.01 * before[name]))


def test_groups_may_have_other_factors():
    net = Net()
    groups = parameter_groups(net, [net.new], 0.1, 0.01, Grouping(scratch=5, bias=3, decayed_bias=True))
    assert [group["lr"] for group in groups] == pytest.approx([0.1, 0.3, 0.5, 1.5])
    assert [group["weight_decay"] for group in groups] == [0.01] * 4


def test_frozen_parameters_are_in_no_group():
    net = Net()
    net.old.requires_grad_(False)
    assert [len(group["params"]) for group in groups_of(net)] == [0, 0, 1, 1]
    optimizer = PolySGD(groups_of(net), updates=3)
    net.new(torch.ones(1, 2)).sum().backward()
    optimizer.step(NO_SCALER)  # empty groups do no harm


def test_each_group_moves_by_minus_its_rate_times_gradient_and_decay():
    torch.manual_seed(0)
    net = Net()
    optimizer = PolySGD(groups_of(net, lr=0.1, weight_decay=0.01), updates=4)
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    gradients = {name: torch.randn_like(p) for name, p in net.named_parameters()}
    for name, p in net.named_parameters():
        p.grad = gradients[name].clone()
    optimizer.step(NO_SCALER)
    rates = {"old.weight": 0.1, "old.bias": 0.2, "new.weight": 1.0, "new.bias": 2.0}
    for name, p in net.named_parameters():
        decay = 0.01 * before[name] if name.endswith("weight") else 0
        torch.testing.assert_close(p.detach(), before[name] - rates[name] * (gradients[name] + decay))
        assert p.grad is None


def test_there_is_no_momentum_and_the_rate_decays_from_update_to_update():
    net = Net()
    optimizer = PolySGD(groups_of(net, weight_decay=0.0), updates=4)
    steps = []
    for _ in range(5):
        before = net.new.bias.detach().clone()
        net.new.bias.grad = torch.ones(2)
        optimizer.step(NO_SCALER)
        steps.append((before - net.new.bias.detach())[0].item())
    factors = [(1 - n / 4) ** 0.9 for n in (0, 1, 2, 3, 3)]
    assert steps == pytest.approx([2.0 * factor for factor in factors], rel=1e-5)


@pytest.mark.parametrize(("power", "factors"), [(1.0, (1.0, 0.75, 0.5, 0.25)), (0.0, (1.0, 1.0, 1.0, 1.0))])
def test_the_rate_may_fall_linearly_or_not_at_all(power, factors):
    net = Net()
    optimizer = PolySGD(groups_of(net), updates=4, power=power)
    for factor in factors:
        assert optimizer.lr == pytest.approx(0.1 * factor)
        net.old.weight.grad = torch.ones(2, 2)
        optimizer.step(NO_SCALER)


def test_lr_is_that_of_the_next_update():
    net = Net()
    optimizer = PolySGD(groups_of(net), updates=2)
    assert optimizer.lr == pytest.approx(0.1)
    net.old.weight.grad = torch.ones(2, 2)
    optimizer.step(NO_SCALER)
    assert optimizer.lr == pytest.approx(0.1 * 0.5**0.9)


def test_momentum_is_that_of_torch():
    net, twin = Net(), Net()
    twin.load_state_dict(net.state_dict())
    optimizer = PolySGD(groups_of(net, weight_decay=0.0), updates=10**6, momentum=0.9, nesterov=True)
    reference = torch.optim.SGD(groups_of(twin, weight_decay=0.0), lr=0.1, momentum=0.9, nesterov=True)
    for _ in range(3):
        for p, q in zip(net.parameters(), twin.parameters(), strict=True):
            p.grad, q.grad = torch.ones_like(p), torch.ones_like(q)
        optimizer.step(NO_SCALER)
        reference.step()
    torch.testing.assert_close(net.new.weight, twin.new.weight)


def test_a_training_without_a_single_update_is_refused():
    with pytest.raises(ValueError, match="raise epochs or lower accumulation"):
        PolySGD(groups_of(Net()), updates=0)


def test_a_restored_optimiser_goes_on_with_rate_and_waiting_gradients(tmp_path):
    torch.manual_seed(0)
    net, twin = Net(), Net()
    optimizer = PolySGD(groups_of(net), updates=4)
    net.old.weight.grad = torch.ones(2, 2)
    optimizer.step(NO_SCALER)
    net.old.weight.grad = torch.full((2, 2), 3.0)  # half of an accumulation
    torch.save(optimizer.state_dict(), tmp_path / "state.pt")
    twin.load_state_dict(net.state_dict())

    restored = PolySGD(groups_of(twin), updates=4)
    restored.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert restored.lr == optimizer.lr
    assert twin.old.bias.grad is None
    optimizer.step(NO_SCALER)
    restored.step(NO_SCALER)
    assert torch.equal(net.old.weight, twin.old.weight)


def test_an_update_that_the_scaler_leaves_out_does_not_count_for_the_decay():
    parameter = torch.nn.Parameter(torch.ones(2))
    optimizer = PolySGD([{"params": [parameter], "lr": 1.0}], updates=10)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    for factor, updates in ((float("inf"), 0), (1.0, 1)):
        scaler.scale((factor * parameter).sum()).backward()
        optimizer.step(scaler)
        assert optimizer.decay.last_epoch == updates
        assert parameter.grad is None
    assert parameter.tolist() == [0.0, 0.0]
