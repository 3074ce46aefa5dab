"""The losses of an epoch, of which each step's is looked at without waiting for the device."""

import math
from collections.abc import Mapping
from statistics import fmean, median
from typing import NamedTuple

import torch
from torch import Tensor


class Fault(NamedTuple):
    """The first step of an epoch (from 0) with a loss that is not finite, the loss, and the learning rate."""

    step: int
    rate: float
    loss: str
    value: float


class LossRecord:
    """Losses by name; they stay where they were computed until ``fetch``.

    Args:
        first: the training's first values, where there were earlier epochs.
    """

    def __init__(self, first: Mapping[str, float]):
        self.values: dict[str, list[float]] = {}
        self.first = dict(first)
        self.steps = 0
        self._waiting: list[tuple[float, dict[str, Tensor]]] = []

    def add(self, parts: dict[str, Tensor], rate: float) -> None:
        """Take a step's losses, scalars without gradient; a loss may have no value in some steps."""
        self._waiting.append((rate, parts))

    def fetch(self) -> Fault | None:
        """Wait for the steps since the last time; which of them was the first with a loss that is not finite."""
        faults = []
        for name in {name: None for _, parts in self._waiting for name in parts}:
            places = [place for place, (_, parts) in enumerate(self._waiting) if name in parts]
            # in one copy for all steps
            values = torch.stack([self._waiting[place][1][name] for place in places]).tolist()
            bad = ((place, value) for place, value in zip(places, values, strict=True) if not math.isfinite(value))
            faults += [(place, name, value) for place, value in bad][:1]
            self.values.setdefault(name, []).extend(values)
            self.first.setdefault(name, values[0])
        fault = None
        if faults:
            place, name, value = min(faults, key=lambda fault: fault[0])
            fault = Fault(self.steps + place, self._waiting[place][0], name, value)
        self.steps += len(self._waiting)
        self._waiting.clear()
        return fault

    def means(self) -> dict[str, float]:
        """Of each loss over the steps that have it, as far as they were fetched."""
        return {name: fmean(values) for name, values in self.values.items()}

    def risen(self, factor: float) -> dict[str, float]:
        """Losses whose median exceeds their first value, or 1, that many times; the median may pass over wild steps.

        The first value is that before any update: near chance level, so below 1 or of the size of what it is made of.
        """
        medians = {name: median(values) for name, values in self.values.items()}
        return {name: m for name, m in medians.items() if abs(m) > factor * max(1.0, abs(self.first[name]))}
