"""Confusion matrices at all thresholds, scores of mask files, and the start of the processes that make them."""

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import forkserver, get_context
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

from benchmarks.harness import Comparison, Growth, Options, compare, equal_arrays, growth, relative_difference
from wsss_core.base.parallel import in_processes
from wsss_core.data import Classes, Row, make_classes, write_mask
from wsss_core.scores.masks import evaluate_masks
from wsss_core.scores.metrics import confusion, sweep

VOC, COCO = (375, 500), (480, 640)
LOOP = "an argmax and a confusion matrix a threshold"


def run(options: Options) -> Iterator[Comparison | Growth]:
    yield from _sweeps()
    yield _confusions()
    yield from _growths()
    yield from _evaluations(options)
    yield _start(options)


# --- thresholds ----------------------------------------------------------------------------------------------------


def one_threshold_at_a_time(scores, labels, target, thresholds, classes):
    """(T, K, K) confusion matrices of one image, the usual way."""
    values = np.array([0, *labels])
    planes = (np.full_like(scores[:1], threshold) for threshold in thresholds)
    return np.stack([histogram(values[np.concatenate([p, scores]).argmax(0)], target, classes) for p in planes])


def histogram(prediction, target, classes):
    """(K, K) confusion matrix, the usual way."""
    counted = target < classes
    cells = classes * target[counted].astype(int) + prediction[counted]
    return np.bincount(cells, minlength=classes**2).reshape(classes, classes)


def picture(rng, size=VOC, labels=2, classes=21, noise=0.1):
    """Scores (C', H, W) float32 of blobs with noise, the labels, and a mask with void outlines."""
    y, x = np.mgrid[: size[0], : size[1]] / max(size)
    chosen = rng.choice(np.arange(1, classes), size=labels, replace=False)
    centres = rng.random((labels, 2, 1, 1))
    blobs = np.exp(-8 * ((y - centres[:, 0]) ** 2 + (x - centres[:, 1]) ** 2))
    mask = np.where(blobs.max(axis=0) > 0.5, chosen[blobs.argmax(axis=0)], 0).astype(np.uint8)
    target = np.where(np.hypot(*np.gradient(mask.astype(float))) > 0, 255, mask).astype(np.uint8)
    return (blobs + noise * rng.random(blobs.shape)).astype(np.float32), chosen, target


def _sweeps() -> Iterator[Comparison]:
    for name, size, classes, labels, steps in (
        ("VOC", VOC, 21, 2, 16), ("VOC", VOC, 21, 2, 80), ("COCO", COCO, 81, 5, 16)
    ):  # fmt: skip
        rng = np.random.default_rng(0)
        samples = [picture(rng, size, labels, classes) for _ in range(5)]
        thresholds = np.linspace(0.05, 0.8, steps)

        def counted(function, samples=samples, thresholds=thresholds, classes=classes):
            return sum(function(*sample, thresholds, classes) for sample in samples)

        yield compare(
            "threshold sweep",
            f"5 {name} images, {classes} classes, {labels} labels, {steps} thresholds",
            usual=LOOP,
            usual_way=partial(counted, one_threshold_at_a_time),
            our_way=partial(counted, sweep),
            agreement=equal_arrays,
            pairs=3,
        )


def _confusions() -> Comparison:
    _, _, target = picture(np.random.default_rng(1))
    prediction = np.where(target == 255, 0, target)
    return compare(
        "confusion matrix",
        "20 times 375 x 500 pixels, 21 classes",
        usual="64-bit cells of the pixels that are not void, counted once",
        usual_way=lambda: sum(histogram(prediction, target, 21) for _ in range(20)),
        our_way=lambda: sum(confusion(prediction, target, 21) for _ in range(20)),
        agreement=equal_arrays,
    )


def _growths() -> Iterator[Growth]:
    def prepare(steps=16, scale=1.0, classes=21):
        size = tuple(round(scale**0.5 * side) for side in VOC)
        sample = picture(np.random.default_rng(2), size, 2, classes)
        thresholds = np.linspace(0.05, 0.8, int(steps))
        return lambda: [sweep(*sample, thresholds, int(classes)) for _ in range(20)]

    stage = "threshold sweep, 20 times"
    yield growth(stage, "thresholds", [4, 8, 16, 32, 64, 128], lambda n: prepare(steps=n))
    pixels = [VOC[0] * VOC[1] * scale for scale in (1, 2, 4, 8)]
    yield growth(stage, "pixels", pixels, lambda n: prepare(scale=n / pixels[0]))
    yield growth(stage, "classes", [6, 11, 21, 41, 81], lambda n: prepare(classes=int(n)))


# --- evaluation of mask files --------------------------------------------------------------------------------------


def class_by_class(row: Row, *, folder: Path, classes: int) -> np.ndarray:
    """(3, K) pixels of each class in the prediction, in the ground truth and in both, the usual way."""
    prediction = np.array(Image.open(folder / f"{row.id}.png"))
    target = np.array(Image.open(row.mask))
    counted = target < 255
    agreed = (prediction == target) * counted
    counts = [
        (np.sum((prediction == c) * counted), np.sum((target == c) * counted), np.sum((target == c) * agreed))
        for c in range(classes)
    ]
    return np.transpose(counts)


def _evaluations(options: Options) -> Iterator[Comparison | Growth]:
    classes = make_classes([f"class{index}" for index in range(20)])
    with TemporaryDirectory() as name:
        folder = Path(name)
        rows = _mask_files(folder, classes, 200)

        def usual(images, workers):
            task = partial(class_by_class, folder=folder, classes=21)
            predicted, true, both = sum(in_processes(task, images.rows, workers))
            return both / (predicted + true - both)

        def ours(images, workers):
            result = evaluate_masks(manifest=images, classes=classes, folder=folder, workers=workers)
            return np.array(list(result["iou"].values()))

        for count, workers, pairs in ((200, 1, 5), (1449, max(2, options.threads), 2)):
            images = Images([rows[index % len(rows)] for index in range(count)])
            yield compare(
                "evaluation of masks",
                f"{count} PNG masks of 375 x 500, 21 classes, {workers} process{'es' * (workers > 1)}",
                usual="boolean masks a class, on as many processes",
                usual_way=partial(usual, images, workers),
                our_way=partial(ours, images, workers),
                agreement=relative_difference,
                pairs=pairs,
            )
        counts = [25, 50, 100, 200]
        yield growth("evaluation of masks", "images", counts, lambda n: partial(ours, Images(rows[: int(n)]), 1))


@dataclass(frozen=True)
class Images:
    """Rows like those of a manifest, in which an image may come more than once."""

    rows: list[Row]

    def __len__(self):
        return len(self.rows)


def _mask_files(folder: Path, classes: Classes, count: int) -> list[Row]:
    """Write predictions and true masks of VOC's size as palette PNGs."""
    rng, rows = np.random.default_rng(3), []
    for index in range(count):
        _, _, target = picture(rng)
        row = Row(f"image{index}", "", str(folder / "truth" / f"{index}.png"), *VOC, ())
        write_mask(row.mask, target, classes)
        write_mask(folder / f"{row.id}.png", np.roll(np.where(target == 255, 0, target), 7, axis=1), classes)
        rows.append(row)
    return rows


# --- processes -----------------------------------------------------------------------------------------------------


def own_memory(_) -> float:
    """MB that this process shares with no other; finding this function has loaded torch."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1024


def _start(options: Options) -> Comparison:
    workers = max(2, options.threads)

    def spawned():
        with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
            return list(pool.map(own_memory, range(4 * workers)))

    def forked():
        forkserver._forkserver._stop()  # as in a job that has not used one yet
        return list(in_processes(own_memory, range(4 * workers), workers))

    return compare(
        "start of processes",
        f"{workers} processes that load torch",
        usual="spawned processes, each of which loads the modules",
        usual_way=spawned,
        our_way=forked,
        agreement=lambda theirs, ours: f"a process's own memory: {max(ours):.0f} MB against {max(theirs):.0f} MB",
        pairs=3,
        warm_up=False,
    )
