"""Training of classifiers whose class maps become priors: CAM, Puzzle-CAM, OC-CSE, P-OC and P-NOC.

They are one loss with parts that a method has or has not (P-NOC paper, section 3; ``METHODS`` in ``recipes``):

    class + merged_class + w_puzzle * reconstruction   Puzzle-CAM, P-OC, P-NOC
          + w_erasing * erasing                        OC-CSE, P-OC, P-NOC: against an ordinary classifier,
                                                       which P-NOC goes on training (the discriminator)
"""

import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from wsss_core.base.checkpoints import save_model
from wsss_core.base.jobs import digest_of
from wsss_core.classifiers.class_choice import ClassChoice
from wsss_core.classifiers.erasing import hard_erase, soft_keep, without
from wsss_core.classifiers.network import Classifier, build_classifier, load_classifier, logits
from wsss_core.classifiers.puzzle import puzzle_maps, reconstruction_loss
from wsss_core.data.manifest import Manifest
from wsss_core.data.mixing import Mixed
from wsss_core.data.samples import LabelledCrops
from wsss_core.fitting.averaging import Average, AverageSettings
from wsss_core.fitting.loader import EpochLoader
from wsss_core.fitting.loop import finish, fit, placed
from wsss_core.fitting.optim import PolySGD, parameter_groups
from wsss_core.fitting.precision import Precision
from wsss_core.fitting.schedules import linear
from wsss_core.networks.backbones import masked


@dataclass(frozen=True)
class ClassifierSettings:
    """What every classifier training shares; the meanings stand in the schema of config.yaml."""

    backbone: str
    output_stride: int
    mode: str
    frozen: str
    resize: tuple[int, int]
    crop: int
    augmentation: str
    mixing: str
    mixing_probability: float
    batch_size: int
    accumulation: int
    epochs: int
    learning_rate: float
    weight_decay: float
    label_smoothing: float
    average: dict | None
    precision: str
    compile: bool


@dataclass(frozen=True)
class Ramp:
    """A loss weight over the training, see ``schedules.linear``."""

    start: float
    end: float
    fraction: float

    def at(self, step: int, steps: int) -> float:
        return linear(step, steps, self.start, self.end, self.fraction)


@dataclass(frozen=True)
class PuzzleSettings:
    """The branch of Puzzle-CAM."""

    pieces: int
    weight: Ramp


@dataclass(frozen=True)
class ErasingSettings:
    """The branch of OC-CSE: what the ordinary classifier still sees of an erased class."""

    weight: Ramp
    by_epoch: bool
    class_choice: str
    per_image_maximum: bool
    relu_first: bool
    masking_depth: int


@dataclass(frozen=True)
class DiscriminatorSettings:
    """What makes the ordinary classifier not so ordinary (P-NOC)."""

    weight: Ramp
    every: int
    rate: float
    input: str
    hard_threshold: float
    leak: bool


@dataclass(frozen=True)
class Parts:
    """What a method adds to the plain classifier's loss; None where it has no such part."""

    puzzle: PuzzleSettings | None = None
    erasing: ErasingSettings | None = None
    discriminator: DiscriminatorSettings | None = None

    @classmethod
    def from_config(cls, values: dict) -> "Parts":
        """From the sections of config.yaml that the method has."""
        kinds = {"puzzle": PuzzleSettings, "erasing": ErasingSettings, "discriminator": DiscriminatorSettings}
        return cls(
            **{
                name: kind(**{**values[name], "weight": Ramp(**values[name]["weight"])})
                for name, kind in kinds.items()
                if name in values
            }
        )


def smooth(labels: Tensor, smoothing: float) -> Tensor:
    """Labels pulled towards 1/2: ``(1 - a) y + a / 2``."""
    return (1 - smoothing) * labels + smoothing / 2


def label_loss(scores: Tensor, targets: Tensor) -> Tensor:
    """Multi-label soft margin: binary cross-entropy with logits, mean over batch and classes."""
    return F.binary_cross_entropy_with_logits(scores, targets)


def label_batches(
    manifest: Manifest, classes: int, settings: ClassifierSettings, seed: int, workers: int
) -> EpochLoader:
    """The training batches of every classifier: ``image`` and ``labels``."""
    samples = LabelledCrops(
        manifest, classes, resize=settings.resize, size=settings.crop, augmentation=settings.augmentation
    )
    if settings.mixing != "none":
        samples = Mixed(samples, settings.mixing, settings.mixing_probability)
    return EpochLoader(samples, batch_size=settings.batch_size, seed=seed, workers=workers)


class ClassifierStep:
    """One micro-step: the classifier's pass and, for P-NOC, the discriminator's (Algorithm 1).

    Gradients are summed, not averaged, over ``accumulation`` steps, as published.

    Args:
        model: the classifier whose maps are wanted.
        ordinary: the classifier that looks at erased images, with fixed BatchNorm. Frozen, unless there are settings
            of a discriminator: then its weights go on learning.
        steps: micro-steps of the whole training.
        epoch_length: micro-steps of an epoch.
    """

    def __init__(
        self,
        *,
        model: Classifier,
        settings: ClassifierSettings,
        parts: Parts,
        steps: int,
        epoch_length: int,
        seed: int,
        device: torch.device,
        ordinary: Classifier | None = None,
    ):
        self.model, self.ordinary, self.settings, self.parts = model, ordinary, settings, parts
        self.steps, self.epoch_length, self.device = steps, epoch_length, device
        self.precision = Precision(settings.precision, device)
        self.scaler = self.precision.scaler()
        rate, decay, accumulation = settings.learning_rate, settings.weight_decay, settings.accumulation
        groups = parameter_groups(model, model.scratch, rate, decay)
        self.optimizer = PolySGD(groups, updates=steps // accumulation)
        self.average = None
        if settings.average:
            self.average = Average(model, AverageSettings(**settings.average), epoch_length // accumulation)
        self.choice = (
            ClassChoice(parts.erasing.class_choice, model.head.out_channels, seed, device) if parts.erasing else None
        )
        if not parts.discriminator:
            if ordinary is not None:
                ordinary.eval().requires_grad_(False)
            return
        noc = parts.discriminator
        self.discriminator_scaler = self.precision.scaler()
        self.discriminator_optimizer = PolySGD(
            parameter_groups(ordinary, ordinary.scratch, rate * noc.rate, decay),
            updates=steps // (accumulation * noc.every),
        )

    @property
    def result(self) -> Classifier:
        """The network to keep: the classifier, or its average over the training."""
        return self.average.model if self.average else self.model

    def state(self) -> dict:
        """Everything that a resumed training needs."""
        state = {"model": self.model, "optimizer": self.optimizer, "scaler": self.scaler}
        if self.average:
            state["average"] = self.average
        if self.choice:
            state["choice"] = self.choice
        if self.parts.discriminator:
            state["discriminator"] = self.ordinary
            state["discriminator_optimizer"] = self.discriminator_optimizer
            state["discriminator_scaler"] = self.discriminator_scaler
        return state

    def __call__(self, batch: dict[str, Tensor], step: int) -> dict[str, Tensor]:
        images, labels = to_device(batch, self.device)
        chosen = self.choice(batch["labels"], step) if self.choice else None
        maps, soft, losses = self._train_classifier(images, labels, chosen, step)
        noc = self.parts.discriminator
        if noc and (step + 1) % noc.every == 0:
            erased = soft.detach()
            if noc.input == "hard":
                erased = hard_erase(images, maps.detach(), chosen, noc.hard_threshold)
            losses["discriminator"] = self._train_discriminator(erased, labels, step)
        return losses

    def _train_classifier(self, images: Tensor, labels: Tensor, chosen: Tensor | None, step: int):
        """The loss with all its parts; an update after every ``accumulation`` steps."""
        puzzle, erasing, soft = self.parts.puzzle, self.parts.erasing, None
        targets = smooth(labels, self.settings.label_smoothing)
        with self.precision.autocast():
            maps = self.model(images)
            losses = {"class": label_loss(logits(maps), targets)}
            loss = losses["class"]
            if puzzle:
                merged = puzzle_maps(self.model, images, puzzle.pieces)
                losses["merged_class"] = label_loss(logits(merged), targets)
                losses["reconstruction"] = reconstruction_loss(maps, merged, labels)
                weight = puzzle.weight.at(step, self.steps)
                loss = loss + losses["merged_class"] + weight * losses["reconstruction"]
            if erasing:
                soft, losses["erasing"] = self._erasing_loss(images, labels, maps, chosen)
                # the original OC-CSE raises its weight once an epoch, its successors at every step
                at = step - step % self.epoch_length if erasing.by_epoch else step
                loss = loss + erasing.weight.at(at, self.steps) * losses["erasing"]
        self.scaler.scale(loss).backward()
        if (step + 1) % self.settings.accumulation == 0:
            self.optimizer.step(self.scaler)
            if self.average:
                self.average.update()
        return maps, soft, {name: value.detach() for name, value in losses.items()}

    def _erasing_loss(self, images: Tensor, labels: Tensor, maps: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """Softly erased images, and how well the ordinary classifier tells that the chosen class is gone."""
        erasing, noc = self.parts.erasing, self.parts.discriminator
        keep = soft_keep(images, maps, chosen, erasing.per_image_maximum, erasing.relu_first)
        soft = images * keep
        self.ordinary.eval()
        # Published code of P-NOC: the erasing loss also leaves its gradient in the discriminator, whose next update
        # applies it. Without the leak (Algorithm 1 as printed) the discriminator is frozen here.
        trainable = [p for p in self.ordinary.parameters() if p.requires_grad]
        _require_grad(trainable, bool(noc and noc.leak))
        if erasing.masking_depth:
            with masked(self.ordinary.backbone, erasing.masking_depth, keep):
                rest = logits(self.ordinary(images))
        else:
            rest = logits(self.ordinary(soft))
        _require_grad(trainable, True)
        remaining = without(labels, chosen)
        self.choice.observe(rest.detach(), labels, remaining)
        return soft, label_loss(rest, smooth(remaining, self.settings.label_smoothing))

    def _train_discriminator(self, erased: Tensor, labels: Tensor, step: int) -> Tensor:
        """The full label, the erased class included, must be told from the erased images."""
        noc = self.parts.discriminator
        self.ordinary.train()  # matters for dropout only: its BatchNorm is fixed
        with self.precision.autocast():
            loss = label_loss(logits(self.ordinary(erased)), smooth(labels, self.settings.label_smoothing))
            weighted = noc.weight.at(step, self.steps) * loss
        self.discriminator_scaler.scale(weighted).backward()
        if (step + 1) // noc.every % self.settings.accumulation == 0:
            self.discriminator_optimizer.step(self.discriminator_scaler)
        return loss.detach()


def _require_grad(parameters: list[Tensor], required: bool) -> None:
    for parameter in parameters:
        parameter.requires_grad_(required)


def to_device(batch: dict[str, Tensor], device: torch.device) -> tuple[Tensor, Tensor]:
    """A batch's images, channels last, and labels on the device."""
    images = batch["image"].to(device, memory_format=torch.channels_last, non_blocking=True)
    return images, batch["labels"].to(device, non_blocking=True)


def train_classifier(
    *,
    manifest: Manifest,
    classes: int,
    weights: Path | None,
    ordinary: Path | None,
    settings: ClassifierSettings,
    parts: Parts,
    output: Path,
    epochs: Path,
    seed: int,
    device: torch.device,
    workers: int = 0,
) -> None:
    """Train a classifier and write its checkpoint, history and TensorBoard events.

    Args:
        manifest: images with labels; masks are never opened.
        classes: number of foreground classes.
        weights: ImageNet weights of the backbone, a classifier's checkpoint, or None to start from random ones.
        ordinary: checkpoint of the classifier that looks at erased images; needed by the parts erasing and
            discriminator.
        parts: what the method adds to the plain classifier's loss.
        output: the checkpoint to write.
        epochs: folder to make for the network as it was after the first epoch and after half of them (``first.pt``,
            ``middle.pt``), to be looked at; nothing is chosen by them.
    """
    if parts.erasing and ordinary is None:
        raise ValueError("a classifier cannot be erased against nothing: give the ordinary classifier's checkpoint")
    loader = label_batches(manifest, classes, settings, seed, workers)
    model, other = _networks(settings, parts, classes, weights, ordinary)
    step = ClassifierStep(
        model=placed(model, device, compiled=settings.compile),
        # hooks mask it, a new one at every step, for each of which it would be compiled again
        ordinary=other and placed(other, device, compiled=settings.compile and not parts.erasing.masking_depth),
        settings=settings,
        parts=parts,
        steps=settings.epochs * len(loader),
        epoch_length=len(loader),
        seed=seed,
        device=device,
    )
    recipe = {"backbone": settings.backbone, "output_stride": settings.output_stride, "classes": classes}
    kept = _KeptEpochs(
        epochs,
        settings.epochs,
        lambda path, epoch: save_model(path, step.result, "classifier", recipe | {"epoch": epoch}),
    )

    fit(
        step=step,
        loader=loader,
        epochs=settings.epochs,
        state=step.state(),
        output=output,
        digest=digest_of(asdict(settings), asdict(parts), manifest.digest(), seed, weights, ordinary),
        lr=lambda: step.optimizer.lr,
        after_epoch=kept,
    )
    save_model(output, step.result, "classifier", recipe | {"epoch": settings.epochs})
    finish(output)  # first: a training that resumes needs what is moved away
    kept.publish()


def _networks(
    settings: ClassifierSettings, parts: Parts, classes: int, weights: Path | None, ordinary: Path | None
) -> tuple[Classifier, Classifier | None]:
    """The classifier to be trained, and the one that looks at erased images."""
    model = build_classifier(
        settings.backbone,
        classes,
        output_stride=settings.output_stride,
        mode=settings.mode,
        frozen=settings.frozen,
        weights=weights,
    )
    return model, load_classifier(ordinary, mode="fix") if parts.erasing else None


class _KeptEpochs:
    """``first.pt`` and ``middle.pt``, kept beside their folder until the training is over.

    Not in the folder itself: a workflow removes declared outputs before it starts a killed job again.
    """

    def __init__(self, folder: Path, epochs: int, save: Callable[[Path, int], None]):
        self.folder, self.save = folder, save
        self.kept = folder.with_name(f"{folder.name}.resume")
        self.names = {"first": 1, "middle": (epochs + 1) // 2}

    def __call__(self, epoch: int) -> None:
        for name, wanted in self.names.items():
            if wanted == epoch:
                self.save(self.kept / f"{name}.pt", epoch)

    def publish(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        os.replace(self.kept, self.folder)
