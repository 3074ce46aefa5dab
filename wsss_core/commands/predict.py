"""``wsss predict``: masks, or instances, of a folder of photos by a trained network, without a data set."""

import csv
import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from wsss_core.base.checkpoints import read_checkpoint
from wsss_core.base.files import whole
from wsss_core.base.jobs import Share, digest_of, pick_device, provenance
from wsss_core.base.parallel import in_processes
from wsss_core.commands.machine import cores, free_memory
from wsss_core.commands.printing import CommandError
from wsss_core.data.classes import Classes, DataError, classes_of
from wsss_core.data.manifest import Manifest, Row
from wsss_core.data.mask_folder import png_of
from wsss_core.data.masks import read_mask
from wsss_core.data.photos import manifest_of_photos
from wsss_core.data.pictures import read_image
from wsss_core.instances.export import write_coco
from wsss_core.instances.maskrcnn import load_maskrcnn
from wsss_core.instances.maskrcnn_prediction import predict_instances
from wsss_core.instances.store import InstanceStore
from wsss_core.recipes.settings import MaskrcnnPredictionSettings, PredictionSettings, plain
from wsss_core.reports.pictures import instance_panel
from wsss_core.segmentation.prediction import predict_masks
from wsss_core.segmentation.training import load_segmentation

logger = logging.getLogger(__name__)

ABOUT = "prediction.json"  # written last; a folder without it is never replaced
SHARES, COUNTS = "shares.csv", "counts.csv"
OVERLAY = 0.5  # how much of the classes' colours an overlay has
SHOWN = 0.3  # score from which an overlay shows an instance
LARGE = 2048  # longer side from which working on photos as they are is worth a word


@dataclass(frozen=True)
class Predicted:
    """What was done: how many photos were predicted, and what is wrong with each of those that were left out."""

    photos: int
    faults: list[DataError]


def predict(
    *,
    checkpoint: Path,
    folder: Path,
    out: Path,
    settings: PredictionSettings,
    classes: Path | None = None,
    longest_side: int | None = None,
    overlay: bool = False,
    overwrite: bool = False,
    device: str = "auto",
    workers: int = 0,
) -> Predicted:
    """Predict every photo of a folder; the output appears whole or not at all.

    A segmentation network writes ``masks/{id}.png`` (palette PNGs of the photo's own size) and ``shares.csv``, the
    share of pixels of each class; a Mask R-CNN ``instances.zarr``, ``instances.json`` (COCO's form) and ``counts.csv``,
    objects a class. Both write ``classes.csv`` and ``prediction.json``, which says what it was made with.

    Args:
        settings: scales, mirror image and CRF of a segmentation network; a Mask R-CNN has one scale and no CRF.
        classes: a table of classes in place of the checkpoint's: names, colours and values in mask files.
        longest_side: larger photos are worked on at this length of their longer side, by a segmentation network.
        overlay: also write ``overlays/{id}.jpg``.
        overwrite: replace an earlier prediction at ``out``.
        device: ``auto``, ``cpu`` or ``cuda``, the latter also with a number, as in ``cuda:1``.
        workers: processes for CRFs and overlays; 0 is as many as there are cores and as fit into memory.

    Raises:
        CommandError: ``out`` is there already, or the checkpoint predicts nothing.
        DataError: there is no photo to predict.
        CheckpointError: a damaged checkpoint.
    """
    _check_output(out, folder, overwrite)
    kind, known = _network_of(checkpoint, classes)
    manifest, faults = manifest_of_photos(folder, workers or cores())
    where = device_of(device)
    about: dict[str, Any] = {
        "checkpoint": str(checkpoint.resolve()),
        "digest": digest_of(checkpoint),
        "photos": str(folder.resolve()),
        "skipped": [str(fault) for fault in faults],
    }
    with whole(out) as partial_folder:
        partial_folder.mkdir()
        known.write(partial_folder / "classes.csv")
        if kind == "segmentation":
            about |= {"settings": plain(settings), "longest_side": longest_side}
            _warn_of_large(manifest, longest_side)
            manifest = manifest.limited(longest_side)
            _predict_masks(checkpoint, manifest, known, partial_folder, settings, where, workers)
            _write_shares(manifest, known, partial_folder, overlay=overlay, workers=workers or cores())
        else:
            _predict_instances(checkpoint, manifest, known, partial_folder, overlay=overlay, device=where, about=about)
        text = json.dumps({**about, **provenance(where)}, indent=2, ensure_ascii=False)
        (partial_folder / ABOUT).write_text(text + "\n", encoding="utf-8")
    return Predicted(len(manifest), faults)


def _predict_masks(
    checkpoint: Path,
    manifest: Manifest,
    classes: Classes,
    folder: Path,
    settings: PredictionSettings,
    device: torch.device,
    workers: int,
) -> None:
    predict_masks(
        model=load_segmentation(checkpoint),
        manifest=manifest,
        classes=classes,
        folder=folder / "masks",
        settings=settings,
        device=device,
        workers=workers or Share(cores(), free_memory()),
    )


def _warn_of_large(manifest: Manifest, longest_side: int | None) -> None:
    large = sum(max(row.height, row.width) > LARGE for row in manifest)
    if large and not longest_side:
        logger.info(
            "%d photos are larger than %d pixels and are worked on as they are, part by part; where the "
            "network was trained with longest_side, give it here: --longest-side 1024", large, LARGE
        )  # fmt: skip


def _network_of(checkpoint: Path, classes: Path | None) -> tuple[str, Classes]:
    """The kind of network that a checkpoint holds, and the classes that it predicts."""
    kind, recipe, _ = read_checkpoint(checkpoint)
    if kind not in ("segmentation", "maskrcnn"):
        raise CommandError(
            f"{checkpoint} holds a {kind}, which predicts nothing by itself: name segmentation.pt or maskrcnn.pt"
        )
    if classes is None and "names" not in recipe:
        raise CommandError(
            f"{checkpoint} does not name its classes, as it was trained by an earlier version: name the table of its "
            "data set with --classes, such as results/voc/classes.csv"
        )
    known = Classes.read(classes) if classes else classes_of(recipe)
    if len(known) + 1 != (outputs := recipe.get("classes") or recipe["network"]["classes"]):
        raise CommandError(f"{classes or checkpoint} has {len(known)} classes, the network {outputs - 1}")
    return kind, known


def _check_output(out: Path, photos: Path, overwrite: bool) -> None:
    """Refuse to replace anything but an earlier prediction, asked for: what is at ``out`` would be gone."""
    if photos.resolve().is_relative_to(out.resolve()):
        raise CommandError(f"{out} holds the photos themselves: name another folder with -o")
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not (out / ABOUT).is_file():
        raise CommandError(f"{out} is there already and is no earlier prediction: name another folder with -o")
    if not overwrite:
        raise CommandError(f"{out} holds an earlier prediction: add --overwrite to replace it, or name another folder")


def device_of(name: str) -> torch.device:
    """The device of this name; ``auto`` is a GPU that no job of the pipeline holds if there is one, else the CPU.

    Raises:
        CommandError: an unknown name, or a GPU that is not there.
    """
    if name == "auto":
        try:
            return pick_device(1)
        except RuntimeError as error:  # a GPU that is promised and cannot be used
            raise CommandError(f"{error}; or say --device cpu") from error
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise CommandError(f"--device {name}: it takes auto, cpu, cuda or cuda:1") from error
    count = torch.cuda.device_count()
    if device.type == "cuda" and (device.index or 0) >= count:
        raise CommandError(f"--device {name}: PyTorch {torch.__version__} sees {count} GPUs; it takes auto and cpu too")
    if device.type not in ("cpu", "cuda"):
        raise CommandError(f"--device {name}: it takes auto, cpu, cuda or cuda:1")
    return device


@contextmanager
def progress_on(stream: Any) -> Iterator[None]:
    """Show how far the work is, in lines."""
    handler = logging.StreamHandler(stream)
    handler.addFilter(lambda record: not record.getMessage().startswith("running on"))  # prediction.json has it
    ours = logging.getLogger("wsss_core")
    before = ours.level
    ours.addHandler(handler)
    ours.setLevel(logging.INFO)
    try:
        yield
    finally:
        ours.removeHandler(handler)
        ours.setLevel(before)


def _write_shares(manifest: Manifest, classes: Classes, folder: Path, *, overlay: bool, workers: int) -> None:
    if overlay:
        (folder / "overlays").mkdir()
    task = partial(_shares, folder=folder, classes=classes, overlay=overlay)
    with open(folder / SHARES, "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["image_id", "height", "width", "background", *classes.names])
        shares = in_processes(task, manifest.rows, workers if overlay and len(manifest) > workers else 1)
        for row, values in zip(manifest, shares, strict=True):
            table.writerow([row.id, *row.own_size, *(f"{value:.6f}" for value in values)])


def _shares(row: Row, *, folder: Path, classes: Classes, overlay: bool) -> list[float]:
    """Share of the pixels of each class, the background first."""
    mask = read_mask(png_of(folder / "masks", row.id), classes)
    if overlay:
        picture, colours = np.asarray(read_image(row.image), np.float32), classes.colours[mask].astype(np.float32)
        blend = np.where((mask > 0)[..., None], (1 - OVERLAY) * picture + OVERLAY * colours, picture)
        Image.fromarray(blend.astype(np.uint8)).save(folder / "overlays" / f"{row.id}.jpg", quality=90)
    return (np.bincount(mask.ravel(), minlength=len(classes) + 1) / mask.size).tolist()


def _predict_instances(
    checkpoint: Path,
    manifest: Manifest,
    classes: Classes,
    folder: Path,
    *,
    overlay: bool,
    device: torch.device,
    about: dict[str, Any],
) -> None:
    predict_instances(
        model=load_maskrcnn(checkpoint),
        manifest=manifest,
        store=folder / "instances.zarr",
        settings=MaskrcnnPredictionSettings(),
        about=about,
        device=device,
    )
    store = InstanceStore(folder / "instances.zarr")
    write_coco(folder / "instances.json", store, manifest, classes, results=False)
    with open(folder / COUNTS, "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["image_id", "height", "width", *classes.names])
        for row in manifest:
            found = store[row.id]
            sure = found.labels[found.scores >= SHOWN].astype(int)
            table.writerow([row.id, *row.own_size, *np.bincount(sure, minlength=len(classes)).tolist()])
    if overlay:
        (folder / "overlays").mkdir()
        draw = instance_panel(store, classes, SHOWN)
        for row in manifest:
            Image.fromarray(draw(row)).save(folder / "overlays" / f"{row.id}.jpg", quality=90)


def words_of(predicted: Predicted, out: Path) -> list[str]:
    """What to tell when it is done."""
    lines = [f"skipped {fault}" for fault in predicted.faults]
    return [*lines, f"{predicted.photos} photos predicted into {out}" + (f", {len(lines)} skipped" if lines else "")]


def read_scales(text: str) -> tuple[float, ...]:
    """Scales from a text such as ``0.5,1,1.5``.

    Raises:
        CommandError: it is no list of positive numbers.
    """
    try:
        scales = tuple(float(part) for part in text.split(","))
    except ValueError:
        scales = ()
    if not scales or not all(0 < scale <= 8 for scale in scales):
        raise CommandError(f"--scales {text}: it takes numbers above 0 with commas between them, such as 0.5,1,1.5")
    return scales


def run(
    checkpoint: Path, folder: Path, out: Path, *, scales: str | None, mirror: bool, crf: bool, **further: Any
) -> int:
    """Predict as it was asked for on the command line; exit code 1 where photos were skipped."""
    usual = PredictionSettings()
    settings = PredictionSettings(
        scales=read_scales(scales) if scales else usual.scales,
        mirror=mirror,
        crf_iterations=usual.crf_iterations if crf else 0,
    )
    with progress_on(sys.stderr):
        done = predict(checkpoint=checkpoint, folder=folder, out=out, settings=settings, **further)
    print("\n".join(words_of(done, out)))
    return int(bool(done.faults))
