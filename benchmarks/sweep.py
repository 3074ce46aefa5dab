"""All thresholds from one pass over the pixels against an argmax and a confusion matrix a threshold, in one run."""

import argparse
import time

import numpy as np

from wsss_core.metrics import confusion, sweep


def one_at_a_time(scores, labels, target, thresholds, classes):
    """The usual way."""
    values = np.array([0, *labels])
    matrices = []
    for threshold in thresholds:
        plane = np.full_like(scores[:1], threshold)
        prediction = values[np.concatenate([plane, scores]).argmax(axis=0)]
        matrices.append(confusion(prediction, target, classes))
    return np.stack(matrices)


def images(options):
    """Smooth scores and masks: a few blobs, one for each label."""
    rng = np.random.default_rng(options.seed)
    y, x = np.mgrid[: options.size[0], : options.size[1]] / max(options.size)
    for _ in range(options.images):
        labels = rng.choice(np.arange(1, options.classes), size=options.labels, replace=False)
        centres = rng.random((options.labels, 2, 1, 1))
        scores = np.exp(-8 * ((y - centres[:, 0]) ** 2 + (x - centres[:, 1]) ** 2)).astype(np.float32)
        target = np.where(scores.max(axis=0) > 0.5, labels[scores.argmax(axis=0)], 0).astype(np.uint8)
        target[rng.random(target.shape) < 0.05] = 255
        yield scores, labels, target


def seconds_of(function, samples, thresholds, classes):
    """The summed matrices and the time that they took."""
    started = time.perf_counter()
    total = sum(function(*sample, thresholds, classes) for sample in samples)
    return total, time.perf_counter() - started


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=10)
    parser.add_argument("--size", type=int, nargs=2, default=(375, 500))
    parser.add_argument("--labels", type=int, default=2, help="labels of an image")
    parser.add_argument("--classes", type=int, default=21, help="classes of the data set, with background")
    parser.add_argument("--thresholds", type=int, nargs="+", default=[16, 80])
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    samples = list(images(options))
    print("| thresholds | one at a time | one pass | ratio | equal |")
    print("|---|---|---|---|---|")
    for count in options.thresholds:
        thresholds = np.linspace(0.05, 0.8, count)
        theirs, slow = seconds_of(one_at_a_time, samples, thresholds, options.classes)
        ours, fast = seconds_of(sweep, samples, thresholds, options.classes)
        print(f"| {count} | {slow:.3f} s | {fast:.3f} s | {slow / fast:.1f} | {np.array_equal(ours, theirs)} |")


if __name__ == "__main__":
    main()
