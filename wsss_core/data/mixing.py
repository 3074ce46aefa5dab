"""Images mixed with a partner: CutMix (Yun et al. 2019), MixUp (Zhang et al. 2018), or one of both at random."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from wsss_core.data.manifest import Row

KINDS = ("cutmix", "mixup", "cut_or_mix")


class Samples(Protocol):
    """A data set that draws all its randomness from the generator of each sample.

    Attributes:
        rows: of the manifest, in the order of the samples.
    """

    @property
    def rows(self) -> Sequence[Row]: ...

    def __len__(self) -> int: ...

    def sample(self, index: int, rng: np.random.Generator, /) -> dict[str, Tensor]: ...


class Mixed(Dataset[dict[str, Tensor]]):
    """Samples with ``image`` (3, S, S) and ``labels`` (C,), some of them mixed with another sample at random.

    The share of each image is uniform in [0, 1] (a Beta(1, 1)); the labels are mixed in the same proportion, by area
    for CutMix. Classes of both images count as present.

    Args:
        samples: what is mixed.
        kind: one of ``KINDS``.
        probability: how often a sample is mixed.
    """

    def __init__(self, samples: Samples, kind: str, probability: float):
        if kind not in KINDS:
            raise ValueError(f"mixing.kind is {kind!r}: use {', '.join(KINDS)}")
        self.samples, self.kind, self.probability = samples, kind, probability

    @property
    def rows(self) -> Sequence[Row]:
        """Those of the samples; which partner is mixed in, is not in them."""
        return self.samples.rows

    def __len__(self) -> int:
        return len(self.samples)

    def sample(self, index: int, rng: np.random.Generator) -> dict[str, Tensor]:
        """``image`` and ``labels``, the latter in [0, 1]."""
        own = self.samples.sample(index, rng)
        if rng.random() >= self.probability:
            return own
        other = self.samples.sample(int(rng.integers(len(self.samples))), rng)
        share = float(rng.random())
        cut = self.kind == "cutmix" or (self.kind == "cut_or_mix" and rng.random() < 0.5)
        if cut:
            image, share = _paste(own["image"], other["image"], share, rng)
        else:
            image = torch.lerp(other["image"], own["image"], share)
        return {"image": image, "labels": torch.lerp(other["labels"], own["labels"], share)}


def _paste(own: Tensor, other: Tensor, share: float, rng: np.random.Generator) -> tuple[Tensor, float]:
    """Put a box of the other image into this one, around a random centre; return the share that is left of it."""
    height, width = own.shape[1:]
    half = (1 - share) ** 0.5 / 2
    y, x = int(rng.integers(height)), int(rng.integers(width))
    top, bottom = max(0, y - int(half * height)), min(height, y + int(half * height))
    left, right = max(0, x - int(half * width)), min(width, x + int(half * width))
    image = own.clone()
    image[:, top:bottom, left:right] = other[:, top:bottom, left:right]
    return image, 1 - (bottom - top) * (right - left) / (height * width)
