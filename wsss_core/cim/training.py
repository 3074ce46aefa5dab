"""Training of CIM's network on proposals, image-level labels, and the labels of proposals by AGPL."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from wsss_core.base.checkpoints import save_model
from wsss_core.cim.labels import ProposalLabels
from wsss_core.cim.losses import cluster_loss, image_loss, refinement_losses
from wsss_core.cim.mining import Mined, assign, mine, mine_mist, sampled
from wsss_core.cim.network import KIND, CimNetwork, Scores, build_cim, memory_for
from wsss_core.cim.views import view
from wsss_core.data.classes import Classes, DataError, described
from wsss_core.data.manifest import Manifest
from wsss_core.data.pictures import Pictures
from wsss_core.data.samples import network_input
from wsss_core.fitting.loader import CountedLoader
from wsss_core.fitting.loop import fit, placed, training_digest
from wsss_core.fitting.optim import StepSGD, parameter_groups
from wsss_core.fitting.precision import Precision
from wsss_core.instances.store import InstanceStore
from wsss_core.networks.backbones import fix_batch_norm, freeze
from wsss_core.proposals.overlaps import overlaps_of
from wsss_core.recipes.settings import CimSettings, identity

logger = logging.getLogger(__name__)

NETWORK = ("backbone", "output_stride", "stage", "hidden", "branches", "integrity_head")  # settings that build it


class ProposalPictures:
    """Whole pictures with their proposals, at one of some sizes, mirrored at random.

    Args:
        manifest: pictures with a class and with proposals, see ``with_proposals``.
        labels: those of AGPL, or None to learn without them.
    """

    def __init__(
        self,
        manifest: Manifest,
        classes: int,
        proposals: InstanceStore,
        labels: ProposalLabels | None,
        settings: CimSettings,
    ):
        self.rows, self.pictures = manifest.rows, Pictures(manifest.rows)
        self.labels = manifest.multi_hot(classes)
        self.proposals, self.clusters, self.settings = proposals, labels, settings

    def __len__(self) -> int:
        return len(self.rows)

    def sample(self, index: int, rng: np.random.Generator) -> dict[str, Tensor]:
        """A picture of N proposals and L classes: what ``views.view`` gives, and

        ``iou`` and ``containment`` (N, N) float32; ``present`` (C + 1,) float32 of 0 and 1, the background's 1 first;
        ``columns`` (L,) int64, the classes from 1; ``uniform`` (K, L, N) float32 in [0, 1), for the draws of each
        branch; with AGPL ``cluster`` (N,) int64 and ``clusters`` (P,) int64, the columns of its clusters.
        """
        row, settings = self.rows[index], self.settings
        found = self.proposals[row.id]
        side = settings.longer_sides[int(rng.integers(len(settings.longer_sides)))]
        sample = view(np.asarray(self.pictures[index]), found, side, rng.random() < 0.5)
        iou, containment = overlaps_of(found.masks)
        shape = settings.branches, len(row.labels), len(found.masks)
        further = {
            "iou": iou.astype(np.float32),
            "containment": containment.astype(np.float32),
            "present": np.concatenate([np.ones(1, np.float32), self.labels[index]]),
            "columns": np.array(row.labels, np.int64) + 1,
            "uniform": rng.random(shape, np.float32),
        }
        if self.clusters is not None:
            further["cluster"], classes = self.clusters[row.id]
            further["clusters"] = classes + 1
        return sample | {name: torch.from_numpy(values) for name, values in further.items()}


def with_proposals(manifest: Manifest, proposals: InstanceStore) -> Manifest:
    """The images that have a class and a proposal.

    Raises:
        DataError: there is none, or a proposal has no pixel.
    """
    labelled = manifest.labelled()
    rows = [row for row in labelled if proposals.count(row.id)]
    if not rows:
        raise DataError(
            f"{proposals.path} holds no proposal of any of {len(labelled)} images: lower the least share of the "
            "picture that a proposal has, or name other proposals, in config.yaml"
        )
    if len(rows) < len(labelled):
        logger.info("%d of %d images have no proposal and are left out", len(labelled) - len(rows), len(labelled))
    return Manifest.of(rows)


class CimStep:
    """One micro-step, a picture; an update takes ``batch_size`` of them and, unlike the published code, their mean."""

    def __init__(self, model: CimNetwork, settings: CimSettings, device: torch.device):
        _check(settings)
        self.model, self.settings, self.device = model, settings, device
        self.precision = Precision(settings.precision, device)
        self.scaler = self.precision.scaler()
        self.optimizer = StepSGD(
            # none is from scratch here: weights at the rate, biases at twice as much and without decay
            parameter_groups(model, [], settings.learning_rate, settings.weight_decay),
            updates=settings.iterations,
            momentum=settings.momentum,
            decay_at=settings.decay_at,
            warmup=settings.warmup.iterations,
            start=settings.warmup.factor,
        )

    def state(self) -> dict[str, Any]:
        """All that a resumed training needs; what is drawn depends on the seed, the epoch and the picture alone."""
        return {"model": self.model, "optimizer": self.optimizer, "scaler": self.scaler}

    def __call__(self, batch: dict[str, Tensor], step: int) -> dict[str, Tensor]:
        with memory_for(len(batch["boxes"])):
            picture = {name: values.to(self.device, non_blocking=True) for name, values in batch.items()}
            with self.precision.autocast():
                scores = self.model(network_input(picture["pixels"][None]), picture["boxes"], picture["crops"])
            losses, counts = self.losses(scores, picture)  # not in half precision
            self.scaler.scale(torch.stack(list(losses.values())).sum() / self.settings.batch_size).backward()
        if (step + 1) % self.settings.batch_size == 0:
            if self.settings.clip is not None:
                self.scaler.unscale_(self.optimizer.sgd)
                nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip)
            self.optimizer.step(self.scaler)
        return {name: value.detach() for name, value in (losses | counts).items()}

    def losses(self, scores: Scores, picture: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The parts of the loss with their factors (equation 8 and the published code), and what was mined.

        Args:
            picture: a sample of ``ProposalPictures``, where the network is.
        """
        settings, present = self.settings, picture["present"]
        classification, integrity = scores.of(0)
        assert integrity is not None
        losses, counts = {"image": image_loss(classification, integrity, present)}, {}
        if "cluster" in picture:
            losses["cluster"] = cluster_loss(
                classification, picture["cluster"], picture["clusters"], settings.cluster_form, settings.cluster_weight
            )
        for branch in range(1, settings.branches + 1):
            rise = round(settings.cascade * (branch - 1), 6)  # so that 0.25 + 0.1 + 0.1 is 0.45
            foreground, whole = round(settings.foreground + rise, 6), round(settings.integrity + rise, 6)
            mined = self.mined(scores, branch, foreground, picture)
            targets = assign(mined, picture["iou"], foreground, whole)
            factor = settings.branch_weights[branch - 1]
            found = refinement_losses(*scores.of(branch), targets, present, factor)
            losses[f"class_{branch}"] = found["class"]
            if settings.integrity_head:
                losses[f"integrity_{branch}"] = settings.integrity_weight * found["integrity"]
            if settings.bag_loss:
                losses[f"bag_{branch}"] = found["bag"]
            counts[f"mined_{branch}"] = (mined.classes > 0).float().sum()
            counts[f"foreground_{branch}"] = (targets.classes > 0).float().mean()
            counts[f"weight_{branch}"] = targets.weights.mean()
        return losses, counts

    def mined(self, scores: Scores, branch: int, nms: float, picture: dict[str, Tensor]) -> Mined:
        """The pseudo truth of a branch, from what the one before it says."""
        settings, columns = self.settings, picture["columns"]
        classification, integrity = scores.of(branch - 1)
        if settings.strategy == "mist":
            mined = mine_mist(classification, integrity, picture["iou"], columns, settings.seeds, nms, dense=True)
        else:
            assert integrity is not None  # see _check
            mined = mine(
                classification, integrity, picture["iou"], picture["containment"], columns, settings.seeds, nms,
                settings.containment, settings.largest, dense=True,
            )  # fmt: skip
        return sampled(mined, columns, picture["uniform"][branch - 1]) if settings.sampling else mined


def _check(settings: CimSettings) -> None:
    if settings.strategy == "cim" and not settings.integrity_head:
        raise ValueError("the strategy cim needs the integrity_head: leave it on, or set strategy: mist")
    if len(settings.branch_weights) != settings.branches:
        raise ValueError(
            f"branch_weights has {len(settings.branch_weights)} values for {settings.branches} branches: name one each"
        )


def prepared(model: CimNetwork, frozen: str) -> CimNetwork:
    """The network as it is trained: BatchNorm's statistics and the frozen part stay as they are."""
    model.train()
    fix_batch_norm(model.backbone, affine=False)
    freeze(model.backbone, frozen)
    return model


def train_cim(
    *,
    manifest: Manifest,
    classes: Classes,
    proposals: Path,
    labels: Path | None,
    weights: Path | None,
    settings: CimSettings,
    output: Path,
    seed: int,
    device: torch.device,
    workers: int = 0,
) -> None:
    """Train the network; write its last checkpoint, history and TensorBoard events.

    No checkpoint is selected: the last one is kept, so that no label of a validation split has a say. Images without a
    class or without a proposal are left out.

    Args:
        proposals: store of the manifest's proposals.
        labels: file of ``cim.labels.ProposalLabels``; of no use where ``cluster_labels`` is off.
        weights: ImageNet weights of the backbone, or None to start from random ones.

    Raises:
        DataError: no image has a proposal.
        ValueError: settings that contradict each other, or labels of other proposals.
        StoreError: the proposals were made from another manifest, or are damaged.
    """
    _check(settings)
    store = InstanceStore(proposals)
    store.check(manifest)
    clusters = _clusters(labels, manifest, store) if settings.cluster_labels else None
    network = {name: getattr(settings, name) for name in NETWORK} | {"classes": len(classes)}
    model = placed(prepared(build_cim(**network, weights=weights), settings.frozen), device)
    assert isinstance(model, CimNetwork)
    samples = ProposalPictures(with_proposals(manifest, store), len(classes), store, clusters, settings)
    loader = CountedLoader(
        samples,
        batches=settings.iterations * settings.batch_size,
        batch_size=1,
        seed=seed,
        workers=workers,
        collate=_only,
    )
    step = CimStep(model, settings, device)
    made_of = identity(settings), weights, store.digest(), labels if settings.cluster_labels else None
    fit(
        step=step,
        loader=loader,
        epochs=loader.epochs,
        state=step.state(),
        output=output,
        digest=training_digest("train_cim", classes, manifest, seed, *made_of),
        lr=lambda: step.optimizer.lr,
    )
    save_model(output, model, KIND, {"network": network, "proposals": store.about, **described(classes)})


def _clusters(labels: Path | None, manifest: Manifest, proposals: InstanceStore) -> ProposalLabels:
    """The labels by AGPL, if they are those of these proposals."""
    if labels is None:
        raise ValueError("cluster_labels needs the labels of proposals: make them, or set cluster_labels: false")
    found = ProposalLabels(labels)
    found.check(manifest, proposals)
    return found


def _only(samples: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """A batch of one picture: pictures have numbers of proposals of their own, which must not be filled up."""
    (sample,) = samples
    return sample
