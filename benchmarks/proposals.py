"""Overlaps of proposals from run lengths against the loop over pairs of masks, and our own proposals' time."""

from collections.abc import Iterator
from functools import partial

import numpy as np

from benchmarks.harness import Comparison, Growth, Options, compare, growth, relative_difference
from wsss_core.instances.store import instances_of
from wsss_core.proposals.grouping import group_superpixels
from wsss_core.proposals.overlaps import crops_of, overlaps_of
from wsss_core.recipes.settings import GroupingSettings

SIZE = 375, 500
STAGE = "proposals"


def run(options: Options) -> Iterator[Comparison | Growth]:
    masks = blobs(200)
    encoded = instances_of(masks, [-1] * len(masks))  # as the store has them
    yield compare(
        STAGE,
        f"overlaps of 200 proposals of {SIZE[1]} x {SIZE[0]} pixels",
        usual="and, or of each pair of masks",
        usual_way=partial(pairwise, masks),
        our_way=lambda: np.stack(overlaps_of(encoded.masks)),
        agreement=close,
        pairs=1,
        warm_up=False,
    )
    yield compare(
        STAGE,
        "the same, against one product of matrices",
        usual="masks as a matrix in single precision",
        usual_way=partial(product, masks),
        our_way=lambda: np.stack(overlaps_of(encoded.masks)),
        agreement=close,
    )
    many = {count: instances_of(blobs(count), [-1] * count) for count in (100, 200, 400, 800)}
    yield growth(STAGE, "proposals", list(many), lambda count: partial(overlaps_of, many[int(count)].masks))
    yield growth(STAGE, "proposals, their crops", list(many), lambda count: partial(crops_of, many[int(count)]))
    photo = noise()
    yield growth(
        STAGE,
        "superpixels of our own proposals",
        [100, 200, 400],
        lambda count: partial(group_superpixels, photo, GroupingSettings(superpixels=int(count))),
    )


def blobs(count: int) -> np.ndarray:
    """Wavy ellipses of all sizes, (count, H, W) bool; some 200 bytes of run lengths each, as MCG's masks have."""
    rng = np.random.default_rng(0)
    y, x = np.indices(SIZE, np.float32)
    masks = np.zeros((count, *SIZE), bool)
    for mask in masks:
        row, column, high, wide = rng.uniform([0, 0, 8, 8], [*SIZE, 90, 120])
        wave = 0.2 * np.sin(rng.integers(2, 5) * np.arctan2(y - row, x - column))
        mask[:] = ((y - row) / high) ** 2 + ((x - column) / wide) ** 2 + wave < 1
        mask[int(row), int(column)] = True
    return masks


def noise() -> np.ndarray:
    rng = np.random.default_rng(0)
    photo = np.full((*SIZE, 3), 128.0)
    for mask in blobs(40):
        photo[mask] = rng.uniform(0, 255, 3)
    return (photo + rng.normal(0, 12, photo.shape)).clip(0, 255).astype(np.uint8)


def pairwise(masks: np.ndarray) -> np.ndarray:
    """The usual way: IoU and containment of each pair."""
    count = len(masks)
    found = np.zeros((2, count, count))
    for i in range(count):
        for j in range(count):
            shared = np.logical_and(masks[i], masks[j]).sum()
            found[0, i, j] = shared / np.logical_or(masks[i], masks[j]).sum()
            found[1, i, j] = shared / masks[j].sum()
    return found


def product(masks: np.ndarray) -> np.ndarray:
    flat = masks.reshape(len(masks), -1).astype(np.float32)
    shared, area = (flat @ flat.T).astype(np.float64), flat.sum(1).astype(np.float64)
    return np.stack([shared / (area[:, None] + area - shared), shared / area])


def close(theirs: np.ndarray, ours: np.ndarray) -> str:
    return relative_difference(theirs + 1, ours + 1)  # many are 0
