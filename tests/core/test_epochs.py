"""Scores of checkpoints by epoch: corners of images, masks on the maps' grid, label scores, against hand-made ones."""

import itertools
import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from wsss_core.base.checkpoints import save_model
from wsss_core.classifiers import epochs as monitoring
from wsss_core.classifiers.epochs import Corners, evaluate_epochs, label_scores
from wsss_core.classifiers.network import Classifier, load_classifier
from wsss_core.data import Manifest, Row, make_classes, write_mask
from wsss_core.data.pictures import read_image
from wsss_core.data.transforms import normalize
from wsss_core.networks.backbones import build_backbone
from wsss_core.recipes.settings import MonitoringSettings

CPU = torch.device("cpu")

# --- scores of labels ----------------------------------------------------------------------------------------------

PROBABILITIES = np.array([[0.9, 0.2, 0.1], [0.6, 0.7, 0.4], [0.3, 0.6, 0.2], [0.8, 0.1, 0.3]])
LABELS = np.array([[1, 0, 0], [1, 0, 1], [0, 1, 0], [0, 1, 1]])


def test_label_scores_are_those_worked_out_by_hand():
    """Class 0: three predicted, two hits of two; class 1: two predicted, one hit of two; class 2: nothing predicted."""
    scores = label_scores(PROBABILITIES, LABELS)
    assert scores == {
        "precision": pytest.approx((2 / 3 + 1 / 2 + 0) / 3),
        "recall": pytest.approx((1 + 1 / 2 + 0) / 3),
        "f1": pytest.approx((4 / 5 + 1 / 2 + 0) / 3),
        # right pairs: 0.9 > 0.3, 0.8 and 0.6 > 0.3 but not 0.8; 0.6 > 0.2; 0.4 and 0.3 > 0.1 and 0.2
        "roc_auc": pytest.approx((3 / 4 + 1 / 4 + 4 / 4) / 3),
    }


def test_a_probability_of_the_threshold_is_not_a_prediction():
    half = np.array([[0.5, 0.6], [0.6, 0.5]])
    assert label_scores(half, np.eye(2)[::-1])["recall"] == 1
    assert label_scores(half, np.eye(2))["recall"] == 0
    assert label_scores(half, np.eye(2), threshold=0.4)["recall"] == 1


def test_the_area_is_the_share_of_pairs_in_the_right_order_and_ties_are_half_a_pair():
    rng = np.random.default_rng(0)
    probabilities, labels = rng.integers(0, 6, (30, 4)) / 6, rng.integers(0, 2, (30, 4))
    areas = []
    for scores, truth in zip(probabilities.T, labels.T, strict=True):
        pairs = list(itertools.product(scores[truth == 1], scores[truth == 0]))
        areas.append(sum(1.0 if high > low else 0.5 if high == low else 0.0 for high, low in pairs) / len(pairs))
    assert label_scores(probabilities, labels)["roc_auc"] == pytest.approx(np.mean(areas))


@pytest.mark.parametrize("value", [0, 1])
def test_a_class_without_pairs_is_left_out_of_the_area_alone(value):
    labels = LABELS.copy()
    labels[:, 1] = value
    scores = label_scores(PROBABILITIES, labels)
    assert scores["roc_auc"] == pytest.approx((3 / 4 + 4 / 4) / 2)
    # class 1 has two predictions: no hit, or two hits of four
    assert scores["precision"] == pytest.approx((2 / 3 + value) / 3)
    assert scores["recall"] == pytest.approx((1 + value / 2) / 3)


def test_without_any_pair_there_is_no_area():
    assert label_scores(PROBABILITIES[:1], LABELS[:1])["roc_auc"] is None


# --- corners of images ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [16, 40, 64], ids=["inside", "higher than the image", "larger than the image"])
def test_a_corner_is_the_top_left_part_and_padding_is_the_mean_colour_and_void(tiny, size):
    row = tiny.manifest.rows[0]
    height, width = min(row.height, size), min(row.width, size)
    pixels, mask, index = Corners(tiny.manifest, tiny.classes, size)[0]
    assert (pixels.shape, mask.shape, mask.dtype, index) == ((3, size, size), (1, size, size), torch.uint8, 0)
    whole = normalize(read_image(row.image)).transpose(2, 0, 1)
    np.testing.assert_allclose(pixels[:, :height, :width], whole[:, :height, :width])
    np.testing.assert_array_equal(mask[0, :height, :width], tiny.mask(row)[:height, :width])
    outside = torch.ones(size, size, dtype=torch.bool)
    outside[:height, :width] = False
    assert (pixels[:, outside] == 0).all()
    assert (mask[:, outside] == 255).all()
    assert outside.sum() == size * size - height * width


# --- scores of maps ------------------------------------------------------------------------------------------------

MAPS = torch.tensor(
    [
        [[[4.0, 2.0], [1.0, -3.0]], [[9.0, 9.0], [9.0, 9.0]]],  # the second class is not in the black picture
        [[[-1.0, 6.0], [-2.0, 1.0]], [[0.5, 0.0], [1.0, 2.0]]],
    ]
)
MASKS = np.array([[[1, 1], [0, 255]], [[0, 1], [2, 1]]], np.uint8)  # at the top left of the maps' cells


class Given(nn.Module):
    """Gives the first maps for a black picture and the second ones for a white one."""

    def maps(self, pixels):
        return MAPS[(pixels[:, 0, 0, 0] > 0).long()]


@pytest.fixture
def black_and_white(tmp_path):
    """Two pictures of 8 x 8 pixels; their masks are wrong but in the pixels that OpenCV's nearest resize takes."""
    classes = make_classes(["circle", "square"])
    rows = []
    for name, colour, mask, labels in zip("bw", (0, 255), MASKS, ((0,), (0, 1)), strict=True):
        Image.new("RGB", (8, 8), (colour,) * 3).save(tmp_path / f"{name}.png")
        full = np.full((8, 8), 2, np.uint8)
        full[::4, ::4] = mask
        write_mask(tmp_path / f"{name}.mask.png", full, classes)
        rows.append(Row(name, str(tmp_path / f"{name}.png"), str(tmp_path / f"{name}.mask.png"), 8, 8, labels))
    return Manifest.of(rows), classes


def test_the_pixel_in_the_middle_of_a_cell_may_stand_for_it(black_and_white, monkeypatch):
    """In these masks the middle of every cell is a square."""
    manifest, classes = black_and_white
    monkeypatch.setattr(monitoring, "load_classifier", lambda path: Given())
    monkeypatch.setattr(monitoring, "read_model", lambda path, kind: ({"epoch": 7}, {}))

    def score(cell):
        settings = MonitoringSettings((0.3,), cell)
        return evaluate_epochs(
            checkpoints={"last": "x"}, manifest=manifest, classes=classes, settings=settings, crop=8, device=CPU
        )["last"]["miou"]  # fmt: skip

    # of eight squares two are found, as 0.3 predicts 1 1 0 and whatever where it was void, then 0 1 2 2
    assert score("middle") == pytest.approx((0 + 0 + 2 / 8) / 3)
    assert score("corner") == pytest.approx((2 / 2 + 3 / 4 + 1 / 2) / 3)


@pytest.mark.parametrize("batch_size", [1, 2])
def test_maps_are_scored_on_their_own_grid_at_every_threshold(black_and_white, monkeypatch, batch_size):
    """Shares of the maximum: black picture, circle 1, 0.5, 0.25, 0; white one, circle 0, 1, 0, 0.17, square 0.25, 0,
    0.5, 1. Truth: circle, circle, background, void; background, circle, square, circle.
    """
    manifest, classes = black_and_white
    monkeypatch.setattr(monitoring, "load_classifier", lambda path: Given())
    monkeypatch.setattr(monitoring, "read_model", lambda path, kind: ({"epoch": 7}, {}))

    def scores(*thresholds):
        settings = MonitoringSettings(thresholds)
        return evaluate_epochs(
            checkpoints={"last": "x"}, manifest=manifest, classes=classes, settings=settings, crop=8,
            device=CPU, batch_size=batch_size,
        )["last"]  # fmt: skip

    # intersections and unions of background, circle, square
    by_hand = {
        0.2: (0 / 2, 3 / 5, 1 / 3),  # predicted: 1 1 1 -, 2 1 2 2
        0.3: (2 / 2, 3 / 4, 1 / 2),  # 1 1 0 -, 0 1 2 2
        0.45: (2 / 2, 3 / 4, 1 / 2),
        0.6: (2 / 4, 2 / 4, 0 / 2),  # 1 0 0 -, 0 1 0 2
    }
    for threshold, ious in by_hand.items():
        found = scores(threshold)
        assert (found["epoch"], found["threshold"]) == (7, threshold)
        assert found["miou"] == pytest.approx(np.mean(ious)), threshold
    best = scores(*by_hand)
    assert (best["threshold"], best["miou"]) == (0.3, pytest.approx((1 + 3 / 4 + 1 / 2) / 3))
    # class 0 has mean maps of 1 and 1, class 1 of 9 and 0.875: all are predicted, and the black one has no square
    assert best["precision"] == pytest.approx((1 + 1 / 2) / 2)
    assert best["recall"] == 1
    assert best["roc_auc"] == 0


def test_a_network_whose_maps_are_not_finite_is_named_with_the_image(black_and_white, monkeypatch):
    manifest, classes = black_and_white

    class Broken(Given):
        def maps(self, x):
            maps = super().maps(x)
            maps[1:, 0, 0, 1] = torch.nan
            return maps

    monkeypatch.setattr(monitoring, "load_classifier", lambda path: Broken())
    with pytest.raises(FloatingPointError, match=rf"last\.pt gives maps of image {manifest.rows[1].id} that are not"):
        evaluate_epochs(
            checkpoints={"last": "last.pt"}, manifest=manifest, classes=classes, settings=MonitoringSettings((0.2,)),
            crop=8, device=CPU,
        )  # fmt: skip


def test_scores_of_real_checkpoints_agree_with_an_image_at_a_time(tiny, tmp_path):
    torch.manual_seed(0)
    recipe = {"backbone": "test_resnet", "output_stride": 16, "classes": 3}
    for epoch in (1, 4):
        save_model(
            tmp_path / f"{epoch}.pt",
            Classifier(build_backbone("test_resnet"), 3),
            "classifier",
            recipe | {"epoch": epoch},
        )
    thresholds = (0.1, 0.5, 0.7)
    found = evaluate_epochs(
        checkpoints={"first": tmp_path / "1.pt", "last": tmp_path / "4.pt"},
        manifest=tiny.manifest,
        classes=tiny.classes,
        settings=MonitoringSettings(thresholds),
        crop=40,
        device=CPU,
        batch_size=3,
    )
    assert list(found) == ["first", "last"]
    for epoch, scores in zip((1, 4), found.values(), strict=True):
        expected = [score_by_hand(tiny, tmp_path / f"{epoch}.pt", threshold) for threshold in thresholds]
        assert scores["epoch"] == epoch
        assert scores["miou"] == pytest.approx(max(expected))
        assert scores["threshold"] == thresholds[int(np.argmax(expected))]
        assert scores.keys() == {"epoch", "miou", "threshold", "precision", "recall", "f1", "roc_auc"}
    assert found["first"]["miou"] != found["last"]["miou"]
    json.dumps(found)


def score_by_hand(tiny, checkpoint, threshold, side=40) -> float:
    """Mean IoU: a constant plane in front of the maps, argmax, intersections and unions over all images."""
    model = load_classifier(checkpoint).eval()
    inter, union = np.zeros(4), np.zeros(4)
    for row in tiny.manifest:
        pixels = normalize(read_image(row.image))[:side, :side]
        canvas, mask = np.zeros((side, side, 3), np.float32), np.full((side, side), 255, np.uint8)
        canvas[: pixels.shape[0], : pixels.shape[1]] = pixels
        mask[: pixels.shape[0], : pixels.shape[1]] = tiny.mask(row)[:side, :side]
        with torch.no_grad():
            maps = model.maps(torch.from_numpy(canvas.transpose(2, 0, 1).copy())[None])[0].relu().numpy()
        planes = np.full((4, *maps.shape[1:]), -1.0, np.float32)
        planes[0] = threshold
        for label in row.labels:
            planes[label + 1] = maps[label] / (maps[label].max() + np.float32(1e-5))
        rows, columns = (np.arange(cells) * side // cells for cells in maps.shape[1:])  # 0, 13, 26 of 40
        truth = mask[np.ix_(rows, columns)]
        for c in range(4):
            predicted, true = (planes.argmax(0) == c) & (truth != 255), truth == c
            inter[c] += (predicted & true).sum()
            union[c] += (predicted | true).sum()
    return float(np.mean(inter[union > 0] / union[union > 0]))
