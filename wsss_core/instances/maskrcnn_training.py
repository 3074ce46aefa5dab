"""Training of Mask R-CNN on the instances of a store, be they true or pseudo ones."""

import logging
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.models.detection.roi_heads import paste_masks_in_image

from wsss_core.base.checkpoints import save_model
from wsss_core.data.classes import Classes, DataError, described
from wsss_core.data.manifest import Manifest, Row
from wsss_core.data.pictures import Pictures
from wsss_core.data.samples import network_input
from wsss_core.fitting.loader import EpochLoader
from wsss_core.fitting.loop import fit, placed, training_digest
from wsss_core.fitting.optim import StepSGD
from wsss_core.fitting.precision import Precision
from wsss_core.fitting.snapshots import Snapshots, coloured
from wsss_core.instances.maskrcnn import MaskRCNN, Target, build_maskrcnn, resized, scaled_size
from wsss_core.instances.store import Instances, InstanceStore
from wsss_core.recipes.settings import MaskrcnnSettings, identity

logger = logging.getLogger(__name__)

LOSSES = {  # torchvision's names -> those of the history
    "loss_objectness": "objectness",
    "loss_rpn_box_reg": "proposal_box",
    "loss_classifier": "class",
    "loss_box_reg": "box",
    "loss_mask": "mask",
}


class InstancePictures:
    """Whole pictures with their instances, mirrored at random.

    Args:
        manifest: pictures with at least one instance, see ``with_instances``.
        shorter_sides: one is drawn for each.
    """

    def __init__(self, manifest: Manifest, store: InstanceStore, shorter_sides: tuple[int, ...]):
        self.rows, self.pictures = manifest.rows, Pictures(manifest.rows)
        self.store, self.shorter_sides = store, shorter_sides

    def __len__(self) -> int:
        return len(self.rows)

    def sample(self, index: int, rng: np.random.Generator) -> dict[str, Tensor]:
        """A picture of D instances in its own size.

        ``pixels`` (H, W, 3) uint8; ``masks`` (D, H, W) uint8, 0 or 1; ``boxes`` (D, 4) float32, x0, y0, x1, y1, the
        ends exclusive; ``labels`` (D,) int64 from 1; ``shorter``, the side that it is to be resized to.
        """
        instances = learnt(self.store[self.rows[index].id])
        pixels, masks = np.asarray(self.pictures[index]), instances.dense().view(np.uint8)
        boxes = instances.boxes.astype(np.float32)
        shorter = self.shorter_sides[int(rng.integers(len(self.shorter_sides)))]
        if rng.random() < 0.5:
            pixels, masks = pixels[:, ::-1], masks[:, :, ::-1]
            boxes[:, [0, 2]] = pixels.shape[1] - boxes[:, [2, 0]]
        return {
            "pixels": torch.from_numpy(pixels.copy()),
            "masks": torch.from_numpy(masks.copy()),
            "boxes": torch.from_numpy(boxes),
            "labels": torch.from_numpy(instances.labels.astype(np.int64) + 1),
            "shorter": torch.tensor(shorter),
        }


def learnt(instances: Instances) -> Instances:
    """The instances that a detector learns from: no crowds, nothing without pixels."""
    return instances.kept(~instances.crowd & (instances.areas > 0))


def with_instances(manifest: Manifest, store: InstanceStore, classes: Classes) -> Manifest:
    """The images that have an instance to learn from.

    Raises:
        DataError: no image has one, or an instance has no class or one that there is not.
    """
    rows = []
    for row in manifest:
        labels = learnt(store[row.id]).labels
        if ((labels < 0) | (labels >= len(classes))).any():
            raise DataError(
                f"{store.path}: the instances of {row.id} have the classes {labels.tolist()}, but there are "
                f"{len(classes)} of them: train on instances of this data set's classes"
            )
        if len(labels):
            rows.append(row)
    if not rows:
        raise DataError(f"{store.path}: none of {len(manifest)} images has an instance to train with; lower the score "
                        "that instances need")  # fmt: skip
    if len(rows) < len(manifest):
        logger.info("%d of %d images have no instance and are left out", len(manifest) - len(rows), len(manifest))
    return Manifest.of(rows)


class MaskrcnnStep:
    """One micro-step; an update takes ``accumulation`` of them and their mean loss.

    Args:
        epoch_steps: micro-steps an epoch.
    """

    def __init__(self, model: MaskRCNN, settings: MaskrcnnSettings, epoch_steps: int, device: torch.device):
        self.model, self.settings, self.device = model, settings, device
        self.precision = Precision(settings.precision, device)
        self.scaler = self.precision.scaler()
        group = {
            "params": [parameter for parameter in model.parameters() if parameter.requires_grad],
            "lr": settings.learning_rate,
            "weight_decay": settings.weight_decay,
        }
        self.optimizer = StepSGD(
            [group],
            updates=settings.epochs * epoch_steps // settings.accumulation,
            momentum=settings.momentum,
            decay_at=[epoch * epoch_steps // settings.accumulation for epoch in settings.decay_at],
            warmup=settings.warmup.iterations,
            start=settings.warmup.factor,
        )

    def state(self) -> dict[str, Any]:
        """All that a resumed training needs beside torch's generators, which draw the regions to learn from."""
        return {"model": self.model, "optimizer": self.optimizer, "scaler": self.scaler}

    def __call__(self, batch: dict[str, list[Tensor]], step: int) -> dict[str, Tensor]:
        images, targets = self.inputs(batch)
        with self.precision.autocast():
            losses = self.model(images, targets)
        total = torch.stack(list(losses.values())).sum()
        self.scaler.scale(total / self.settings.accumulation).backward()
        if (step + 1) % self.settings.accumulation == 0:
            self.optimizer.step(self.scaler)
        return {LOSSES[name]: loss.detach() for name, loss in losses.items()}

    def inputs(self, batch: dict[str, list[Tensor]]) -> tuple[list[Tensor], list[Target]]:
        """What the network takes: pictures and instances in their training sizes, where the network is."""
        images, targets = [], []
        for index, shorter in enumerate(batch["shorter"]):
            pixels, masks, boxes, labels = (
                batch[name][index].to(self.device, non_blocking=True) for name in ("pixels", "masks", "boxes", "labels")
            )
            height, width = pixels.shape[:2]
            h, w = scaled_size(height, width, int(shorter), self.settings.longest_side)
            images.append(resized(pixels, (h, w)))
            targets.append(
                {
                    "masks": F.interpolate(masks[:, None], (h, w), mode="nearest")[:, 0],  # as torchvision does
                    "boxes": boxes * _factors(w / width, h / height, boxes),
                    "labels": labels,
                }
            )
        return images, targets


def _factors(x: float, y: float, boxes: Tensor) -> Tensor:
    return torch.tensor([x, y, x, y]).to(boxes, non_blocking=True)


def train_maskrcnn(
    *,
    manifest: Manifest,
    classes: Classes,
    instances: Path,
    weights: Path | None,
    settings: MaskrcnnSettings,
    output: Path,
    seed: int,
    device: torch.device,
    workers: int = 0,
    pictures: int = 0,
) -> None:
    """Train Mask R-CNN; write its last checkpoint, history and TensorBoard events.

    No checkpoint is selected: the last one is kept, so that no label of a validation split has a say. Images without
    an instance are left out. On a CPU a seed decides about every number; on a GPU the gradients of cut-out regions
    are added up in any order.

    Args:
        instances: store of the manifest's instances, see ``instances.store``; what it says of itself is kept with the
            checkpoint.
        weights: ImageNet weights of the backbone, or None to start from random ones.
        pictures: epochs from one set of pictures of training images to the next, 0 for none; see ``Snapshots``.

    Raises:
        DataError: no image has an instance, or one has no class.
        StoreError: the store was made from another manifest, or is damaged.
        ValueError: a detector's weights, or a backbone without the maps that are needed.
    """
    store = InstanceStore(instances)
    store.check(manifest)
    network: dict[str, Any] = {
        "backbone": settings.backbone,
        "classes": len(classes) + 1,
        "width": settings.width,
        "shorter_side": settings.shorter_sides[-1],
        "longest_side": settings.longest_side,
        "test_proposals": settings.proposals.test,
    }
    model = build_maskrcnn(
        **network,
        weights=weights,
        training_proposals=settings.proposals.training,
        samples=settings.samples,
        frozen=settings.frozen,
        batch_norm=settings.batch_norm,
    )
    placed(model.train(), device)
    samples = InstancePictures(with_instances(manifest, store, classes), store, settings.shorter_sides)
    loader = EpochLoader(samples, batch_size=settings.batch_size, seed=seed, workers=workers, collate=_listed)
    step = MaskrcnnStep(model, settings, len(loader), device)
    fit(
        step=step,
        loader=loader,
        epochs=settings.epochs,
        state=step.state(),
        output=output,
        digest=training_digest("train_maskrcnn", classes, manifest, seed, identity(settings), weights, store.digest()),
        lr=lambda: step.optimizer.lr,
        snapshots=Snapshots(pictures, samples.rows, model, partial(_draw, model, classes)),
    )
    recipe = {"network": network, "instances": store.about, **described(classes)}
    save_model(output, model, "maskrcnn", recipe)


def _draw(model: MaskRCNN, classes: Classes, photo: Tensor, row: Row) -> Tensor:
    """The instances that are more likely than not, in the colours of their classes on the photo."""
    (found,) = model([network_input(photo)[0]])
    shown = found["scores"] > 0.5
    masks = paste_masks_in_image(found["masks"][shown], found["boxes"][shown], photo.shape[1:3])
    labels = found["labels"][shown].cpu().numpy()
    return coloured(photo, (masks[:, 0] > 0.5).float(), classes.colours[labels])


def _listed(samples: list[dict[str, Tensor]]) -> dict[str, list[Tensor]]:
    """A batch of pictures of several sizes."""
    return {name: [sample[name] for sample in samples] for name in samples[0]}
