"""Training batches in an order that depends on the seed and the epoch alone."""

from collections.abc import Iterator

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
    """

    def __init__(self, samples: Samples, *, batch_size: int, seed: int, workers: int, drop_last: bool = True):
        if len(samples) < batch_size:
            raise ValueError(
                f"the split has {len(samples)} images, fewer than one batch of {batch_size}: lower batch_size"
            )
        self.order = _Order(len(samples), batch_size, seed, drop_last)
        self.loader = DataLoader(
            _Seeded(samples, seed),
            batch_sampler=self.order,
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


class _Order:
    """Batch sampler whose items carry the epoch, so that persistent workers know it."""

    def __init__(self, count: int, batch_size: int, seed: int, drop_last: bool):
        self.count, self.batch_size, self.seed, self.drop_last = count, batch_size, seed, drop_last
        self.epoch = 0

    def __len__(self) -> int:
        return self.count // self.batch_size if self.drop_last else -(-self.count // self.batch_size)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        shuffled = np.random.default_rng((self.seed, self.epoch)).permutation(self.count).tolist()
        for batch in range(len(self)):
            chosen = shuffled[batch * self.batch_size : (batch + 1) * self.batch_size]
            yield [(self.epoch, index) for index in chosen]


class _Seeded(Dataset):
    def __init__(self, samples: Samples, seed: int):
        self.samples, self.seed = samples, seed

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Tensor]:
        epoch, index = key
        return self.samples.sample(index, np.random.default_rng((self.seed, epoch, index)))
