"""Tiling of images and merging of their maps, and the term of Puzzle-CAM (Jo and Yu, ICIP 2021)."""

from collections.abc import Callable

from torch import Tensor

from wsss_core.classifiers.losses import label_loss
from wsss_core.classifiers.network import logits
from wsss_core.classifiers.step import Loss, Term, View
from wsss_core.fitting.schedules import ramp
from wsss_core.recipes.settings import PuzzleSettings


def tile(x: Tensor, pieces: int = 4) -> Tensor:
    """Cut (B, C, H, W) into a square number of pieces, stacked piece-major: (pieces * B, C, H / n, W / n).

    The first B rows are all images' top-left pieces, the next B the pieces to the right of them, and so on.

    Raises:
        ValueError: ``pieces`` is no square, or a side does not divide by its root.
    """
    n = _root(pieces)
    b, c, h, w = x.shape
    if h % n or w % n:
        raise ValueError(f"a {h}x{w} image cannot be cut into {n}x{n} equal pieces: choose sizes divisible by {n}")
    return x.reshape(b, c, n, h // n, n, w // n).permute(2, 4, 0, 1, 3, 5).reshape(pieces * b, c, h // n, w // n)


def merge(maps: Tensor, pieces: int = 4) -> Tensor:
    """Put the maps of ``tile``'s pieces together again: (pieces * B, C, h, w) -> (B, C, n h, n w)."""
    n = _root(pieces)
    count, c, h, w = maps.shape
    if count % pieces:
        raise ValueError(f"{count} maps are not a whole number of images of {pieces} pieces each")
    b = count // pieces
    return maps.reshape(n, n, b, c, h, w).permute(2, 3, 0, 4, 1, 5).reshape(b, c, n * h, n * w)


def reconstruction_loss(maps: Tensor, merged: Tensor, labels: Tensor) -> Tensor:
    """L1 between raw maps and merged raw maps (B, C, h, w), masked by the labels (B, C), mean over all elements.

    The mean runs over all C channels, not only those of present classes: the fewer classes a data set has, the
    stronger the same weight pulls.
    """
    return ((maps - merged).abs() * labels[:, :, None, None]).mean()


def puzzle_maps(maps: Callable[[Tensor], Tensor], images: Tensor, pieces: int = 4) -> Tensor:
    """Raw class maps of the tiled images, merged: (B, 3, H, W) -> (B, C, h, w).

    Args:
        maps: a classifier's, (N, 3, h, w) -> (N, C, h', w').
    """
    return merge(maps(tile(images, pieces)), pieces)


class PuzzleTerm(Term[PuzzleSettings]):
    """The labels of the merged maps, and their difference from the maps of the image."""

    def losses(self, view: View) -> dict[str, Loss]:
        # a pass of its own, in which BatchNorm takes its statistics from tiles alone, as published
        merged = puzzle_maps(self.training.model.maps, view.images, self.settings.pieces)
        weight = ramp(self.settings.weight, view.step, self.training.steps)
        return {
            "merged_class": Loss(label_loss(logits(merged), view.targets)),
            "reconstruction": Loss(reconstruction_loss(view.output.maps, merged, view.labels), weight),
        }


def _root(pieces: int) -> int:
    n = round(pieces**0.5)
    if n * n != pieces:
        raise ValueError(f"pieces must be a square number, not {pieces}")
    return n
