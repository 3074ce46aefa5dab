"""One micro-step of a classifier's training, and what a term of its loss is.

A term is a part of the loss with all that belongs to it: settings, weights, layers, networks, optimisers, state. The
loss of a step is the sum of ``weight * value`` over the losses of all terms. ``terms.TERMS`` has them by name.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor

from wsss_core.classifiers.losses import smooth
from wsss_core.classifiers.network import Classifier, Output
from wsss_core.fitting.averaging import Average
from wsss_core.fitting.optim import FOUR, TWO, PolySGD, parameter_groups
from wsss_core.fitting.precision import Precision
from wsss_core.recipes.settings import ClassifierSettings

Settings = TypeVar("Settings")


class Stateful(Protocol):
    """What a resumed training restores: a network, an optimiser, counts."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any], /) -> Any: ...


@dataclass(frozen=True)
class Training:
    """What is known of a training before its first step.

    Attributes:
        model: the network whose maps are wanted, on its device.
        steps: micro-steps (batches) of the whole training.
        epoch_length: micro-steps of an epoch.
        ordinary: the classifier that looks at erased images, with fixed BatchNorm, where there is one.
    """

    model: Classifier
    settings: ClassifierSettings
    steps: int
    epoch_length: int
    seed: int
    device: torch.device
    ordinary: Classifier | None = None


@dataclass(frozen=True)
class View:
    """A batch, and what the network makes of it.

    Attributes:
        batch: as the loader gave it, on the host.
        images: (B, 3, H, W), normalised, on the device, channels last.
        labels: (B, C), 1 for a class of the image, or its share in a mixed one.
        targets: (B, C), smoothed labels.
        output: of the network in training, with gradient.
        step: micro-step, from 0.
    """

    batch: Mapping[str, Tensor]
    images: Tensor
    labels: Tensor
    targets: Tensor
    output: Output
    step: int


class Loss(NamedTuple):
    """A scalar, as the history has it, and its weight in the sum."""

    value: Tensor
    weight: float = 1.0


class Term(Generic[Settings]):
    """A part of the loss. What a kind of term does not have, it leaves as it is here.

    Layers of its own are made in ``__init__`` and handed to ``training.model.add_head``: so they are trained as new
    ones, kept and resumed. What a later term needs of an earlier one is an attribute of that one.

    Args:
        earlier: the terms before it in the sum, by name.
    """

    def __init__(self, settings: Settings, training: Training, earlier: Mapping[str, "Term[Any]"]):
        self.settings, self.training = settings, training

    def losses(self, view: View) -> dict[str, Loss]:
        """By name, what is added to the loss of this step."""
        return {}

    def after(self, view: View) -> dict[str, Tensor]:
        """Work of its own after the backward pass and a due update; by name, losses for the history alone."""
        return {}

    def state(self) -> dict[str, Stateful]:
        """By name, what a resumed training needs beside the network and its heads."""
        return {}


class Learner:
    """A network's optimiser and the scaler of its loss.

    Gradients are summed, not averaged, over ``accumulation`` turns, as published.

    Args:
        rate: factor of the learning rate.
        every: micro-steps from one of the network's turns to the next.
    """

    def __init__(self, network: Classifier, training: Training, *, rate: float = 1.0, every: int = 1):
        settings = training.settings
        # OC-CSE's own classifier has all in the groups of pretrained layers
        scratch = () if settings.head_rate == 1 else network.scratch
        grouping = replace(TWO if settings.as_irnet else FOUR, scratch=settings.head_rate)
        groups = parameter_groups(network, scratch, settings.learning_rate * rate, settings.weight_decay, grouping)
        updates = training.steps // (settings.accumulation * every)
        power = 0.9 if settings.decay_power is None else settings.decay_power
        self.optimizer = PolySGD(groups, updates=updates, momentum=settings.momentum or 0.0, power=power)
        self.scaler = Precision(settings.precision, training.device).scaler()
        self.accumulation = settings.accumulation

    def learn(self, loss: Tensor, turn: int) -> bool:
        """The backward pass of a turn (from 0), and an update if one is due; whether there was one."""
        self.scaler.scale(loss).backward()
        due = (turn + 1) % self.accumulation == 0
        if due:
            self.optimizer.step(self.scaler)  # also clears the gradients
        return due

    def state(self) -> dict[str, Stateful]:
        return {"optimizer": self.optimizer, "scaler": self.scaler}


class ClassifierStep:
    """A micro-step: the network's pass, the sum of its terms, their own work.

    Args:
        terms: by name, in the order of the sum (see ``terms.build_terms``). The terms come first: what layers they add
            is trained and averaged with the network.
    """

    def __init__(self, training: Training, terms: Mapping[str, Term[Any]]):
        self.training, self.terms = training, terms
        settings = training.settings
        self.precision = Precision(settings.precision, training.device)
        self.learner = Learner(training.model, training)
        self.average: Average | None = None
        if settings.average:  # rounded down, as an epoch may end between two updates
            updates = training.epoch_length // settings.accumulation
            self.average = Average(training.model, settings.average, updates)

    @property
    def result(self) -> torch.nn.Module:
        """The network to keep: the classifier, or its average over the training."""
        return self.average.model if self.average else self.training.model

    def state(self) -> dict[str, Stateful]:
        """Everything that a resumed training needs."""
        state: dict[str, Stateful] = {"model": self.training.model, **self.learner.state()}
        if self.average:
            state["average"] = self.average
        for name, term in self.terms.items():
            state |= {f"{name}.{key}": part for key, part in term.state().items()}
        return state

    def __call__(self, batch: Mapping[str, Tensor], step: int) -> dict[str, Tensor]:
        view, losses = self._learn(batch, step)
        for term in self.terms.values():  # after the update, as in P-NOC's Algorithm 1
            losses |= term.after(view)
        return losses

    def _learn(self, batch: Mapping[str, Tensor], step: int) -> tuple[View, dict[str, Tensor]]:
        """The network's pass with all terms; an update after every ``accumulation`` steps."""
        images, labels = to_device(batch, self.training.device)
        targets = smooth(labels, self.training.settings.label_smoothing)
        total, values = torch.zeros((), device=images.device), {}
        with self.precision.autocast():
            view = View(batch, images, labels, targets, self.training.model(images), step)
            for term in self.terms.values():
                for name, (value, weight) in term.losses(view).items():
                    total = total + weight * value  # one after another: another order would round otherwise
                    values[name] = value.detach()  # fetched when it is logged; a step does not wait for the device
        if self.learner.learn(total, step) and self.average:
            self.average.update()
        return view, values


def to_device(batch: Mapping[str, Tensor], device: torch.device) -> tuple[Tensor, Tensor]:
    """A batch's images, channels last, and labels on the device."""
    images = batch["image"].to(device, memory_format=torch.channels_last, non_blocking=True)
    return images, batch["labels"].to(device, non_blocking=True)
