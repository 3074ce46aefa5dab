"""A method with a term of its own, from its settings in the plan to a training that is killed; what terms are refused.

The term is all that a method needs to bring: a class, an entry of ``TERMS``, a section of settings, an entry of
``METHODS``.
"""

from dataclasses import dataclass
from typing import Any

import pandas as pd
import pytest
import torch
from torch import nn

from wsss_core.base.checkpoints import read_model
from wsss_core.classifiers.losses import label_loss
from wsss_core.classifiers.network import Classifier, load_classifier, logits
from wsss_core.classifiers.step import ClassifierStep, Loss, Stateful, Term, Training, View
from wsss_core.classifiers.terms import TERMS, build_terms, read_terms
from wsss_core.classifiers.training import train_classifier
from wsss_core.fitting.loader import EpochLoader
from wsss_core.fitting.schedules import ramp
from wsss_core.networks.backbones import build_backbone
from wsss_core.recipes import methods
from wsss_core.recipes.recipes import Recipes
from wsss_core.recipes.settings import ClassifierSettings, Ramp, Section, made

CPU = torch.device("cpu")
HALF = Ramp(0.5, 0.5, 0.0)
SPLITS = {"train": "train", "scored": "train", "val": "val"}


@dataclass(frozen=True)
class FlatSettings(Section):
    """Settings of the term below."""

    weight: Ramp = HALF
    """Weight of the loss."""
    memory: float = 0.9
    """Weight of the past."""


class Memory:
    """A moving average of a number, as terms keep them over their steps."""

    def __init__(self):
        self.level = torch.zeros(())

    def state_dict(self) -> dict[str, Any]:
        return {"level": self.level}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.level = state["level"]


class FlatTerm(Term[FlatSettings]):
    """L2 of the maps of both heads, around what it remembers of their mean."""

    def __init__(self, settings: FlatSettings, training: Training, earlier: dict[str, Term]):
        super().__init__(settings, training, earlier)
        model = training.model
        self.second = model.add_head("flat", nn.Conv2d(model.head.in_channels, model.head.out_channels, 1))
        self.memory = Memory()

    def losses(self, view: View) -> dict[str, Loss]:
        self.seen = view.output.maps + self.second(view.output.features[-1])
        value = (self.seen - self.memory.level).square().mean()
        return {"flat": Loss(value, ramp(self.settings.weight, view.step, self.training.steps))}

    def after(self, view: View) -> dict[str, torch.Tensor]:
        past = self.settings.memory
        self.memory.level = past * self.memory.level + (1 - past) * self.seen.detach().mean()
        return {"level": self.memory.level}

    def state(self) -> dict[str, Stateful]:
        return {"memory": self.memory}


@pytest.fixture
def flat_method(monkeypatch):
    """All that a new method has to say."""
    monkeypatch.setitem(TERMS, "flat", FlatTerm)
    monkeypatch.setitem(methods.SECTIONS["prior"], "flat", FlatSettings)
    monkeypatch.setitem(methods.METHODS["prior"], "flat", methods._prior("flat"))


def planned(**flat) -> dict[str, dict[str, Any]]:
    """What the plan hands to the job of a run with the method, of a run that sets these values."""
    small = {
        "backbone": "test_resnet", "resize": [32, 56], "crop": 32, "augmentation": "none", "batch_size": 2,
        "epochs": 3, "learning_rate": 0.01, "precision": "float32",
    }  # fmt: skip
    config = {
        "seeds": [1],
        "runs": {"mine": {"prior": {"method": "flat", **({"flat": flat} if flat else {})}}},
        "datasets": {
            "tiny": {
                "kind": "demo",
                "images": {"train": 8, "val": 8},
                "settings": {"prior": {"classifier": small}},
                "splits": SPLITS,
            }
        },
    }
    return Recipes(config).stage_settings("tiny", "mine", "classifier")


@pytest.fixture
def train(tiny, tmp_path, flat_method):
    """A function that does what the rule's script does, and gives the checkpoint's path."""

    def run(name: str, values: dict[str, dict[str, Any]], **changes):
        torch.manual_seed(1)
        train_classifier(
            manifest=tiny.manifest,
            classes=tiny.classes,
            weights=None,
            ordinary=None,
            settings=made(ClassifierSettings, values["classifier"] | changes),
            terms=read_terms(values),
            output=tmp_path / f"{name}.pt",
            epochs=tmp_path / f"{name}.epochs",
            seed=1,
            device=CPU,
        )
        return tmp_path / f"{name}.pt"

    return run


def test_the_plan_of_a_new_method_has_its_settings(flat_method):
    values = planned(memory=0.5)
    assert set(values) == {"classifier", "flat"}
    assert values["flat"] == {"memory": 0.5, "weight": {"start": 0.5, "end": 0.5, "fraction": 0.0}}
    assert read_terms(values) == {"flat": FlatSettings(memory=0.5)}


def test_a_new_term_is_trained_and_told_with_its_own_head(train, tmp_path):
    path = train("whole", planned())
    history = pd.read_csv(tmp_path / "whole.history.csv")
    assert list(history.columns) == ["epoch", "class", "flat", "level", "lr", "seconds", "gpu_memory_mb"]
    assert history["flat"].iloc[-1] < history["flat"].iloc[0]
    first, last = (read_model(file, "classifier")[1] for file in (tmp_path / "whole.epochs/first.pt", path))
    assert not torch.equal(first["heads.flat.weight"], last["heads.flat.weight"])
    assert torch.equal(load_classifier(path).head.weight, last["head.weight"])
    heavier = read_model(train("heavier", planned(weight={"end": 0.9})), "classifier")[1]
    assert not torch.equal(heavier["head.weight"], last["head.weight"])


def test_a_new_head_is_averaged_with_the_network(train):
    average = {"decay": 0.9, "every": 1, "warmup_epochs": 0}
    last, mean = (
        read_model(train(name, planned(), average=kept), "classifier")[1]
        for name, kept in (("last", None), ("mean", average))
    )
    assert last.keys() == mean.keys()
    assert not torch.equal(last["heads.flat.weight"], mean["heads.flat.weight"])


@pytest.fixture
def killed(train, monkeypatch):
    """A function that trains until an epoch (from 0) begins."""
    epoch_of = EpochLoader.epoch

    def run(name: str, values: dict[str, dict[str, Any]], dies_in: int) -> None:
        def dying(loader, epoch):
            if epoch == dies_in:
                raise KeyboardInterrupt("killed")
            return epoch_of(loader, epoch)

        with monkeypatch.context() as patch:
            patch.setattr(EpochLoader, "epoch", dying)
            with pytest.raises(KeyboardInterrupt):
                train(name, values)

    return run


@pytest.mark.parametrize("dies_in", [1, 2])
def test_a_killed_training_resumes_with_the_state_of_a_new_term(train, killed, monkeypatch, dies_in):
    expected = read_model(train("at_once", planned()), "classifier")[1]
    killed("resumed", planned(), dies_in)
    found = read_model(train("resumed", planned()), "classifier")[1]
    assert all(torch.equal(value, expected[name]) for name, value in found.items())
    monkeypatch.setattr(Memory, "load_state_dict", lambda self, state: None)
    killed("forgetful", planned(), dies_in)
    forgetful = read_model(train("forgetful", planned()), "classifier")[1]
    assert not torch.equal(forgetful["head.weight"], expected["head.weight"])


def test_changed_settings_of_a_term_start_a_training_anew(train, killed):
    expected = read_model(train("at_once", planned(memory=0.5)), "classifier")[1]
    killed("other", planned(), 2)
    found = read_model(train("other", planned(memory=0.5)), "classifier")[1]
    assert all(torch.equal(value, expected[name]) for name, value in found.items())


def step_of(sections: dict[str, Any], settings: ClassifierSettings) -> ClassifierStep:
    torch.manual_seed(0)
    model = Classifier(build_backbone("test_resnet"), 2, batch_norm="fixed")
    training = Training(model=model, settings=settings, steps=4, epoch_length=4, seed=0, device=CPU)
    return ClassifierStep(training, build_terms(sections, training))


def test_the_loss_is_the_weighted_sum_of_all_terms(flat_method, classifier_settings):
    """The gradient that the first update takes, against the same loss written out."""
    step = step_of({"flat": FlatSettings()}, classifier_settings(label_smoothing=0.0, weight_decay=0.0))
    model = step.training.model
    images, labels = torch.randn(2, 3, 32, 32), torch.tensor([[1.0, 0], [0, 1]])
    maps, features = model(images)
    total = label_loss(logits(maps), labels) + 0.5 * (maps + model.heads["flat"](features[-1])).square().mean()
    watched = [model.backbone.network.conv1[0].weight, model.head.weight, *model.heads["flat"].parameters()]
    gradients = torch.autograd.grad(total, watched)
    before = [parameter.detach().clone() for parameter in watched]
    losses = step({"image": images, "labels": labels}, 0)
    assert list(losses) == ["class", "flat", "level"]
    assert not any(loss.requires_grad for loss in losses.values())
    for parameter, old, gradient, factor in zip(watched, before, gradients, (1, 10, 10, 20), strict=True):
        torch.testing.assert_close(parameter.detach(), old - factor * 0.01 * gradient)


def test_terms_come_in_the_order_of_the_sum_whatever_the_order_of_their_settings(terms_of, classifier_settings):
    sections = dict(reversed(terms_of("pnoc").items()))
    ordinary = Classifier(build_backbone("test_resnet"), 2, batch_norm="fixed")
    model = Classifier(build_backbone("test_resnet"), 2)
    training = Training(model, classifier_settings(), steps=4, epoch_length=4, seed=0, device=CPU, ordinary=ordinary)
    terms = build_terms(sections, training)
    assert list(terms) == ["labels", "puzzle", "erasing", "discriminator"]
    assert terms["discriminator"].network is terms["erasing"].ordinary is ordinary


def test_settings_without_a_term_are_refused(classifier_settings):
    with pytest.raises(ValueError, match="no term of a loss is named flat; there are puzzle, erasing, discriminator"):
        step_of({"flat": FlatSettings()}, classifier_settings())


def test_a_discriminator_without_erased_images_is_refused(terms_of, classifier_settings):
    sections = {"discriminator": terms_of("pnoc")["discriminator"]}
    with pytest.raises(ValueError, match="learns from erased images: the method must have the term erasing"):
        step_of(sections, classifier_settings())


def test_every_term_has_settings_of_its_name_in_the_plan():
    assert set(TERMS) <= set(methods.SECTIONS["prior"])
    others = {"classifier", "cams", "scores", "monitoring"}
    for name, method in methods.METHODS["prior"].items():
        assert set(method.sections) - others <= set(TERMS), name
