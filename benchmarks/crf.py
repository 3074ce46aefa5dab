"""The dense CRF: classes that are present, several maps of an image, several processes."""

from collections.abc import Iterator
from functools import partial

import cv2
import numpy as np

from benchmarks.harness import Comparison, Growth, Options, compare, equal_arrays, growth
from wsss_core.base.parallel import in_processes
from wsss_core.maps.crf import LabelCRF, crf_labels

VOC = (375, 500)
IMAGES = 24


def run(options: Options) -> Iterator[Comparison | Growth]:
    yield _present_classes()
    yield _several_maps()
    yield _processes(max(2, options.threads))
    yield growth("label CRF", "labels", [2, 3, 5, 9, 21], lambda n: partial(refined, picture(0), int(n)))
    pixels = [VOC[0] * VOC[1] * share for share in (0.25, 0.5, 1.0, 2.0)]
    yield growth("label CRF", "pixels", pixels, lambda n: partial(refined, picture(0, n / (VOC[0] * VOC[1])), 3))


def picture(seed: int, scale: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """An image (H, W, 3) uint8 of plain areas and slight noise, and coarse labels (H, W) uint8 in 0..2 of its areas."""
    rng = np.random.default_rng(seed)
    height, width = (round(scale**0.5 * side) for side in VOC)
    areas = cv2.GaussianBlur(rng.normal(size=(height, width, 3)), (0, 0), 20)
    image = 128 + 45 * areas / areas.std() + rng.normal(scale=2, size=areas.shape)
    blurred = cv2.GaussianBlur(areas[..., 0], (0, 0), 15)
    labels = np.digitize(blurred, np.quantile(blurred, (0.6, 0.85)))
    return image.clip(0, 255).astype(np.uint8), labels.astype(np.uint8)


def refined(sample: tuple[np.ndarray, np.ndarray], n_labels: int = 3) -> np.ndarray:
    """Labels after the CRF; with 2, the last two are one."""
    image, labels = sample
    return crf_labels(image, labels.clip(max=n_labels - 1), n_labels)


def _present_classes() -> Comparison:
    sample = picture(0)
    return compare(
        "dense CRF",
        "375 x 500 pixels, background and 2 classes of 20, 1 process",
        usual="all 21 classes compete",
        usual_way=lambda: refined(sample, 21),
        our_way=lambda: refined(sample, 3),
        agreement=lambda theirs, ours: f"{100 * (theirs == ours).mean():.2f} % of the pixels are the same",
        pairs=3,
    )


def _several_maps() -> Comparison:
    image, labels = picture(1)
    maps = [np.roll(labels, shift, axis=1) for shift in (0, 4, 8, 12)]
    return compare(
        "dense CRF",
        "4 label maps of one image (thresholds), 3 labels",
        usual="a CRF a map",
        usual_way=lambda: np.stack([crf_labels(image, one, 3) for one in maps]),
        our_way=lambda: np.stack(list(map(LabelCRF(image, 3), maps))),
        agreement=equal_arrays,
        pairs=3,
    )


def _processes(workers: int) -> Comparison:
    samples = [picture(seed) for seed in range(IMAGES)]
    return compare(
        "dense CRF",
        f"{IMAGES} images of 375 x 500, 3 labels, {workers} processes",
        usual="one process",
        usual_way=lambda: np.stack([refined(sample) for sample in samples]),
        our_way=lambda: np.stack(list(in_processes(refined, samples, workers))),
        agreement=equal_arrays,
        pairs=2,
        warm_up=False,  # so that the first of the pool's times has the start of its processes
    )
