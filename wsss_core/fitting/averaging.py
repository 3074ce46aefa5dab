"""The moving average of a network's weights over its training (EMA)."""

from copy import deepcopy
from typing import Any

import torch
from torch import nn

from wsss_core.recipes.settings import AverageSettings


class Average:
    """Exponential moving average of parameters and of BatchNorm's statistics.

    After the warm-up, at every ``every``-th update: ``a <- d a + (1 - d) w`` with ``d = min(1 - 1 / (1 + n), decay)``
    at the n-th time, from 1. (In P-NOC's published code the average is the network itself by mistake, and no run
    uses it; this is what was meant, with the buffers that it would have left out.)

    Args:
        model: the network that is trained.
        epoch_updates: optimiser updates an epoch, for the length of the warm-up.
    """

    def __init__(self, model: nn.Module, settings: AverageSettings, epoch_updates: int):
        self.source, self.settings = model, settings
        self.model = deepcopy(model).requires_grad_(False)
        self.warmup = settings.warmup_epochs * epoch_updates
        self.updates = 0

    @torch.no_grad()
    def update(self) -> None:
        """Take part of the network as it is after an update."""
        self.updates += 1
        after = self.updates - self.warmup
        if after > 0 and after % self.settings.every:
            return
        time = max(0, after // self.settings.every)
        decay = 0.0 if after <= 0 else min(1 - 1 / (1 + time), self.settings.decay)
        own, other = self.model.state_dict(), self.source.state_dict()
        floats = [key for key, value in own.items() if value.is_floating_point()]
        torch._foreach_lerp_([own[key] for key in floats], [other[key] for key in floats], 1 - decay)
        for key in own.keys() - set(floats):  # counters of batches
            own[key].copy_(other[key])

    def state_dict(self) -> dict[str, Any]:
        return {"model": self.model.state_dict(), "updates": self.updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.updates = state["updates"]
