"""Training of P-NOC: a Puzzle classifier against a not-so-ordinary one that learns what is left after erasing."""

from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from wsss_core.data.manifest import Manifest
from wsss_core.jobs import digest_of
from wsss_core.models.classifier import Classifier, build_classifier, load_classifier, logits, save_model
from wsss_core.training.erasing import choose_classes, hard_erase, soft_erase, without
from wsss_core.training.loop import Precision, finish, fit
from wsss_core.training.optim import PolySGD, parameter_groups
from wsss_core.training.puzzle import puzzle_maps, reconstruction_loss
from wsss_core.training.schedules import linear
from wsss_core.training.vanilla import (
    ClassifierSettings,
    label_batches,
    label_loss,
    recipe,
    smooth,
    to_device,
)


@dataclass(frozen=True)
class Ramp:
    """A loss weight over the training, see ``schedules.linear``."""

    start: float
    end: float
    fraction: float

    def at(self, step: int, steps: int) -> float:
        return linear(step, steps, self.start, self.end, self.fraction)


@dataclass(frozen=True)
class PnocSettings:
    """What P-NOC adds to a classifier's settings; the meanings stand in the schema of config.yaml."""

    pieces: int
    reconstruction: Ramp
    erasing: Ramp
    discriminator: Ramp
    per_image_maximum: bool
    hard_threshold: float
    discriminator_every: int
    discriminator_rate: float
    discriminator_input: str
    leak: bool

    @classmethod
    def from_config(cls, values: dict) -> "PnocSettings":
        ramps = {key: Ramp(**values[key]) for key in ("reconstruction", "erasing", "discriminator")}
        return cls(**{**values, **ramps})


class PnocStep:
    """One micro-step of P-NOC's Algorithm 1: the generator's pass, then the discriminator's.

    Args:
        generator: the classifier whose maps are wanted.
        discriminator: the ordinary classifier that goes on learning; BatchNorm fixed, weights trained.
        steps: micro-steps of the whole training.
    """

    def __init__(
        self,
        generator: Classifier,
        discriminator: Classifier,
        settings: ClassifierSettings,
        pnoc: PnocSettings,
        steps: int,
        seed: int,
        device: torch.device,
    ):
        self.generator, self.discriminator = generator, discriminator
        self.settings, self.pnoc, self.steps, self.seed, self.device = settings, pnoc, steps, seed, device
        self.precision = Precision(settings.precision, device)
        self.scaler, self.discriminator_scaler = self.precision.scaler(), self.precision.scaler()
        rate, decay = settings.learning_rate, settings.weight_decay
        self.optimizer = PolySGD(
            parameter_groups(generator, generator.scratch, rate, decay),
            updates=steps // settings.accumulation,
        )
        self.discriminator_optimizer = PolySGD(
            parameter_groups(discriminator, discriminator.scratch, rate * pnoc.discriminator_rate, decay),
            updates=steps // (settings.accumulation * pnoc.discriminator_every),
        )

    def state(self) -> dict:
        """Both networks with their optimisers and scalers: what a resumed training needs."""
        return {
            "generator": self.generator,
            "optimizer": self.optimizer,
            "scaler": self.scaler,
            "discriminator": self.discriminator,
            "discriminator_optimizer": self.discriminator_optimizer,
            "discriminator_scaler": self.discriminator_scaler,
        }

    def __call__(self, batch: dict[str, Tensor], step: int) -> dict[str, Tensor]:
        images, labels = to_device(batch, self.device)
        # Drawn on the host from the step's own seed, so that nothing waits for the device and a resumed run agrees.
        chosen = choose_classes(batch["labels"], torch.Generator().manual_seed(self.seed * 2**32 + step))
        chosen = chosen.to(self.device, non_blocking=True)
        maps, soft, losses = self._train_generator(images, labels, chosen, step)
        if (step + 1) % self.pnoc.discriminator_every == 0:
            erased = soft.detach()
            if self.pnoc.discriminator_input == "hard":
                erased = hard_erase(images, maps.detach(), chosen, self.pnoc.hard_threshold)
            losses["discriminator"] = self._train_discriminator(erased, labels, step)
        return losses

    def _train_generator(self, images: Tensor, labels: Tensor, chosen: Tensor, step: int):
        """P-OC's loss against the discriminator as it stands; update every ``accumulation`` steps."""
        smoothing = self.settings.label_smoothing
        targets = smooth(labels, smoothing)
        # Published code: the erasing loss also leaves its gradient in the discriminator, whose next update
        # applies it. Without the leak (Algorithm 1 as printed) the discriminator is frozen here.
        self.discriminator.eval()
        trainable = [p for p in self.discriminator.parameters() if p.requires_grad]
        with self.precision.autocast():
            maps = self.generator(images)
            merged = puzzle_maps(self.generator, images, self.pnoc.pieces)
            soft = soft_erase(images, maps, chosen, self.pnoc.per_image_maximum)
            _require_grad(trainable, self.pnoc.leak)
            rest = logits(self.discriminator(soft))
            _require_grad(trainable, True)
            losses = {
                "class": label_loss(logits(maps), targets),
                "merged_class": label_loss(logits(merged), targets),
                "reconstruction": reconstruction_loss(maps, merged, labels),
                "erasing": label_loss(rest, smooth(without(labels, chosen), smoothing)),
            }
            loss = (
                losses["class"]
                + losses["merged_class"]
                + self.pnoc.reconstruction.at(step, self.steps) * losses["reconstruction"]
                + self.pnoc.erasing.at(step, self.steps) * losses["erasing"]
            )
        self.scaler.scale(loss).backward()
        if (step + 1) % self.settings.accumulation == 0:
            self.optimizer.step(self.scaler)
        return maps, soft, {name: value.detach() for name, value in losses.items()}

    def _train_discriminator(self, erased: Tensor, labels: Tensor, step: int) -> Tensor:
        """The full label, the erased class included, must be told from the erased images."""
        self.discriminator.train()  # matters for dropout only: its BatchNorm is fixed
        with self.precision.autocast():
            loss = label_loss(logits(self.discriminator(erased)), smooth(labels, self.settings.label_smoothing))
            weighted = self.pnoc.discriminator.at(step, self.steps) * loss
        self.discriminator_scaler.scale(weighted).backward()
        turns = (step + 1) // self.pnoc.discriminator_every
        if turns % self.settings.accumulation == 0:
            self.discriminator_optimizer.step(self.discriminator_scaler)
        return loss.detach()


def _require_grad(parameters: list[Tensor], required: bool) -> None:
    for parameter in parameters:
        parameter.requires_grad_(required)


def train_pnoc(
    *,
    manifest: Manifest,
    classes: int,
    weights: Path | None,
    ordinary: Path,
    settings: ClassifierSettings,
    pnoc: PnocSettings,
    output: Path,
    seed: int,
    device: torch.device,
    workers: int = 0,
) -> None:
    """Train P-NOC and write the generator's checkpoint, history and TensorBoard events.

    Args:
        manifest: images with labels; masks are never opened.
        weights: ImageNet weights of the generator's backbone, or None.
        ordinary: checkpoint of the plain classifier that the discriminator starts from.
    """
    generator = build_classifier(
        settings.backbone, classes, output_stride=settings.output_stride, mode=settings.mode, weights=weights
    ).to(device, memory_format=torch.channels_last)
    discriminator = load_classifier(ordinary, mode="fix").to(device, memory_format=torch.channels_last)
    loader = label_batches(manifest, classes, settings, seed, workers)
    step = PnocStep(generator, discriminator, settings, pnoc, settings.epochs * len(loader), seed, device)
    fit(
        step=step,
        loader=loader,
        epochs=settings.epochs,
        state=step.state(),
        output=output,
        digest=digest_of(asdict(settings), asdict(pnoc), manifest.digest(), seed, weights, ordinary),
        lr=lambda: step.optimizer.lr,
    )
    save_model(output, generator, recipe(settings, classes))
    finish(output)
