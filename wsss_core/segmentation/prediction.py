"""Prediction of masks with a trained segmentation network."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial, reduce
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from scipy.special import softmax
from torch import Tensor, nn
from torch.utils.data import DataLoader

from wsss_core.base.files import whole
from wsss_core.base.jobs import Share
from wsss_core.base.parallel import in_processes
from wsss_core.base.progress import count_progress
from wsss_core.data.classes import Classes
from wsss_core.data.manifest import Manifest, Row
from wsss_core.data.mask_folder import write_folder_mask
from wsss_core.data.pictures import read_picture
from wsss_core.data.samples import ScaledImages, network_input
from wsss_core.maps import inference
from wsss_core.maps.crf import PROBABILITY_DEVIATION, crf_probabilities, crf_tiles
from wsss_core.maps.inference import in_tiles, mirrored, named
from wsss_core.maps.memory import processes_for
from wsss_core.maps.sizes import Span, inside, strided
from wsss_core.recipes.settings import PredictionSettings

STRIDE = 4  # of the logits of large views

Scores = np.ndarray | Sequence[np.ndarray]


def predict_masks(
    *,
    model: nn.Module,
    manifest: Manifest,
    classes: Classes,
    folder: Path,
    settings: PredictionSettings,
    device: torch.device,
    workers: int | Share = 1,
) -> None:
    """Write a mask of every image as palette PNG; labels of the images are not used.

    Logits of an image and, if any, its mirror image are added (not averaged, as published), resized, averaged over
    scales; softmax, probability CRF, argmax. The CRF sees the image as it is stored. Where that takes more memory than
    ``crf.WHOLE_BYTES``, probabilities, CRF and argmax go tile by tile. A mask has the photo's own size.
    """
    workers = processes_for("predict_masks", manifest, workers, classes=len(classes), scales=settings.scales)
    with whole(folder) as partial_folder:
        partial_folder.mkdir()
        # the network runs here, ahead of the processes that run the CRF
        items = _scores(model, manifest, settings, device)
        task = partial(_predict, folder=partial_folder, classes=classes, iterations=settings.crf_iterations)
        count_progress(in_processes(task, items, workers), len(manifest))


@torch.inference_mode()
def _scores(
    model: nn.Module, manifest: Manifest, settings: PredictionSettings, device: torch.device
) -> Iterator[tuple[Row, Scores]]:
    """Yield each image's row and its class probabilities before the CRF; of a large image the logits of each scale."""
    model.to(device).to(memory_format=torch.channels_last).eval()
    images = ScaledImages(manifest, settings.scales)
    look = partial(_logits, model, mirror=settings.mirror)
    for index, views in DataLoader(images, batch_size=None, pin_memory=device.type == "cuda"):
        row = manifest.rows[index]
        size = row.height, row.width
        with named(row):
            outputs = [in_tiles(_kept(look, view), view[None].to(device, non_blocking=True)) for view in views]
        del views  # of a large photo they would take memory from its CRF
        # an argmax would call such a pixel background
        if not all(output.isfinite().all() for output in outputs):
            raise FloatingPointError(
                f"the network's logits of image {row.id} are not finite: delete its checkpoint, lower its "
                "learning_rate, or set its precision to float32, in config.yaml, and train it again"
            )
        if len(_tiles(row, outputs[0].shape[1])) > 1:
            yield row, [output[0].cpu().numpy() for output in outputs]
        else:
            resized = [F.interpolate(o, size, mode="bilinear", align_corners=False)[0] for o in outputs]
            yield row, torch.stack(resized).mean(0).softmax(0).cpu().numpy()


def _kept(look: Callable[[Tensor], Tensor], view: Tensor) -> Callable[[Tensor], Tensor]:
    """``look``, whose logits of a view that is seen in tiles are kept at a stride of 4 at least.

    DeepLabV3+ makes them at that stride and enlarges them to the size of its input: 7.6 GB for four scales of 12
    megapixels and 21 classes.
    """

    def reduced(pixels: Tensor) -> Tensor:
        logits, size = look(pixels), [strided(side, STRIDE) for side in pixels.shape[1:3]]
        finer = logits.shape[-1] > size[1]
        return F.interpolate(logits, size, mode="bilinear", align_corners=False) if finer else logits

    return reduced if view.shape[0] * view.shape[1] > inference.WHOLE else look


def _tiles(row: Row, count: int) -> list[tuple[Span, Span]]:
    return list(crf_tiles(row.height, row.width, count, PROBABILITY_DEVIATION))


def _logits(model: nn.Module, pixels: Tensor, mirror: bool) -> Tensor:
    """Logits (1, K, h, w) of an image (1, H, W, 3), to which those of its mirror image may be added."""
    image = network_input(pixels)
    return torch.add(*mirrored(model, image)) if mirror else model(image).float()


def _predict(item: tuple[Row, Scores], *, folder: Path, classes: Classes, iterations: int) -> None:
    row, scores = item
    image = np.asarray(read_picture(row)) if iterations else None
    mask = np.empty((row.height, row.width), np.uint8)
    for part, outer in _tiles(row, len(classes) + 1):
        beliefs = scores if isinstance(scores, np.ndarray) else _probabilities(scores, mask.shape, outer)
        if image is not None:
            beliefs = crf_probabilities(image[outer], beliefs, iterations)
        mask[part] = beliefs[:, *inside(part, outer)].argmax(0)
    write_folder_mask(row, mask, folder=folder, classes=classes)


def _probabilities(scores: Sequence[np.ndarray], size: tuple[int, int], window: Span) -> np.ndarray:
    """Class probabilities (K, h, w) float32 in a window of an image, from logits (K, h_s, w_s) of each scale."""
    mean = reduce(np.add, (_enlarged(logits, size, window) for logits in scores)) / len(scores)
    return softmax(mean, axis=0)


def _enlarged(maps: np.ndarray, size: tuple[int, int], window: Span) -> np.ndarray:
    """A window (K, h, w) of what torch's bilinear interpolation makes of maps at the size of an image."""
    for axis, (length, span) in enumerate(zip(size, window, strict=True), start=1):
        cells = maps.shape[axis]
        place = np.maximum((np.arange(span.start, span.stop) + 0.5) * cells / length - 0.5, 0)
        below = place.astype(int)
        share = (place - below).astype(np.float32).reshape((1, -1, 1) if axis == 1 else (1, 1, -1))
        above = np.minimum(below + 1, cells - 1)
        maps = maps.take(below, axis) * (1 - share) + maps.take(above, axis) * share
    return maps
