"""CutMix and MixUp: labels in proportion to what is seen, how often, and the same from the same seed."""

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

from wsss_core.data.mixing import KINDS, Mixed

COUNT, HEIGHT, WIDTH = 5, 12, 16


class Plain(Dataset):
    """Image i is all i + 1, of class i alone; it draws from the generator as real samples do."""

    def __len__(self):
        return COUNT

    def sample(self, index, rng):
        rng.random()
        return {
            "image": torch.full((3, HEIGHT, WIDTH), index + 1.0),
            "labels": torch.nn.functional.one_hot(torch.tensor(index), COUNT).float(),
        }


def samples(kind: str, probability: float = 1.0, count: int = 200, index: int = 1) -> list[dict]:
    mixed = Mixed(Plain(), kind, probability)
    return [mixed.sample(index, np.random.default_rng(seed)) for seed in range(count)]


def partner_of(sample: dict) -> int | None:
    """The other class of a sample of class 1, if there is one."""
    present = set(sample["labels"].nonzero()[:, 0].tolist()) - {1}
    return present.pop() if present else None


def test_a_box_of_the_partner_is_worth_its_area():
    mixed = [s for s in samples("cutmix") if partner_of(s) is not None]
    for sample in mixed:
        image, partner = sample["image"], partner_of(sample)
        inside = image[0] == partner + 1
        assert ((image[0] == 2) | inside).all()
        assert (image == image[:1]).all()  # the same pixels in all colours
        rows, columns = inside.any(1), inside.any(0)
        assert torch.equal(inside, rows[:, None] & columns)  # a box
        expected = [0.0] * COUNT
        expected[1], expected[partner] = 1 - inside.double().mean().item(), inside.double().mean().item()
        assert sample["labels"].tolist() == pytest.approx(expected, abs=1e-6)
    assert len({s["labels"][1].item() for s in mixed}) > 20  # boxes of many sizes
    # boxes around random centres, some of which leave the image
    middles = {tuple((s["image"][0] != 2).nonzero().double().mean(0).tolist()) for s in mixed}
    assert len(middles) > 50


def test_a_box_has_the_drawn_share_of_the_image_unless_the_border_cuts_it():
    """Shares are uniform: a quarter of the boxes would fill more than 3/4 of the image; borders take some of that."""
    sizes = [(s["image"][0] != 2).double().mean().item() for s in samples("cutmix", count=400)]
    assert max(sizes) > 0.6
    assert 0.15 < np.mean(sizes) < 0.45


def test_two_images_on_top_of_each_other_are_worth_their_shares():
    mixed = [s for s in samples("mixup") if partner_of(s) is not None]
    for sample in mixed:
        partner = partner_of(sample)
        share = sample["labels"][1].item()
        assert sample["labels"].sum().item() == pytest.approx(1)
        expected = torch.full((3, HEIGHT, WIDTH), share * 2 + (1 - share) * (partner + 1))
        torch.testing.assert_close(sample["image"], expected)
    shares = [s["labels"][1].item() for s in mixed]
    assert np.mean(shares) == pytest.approx(0.5, abs=0.1)
    assert min(shares) < 0.1
    assert max(shares) > 0.9


def test_every_image_may_be_the_partner():
    assert {partner_of(sample) for sample in samples("mixup")} == {0, 2, 3, 4, None}


def test_cut_or_mix_does_the_one_or_the_other():
    mixed = [s for s in samples("cut_or_mix") if partner_of(s) is not None and s["labels"][1] < 1]
    blended = [len(s["image"].unique()) == 1 and not s["image"].unique().item().is_integer() for s in mixed]
    assert 0.35 < np.mean(blended) < 0.65


@pytest.mark.parametrize("kind", KINDS)
def test_never_and_always(kind):
    for sample in samples(kind, probability=0.0, count=30):
        assert (sample["image"] == 2).all()
        assert sample["labels"].tolist() == [0, 1, 0, 0, 0]
    # a fifth has itself as its partner
    assert 0.7 < np.mean([s["labels"][1] < 1 for s in samples(kind, probability=1.0)]) < 0.95


def test_as_often_as_asked_for():
    assert np.mean([s["labels"][1].item() < 1 for s in samples("mixup", 0.5, 400)]) == pytest.approx(0.4, abs=0.08)


@pytest.mark.parametrize("kind", KINDS)
def test_the_generator_decides(kind):
    first, again = samples(kind, 0.7, 20), samples(kind, 0.7, 20)
    assert all(torch.equal(a[key], b[key]) for a, b in zip(first, again, strict=True) for key in a)
    assert len({tuple(sample["labels"].tolist()) for sample in first}) > 5


@pytest.mark.parametrize("kind", KINDS)
def test_a_class_of_both_images_is_wholly_present(kind):
    class Twins(Plain):
        def sample(self, index, rng):
            return {"image": torch.rand(3, 4, 4), "labels": torch.tensor([1.0, float(index > 0), 0.0])}

    mixed = Mixed(Twins(), kind, 1.0)
    labels = torch.stack([mixed.sample(0, np.random.default_rng(seed))["labels"] for seed in range(30)])
    torch.testing.assert_close(labels[:, 0], torch.ones(30))
    assert (labels[:, 2] == 0).all()
    assert (labels[:, 1] > 0).any()


def test_the_sample_underneath_is_left_as_it_is():
    """A data set may hand out images that it keeps."""
    kept = torch.zeros(2, 3, 4, 4)
    kept[1] = 1

    class Kept(Dataset):
        def __len__(self):
            return 2

        def sample(self, index, rng):
            return {"image": kept[index], "labels": torch.eye(2)[index]}

    mixed = Mixed(Kept(), "cutmix", 1.0)
    seen = [mixed.sample(0, np.random.default_rng(seed))["image"].sum().item() for seed in range(20)]
    assert max(seen) > 0
    assert kept[0].sum() == 0


def test_another_kind_is_refused_with_the_names_of_all():
    with pytest.raises(ValueError, match=r"mixing\.kind is 'mosaic': use cutmix, mixup, cut_or_mix"):
        Mixed(Plain(), "mosaic", 0.5)


def test_there_are_as_many_samples_as_before():
    assert len(Mixed(Plain(), "mixup", 0.5)) == COUNT
