"""C²AM with and without hints: its samples, its groups of parameters, and which way its split points."""

import logging

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from wsss_core.base.checkpoints import read_model, save_model
from wsss_core.data import Manifest, Row
from wsss_core.data.transforms import MEAN, STD
from wsss_core.fitting.precision import Precision
from wsss_core.networks.backbones import build_backbone
from wsss_core.recipes.settings import C2amSettings, HintSettings
from wsss_core.saliency.c2am import C2AM
from wsss_core.saliency.c2am_training import (
    C2amStep,
    SquashedCrops,
    SquashedImages,
    border_means,
    find_direction,
    load_c2am,
    squashed_side,
    train_c2am,
)

CPU = torch.device("cpu")
TINY = "test_resnet"
CONTRASTIVE = ["positive_foreground", "positive_background", "negative"]


def settings_of(**changes) -> C2amSettings:
    values = {
        "backbone": TINY, "squash": 1.15, "crop": 32, "batch_size": 4, "accumulation": 1, "epochs": 1,
        "learning_rate": 0.01, "head_rate": 10, "weight_decay": 1e-4, "train_batch_norm": True, "alpha": 0.25,
        "precision": "float32",
    }  # fmt: skip
    return C2amSettings(**values | changes)


# --- samples -------------------------------------------------------------------------------------------------------


@pytest.fixture
def gradient(tmp_path) -> Manifest:
    """One image, 30 x 50, whose red channel tells the column."""
    columns = np.tile(np.arange(50, dtype=np.uint8) * 4, (30, 1))
    Image.fromarray(np.dstack([columns, 0 * columns, 0 * columns])).save(tmp_path / "g.png")
    return Manifest.of([Row("g", str(tmp_path / "g.png"), "", 30, 50, (1,))])


@pytest.mark.parametrize(("squash", "side"), [(1.15, 515), (1.143, 512), (1.0, 448)])
def test_the_published_squares_are_reached_from_a_crop_of_448(squash, side):
    assert squashed_side(settings_of(squash=squash, crop=448)) == side


def red(image: torch.Tensor) -> np.ndarray:
    return image[0].numpy() * STD[0] + MEAN[0]


def test_hints_follow_their_images_through_squash_crop_and_mirror(gradient):
    def read_hint(row):
        return np.asarray(Image.open(row.image), np.float32)[..., 0] / 255

    samples, rising = SquashedCrops(gradient, read_hint, side=46, size=40), set()
    for seed in range(8):
        sample = samples.sample(0, np.random.default_rng(seed))
        assert sample["image"].shape == (3, 40, 40)
        assert sample["hint"].shape == (1, 40, 40)
        np.testing.assert_allclose(sample["hint"][0], red(sample["image"]), atol=0.6 / 255)
        rising.add(bool(red(sample["image"])[0, 0] < red(sample["image"])[0, -1]))
    assert rising == {True, False}


def test_without_hints_a_sample_is_the_same_image_alone(gradient):
    with_hints = SquashedCrops(gradient, lambda row: np.zeros((30, 50), np.float32), side=46, size=40)
    alone = SquashedCrops(gradient, None, side=46, size=40).sample(0, np.random.default_rng(3))
    assert list(alone) == ["image"]
    assert torch.equal(alone["image"], with_hints.sample(0, np.random.default_rng(3))["image"])


def test_the_whole_image_is_squashed_to_a_square(gradient):
    image = SquashedImages(gradient, 20)[0]
    assert image.shape == (3, 20, 20)
    expected = np.asarray(Image.open(gradient.rows[0].image).resize((20, 20), Image.Resampling.BILINEAR))[..., 0]
    np.testing.assert_allclose(red(image) * 255, expected, atol=1e-3)


# --- groups of parameters ------------------------------------------------------------------------------------------


def network() -> C2AM:
    torch.manual_seed(0)
    return C2AM(build_backbone(TINY))


def batch_norms(model: nn.Module) -> list[nn.BatchNorm2d]:
    return [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]


def rates(model: C2AM, **changes) -> dict[str, float]:
    """Learning rate of each parameter that the optimiser has, by name."""
    step = C2amStep(model, settings_of(**changes), None, 4, CPU)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {names[id(p)]: group["initial_lr"] for group in step.optimizer.sgd.param_groups for p in group["params"]}


def test_new_layers_have_ten_times_the_rate_and_all_is_trained():
    model = network()
    found = rates(model)
    assert found["disentangler.0.weight"] == found["disentangler.1.weight"] == pytest.approx(0.1)
    assert found["backbone.network.conv1.0.weight"] == pytest.approx(0.01)
    assert found.keys() == dict(model.named_parameters()).keys()


def test_the_originals_groups_hold_convolutions_at_one_rate_and_no_batchnorm():
    model = network()
    found = rates(model, head_rate=1, train_batch_norm=False)
    convolutions = {f"{name}.weight" for name, m in model.named_modules() if isinstance(m, nn.Conv2d)}
    assert found.keys() == convolutions
    assert set(found.values()) == {0.01}


def test_an_untrained_batchnorm_keeps_its_weights_but_not_its_statistics():
    model = network()
    step = C2amStep(model, settings_of(head_rate=1, train_batch_norm=False), None, 4, CPU)
    before = [(bn.weight.clone(), bn.bias.clone(), bn.running_mean.clone()) for bn in batch_norms(model)]
    kernel = model.disentangler[0].weight.detach().clone()
    step({"image": torch.randn(4, 3, 32, 32)}, 0)
    for bn, (weight, bias, mean) in zip(batch_norms(model), before, strict=True):
        assert torch.equal(bn.weight, weight)
        assert torch.equal(bn.bias, bias)
        assert not torch.equal(bn.running_mean, mean)
    assert not torch.equal(model.disentangler[0].weight, kernel)


# --- direction -----------------------------------------------------------------------------------------------------


def test_the_border_is_the_outermost_ring_of_a_map():
    maps = torch.arange(12.0).reshape(1, 1, 3, 4)
    ring = [0, 1, 2, 3, 4, 7, 8, 9, 10, 11]
    both = border_means(torch.cat([maps, 2 * maps]))
    torch.testing.assert_close(both, torch.tensor([sum(ring) / 10, sum(ring) / 5]))
    assert border_means(torch.arange(4.0).reshape(1, 1, 2, 2)).item() == 1.5  # all border


class Bright(nn.Module):
    """Its logits are the red channel, times a sign."""

    def __init__(self, sign):
        super().__init__()
        self.sign = sign

    def forward(self, x):
        return None, None, self.sign * x[:, :1]


def pictures(border: float, middle: float) -> torch.Tensor:
    images = torch.full((3, 3, 6, 6), border)
    images[:, :, 1:-1, 1:-1] = middle
    return images


@pytest.mark.parametrize(("sign", "direction"), [(1, 1), (-1, -1)])
def test_a_border_that_counts_as_foreground_turns_the_direction(sign, direction, caplog):
    # the middle weighs more than the border: a mean over all pixels would say the opposite
    batches = pictures(border=-1.0, middle=9.0).split(2)
    with caplog.at_level(logging.INFO):
        assert find_direction(Bright(sign), batches, Precision("float32", CPU), CPU) == direction
    mean = torch.sigmoid(torch.tensor(-1.0 * sign)).item()
    assert f"the border of 3 images is foreground with {mean:.3f} on average" in caplog.text


def test_every_image_counts_alike_for_the_direction():
    one, two = pictures(border=4.0, middle=0.0)[:1], pictures(border=-3.0, middle=0.0)[:2]
    assert find_direction(Bright(1), [one, two], Precision("float32", CPU), CPU) == 1
    assert find_direction(Bright(-1), [one, two], Precision("float32", CPU), CPU) == -1


# --- the training and its checkpoint -------------------------------------------------------------------------------


@pytest.fixture
def common(tiny, tmp_path) -> dict:
    torch.manual_seed(3)
    return {
        "manifest": tiny.manifest, "weights": None, "output": tmp_path / "c2am.pt", "seed": 3, "device": CPU,
    }  # fmt: skip


def test_c2am_trains_without_hints_and_its_checkpoint_knows_the_direction(tiny, common):
    train_c2am(**common, hints=None, settings=settings_of(), hint_settings=None)
    recipe, _ = read_model(common["output"], "c2am")
    assert (recipe["backbone"], recipe["hints"]) == (TINY, False)
    model = load_c2am(common["output"]).eval()
    assert model.direction == recipe["direction"]
    images = torch.stack([SquashedImages(tiny.manifest, 32)[index] for index in range(8)])
    with torch.no_grad():
        salient = torch.sigmoid(model.salient_logits(images))
    assert border_means(salient).mean() < 0.5
    history = common["output"].with_suffix(".history.csv").read_text().splitlines()[0]
    assert history.split(",")[:5] == ["epoch", *CONTRASTIVE, "lr"]


def test_hints_keep_the_direction_whatever_the_border_says(common, tiny, random_maps, write_store, monkeypatch):
    monkeypatch.setattr("wsss_core.saliency.c2am_training.find_direction", lambda *args: -1)
    drawn = random_maps(tiny.manifest, classwise=False)
    hints = write_store(common["output"].parent / "hints.zarr", tiny.manifest, drawn, classwise=False)
    train_c2am(**common, hints=hints, settings=settings_of(), hint_settings=HintSettings())
    assert read_model(common["output"], "c2am")[0] == {"backbone": TINY, "hints": True, "direction": 1}
    train_c2am(**common, hints=None, settings=settings_of(), hint_settings=None)
    assert read_model(common["output"], "c2am")[0]["direction"] == -1


@pytest.mark.parametrize(("hints", "hint_settings"), [(None, HintSettings()), (object(), None)])
def test_hints_that_do_not_fit_the_settings_are_refused(common, hints, hint_settings):
    with pytest.raises(ValueError, match="takes hints and their settings, C²AM neither"):
        train_c2am(**common, hints=hints, settings=settings_of(), hint_settings=hint_settings)


@pytest.mark.parametrize("direction", [1, -1])
def test_a_checkpoint_gives_back_its_direction(tmp_path, direction):
    model = network()
    save_model(tmp_path / "m.pt", model, "c2am", {"backbone": TINY, "hints": False, "direction": direction})
    loaded = load_c2am(tmp_path / "m.pt")
    assert loaded.direction == direction
    assert loaded.state_dict().keys() == model.state_dict().keys()


def test_settings_without_hints_differ_from_those_with_them_in_their_losses():
    images = torch.randn(4, 3, 32, 32)
    plain = C2amStep(network(), settings_of(), None, 4, CPU)
    losses = plain({"image": images}, 0)
    hinted = C2amStep(network(), settings_of(), HintSettings(weight=9.0), 4, CPU)
    with_hint = hinted({"image": images, "hint": torch.ones(4, 1, 32, 32)}, 0)
    assert list(losses) == CONTRASTIVE
    assert list(with_hint) == [*CONTRASTIVE, "hint"]
    for name in CONTRASTIVE:
        torch.testing.assert_close(losses[name], with_hint[name])
