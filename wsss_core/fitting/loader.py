"""Training batches in an order that depends on the seed and the epoch alone."""

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from wsss_core.data.mixing import Samples


class EpochLoader:
    """Shuffled batches, the last incomplete one dropped; workers change the speed alone.

    Args:
        batch_size: images a batch; must not exceed the number of samples.
        workers: processes that decode; 0 decodes in this one.
        collate: makes a batch of samples; None stacks their tensors.
    """

    def __init__(
        self,
        samples: Samples,
        *,
        batch_size: int,
        seed: int,
        workers: int,
        drop_last: bool = True,
        collate: Callable[[list[dict[str, Tensor]]], dict[str, Any]] | None = None,
    ):
        if len(samples) < batch_size:
            raise ValueError(
                f"the split has {len(samples)} images, fewer than one batch of {batch_size}: lower batch_size"
            )
        self.samples = samples
        self.order = _Order(len(samples), batch_size, seed, drop_last)
        self.loader = DataLoader(
            _Seeded(samples, seed),
            batch_sampler=self.order,
            collate_fn=collate,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=torch.cuda.is_available(),
            # Workers are seeded from this generator and not from torch's own one, which dropout draws from: how often
            # that happens depends on their number.
            generator=torch.Generator(),
        )

    def __len__(self) -> int:
        return len(self.order)

    def epoch(self, epoch: int) -> Iterator[dict[str, Tensor]]:
        """The batches of one epoch (from 0), the same ones however often it is asked for."""
        self.order.epoch = epoch
        return iter(self.loader)

    def ids(self, epoch: int, batch: int) -> list[str]:
        """The images of a batch (from 0), by their ids in the manifest."""
        return [self.samples.rows[index].id for index in self.order.part(self.order.shuffled(epoch), batch)]


class CountedLoader(EpochLoader):
    """Batches of whole epochs, the incomplete ones too, until there were ``batches``; the last epoch ends there."""

    def __init__(
        self,
        samples: Samples,
        *,
        batches: int,
        batch_size: int,
        seed: int,
        workers: int,
        collate: Callable[[list[dict[str, Tensor]]], dict[str, Any]] | None = None,
    ):
        super().__init__(samples, batch_size=batch_size, seed=seed, workers=workers, drop_last=False, collate=collate)
        self.batches = batches

    def __len__(self) -> int:
        return min(super().__len__(), self.batches)

    @property
    def epochs(self) -> int:
        return -(-self.batches // super().__len__())  # rounded up

    def epoch(self, epoch: int) -> Iterator[dict[str, Tensor]]:
        return islice(super().epoch(epoch), self.batches - epoch * super().__len__())


class _Order:
    """Batch sampler whose items carry the epoch, so that persistent workers know it."""

    def __init__(self, count: int, batch_size: int, seed: int, drop_last: bool):
        self.count, self.batch_size, self.seed, self.drop_last = count, batch_size, seed, drop_last
        self.epoch = 0

    def __len__(self) -> int:
        return self.count // self.batch_size if self.drop_last else -(-self.count // self.batch_size)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        shuffled = self.shuffled(self.epoch)
        for batch in range(len(self)):
            yield [(self.epoch, index) for index in self.part(shuffled, batch)]

    def shuffled(self, epoch: int) -> list[int]:
        return np.random.default_rng((self.seed, epoch)).permutation(self.count).tolist()

    def part(self, shuffled: list[int], batch: int) -> list[int]:
        return shuffled[batch * self.batch_size : (batch + 1) * self.batch_size]


class _Seeded(Dataset):
    def __init__(self, samples: Samples, seed: int):
        self.samples, self.seed = samples, seed

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Tensor]:
        epoch, index = key
        return self.samples.sample(index, np.random.default_rng((self.seed, epoch, index)))
