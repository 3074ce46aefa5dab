"""Training of the segmentation network on pseudo masks or on true ones, and the networks that there are."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from wsss_core.base.checkpoints import read_model, save_model
from wsss_core.base.jobs import digest_of
from wsss_core.data.classes import Classes, DataError, described
from wsss_core.data.kinds.voc import read_sbd_mask, sbd_mask_of
from wsss_core.data.manifest import Manifest, Row
from wsss_core.data.mask_folder import folder_digest, read_folder_mask
from wsss_core.data.masks import nearest
from wsss_core.data.samples import network_input
from wsss_core.fitting.loader import EpochLoader
from wsss_core.fitting.loop import fit, placed, training_digest
from wsss_core.fitting.snapshots import Snapshots, labelled
from wsss_core.recipes.settings import DeeplabV2Settings, DeeplabV3PlusSettings, identity
from wsss_core.segmentation.step import MaskStep
from wsss_core.segmentation.v2 import build_deeplabv2
from wsss_core.segmentation.v2_training import prepare_v2
from wsss_core.segmentation.v3plus_training import build_deeplabv3plus, prepare_v3plus

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Network:
    """What a segmentation network offers to its training and to those who load it.

    Attributes:
        settings: the settings of its training, with ``backbone`` and ``compile``.
        rebuilt_by: names of the settings that, with the number of classes, make the network again.
        build: these settings, ``classes`` and ``weights`` by name -> the network; (N, 3, H, W) normalised images give
            logits (N, classes, h, w).
        prepare: see ``v3plus_training.prepare_v3plus``.
    """

    settings: type
    rebuilt_by: tuple[str, ...]
    build: Callable[..., nn.Module]
    prepare: Callable[..., tuple[EpochLoader, int, MaskStep]]


NETWORKS = {  # by the method of the slot segmentation
    "v3plus": Network(
        DeeplabV3PlusSettings, ("backbone", "output_stride", "norm", "width"), build_deeplabv3plus, prepare_v3plus
    ),
    "v2": Network(DeeplabV2Settings, ("backbone",), build_deeplabv2, prepare_v2),
}


def train_segmentation(
    *,
    manifest: Manifest,
    classes: Classes,
    masks: Path | None,
    further: Path | None = None,
    weights: Path | None,
    settings: Any,
    output: Path,
    seed: int,
    device: torch.device,
    workers: int = 0,
    pictures: int = 0,
) -> None:
    """Train the network that the settings belong to; write its last checkpoint, history and TensorBoard events.

    No checkpoint is selected: the last one is kept, so that no label of a validation split has a say.

    Args:
        masks: folder of pseudo masks of the manifest's images, or None to train on the manifest's own, true masks.
        further: folder of true masks of images that have none in the manifest, see ``read_sbd_mask``; of no use with
            ``masks``.
        weights: ImageNet weights of the backbone, or None to start from random ones.
        settings: those of one of ``NETWORKS``.
        pictures: epochs from one set of pictures of training images to the next, 0 for none; see ``Snapshots``.

    Raises:
        DataError: true masks are asked for, and an image has none.
    """
    read, masks_digest = _training_masks(manifest, masks, further, classes)
    (name,) = (name for name, network in NETWORKS.items() if type(settings) is network.settings)
    recipe = {
        "network": name,
        **{key: getattr(settings, key) for key in NETWORKS[name].rebuilt_by},
        "classes": len(classes) + 1,
        "masks": "ground_truth" if masks is None else "pseudo_masks",
    }
    # built from what the checkpoint will say, so that nothing can be missing there
    model = placed(_build(recipe, weights).train(), device, compiled=settings.compile)
    loader, epochs, step = NETWORKS[name].prepare(
        model, settings, manifest, read, seed=seed, device=device, workers=workers
    )
    fit(
        step=step,
        loader=loader,
        epochs=epochs,
        state=step.state(),
        output=output,
        digest=training_digest(
            "train_segmentation", classes, manifest, seed, recipe, identity(settings), weights, masks_digest
        ),
        lr=lambda: step.optimizer.lr,
        snapshots=Snapshots(pictures, manifest.rows, model, partial(_draw, model, classes)),
    )
    save_model(output, model, "segmentation", {**recipe, **described(classes)})


def _draw(model: nn.Module, classes: Classes, photo: Tensor, row: Row) -> Tensor:
    """The predicted mask, at one scale and without CRF."""
    return labelled(photo, model(network_input(photo))[0], classes.colours)


def load_segmentation(path: str | Path) -> nn.Module:
    """Rebuild a trained network from its checkpoint."""
    recipe, state = read_model(path, "segmentation")
    model = _build(recipe)
    model.load_state_dict(state)
    return model


def _build(recipe: dict[str, Any], weights: Path | None = None) -> nn.Module:
    network = NETWORKS[recipe["network"]]
    own = {name: recipe[name] for name in network.rebuilt_by}
    return network.build(**own, classes=recipe["classes"], weights=weights)


def _training_masks(
    manifest: Manifest, masks: Path | None, further: Path | None, classes: Classes
) -> tuple[Callable[[Row], np.ndarray], str]:
    """What reads the mask of a row, and a digest of all masks."""
    if masks is not None:
        return partial(read_folder_mask, folder=masks, classes=classes), folder_digest(masks)
    # a data set's own masks come first, so that those of VOC stay what they are
    found = {row.id: Path(row.mask) if row.mask else further and sbd_mask_of(further, row.id) for row in manifest}
    files = {id: file for id, file in found.items() if file}
    if bare := [id for id in found if id not in files]:
        raise DataError(
            f"{len(bare)} of {len(manifest)} training images have no true mask, the first is {bare[0]}: add the masks "
            f"(of SBD's images to {further or 'a folder that sbd_masks names'}, docs/data.md), train on a split that "
            "has them, or name another refinement than truth for this run"
        )
    logger.info("training on the true masks of all %d images: this network is fully supervised", len(manifest))
    return partial(_true_mask, files=files, classes=classes), digest_of(*files.values())


def _true_mask(row: Row, *, files: Mapping[str, Path], classes: Classes) -> np.ndarray:
    return nearest(read_sbd_mask(files[row.id], classes, row.own_size), (row.height, row.width))
