"""Single steps of the later trainings, against values worked out by hand."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from wsss_core.affinity import training as affinity_training
from wsss_core.affinity.training import AffinityStep
from wsss_core.data import Manifest, write_grey
from wsss_core.data.mask_folder import folder_digest
from wsss_core.recipes.settings import (
    AffinitySettings,
    C2amSettings,
    DeeplabV3PlusSettings,
    HintSettings,
    PoolnetSettings,
)
from wsss_core.saliency.c2am_training import C2amStep
from wsss_core.saliency.poolnet_training import PoolnetStep, SaliencyPairs
from wsss_core.segmentation.losses import segmentation_loss
from wsss_core.segmentation.v3plus_training import DeeplabV3PlusStep

CPU = torch.device("cpu")


# --- AffinityNet ---------------------------------------------------------------------------------------------------


class FakeAffinityNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.edge = nn.Conv2d(3, 1, kernel_size=4, stride=4)

    def edge_parameters(self):
        return list(self.edge.parameters())

    def forward(self, x):
        return self.edge(x)


def test_affinity_labels_are_shrunk_as_pillow_does(monkeypatch):
    seen = []

    def loss(edge, mask, classes, radius):
        seen.append((mask, classes, radius))
        return {"total": edge.mean()}

    monkeypatch.setattr(affinity_training, "affinity_loss", loss)
    settings = AffinitySettings(resize=(8, 8), crop=16, radius=3, batch_size=2, epochs=1)
    step = AffinityStep(FakeAffinityNet(), settings, 4, 5, CPU)
    masks = np.random.default_rng(0).integers(0, 255, (2, 16, 16), np.uint8)
    step({"image": torch.zeros(2, 3, 16, 16), "mask": torch.from_numpy(masks)}, 0)
    expected = np.stack([np.asarray(Image.fromarray(m).resize((4, 4), Image.Resampling.NEAREST)) for m in masks])
    mask, classes, radius = seen[0]
    assert torch.equal(mask, torch.from_numpy(expected))
    assert (classes, radius) == (4, 3)


# --- C²AM-H --------------------------------------------------------------------------------------------------------


class FakeC2am(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.features = nn.Conv2d(3, 5, kernel_size=1)
        self.disentangler = nn.Conv2d(5, 1, kernel_size=1)

    @property
    def scratch(self):
        return [self.disentangler]

    def forward(self, x):
        features = self.features(x).relu()
        logits = self.disentangler(features)
        p = torch.sigmoid(logits)
        return (p * features).mean((2, 3)), ((1 - p) * features).mean((2, 3)), logits


def c2am_settings(**changes) -> C2amSettings:
    values = {
        "squash": 1.15, "crop": 8, "batch_size": 2, "accumulation": 1, "epochs": 1, "learning_rate": 0.1,
        "head_rate": 10, "weight_decay": 0.0, "train_batch_norm": True, "alpha": 0.25, "precision": "float32",
    }  # fmt: skip
    return C2amSettings(**values | changes)


def moves(hints: HintSettings) -> list[torch.Tensor]:
    """How far the weights of the network go in one step."""
    generator = torch.Generator().manual_seed(1)
    batch = {
        "image": torch.randn(2, 3, 4, 4, generator=generator),
        "hint": torch.rand(2, 1, 4, 4, generator=generator),
    }
    model = FakeC2am()
    before = [p.detach().clone() for p in model.parameters()]
    losses = C2amStep(model, c2am_settings(), hints, 4, CPU)(batch, 0)
    assert list(losses) == ["positive_foreground", "positive_background", "negative", "hint"]
    return [p.detach() - old for p, old in zip(model.parameters(), before, strict=True)]


def test_the_weight_of_the_hints_multiplies_their_loss_alone():
    none, one, three = (moves(HintSettings(weight=weight)) for weight in (0.0, 1.0, 3.0))
    for a, b, c in zip(none, one, three, strict=True):
        torch.testing.assert_close(c - a, 3 * (b - a), rtol=1e-3, atol=1e-6)
    assert not torch.equal(none[0], one[0])


def test_c2am_sums_gradients_until_an_update_is_due():
    model = FakeC2am()
    step = C2amStep(model, c2am_settings(accumulation=2), HintSettings(), 4, CPU)
    batch = {"image": torch.randn(2, 3, 4, 4), "hint": torch.ones(2, 1, 4, 4)}
    before = model.features.weight.detach().clone()
    step(batch, 0)
    first = model.features.weight.grad.clone()
    assert torch.equal(model.features.weight, before)
    step(batch, 1)
    torch.testing.assert_close(model.features.weight.detach(), before - 0.1 * 2 * first)


# --- DeepLab -------------------------------------------------------------------------------------------------------


class FakeDeepLab(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.backbone = nn.Conv2d(3, 4, kernel_size=1)
        self.aspp = nn.Conv2d(4, 4, kernel_size=1)
        self.decoder = nn.Conv2d(4, 3, kernel_size=1)

    def forward(self, x):
        return self.decoder(self.aspp(self.backbone(x)))


def test_the_segmentation_loss_is_divided_by_the_accumulation():
    settings = DeeplabV3PlusSettings(
        accumulation=2, learning_rate=0.1, weight_decay=0.0, momentum=0.0, label_smoothing=0.1, precision="float32"
    )
    images = torch.randn(4, 3, 4, 4)
    masks = torch.randint(0, 3, (4, 4, 4), dtype=torch.uint8)
    model, reference = FakeDeepLab(), FakeDeepLab()
    step = DeeplabV3PlusStep(model, settings, 4, CPU)
    for t, part in enumerate((slice(0, 2), slice(2, 4))):
        step({"image": images[part], "mask": masks[part]}, t)
    segmentation_loss(reference(images), masks, 0.1).backward()  # the whole batch at once
    for name, factor in (("backbone", 1), ("aspp", 10), ("decoder", 10)):
        layer, old = getattr(model, name), getattr(reference, name)
        torch.testing.assert_close(layer.weight.detach(), (old.weight - factor * 0.1 * old.weight.grad).detach())
        torch.testing.assert_close(layer.bias.detach(), (old.bias - 2 * factor * 0.1 * old.bias.grad).detach())


# --- PoolNet -------------------------------------------------------------------------------------------------------


class FakePoolNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.level = nn.Parameter(torch.tensor(0.5))

    def preprocess(self, images):
        return images / 255

    def padded(self, x):
        return x

    def forward(self, x):
        return self.level * torch.ones_like(x[:, :1])


def poolnet_steps(epoch_length: int, accumulation: int, count: int) -> list[float]:
    settings = PoolnetSettings(accumulation=accumulation, learning_rate=0.01, weight_decay=0.0)
    model = FakePoolNet()
    step = PoolnetStep(model, settings, epoch_length, CPU)
    batch = {
        "image": torch.zeros(1, 3, 2, 3, dtype=torch.uint8),
        "saliency": torch.zeros(1, 1, 2, 3, dtype=torch.uint8),
    }
    levels = []
    for t in range(count):
        losses = step(batch, t)
        assert losses["loss_a_pixel"].item() == pytest.approx(np.log1p(np.exp(levels[-1] if levels else 0.5)), rel=1e-5)
        levels.append(model.level.item())
    return levels


def test_poolnet_updates_once_in_so_many_images():
    levels = poolnet_steps(epoch_length=9, accumulation=3, count=7)
    changes = [t for t in range(1, 7) if levels[t] != levels[t - 1]]
    assert changes == [2, 5]
    assert levels[0] == 0.5


def test_poolnet_forgets_gradients_where_an_epoch_starts_but_goes_on_counting():
    settings = PoolnetSettings(accumulation=3, learning_rate=0.01, weight_decay=0.0)
    model = FakePoolNet()
    step = PoolnetStep(model, settings, 2, CPU)
    batch = {
        "image": torch.zeros(1, 3, 2, 3, dtype=torch.uint8),
        "saliency": torch.zeros(1, 1, 2, 3, dtype=torch.uint8),
    }
    step(batch, 0)
    one = model.level.grad.item()
    step(batch, 1)
    assert model.level.grad.item() == pytest.approx(2 * one)
    seen = []
    original = step.optimizer.step
    step.optimizer.step = lambda: seen.append(model.level.grad.item()) or original()
    step(batch, 2)  # the third image, and the first of the second epoch
    assert seen == [pytest.approx(one)]
    assert one == pytest.approx(6 * torch.sigmoid(torch.tensor(0.5)).item() / 3)  # a sum over pixels, over three


def test_saliency_pairs_are_mirrored_together_and_small_images_left_out(tiny, tmp_path):
    rows = tiny.manifest.rows[:2]
    for row in rows:
        red = np.asarray(Image.open(row.image))[..., 0]
        write_grey(tmp_path / f"{row.id}.png", red)
    pairs = SaliencyPairs(Manifest.of(rows), tmp_path, smallest_side=0)
    mirrored = set()
    for seed in range(8):
        sample = pairs.sample(0, np.random.default_rng(seed))
        assert sample["image"].shape == (3, 32, 48)
        assert torch.equal(sample["image"][:1], sample["saliency"])
        mirrored.add(sample["image"][0, 0, 0].item())
    assert len(mirrored) == 2
    assert len(pairs) == 2
    assert len(SaliencyPairs(Manifest.of(rows), tmp_path, smallest_side=31)) == 2
    assert len(SaliencyPairs(Manifest.of(rows), tmp_path, smallest_side=32)) == 0


def test_the_digest_of_a_folder_is_that_of_its_masks(tmp_path):
    write_grey(tmp_path / "a.png", np.zeros((2, 2), np.uint8))
    before = folder_digest(tmp_path)
    (tmp_path / "notes.txt").touch()
    assert folder_digest(tmp_path) == before
    write_grey(tmp_path / "b.png", np.zeros((2, 2), np.uint8))
    assert folder_digest(tmp_path) != before
    (tmp_path / "b.png").unlink()
    write_grey(tmp_path / "a.png", np.ones((2, 2), np.uint8))
    assert folder_digest(tmp_path) != before
