"""The training of AffinityNet with its displacement branch: what it leaves alone, and what it leaves behind."""

import pandas as pd
import pytest
import torch
from PIL import Image

from wsss_core.affinity import training
from wsss_core.affinity.network import AffinityNet
from wsss_core.affinity.training import AffinityStep, load_affinity, mean_displacement, train_affinity
from wsss_core.base.checkpoints import read_model, save_model
from wsss_core.data import Manifest
from wsss_core.data.pictures import Pictures
from wsss_core.data.transforms import normalize, to_tensor
from wsss_core.networks.backbones import build_backbone
from wsss_core.recipes.settings import AffinitySettings, identity, made

CPU = torch.device("cpu")
VALUES = {"backbone": "test_resnet", "resize": [32, 56], "crop": 32, "radius": 3, "batch_size": 3, "epochs": 2}
EDGES = ["positive_background", "positive_foreground", "negative"]


@pytest.fixture
def train(tiny, tmp_path):
    """A function that trains on the tiny data set and gives the checkpoint's path."""

    def run(name: str, **changes):
        output = tmp_path / f"{name}.pt"
        torch.manual_seed(1)
        train_affinity(
            manifest=tiny.manifest, classes=tiny.classes, labels=tiny.masks, weights=None,
            settings=made(AffinitySettings, VALUES | changes), output=output, seed=1, device=CPU,
        )  # fmt: skip
        return output

    return run


def history(output) -> pd.DataFrame:
    return pd.read_csv(output.with_suffix(".history.csv"))


def test_the_edges_are_the_same_with_and_without_displacements(train):
    alone, both = train("alone"), train("both", displacement=True)
    (recipe, edges), (further, state) = read_model(alone, "affinity"), read_model(both, "affinity")
    assert (recipe, further) == ({"backbone": "test_resnet"}, {"backbone": "test_resnet", "displacement": True})
    assert all(torch.equal(value, state[name]) for name, value in edges.items())
    pd.testing.assert_frame_equal(history(alone)[EDGES], history(both)[EDGES])
    losses = history(both)
    assert (losses["displacement_foreground"].diff()[1:] < 0).all()  # it learns
    parts = (losses["positive_background"] + losses["positive_foreground"]) / 4 + losses["negative"] / 2
    parts += (losses["displacement_foreground"] + losses["displacement_background"]) / 2
    torch.testing.assert_close(torch.tensor(losses["total"]), torch.tensor(parts), rtol=1e-4, atol=0)


def test_both_kinds_of_checkpoint_load(train):
    alone, both = load_affinity(train("alone")), load_affinity(train("both", displacement=True))
    assert alone.displacement is None
    images = torch.randn(1, 3, 32, 48)
    both.eval()
    assert both.both(images)[1].shape == (1, 2, 8, 12)
    torch.testing.assert_close(both(images), alone.eval()(images), rtol=0, atol=0)


def test_a_training_that_was_killed_ends_as_one_that_was_not(train, monkeypatch):
    whole = train("whole", displacement=True)
    monkeypatch.setattr(training, "fit", killed := _killed_after(training.fit))
    with pytest.raises(KeyboardInterrupt):
        train("part", displacement=True)
    assert killed.calls == 1
    monkeypatch.undo()
    output = train("part", displacement=True)
    expected, state = read_model(whole, "affinity")[1], read_model(output, "affinity")[1]
    assert all(torch.equal(value, state[name]) for name, value in expected.items())
    assert expected["displacement_mean"].abs().min() > 0


def _killed_after(fit):
    """``fit`` that dies in the second epoch."""

    def run(**arguments):
        run.calls += 1

        def die(batch, micro_step):
            if micro_step >= len(arguments["loader"]):
                raise KeyboardInterrupt
            return step(batch, micro_step)

        step = arguments["step"]
        fit(**arguments | {"step": die})

    run.calls = 0
    return run


def test_the_mean_is_that_of_whole_batches_of_top_left_crops(train, tiny):
    output = train("both", displacement=True)
    model = load_affinity(output).eval()
    mean = model.displacement_mean.clone()
    model.displacement_mean.zero_()
    crops = torch.zeros(6, 3, 32, 32)  # two batches of three; the last two pictures are in none
    for crop, row in zip(crops, tiny.manifest, strict=False):
        pixels = to_tensor(normalize(Image.open(row.image)))[:, :32, :32]
        crop[:, : pixels.shape[1], : pixels.shape[2]] = pixels
    with torch.no_grad():
        expected = model.both(crops)[1].mean((0, 2, 3))
    torch.testing.assert_close(mean, expected)
    # whatever is subtracted already does not count, and what a crop has beyond its picture does
    model.displacement_mean += 3
    pictures = Pictures(Manifest.of(tiny.manifest.rows[:2]).rows)
    found = mean_displacement(model, pictures, crop=64, batch_size=2, workers=0)
    wide = torch.zeros(2, 3, 64, 64)
    for crop, row in zip(wide, tiny.manifest, strict=False):
        pixels = to_tensor(normalize(Image.open(row.image)))
        crop[:, : pixels.shape[1], : pixels.shape[2]] = pixels
    with torch.no_grad():
        torch.testing.assert_close(found, model.both(wide)[1].mean((0, 2, 3)) + 3)


@pytest.mark.parametrize(("changes", "rates"), [({}, [0.1, 1.0]), ({"displacement_rate": 2.0}, [0.1, 0.2])])
def test_displacements_learn_at_a_rate_of_their_own(changes, rates):
    model = AffinityNet(build_backbone("test_resnet"), displacement=True)
    settings = made(AffinitySettings, VALUES | {"displacement": True} | changes)
    groups = AffinityStep(model, settings, 4, 10, CPU).optimizer.sgd.param_groups
    assert [group["lr"] for group in groups] == pytest.approx(rates)
    assert [group["weight_decay"] for group in groups] == [1e-4, 1e-4]
    assert {id(p) for p in groups[1]["params"]} == {id(p) for p in model.displacement_parameters()}


def test_settings_without_displacements_are_those_from_before():
    assert not [name for name in identity(AffinitySettings()) if name.startswith("displacement")]


def test_displacements_that_are_not_finite_are_never_written(tmp_path):
    model = AffinityNet(build_backbone("test_resnet"), displacement=True)
    model.displacement_mean[0] = torch.nan
    with pytest.raises(FloatingPointError, match="displacement_mean"):
        save_model(tmp_path / "affinity.pt", model, "affinity", {})
