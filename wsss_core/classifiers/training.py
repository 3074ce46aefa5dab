"""Training of classifiers whose class maps become priors; ``terms`` has the parts of their losses."""

import shutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from wsss_core.base.checkpoints import save_model
from wsss_core.base.files import whole
from wsss_core.classifiers.network import Classifier, build_classifier, load_classifier
from wsss_core.classifiers.step import ClassifierStep, Training
from wsss_core.classifiers.terms import build_terms
from wsss_core.data.classes import Classes, described
from wsss_core.data.manifest import Manifest, Row
from wsss_core.data.mixing import Mixed
from wsss_core.data.samples import LabelledCrops, network_input
from wsss_core.fitting.loader import EpochLoader
from wsss_core.fitting.loop import fit, placed, training_digest
from wsss_core.fitting.snapshots import Snapshots, coloured
from wsss_core.maps.inference import normalize_cam
from wsss_core.networks.batch_norm import group_batch_norm
from wsss_core.recipes.settings import ClassifierSettings, identity


def label_batches(
    manifest: Manifest, classes: int, settings: ClassifierSettings, seed: int, workers: int
) -> EpochLoader:
    """The training batches of every classifier: ``image`` and ``labels``."""
    crops = LabelledCrops(
        manifest,
        classes,
        resize=settings.resize,
        rescale=settings.rescale,
        size=settings.crop,
        augmentation=settings.augmentation,
        squash=bool(settings.squash),
    )
    mixing = settings.mixing
    samples = Mixed(crops, mixing.kind, mixing.probability) if mixing else crops
    return EpochLoader(samples, batch_size=settings.batch_size, seed=seed, workers=workers)


def train_classifier(
    *,
    manifest: Manifest,
    classes: Classes,
    weights: Path | None,
    ordinary: Path | None,
    settings: ClassifierSettings,
    terms: Mapping[str, Any],
    output: Path,
    epochs: Path,
    seed: int,
    device: torch.device,
    workers: int = 0,
    pictures: int = 0,
) -> None:
    """Train a classifier and write its checkpoint, history and TensorBoard events.

    Args:
        manifest: images with labels; masks are never opened.
        weights: ImageNet weights of the backbone, a classifier's checkpoint, or None to start from random ones;
            the settings' own ``weights`` is for the plan.
        ordinary: checkpoint of the classifier that looks at erased images, for methods that have one.
        terms: what the method adds to the loss of the labels: settings by name (``terms.TERMS``).
        output: the checkpoint to write.
        epochs: folder to make for the network as it was after the first epoch and after half of them (``first.pt``,
            ``middle.pt``), to be looked at; nothing is chosen by them.
        pictures: epochs from one set of pictures of training images to the next, 0 for none; see ``Snapshots``.
    """
    loader = label_batches(manifest, len(classes), settings, seed, workers)
    training = Training(
        model=_network(settings, len(classes), weights, device),
        settings=settings,
        steps=settings.epochs * len(loader),
        epoch_length=len(loader),
        seed=seed,
        device=device,
        ordinary=load_classifier(ordinary, batch_norm="fixed") if ordinary else None,
    )
    step = ClassifierStep(training, build_terms(terms, training))
    recipe = {"backbone": settings.backbone, "output_stride": settings.output_stride, "classes": len(classes)}
    recipe |= described(classes)
    kept = _KeptEpochs(
        epochs,
        settings.epochs,
        lambda path, epoch: save_model(path, step.result, "classifier", recipe | {"epoch": epoch}),
    )
    sections = {name: identity(section) for name, section in {"classifier": settings, **terms}.items()}

    fit(
        step=step,
        loader=loader,
        epochs=settings.epochs,
        state=step.state(),
        output=output,
        digest=training_digest("train_classifier", classes, manifest, seed, sections, weights, ordinary),
        lr=lambda: step.learner.optimizer.lr,
        after_epoch=kept,
        snapshots=Snapshots(
            pictures, manifest.rows, step.result, partial(_draw, cast(Classifier, step.result), classes)
        ),
    )
    save_model(output, step.result, "classifier", recipe | {"epoch": settings.epochs})
    kept.publish()


def _draw(model: Classifier, classes: Classes, photo: Tensor, row: Row) -> Tensor:
    """The CAMs of the image's classes, in their colours on the photo."""
    labels = list(row.labels)
    maps = normalize_cam(model.cams(network_input(photo))[0, labels])
    return coloured(photo, maps, classes.colours[1:][labels])


def _network(settings: ClassifierSettings, classes: int, weights: Path | None, device: torch.device) -> Classifier:
    """The network that the settings describe, on its device."""
    model = build_classifier(
        settings.backbone,
        classes,
        output_stride=settings.output_stride,
        batch_norm=settings.batch_norm,
        frozen=settings.frozen,
        weights=weights,
        dropout=settings.dropout,
        usual_head=bool(settings.as_irnet),
        head_bias=bool(settings.head_bias),
    )
    group_batch_norm(model, settings.batch_size, settings.batch_norm_group)
    placed(model, device, compiled=settings.compile)
    return model


class _KeptEpochs:
    """``first.pt`` and ``middle.pt``, kept beside their folder, as the state to resume from is.

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
        """A copy: where the job counts as failed after all, the folder is removed and the training resumed."""
        if lost := [name for name in self.names if not (self.kept / f"{name}.pt").exists()]:
            state = self.folder.with_suffix(".resume.pt")
            raise FileNotFoundError(f"{self.kept} has lost {lost[0]}.pt: remove {state}, to train from the beginning")
        with whole(self.folder) as partial:
            shutil.copytree(self.kept, partial)
