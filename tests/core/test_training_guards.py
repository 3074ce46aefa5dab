"""Four steps of every training on the tiny data set, seed 9, on the CPU, against losses that were written down.

They say that a training still does what it did. When one is meant to change, raise the stage's number in
``wsss_core.recipes.revisions`` and write down the new losses, which a failing test shows.
"""

import numpy as np
import pandas as pd
import pytest
import torch

from wsss_core.affinity.training import train_affinity
from wsss_core.base.checkpoints import save_model
from wsss_core.classifiers.network import Classifier
from wsss_core.classifiers.training import train_classifier
from wsss_core.data import Manifest, write_grey
from wsss_core.networks.backbones import build_backbone
from wsss_core.recipes.settings import (
    AffinitySettings,
    C2amSettings,
    DeeplabV3PlusSettings,
    HintSettings,
    PoolnetSettings,
)
from wsss_core.saliency.c2am_training import train_c2am
from wsss_core.saliency.poolnet_training import train_poolnet
from wsss_core.segmentation.training import train_segmentation

SEED = 9
TINY = "test_resnet"


@pytest.fixture
def common(tiny, tmp_path) -> dict:
    """What all trainings take; two epochs of two batches of four make the four steps."""
    torch.manual_seed(SEED)
    return {
        "manifest": tiny.manifest,
        "weights": None,
        "output": tmp_path / "model.pt",
        "seed": SEED,
        "device": torch.device("cpu"),
    }


def losses(common: dict) -> dict[str, list[float]]:
    """The means of the epochs, by loss part."""
    history = pd.read_csv(common["output"].with_suffix(".history.csv"))
    return history.drop(columns=["epoch", "lr", "seconds", "gpu_memory_mb"]).to_dict("list")


def check(common: dict, expected: dict[str, list[float]]) -> None:
    found = losses(common)
    assert found.keys() == expected.keys()
    assert {name: pytest.approx(values, rel=1e-4) for name, values in expected.items()} == found


def train(common, classes, settings, terms, ordinary=None) -> None:
    folder = common["output"].with_name("epochs")
    train_classifier(**common, classes=classes, ordinary=ordinary, settings=settings, terms=terms, epochs=folder)


def test_the_plain_classifier_does_what_it_did(common, tiny, classifier_settings):
    train(common, tiny.classes, classifier_settings(augmentation="randaug"), {})
    check(common, {"class": [0.798022, 0.68009]})


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        (
            "puzzle",
            {
                "class": [0.783697, 0.692542],
                "merged_class": [0.74776, 0.752923],
                "reconstruction": [0.2606, 0.239829],
            },
        ),
        ("occse", {"class": [0.771695, 0.678244], "erasing": [0.679155, 0.679574]}),
        (
            "poc",
            {
                "class": [0.783681, 0.693419],
                "merged_class": [0.747745, 0.755275],
                "reconstruction": [0.260607, 0.246572],
                "erasing": [0.679197, 0.67932],
            },
        ),
        (
            "pnoc",
            {
                "class": [0.783681, 0.693416],
                "merged_class": [0.747745, 0.755273],
                "reconstruction": [0.260607, 0.246573],
                "erasing": [0.679065, 0.678437],
                "discriminator": [0.691123, 0.691189],
            },
        ),
    ],
)
def test_methods_do_what_they_did(common, tiny, tmp_path, classifier_settings, terms_of, method, expected):
    ordinary = Classifier(build_backbone(TINY), 3)
    save_model(tmp_path / "oc.pt", ordinary, "classifier", {"backbone": TINY, "output_stride": 16, "classes": 3})
    settings = classifier_settings(augmentation="jitter")
    train(common, tiny.classes, settings, terms_of(method), tmp_path / "oc.pt")
    check(common, expected)


def test_c2am_does_what_it_did(common, tiny, tmp_path, random_maps, write_store):
    drawn = random_maps(tiny.manifest, classwise=False, seed=SEED)
    hints = write_store(tmp_path / "hints.zarr", tiny.manifest, drawn, classwise=False)
    settings = C2amSettings(
        backbone=TINY, squash=1.15, crop=32, batch_size=4, accumulation=1, epochs=2, learning_rate=0.01, head_rate=10,
        weight_decay=1e-4, train_batch_norm=True, alpha=0.25, precision="float32",
    )  # fmt: skip
    train_c2am(**common, hints=hints, settings=settings, hint_settings=HintSettings(1.0, 0.5, 0.1))
    expected = {
        "positive_foreground": [0.336293, 0.371061],
        "positive_background": [0.350961, 0.398286],
        "negative": [1.11457, 1.08289],
        "hint": [0.651197, 0.708425],
    }
    check(common, expected)


def test_poolnet_does_what_it_did(common, tiny, tmp_path):
    """Two epochs of two images, one at a time."""
    for row in tiny.manifest:
        write_grey(tmp_path / "saliency" / f"{row.id}.png", ((tiny.mask(row) > 0) * 255).astype(np.uint8))
    common["manifest"] = Manifest.of(tiny.manifest.rows[:2])
    settings = PoolnetSettings(
        backbone=TINY, width=0.0625, epochs=2, accumulation=1, learning_rate=3e-3, weight_decay=5e-4,
        smallest_side=0,
    )  # fmt: skip
    train_poolnet(**common, masks=tmp_path / "saliency", settings=settings)
    check(common, {"loss_a_pixel": [0.692327, 0.668885]})


def test_affinity_does_what_it_did(common, tiny):
    settings = AffinitySettings(
        backbone=TINY, resize=(32, 56), crop=32, radius=3, batch_size=4, epochs=2, learning_rate=0.1,
        weight_decay=1e-4,
    )  # fmt: skip
    train_affinity(**common, classes=tiny.classes, labels=tiny.masks, settings=settings)
    expected = {
        "positive_background": [0.688749, 0.69333],
        "positive_foreground": [0.698946, 0.715156],
        "negative": [0.684665, 0.674322],
        "total": [0.689256, 0.689283],
    }
    check(common, expected)


def test_deeplab_does_what_it_did(common, tiny):
    settings = DeeplabV3PlusSettings(
        backbone=TINY, output_stride=16, norm="group", width=16, resize=(32, 56), crop=32, augmentation="none",
        batch_size=4, accumulation=2, epochs=2, learning_rate=0.05, weight_decay=4e-5, momentum=0.0, nesterov=False,
        label_smoothing=0.1, precision="float32",
    )  # fmt: skip
    train_segmentation(**common, classes=tiny.classes, masks=tiny.masks, settings=settings)
    check(common, {"loss": [1.89638, 1.2107]})
