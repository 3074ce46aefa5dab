"""Training of AffinityNet on affinity labels: its edges, and on request its displacements."""

from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from wsss_core.affinity.network import AffinityNet
from wsss_core.affinity.pairs import affinity_loss, displacement_loss
from wsss_core.base.checkpoints import read_model, save_model
from wsss_core.data.classes import Classes
from wsss_core.data.manifest import Manifest, Row
from wsss_core.data.mask_folder import folder_digest, read_folder_mask
from wsss_core.data.pictures import Pictures
from wsss_core.data.samples import MaskedCrops, network_input
from wsss_core.data.transforms import normalized_crop
from wsss_core.fitting.loader import EpochLoader
from wsss_core.fitting.loop import fit, placed, training_digest
from wsss_core.fitting.optim import PolySGD
from wsss_core.fitting.precision import Precision
from wsss_core.fitting.snapshots import Snapshots, grey
from wsss_core.networks.backbones import build_backbone
from wsss_core.recipes.settings import AffinitySettings, identity

DISPLACEMENT_RATE = 10  # of IRNet, as a factor of the learning rate of the edges


class AffinityStep:
    """One update of the edge layers, and of the displacement layers if the model has them, in full precision."""

    def __init__(self, model: AffinityNet, settings: AffinitySettings, classes: int, steps: int, device: torch.device):
        self.model, self.settings, self.classes, self.device = model, settings, classes, device
        # the loss tells affinities apart that half precision cannot
        self.scaler = Precision("float32", device).scaler()
        rate, decay = settings.learning_rate, settings.weight_decay
        groups = [{"params": list(model.edge_parameters()), "lr": rate, "weight_decay": decay}]
        if settings.displacement:
            factor = DISPLACEMENT_RATE if settings.displacement_rate is None else settings.displacement_rate
            groups.append({"params": model.displacement_parameters(), "lr": factor * rate, "weight_decay": decay})
        self.optimizer = PolySGD(groups, updates=steps)

    def state(self) -> dict:
        return {"model": self.model, "optimizer": self.optimizer}

    def __call__(self, batch: dict[str, Tensor], step: int) -> dict[str, Tensor]:
        images = batch["image"].to(self.device, memory_format=torch.channels_last, non_blocking=True)
        masks = batch["mask"].to(self.device, non_blocking=True)
        logits, displacement = self.model.both(images) if self.settings.displacement else (self.model(images), None)
        # the pixel in the middle of each cell, as Pillow's nearest resize takes it in the published code
        masks = F.interpolate(masks[:, None], logits.shape[2:], mode="nearest-exact")[:, 0]
        losses = affinity_loss(torch.sigmoid(logits), masks, self.classes, self.settings.radius)
        if displacement is not None:
            apart = displacement_loss(displacement, masks, self.classes, self.settings.radius)
            total = losses["total"] + apart.pop("total")
            losses |= {f"displacement_{kind}": value for kind, value in apart.items()} | {"total": total}
        losses["total"].backward()  # the others are for the history
        self.optimizer.step(self.scaler)
        return {name: value.detach() for name, value in losses.items()}


def train_affinity(
    *,
    manifest: Manifest,
    classes: Classes,
    labels: Path,
    weights: Path | None,
    settings: AffinitySettings,
    output: Path,
    seed: int,
    device: torch.device,
    workers: int = 0,
    pictures: int = 0,
) -> None:
    """Train AffinityNet and write its checkpoint, history and TensorBoard events.

    Args:
        labels: folder of affinity labels, see ``labels.make_affinity_labels``.
        weights: ImageNet weights of the frozen backbone, or None (then only useful for tests).
        pictures: epochs from one set of pictures of training images to the next, 0 for none; see ``Snapshots``.
    """
    displacement = bool(settings.displacement)
    model = AffinityNet(build_backbone(settings.backbone, weights=weights), displacement=displacement)
    placed(model, device)
    samples = MaskedCrops(
        manifest,
        partial(read_folder_mask, folder=labels, classes=classes),
        resize=settings.resize,
        rescale=settings.rescale,
        size=settings.crop,
    )
    loader = EpochLoader(samples, batch_size=settings.batch_size, seed=seed, workers=workers)
    step = AffinityStep(model, settings, len(classes) + 1, settings.epochs * len(loader), device)
    fit(
        step=step,
        loader=loader,
        epochs=settings.epochs,
        state=step.state(),
        output=output,
        digest=training_digest(
            "train_affinity", classes, manifest, seed, identity(settings), weights, folder_digest(labels)
        ),
        lr=lambda: step.optimizer.lr,
        snapshots=Snapshots(pictures, manifest.rows, model, partial(_draw, model)),
    )
    if displacement:
        mean = mean_displacement(
            model, samples.pictures, crop=settings.crop, batch_size=settings.batch_size, workers=workers
        )
        model.displacement_mean.copy_(mean)
    recipe = {"backbone": settings.backbone} | ({"displacement": True} if displacement else {})
    save_model(output, model, "affinity", recipe)


def _draw(model: AffinityNet, photo: Tensor, row: Row) -> Tensor:
    """Boundaries, white where they are sure."""
    return grey(photo, torch.sigmoid(model(network_input(photo)))[0, 0])


@torch.no_grad()
def mean_displacement(model: AffinityNet, pictures: Pictures, *, crop: int, batch_size: int, workers: int) -> Tensor:
    """The mean (dy, dx) in eval mode, before any is subtracted, of the top left crops of pictures at their own size.

    What a crop has beyond its picture, in the mean colour, counts as well; the last batch, if it is not full, does not.
    Both are IRNet's way.
    """
    model.eval()
    loader = DataLoader(_TopLeft(pictures, crop), batch_size=batch_size, drop_last=True, num_workers=workers)
    device = model.displacement_mean.device
    images = (batch.to(device, memory_format=torch.channels_last, non_blocking=True) for batch in loader)
    means = [model.both(batch)[1].mean((0, 2, 3)) + model.displacement_mean for batch in images]
    return torch.stack(means).mean(dim=0)


class _TopLeft(Dataset):
    """Top left crops (3, size, size), normalised; what a picture does not cover is 0, the mean colour."""

    def __init__(self, pictures: Pictures, size: int):
        self.pictures, self.size = pictures, size

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> Tensor:
        pixels = np.asarray(self.pictures[index])
        rows, columns = (slice(min(side, self.size)) for side in pixels.shape[:2])
        return normalized_crop(pixels, (rows, columns, rows, columns), self.size)


def load_affinity(path: str | Path) -> AffinityNet:
    """Rebuild a trained AffinityNet from its checkpoint."""
    recipe, state = read_model(path, "affinity")
    model = AffinityNet(build_backbone(recipe["backbone"]), displacement=recipe.get("displacement", False))
    model.load_state_dict(state)
    return model
