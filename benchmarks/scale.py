"""What data sets of some sizes cost, stage by stage, as Markdown: ``python -m benchmarks.scale``.

Work of networks is counted (multiplications and additions of the recipe of P-NOC on VOC, on tensors without
content), stages without a network are timed on one core, and both are scaled by the number of images and pixels.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.report import table
from wsss_core.affinity.labels import affinity_labels
from wsss_core.affinity.network import AffinityNet
from wsss_core.affinity.random_walk import random_walk
from wsss_core.classifiers.network import build_classifier
from wsss_core.maps.crf import crf_labels, crf_probabilities
from wsss_core.networks.backbones import build_backbone
from wsss_core.recipes.config import read_config
from wsss_core.recipes.recipes import Recipes
from wsss_core.saliency.c2am import C2AM
from wsss_core.saliency.poolnet import build_poolnet
from wsss_core.scores.metrics import sweep
from wsss_core.segmentation.v3plus import DeepLabV3Plus

SIZE = (375, 500)
TRAINING = 3  # a forward and a backward pass, in forward passes
TERAFLOPS = 100  # sustained; an assumption, to have something to look at


@dataclass(frozen=True)
class DataSet:
    """Images of the training and of the validation split, and pixels an image relative to VOC's."""

    name: str
    train: int
    val: int
    pixels: float


DATA_SETS = (
    DataSet("VOC 2012 (train_aug)", 10_582, 1_449, 1.0),
    DataSet("COCO 2014", 82_783, 40_504, 640 * 480 / (375 * 500)),
    DataSet("a million images", 1_000_000, 0, 1.0),
)


def main() -> None:
    header = ["stage", "a thousand images", *(d.name for d in DATA_SETS)]
    print(f"Networks: PFLOP, and hours at {TERAFLOPS} TFLOP/s\n")
    rows = []
    for name, flops, on_val, grows in networks():
        cells = [short(flops * 1000 / 1e15)]
        for data in DATA_SETS:
            total = flops * (data.val if on_val else data.train) * (data.pixels if grows else 1)
            cells.append(f"{short(total / 1e15)} ({short(total / TERAFLOPS / 1e12 / 3600, 2)} h)")
        rows.append([name, *cells])
    print(table(header, rows))
    print("\nWithout a network: core hours\n")
    rows = []
    for name, seconds, on_val in on_one_core():
        hours = [seconds * (d.val if on_val else d.train) * d.pixels / 3600 for d in DATA_SETS]
        rows.append([name, *(short(h, 2) for h in (seconds * 1000 / 3600, *hours))])
    print(table(header, rows))


def short(value: float, digits: int = 3) -> str:
    """A number with so many digits that count, without an exponent."""
    return f"{float(f'{value:.{digits}g}'):,.10g}"


def networks() -> Iterator[tuple[str, float, bool, bool]]:
    """Stage, FLOP an image over all epochs, whether it runs on the validation split, whether it grows with pixels."""
    recipes = Recipes(read_config([], Path(__file__).parents[1]))

    def of(section: str) -> Any:
        return recipes.section("voc", "pnoc", section)

    prior, hinted, pooled = of("prior.classifier"), of("saliency.c2am"), of("saliency.poolnet")
    edges, d = of("refinement.affinity"), of("segmentation.v3plus")
    with torch.device("meta"):
        classifier = build_classifier(prior.backbone, 20, output_stride=16, weights=None)
        crop = forward(classifier, prior.crop, prior.crop)
        views = sum(forward(classifier, *(round(side * scale) for side in SIZE)) for scale in of("prior.cams").scales)
        yield "plain classifier", TRAINING * crop * prior.epochs, False, False
        # the image, its tiles, the softly erased image, the image for the discriminator
        yield "P-NOC", 4 * TRAINING * crop * prior.epochs, False, False
        yield "CAMs", 2 * views, False, True

        c2am = C2AM(build_backbone(hinted.backbone))
        side = hinted.crop
        yield "C²AM-H", TRAINING * forward(c2am, side, side) * hinted.epochs, False, False
        views = sum(forward(c2am, *(round(side * scale) for side in SIZE)) for scale in of("saliency.maps").scales)
        yield "C²AM-H's maps", 2 * views, False, True

        poolnet = forward(build_poolnet(pooled.backbone), *SIZE)
        yield "PoolNet", TRAINING * poolnet * pooled.epochs, False, True
        yield "saliency", poolnet, False, True

        affinity, side = AffinityNet(build_backbone(edges.backbone)), edges.crop
        yield "AffinityNet", forward(affinity, side, side) * edges.epochs, False, False  # frozen backbone
        yield "edges", 2 * forward(affinity, side, side), False, True

        deeplab = DeepLabV3Plus(build_backbone(d.backbone), 21, d.norm, d.width)
        yield "DeepLabV3+", TRAINING * forward(deeplab, d.crop, d.crop) * d.epochs, False, False
        views = sum(
            forward(deeplab, *(round(side * scale) for side in SIZE)) for scale in of("segmentation.prediction").scales
        )
        yield "masks of val", 2 * views, True, True


@torch.no_grad()
def forward(model: nn.Module, height: int, width: int) -> int:
    """FLOP of a forward pass over one image."""
    with FlopCounterMode(display=False) as counter:
        model.eval()(torch.empty(1, 3, height, width, device="meta"))
    return counter.get_total_flops()


def on_one_core() -> Iterator[tuple[str, float, bool]]:
    """Stage, seconds an image of 375 x 500 pixels with two classes, whether it runs on the validation split."""
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    image, cams, mask = picture(rng)
    binary, edge = (mask > 0).astype(np.uint8), rng.random((94, 125)).astype(np.float32)
    labels = np.where(mask == 255, 0, mask)
    probabilities = np.full((21, *SIZE), 0.2 / 20, np.float32)
    probabilities[0] = 0.8
    thresholds = np.arange(0.05, 0.85, 0.05)
    yield "saliency masks (CRF)", seconds(lambda: crf_labels(image, binary, 2)), False
    yield "affinity labels (two CRFs)", seconds(lambda: affinity_labels(image, cams, [1, 2], binary * 0.8)), False
    yield "random walk", seconds(lambda: random_walk(cams[:, ::4, ::4], edge)), False
    yield "pseudo masks (CRF)", seconds(lambda: crf_labels(image, labels, 3)), False
    yield "scores of priors, 16 thresholds", seconds(lambda: sweep(cams, [1, 2], mask, thresholds, 21)), False
    yield "CRF of val, 21 classes", seconds(lambda: crf_probabilities(image, probabilities)), True


def picture(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A noisy image with two blobs, their CAMs and their mask."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]] / SIZE[1]
    cams = np.stack([np.exp(-20 * ((y - 0.4) ** 2 + (x - c) ** 2)) for c in (0.3, 0.7)]).astype(np.float32)
    mask = np.where(cams.max(axis=0) > 0.5, 1 + cams.argmax(axis=0), 0).astype(np.uint8)
    image = (60 + 50 * mask[..., None] + rng.integers(0, 40, (*SIZE, 3))).astype(np.uint8)
    return image, cams, mask


def seconds(call: Callable[[], object], repeats: int = 3) -> float:
    """Median CPU seconds of a call."""
    taken = []
    for _ in range(repeats):
        started = time.process_time()
        call()
        taken.append(time.process_time() - started)
    return median(taken)


if __name__ == "__main__":
    main()
