"""Parameter groups and the SGD with polynomial decay that most stages share."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from wsss_core.fitting.schedules import poly, stepped


@dataclass(frozen=True)
class Grouping:
    """How the learning rate and the decay of parameters differ.

    Attributes:
        scratch: factor of the rate of layers from scratch.
        bias: further factor of all that is no "weight": biases, and those of BatchNorm.
        decayed_bias: whether these decay like weights.
    """

    scratch: float
    bias: float
    decayed_bias: bool


FOUR = Grouping(scratch=10, bias=2, decayed_bias=False)  # Puzzle-CAM, OC-CSE, P-NOC
TWO = Grouping(scratch=10, bias=1, decayed_bias=True)  # IRNet, ReCAM, AMN


def parameter_groups(
    model: nn.Module, scratch: Iterable[nn.Module], lr: float, weight_decay: float, grouping: Grouping = FOUR
) -> list[dict[str, Any]]:
    """Parameters by where they start from and what they are; frozen ones are in none, and a group may be empty.

    With ``FOUR``, 0: pretrained "weight" tensors (lr, decay); 1: other pretrained ones (2 lr, no decay);
    2: "weight" tensors from scratch (10 lr, decay); 3: other ones from scratch (20 lr, no decay). With ``TWO``, the
    first two are alike (lr, decay), and the last two (10 lr, decay).
    """
    new = {id(p) for module in scratch for p in module.parameters()}
    members: list[list[Tensor]] = [[], [], [], []]
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            members[2 * (id(parameter) in new) + ("weight" not in name)].append(parameter)
    factors = (1, grouping.bias, grouping.scratch, grouping.scratch * grouping.bias)
    decays = (weight_decay, weight_decay if grouping.decayed_bias else 0.0) * 2
    return [
        {"params": m, "lr": factor * lr, "weight_decay": decay}
        for m, factor, decay in zip(members, factors, decays, strict=True)
    ]


class PolySGD:
    """SGD whose groups all follow ``poly``; momentum 0 is what the published runs used.

    ``updates`` is the number of optimiser updates of the whole training, ``power`` that of ``poly``.
    """

    def __init__(
        self,
        groups: list[dict[str, Any]],
        *,
        updates: int,
        momentum: float = 0.0,
        nesterov: bool = False,
        power: float = 0.9,
    ):
        if updates < 1:
            raise ValueError("no optimiser update fits into this training: raise epochs or lower accumulation")
        groups = [group for group in groups if group["params"]]
        self.sgd = torch.optim.SGD(groups, lr=0.0, momentum=momentum, nesterov=nesterov, foreach=True)
        self.decay = torch.optim.lr_scheduler.LambdaLR(self.sgd, lambda update: poly(update, updates, power))
        # a hook, because an update that the scaler leaves out does not count for the decay, as published
        self.sgd.register_step_post_hook(lambda *_: self.decay.step())

    @property
    def lr(self) -> float:
        """The learning rate of the first group at the next update."""
        return self.sgd.param_groups[0]["lr"]

    def step(self, scaler: torch.amp.GradScaler) -> None:
        """One update from the gradients at hand, which are cleared afterwards."""
        scaler.step(self.sgd)
        scaler.update()
        self.sgd.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Any]:
        # an epoch may end in the middle of an accumulation: gradients wait for the next one's first update
        gradients = [parameter.grad for parameter in self._parameters()]
        return {"sgd": self.sgd.state_dict(), "decay": self.decay.state_dict(), "gradients": gradients}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.sgd.load_state_dict(state["sgd"])
        self.decay.load_state_dict(state["decay"])
        for parameter, gradient in zip(self._parameters(), state["gradients"], strict=True):
            parameter.grad = None if gradient is None else gradient.to(parameter)

    def _parameters(self) -> list[Tensor]:
        return [parameter for group in self.sgd.param_groups for parameter in group["params"]]


class StepSGD(PolySGD):
    """SGD whose groups all follow ``schedules.stepped``."""

    def __init__(
        self,
        groups: list[dict[str, Any]],
        *,
        updates: int,
        momentum: float,
        decay_at: Sequence[int],
        warmup: int,
        start: float,
    ):
        super().__init__(groups, updates=updates, momentum=momentum)
        # in place of PolySGD's own schedule, which its hook looks up by this name
        self.decay = torch.optim.lr_scheduler.LambdaLR(
            self.sgd, lambda update: stepped(update, decay_at=decay_at, warmup=warmup, start=start)
        )
