"""Training batches depend on the seed and the epoch alone."""

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

from wsss_core.data import Row
from wsss_core.fitting.loader import EpochLoader


class Numbers(Dataset):
    def __init__(self, count: int = 7):
        self.count = count
        self.rows = [Row(f"image{index}", "", "", 1, 1, ()) for index in range(count)]

    def __len__(self):
        return self.count

    def sample(self, index, rng):
        return {"index": index, "noise": torch.from_numpy(rng.random(3))}


def batches(loader: EpochLoader, epoch: int) -> list[tuple[list[int], np.ndarray]]:
    return [(batch["index"].tolist(), batch["noise"].numpy()) for batch in loader.epoch(epoch)]


def equal(a, b) -> bool:
    return len(a) == len(b) and all(i == j and np.array_equal(x, y) for (i, x), (j, y) in zip(a, b, strict=True))


def test_an_epoch_has_every_image_at_most_once_and_whole_batches():
    loader = EpochLoader(Numbers(), batch_size=3, seed=0, workers=0)
    epoch = batches(loader, 0)
    indices = [index for batch, _ in epoch for index in batch]
    assert len(loader) == len(epoch) == 2
    assert len(set(indices)) == 6


def test_the_last_batch_is_kept_on_request():
    loader = EpochLoader(Numbers(), batch_size=3, seed=0, workers=0, drop_last=False)
    assert [len(batch) for batch, _ in batches(loader, 0)] == [3, 3, 1]
    assert len(loader) == 3


@pytest.mark.parametrize("drop_last", [True, False])
def test_the_images_of_a_batch_are_known_without_loading_it(drop_last):
    loader = EpochLoader(Numbers(), batch_size=3, seed=2, workers=0, drop_last=drop_last)
    list(loader.epoch(4))
    for epoch in (0, 1):
        loaded = [[f"image{index}" for index in batch] for batch, _ in batches(loader, epoch)]
        assert [loader.ids(epoch, batch) for batch in range(len(loader))] == loaded
        assert [loader.ids(4, batch) for batch in range(len(loader))] != loaded


def test_workers_change_nothing_even_when_epochs_are_left_early():
    alone = EpochLoader(Numbers(), batch_size=2, seed=4, workers=0)
    helped = EpochLoader(Numbers(), batch_size=2, seed=4, workers=2)
    next(helped.epoch(5))
    for epoch in (0, 1, 7):
        assert equal(batches(alone, epoch), batches(helped, epoch))


def test_epochs_and_seeds_differ_but_repeat():
    loader = EpochLoader(Numbers(), batch_size=2, seed=0, workers=0)
    first, second = batches(loader, 0), batches(loader, 1)
    assert not equal(first, second)
    assert equal(first, batches(loader, 0))
    assert not equal(first, batches(EpochLoader(Numbers(), batch_size=2, seed=1, workers=0), 0))


def test_an_image_is_augmented_anew_in_each_epoch():
    loader = EpochLoader(Numbers(1), batch_size=1, seed=0, workers=0)
    assert not np.array_equal(batches(loader, 0)[0][1], batches(loader, 1)[0][1])


@pytest.mark.parametrize("workers", [0, 1])
def test_loading_draws_nothing_from_the_generator_of_dropout(workers):
    loader = EpochLoader(Numbers(), batch_size=2, seed=0, workers=workers)
    before = torch.get_rng_state()
    batches(loader, 0)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_split_smaller_than_a_batch_is_refused():
    with pytest.raises(ValueError, match="7 images, fewer than one batch of 8: lower batch_size"):
        EpochLoader(Numbers(), batch_size=8, seed=0, workers=0)
