"""The peaks of class maps that CIM starts from."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from wsss_core.cim.peak_table import write_peaks
from wsss_core.classifiers.network import Classifier
from wsss_core.classifiers.peaks import enlarged, is_peak
from wsss_core.data.manifest import Manifest, Row
from wsss_core.data.pictures import read_picture
from wsss_core.data.samples import network_input
from wsss_core.recipes.settings import PeakSettings

logger = logging.getLogger(__name__)


def choose_peaks(maps: Tensor, labels: Tensor, settings: PeakSettings) -> tuple[Tensor, Tensor]:
    """The peaks that CIM starts from, of one picture and the classes that it is labelled with.

    Args:
        maps: (C, H, W) class maps, already ``enlarged``.
        labels: (L,) int64, classes from 0 without background.

    Returns:
        ``peaks`` (P, 3) int64 of class, row and column, and their values (P,): those above the threshold, or the
        highest one of a class that has none; in rising order of the values.
    """
    chosen = maps[labels]
    candidates = is_peak(chosen[None], settings.window)[0]
    values = torch.where(candidates, chosen, -torch.inf).flatten(1)
    highest, place = values.max(1)
    threshold = settings.threshold * highest if settings.relative else torch.full_like(highest, settings.threshold)
    kept = values > threshold[:, None]
    rows = torch.arange(len(labels), device=maps.device)
    kept[rows, place] |= ~kept.any(1)
    row, cell = kept.nonzero().T
    found = chosen.flatten(1)[row, cell]
    peaks = torch.stack([labels[row], cell // maps.shape[2], cell % maps.shape[2]], 1)
    order = found.argsort(stable=True)
    return peaks[order], found[order]


@torch.inference_mode()
def dump_peaks(
    *,
    model: Classifier,
    manifest: Manifest,
    output: Path,
    settings: PeakSettings,
    device: torch.device,
    workers: int = 0,
    batch_size: int = 16,
) -> None:
    """Write the chosen peaks of all images with a class as CSV.

    A row has the image, the class from 0, row and column on a grid of ``grid`` x ``grid`` cells over the squashed
    picture, and the value of the class map there; those of an image are in rising order of it.

    Args:
        model: a classifier, at best one that was trained by ``peak_scores``.
        workers: processes that decode images.
    """
    model.to(device).eval()
    rows = manifest.labelled().rows
    squashed = DataLoader(_Squashed(rows, settings.size), batch_size, num_workers=workers)
    table: list[tuple[str, int, int, int, int, float]] = []
    done = 0
    for pixels in squashed:
        maps = enlarged(model.maps(network_input(pixels.to(device))).float(), settings.enlarge)
        if not maps.isfinite().all():
            raise FloatingPointError(f"the class maps of {rows[done].id} or an image after it are not finite: the "
                                     "classifier is broken, train it again at a lower learning_rate")  # fmt: skip
        for row, own in zip(rows[done : done + len(maps)], maps, strict=True):
            peaks, values = choose_peaks(own, torch.tensor(row.labels, device=device), settings)
            found = zip(peaks.tolist(), values.tolist(), strict=True)
            table += [(row.id, label, r, c, own.shape[1], value) for (label, r, c), value in found]
        done += len(maps)
        logger.info("%d of %d images", done, len(rows))
    logger.info("%.2f peaks a class and image", len(table) / sum(len(row.labels) for row in rows))
    write_peaks(output, table)


class _Squashed(Dataset):
    """Pictures as squares, whatever their aspect: (size, size, 3) uint8."""

    def __init__(self, rows: Sequence[Row], size: int):
        self.rows, self.size = rows, size

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Tensor:
        image = read_picture(self.rows[index]).resize((self.size, self.size), Image.Resampling.BILINEAR)
        return torch.from_numpy(np.array(image))
