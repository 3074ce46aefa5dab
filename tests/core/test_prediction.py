"""Prediction of masks: test-time scales, and folders that appear whole or not at all."""

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from wsss_core.data import DataError, Manifest, read_mask
from wsss_core.data.pictures import read_image
from wsss_core.data.samples import ScaledImages, network_input
from wsss_core.maps.crf import crf_probabilities
from wsss_core.recipes.settings import PredictionSettings
from wsss_core.segmentation import prediction as segmentation
from wsss_core.segmentation.prediction import predict_masks

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def pickled_work(monkeypatch, through_pickles):
    monkeypatch.setattr(segmentation, "in_processes", through_pickles)


class FakeNet(nn.Module):
    """Logits of four classes at the size of the input."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.conv = nn.Conv2d(3, 4, kernel_size=5, padding=2)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x):
        return self.dropout(self.conv(x))


def predict(tiny, folder, *, manifest=None, iterations=0, model=None, mirror=True):
    predict_masks(
        model=model or FakeNet(),
        manifest=manifest or tiny.manifest,
        classes=tiny.classes,
        folder=folder,
        settings=PredictionSettings(scales=(0.5, 1.0), mirror=mirror, crf_iterations=iterations),
        device=CPU,
    )
    return {row.id: read_mask(folder / f"{row.id}.png", tiny.classes) for row in tiny.manifest}


@torch.no_grad()
def probabilities_by_hand(tiny, mirror=True):
    """Mirror pairs are added, which sharpens the softmax; scales are averaged."""
    net, images = FakeNet().eval(), ScaledImages(tiny.manifest, (0.5, 1.0))
    for index, row in enumerate(tiny.manifest):
        total = 0
        for view in images[index][1]:
            image = network_input(view[None])
            logits = net(image)
            if mirror:
                logits = logits + net(image.flip(3)).flip(3)
            total = total + F.interpolate(logits, (row.height, row.width), mode="bilinear")
        yield row, (total / 2).softmax(1)[0].numpy()


@pytest.mark.parametrize("mirror", [True, False])
def test_masks_are_those_of_a_straightforward_loop(tiny, tmp_path, mirror):
    masks = predict(tiny, tmp_path / "masks", mirror=mirror)
    for row, probabilities in probabilities_by_hand(tiny, mirror):
        assert (masks[row.id] == probabilities.argmax(0)).mean() > 0.999  # but for ties to the last bit


def test_the_crf_gets_the_probabilities(tiny, tmp_path):
    masks = predict(tiny, tmp_path / "masks", iterations=2)
    for row, probabilities in probabilities_by_hand(tiny):
        refined = crf_probabilities(np.asarray(read_image(row.image)), probabilities, 2)
        assert (masks[row.id] == refined.argmax(0)).mean() > 0.99


def test_labels_of_the_images_are_not_used(tiny, tmp_path):
    masks = predict(tiny, tmp_path / "a")
    unlabelled = Manifest.of([dataclasses.replace(row, labels=(), mask="") for row in tiny.manifest])
    again = predict(tiny, tmp_path / "b", manifest=unlabelled)
    assert all(np.array_equal(masks[name], again[name]) for name in masks)


def test_an_error_on_the_way_leaves_no_folder(tiny, tmp_path):
    rows = list(tiny.manifest)
    rows[6] = dataclasses.replace(rows[6], image=str(tmp_path / "gone.png"))
    with pytest.raises(DataError, match=r"gone\.png"):
        predict(tiny, tmp_path / "masks", manifest=Manifest.of(rows))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", [torch.nan, -torch.inf])
def test_a_network_whose_logits_are_not_finite_is_refused(tiny, tmp_path, value):
    model = FakeNet()
    with torch.no_grad():
        model.conv.bias[2] = value
    with pytest.raises(FloatingPointError, match="logits of image image0 are not finite: delete its checkpoint"):
        predict(tiny, tmp_path / "masks", model=model)
    assert list(tmp_path.iterdir()) == []
