"""How a classifier was doing after some epochs, as Table 2 of the P-NOC paper reports it; nothing is chosen by it.

One pass without test-time augmentation; the ground truth is shrunk to the grid of the class maps, so the scores are
not those of full-size priors and are only good for comparing epochs.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy.stats import rankdata
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from wsss_core.base.checkpoints import read_model
from wsss_core.classifiers.network import Classifier, load_classifier, logits
from wsss_core.data.classes import VOID, Classes
from wsss_core.data.manifest import Manifest
from wsss_core.data.masks import nearest
from wsss_core.data.pictures import read_picture
from wsss_core.data.transforms import crop, normalize, to_tensor
from wsss_core.fitting.loop import placed
from wsss_core.maps.inference import normalize_cam
from wsss_core.recipes.settings import MonitoringSettings
from wsss_core.scores.metrics import mean_iou, sweep
from wsss_core.scores.totals import ground_truth

logger = logging.getLogger(__name__)


class Corners(Dataset[tuple[Tensor, Tensor, int]]):
    """The top left (S, S) part of every image at its own size, and of its mask; padded with the mean colour."""

    def __init__(self, manifest: Manifest, classes: Classes, size: int):
        self.rows, self.classes, self.size = manifest.rows, classes, size

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, int]:
        """Pixels (3, S, S), mask (1, S, S) uint8 and the index."""
        row, corner = self.rows[index], slice(0, self.size)
        height, width = min(row.height, self.size), min(row.width, self.size)
        window = (slice(0, height), slice(0, width)) * 2
        pixels = crop(normalize(read_picture(row))[corner, corner], window, self.size, 0.0)
        truth = nearest(ground_truth(row, self.classes), (row.height, row.width))
        mask = crop(truth[corner, corner], window, self.size, VOID)
        return to_tensor(pixels), torch.from_numpy(mask)[None], index


def evaluate_epochs(
    *,
    checkpoints: Mapping[str, Path],
    manifest: Manifest,
    classes: Classes,
    settings: MonitoringSettings,
    crop: int,
    device: torch.device,
    workers: int = 0,
    batch_size: int = 16,
) -> dict[str, dict[str, Any]]:
    """Score checkpoints of one training.

    Args:
        checkpoints: a name (``first``, ``middle``, ``last``) for each; a checkpoint knows its epoch.
        crop: side of the image's top left part that is looked at, in pixels (the published runs: the training crop).

    Returns:
        By name: ``epoch``, ``miou`` of the best threshold, ``threshold``, and macro means over the classes of
        ``precision``, ``recall``, ``f1`` (at probability 0.5) and ``roc_auc`` of the image-level prediction,
        the last one None where no class has one.
    """
    loader = DataLoader(Corners(manifest, classes, crop), batch_size=batch_size, num_workers=workers)
    labels = manifest.multi_hot(classes)
    scores = {}
    for name, path in checkpoints.items():
        model = load_classifier(path).eval()
        placed(model, device)
        matrices, probabilities = _look(model, path, loader, manifest, classes, settings, device)
        mious = [mean_iou(matrix) for matrix in matrices]
        best = int(np.argmax(mious))
        scores[name] = {
            "epoch": read_model(path, "classifier")[0]["epoch"],
            "miou": mious[best],
            "threshold": settings.thresholds[best],
            **label_scores(probabilities, labels),
        }
        logger.info("%s, epoch %d: mIoU %.4f", name, scores[name]["epoch"], scores[name]["miou"])
    return scores


@torch.inference_mode()
def _look(
    model: Classifier,
    path: Path,
    loader: DataLoader[tuple[Tensor, Tensor, int]],
    manifest: Manifest,
    classes: Classes,
    settings: MonitoringSettings,
    device: torch.device,
) -> tuple[np.ndarray, np.ndarray]:
    """Confusion matrices (T, K, K) of all thresholds, and probabilities (N, C)."""
    labels, count, thresholds = manifest.multi_hot(classes), len(classes) + 1, settings.thresholds
    matrices, probabilities = np.zeros((len(thresholds), count, count), np.int64), []
    for pixels, masks, indices in loader:
        maps = model.maps(pixels.to(device, memory_format=torch.channels_last))
        means = logits(maps)  # not finite where any cell is not
        if broken := indices[~means.isfinite().all(1).cpu()].tolist():
            raise FloatingPointError(
                f"{path} gives maps of image {manifest.rows[broken[0]].id} that are not finite: delete it, lower "
                "prior.classifier.learning_rate in config.yaml, and train again"
            )
        probabilities.append(torch.sigmoid(means).cpu().numpy())
        cams = normalize_cam(maps).cpu().numpy()
        # OpenCV's nearest, in the published code, is the pixel at the top left of a cell; Pillow's is in its middle
        nearest = {"corner": "nearest", "middle": "nearest-exact"}[settings.cell]
        small = F.interpolate(masks, cams.shape[-2:], mode=nearest)[:, 0].numpy()
        for cam, mask, index in zip(cams, small, indices.tolist(), strict=True):
            present = np.flatnonzero(labels[index])
            matrices += sweep(cam[present], present + 1, mask, thresholds, count)
    return matrices, np.concatenate(probabilities)


def label_scores(probabilities: np.ndarray, labels: np.ndarray, threshold: float = 0.5) -> dict[str, float | None]:
    """Macro means over the classes: precision, recall, F1 and area under the ROC curve.

    Args:
        probabilities: (N, C).
        labels: (N, C) of 0 and 1. A class without positives, or without negatives, has no area and is left out of
            that mean; a class that is never predicted has a precision of 0.
    """
    predicted, truth = probabilities > threshold, labels > 0
    hits = (predicted & truth).sum(axis=0)
    precision, recall = hits / np.maximum(predicted.sum(axis=0), 1), hits / np.maximum(truth.sum(axis=0), 1)
    f1 = 2 * hits / np.maximum(predicted.sum(axis=0) + truth.sum(axis=0), 1)
    positive, negative = truth.sum(axis=0), (~truth).sum(axis=0)
    # Mann and Whitney: the share of (positive, negative) pairs in the right order, ties count half
    ranks = (rankdata(probabilities, axis=0) * truth).sum(axis=0)
    pairs = positive * negative
    area = (ranks - positive * (positive + 1) / 2)[pairs > 0] / pairs[pairs > 0]
    return {
        "precision": float(precision.mean()),
        "recall": float(recall.mean()),
        "f1": float(f1.mean()),
        "roc_auc": float(area.mean()) if len(area) else None,
    }
