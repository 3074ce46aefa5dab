"""Scores against loops over thresholds and classes, and evaluations that stop rather than skip."""

import dataclasses
import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from wsss_core import scores
from wsss_core.cam_store import StoreError
from wsss_core.data import DataError, Manifest, Row, make_classes, write_grey, write_mask
from wsss_core.pseudo_masks import PseudoMaskSettings, make_pseudo_masks
from wsss_core.scores import (
    SweepSettings,
    evaluate_cams,
    evaluate_masks,
    evaluate_pseudo_masks,
    evaluate_saliency,
    swept,
    write_result,
)

SWEEP = SweepSettings(thresholds=(0.2, 0.4, 0.6, 0.8), fixed=0.5)
NAMES = ["background", "circle", "square", "star"]


@pytest.fixture(autouse=True)
def pickled_work(monkeypatch, through_pickles):
    monkeypatch.setattr(scores, "in_processes", through_pickles)


@pytest.fixture
def cams(tiny, tmp_path, random_maps, write_store):
    return write_store(tmp_path / "cams.zarr", tiny.manifest, random_maps(tiny.manifest))


def ious(pairs, classes=4) -> list[float]:
    """IoU of each class over all (prediction, truth) pairs, by counting."""
    result = []
    for c in range(classes):
        hit = sum(((p == c) & (t == c)).sum() for p, t in pairs)
        either = sum((((p == c) | (t == c)) & (t != 255)).sum() for p, t in pairs)
        result.append(hit / either if either else np.nan)
    return result


def naive_predictions(tiny, cams, threshold):
    for row in tiny.manifest:
        labels, maps = cams[row.id]
        full = F.interpolate(torch.from_numpy(maps)[None], (row.height, row.width), mode="bilinear")[0].numpy()
        full /= full.max(axis=(1, 2), keepdims=True) + np.float32(1e-5)
        planes = np.concatenate([np.full((1, *full.shape[1:]), threshold, np.float32), full])
        yield np.array([0, *(labels + 1)])[planes.argmax(0)], tiny.mask(row)


def test_cams_are_scored_as_by_a_loop_over_thresholds(tiny, cams):
    result = evaluate_cams(manifest=tiny.manifest, classes=tiny.classes, cams=cams, settings=SWEEP)
    loop = {t: ious(list(naive_predictions(tiny, cams, t))) for t in (0.2, 0.4, 0.5, 0.6, 0.8)}
    means = {threshold: np.mean(values) for threshold, values in loop.items()}
    assert [point["threshold"] for point in result["curve"]] == list(loop)
    assert [point["miou"] for point in result["curve"]] == pytest.approx(list(means.values()))
    best = max(SWEEP.thresholds, key=means.get)
    assert result["threshold"] == best
    assert result["miou"] == pytest.approx(means[best])
    assert result["iou"] == pytest.approx(dict(zip(NAMES, loop[best], strict=True)))
    assert result["fixed"] == {"threshold": 0.5, "miou": pytest.approx(means[0.5])}
    assert result["images"] == 8
    assert result["pixels"] == sum((tiny.mask(row) != 255).sum() for row in tiny.manifest)


def test_false_rates_are_shares_of_the_union_over_the_foreground(tiny, cams):
    result = evaluate_cams(manifest=tiny.manifest, classes=tiny.classes, cams=cams, settings=SWEEP)
    pairs = list(naive_predictions(tiny, cams, 0.4))
    shares = []
    for c in (1, 2, 3):
        false = sum(((p == c) & (t != c) & (t != 255)).sum() for p, t in pairs)
        missed = sum(((p != c) & (t == c)).sum() for p, t in pairs)
        hit = sum(((p == c) & (t == c)).sum() for p, t in pairs)
        shares.append([false / (false + missed + hit), missed / (false + missed + hit)])
    point = result["curve"][1]
    assert [point["false_positives"], point["false_negatives"]] == pytest.approx(np.mean(shares, axis=0))


def confusions(*matrices) -> np.ndarray:
    return np.array(matrices, np.int64)


def test_the_best_is_among_the_thresholds_even_where_the_fixed_one_is_better(tiny):
    total = confusions([[5, 5], [5, 5]], [[10, 0], [0, 10]], [[8, 2], [2, 8]])  # at 0.2, 0.3 and 0.4
    settings = SweepSettings(thresholds=(0.2, 0.4), fixed=0.3)
    result = swept(total, settings, make_classes(["thing"]), tiny.manifest)
    assert result["threshold"] == 0.4
    assert result["miou"] == pytest.approx(8 / 12)
    assert result["fixed"] == {"threshold": 0.3, "miou": 1.0}
    assert result["threshold_choice"] == "best of 2, chosen on the scored split"
    assert [point["threshold"] for point in result["curve"]] == [0.2, 0.3, 0.4]


def test_a_fixed_threshold_among_the_thresholds_may_be_the_best(tiny):
    total = confusions([[5, 5], [5, 5]], [[10, 0], [0, 10]])
    result = swept(total, SweepSettings((0.2, 0.3), 0.3), make_classes(["thing"]), tiny.manifest)
    assert (result["threshold"], result["fixed"]["threshold"]) == (0.3, 0.3)
    assert result["threshold_choice"].startswith("best of 2")


def test_a_class_that_never_occurs_has_no_score(tiny):
    total = confusions([[6, 2, 0], [0, 4, 0], [0, 0, 0]])
    result = swept(total, SweepSettings((0.3,), 0.3), make_classes(["thing", "ghost"]), tiny.manifest)
    assert result["iou"] == {"background": 0.75, "thing": pytest.approx(4 / 6), "ghost": None}
    assert result["miou"] == pytest.approx((0.75 + 4 / 6) / 2)


# --- saliency ------------------------------------------------------------------------------------------------------

TRUTH = np.array([[1, 1, 0], [3, 1, 255]], np.uint8)
CAMS = np.array([[[0.1, 0.0, 0.9], [0.4, 0.4, 0.2]], [[0.0, 0.0, 0.2], [0.6, 0.3, 0.8]]])  # of classes 1 and 3
REFINED = np.array([[255, 255, 0], [127, 127, 255]], np.uint8)  # 127 puts background at 0.502
COARSE = np.full((2, 3), 255, np.uint8)


@pytest.fixture
def one_picture(tmp_path, write_store):
    classes = make_classes(NAMES[1:])
    write_mask(tmp_path / "truth.png", TRUTH, classes)
    manifest = Manifest.of([Row("a", "unused.png", str(tmp_path / "truth.png"), 2, 3, (0, 2))])
    write_grey(tmp_path / "refined" / "a.png", REFINED)
    write_grey(tmp_path / "coarse" / "a.png", COARSE)
    return {
        "manifest": manifest,
        "classes": classes,
        "cams": write_store(tmp_path / "one.zarr", manifest, {"a": CAMS}, stride=1),
        "coarse": tmp_path / "coarse",
        "refined": tmp_path / "refined",
        "settings": SweepSettings((0.3, 0.6), 0.5),
    }


def test_saliency_decides_about_the_background(one_picture):
    result = evaluate_saliency(**one_picture)
    # refined: [[1, 0, 0], [3, 0, .]]; a CAM of 0 ties with a background of 0 and loses
    assert result["iou"] == {
        "background": pytest.approx(1 / 3),
        "circle": pytest.approx(1 / 3),
        "square": None,
        "star": 1,
    }
    assert result["miou"] == pytest.approx(5 / 9)
    # coarse, all salient: [[1, 0, 1], [3, 1, .]]
    assert result["coarse"]["miou"] == pytest.approx((0 + 2 / 4 + 1) / 3)
    assert result["decision"] == "best class where its CAM exceeds 1 - saliency"
    assert (result["images"], result["pixels"]) == (1, 5)


def test_saliency_is_also_scored_against_all_objects(one_picture):
    result = evaluate_saliency(**one_picture)
    assert result["refined"]["foreground_background"] == {"miou": 1.0, "threshold": 0.3}
    assert result["coarse"]["foreground_background"] == {"miou": pytest.approx((0 + 4 / 5) / 2), "threshold": 0.3}


@pytest.mark.parametrize("folder", ["coarse", "refined"])
def test_a_missing_saliency_map_is_named(one_picture, folder):
    (one_picture[folder] / "a.png").unlink()
    with pytest.raises(DataError, match=rf"{folder}/a\.png"):
        evaluate_saliency(**one_picture)


# --- pseudo masks and masks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("iterations", [0, 1])
def test_pseudo_masks_are_scored_as_they_are_written(tiny, cams, tmp_path, iterations):
    common = {"manifest": tiny.manifest, "classes": tiny.classes, "walked": cams}
    settings = SweepSettings((0.5, 0.9), 0.7)
    result = evaluate_pseudo_masks(**common, iterations=iterations, confidence=0.9, settings=settings)
    for point in result["curve"]:
        folder = tmp_path / str(point["threshold"])
        make_pseudo_masks(**common, folder=folder, settings=PseudoMaskSettings(point["threshold"], iterations, 0.9))
        written = evaluate_masks(manifest=tiny.manifest, classes=tiny.classes, folder=folder)
        assert written["miou"] == pytest.approx(point["miou"])
    assert result["crf"] == {"kind": "labels", "iterations": iterations, "confidence": 0.9}


def test_masks_are_scored_pixel_by_pixel(tiny, tmp_path):
    rng, pairs = np.random.default_rng(0), []
    for row in tiny.manifest:
        prediction = rng.integers(0, 4, (row.height, row.width), np.uint8)
        write_mask(tmp_path / f"{row.id}.png", prediction, tiny.classes)
        pairs.append((prediction, tiny.mask(row)))
    result = evaluate_masks(manifest=tiny.manifest, classes=tiny.classes, folder=tmp_path)
    assert result["iou"] == pytest.approx(dict(zip(NAMES, ious(pairs), strict=True)))


# --- what stops an evaluation --------------------------------------------------------------------------------------


def altered(manifest: Manifest, index: int, **changes) -> Manifest:
    rows = list(manifest)
    rows[index] = dataclasses.replace(rows[index], **changes)
    return Manifest.of(rows)


def test_an_image_without_mask_stops_the_evaluation(tiny, cams):
    manifest = altered(tiny.manifest, 3, mask="")
    with pytest.raises(DataError, match="image image3 has no mask to be scored against"):
        evaluate_cams(manifest=manifest, classes=tiny.classes, cams=cams, settings=SWEEP)


def test_a_mask_that_is_gone_is_named(tiny, cams):
    manifest = altered(tiny.manifest, 3, mask="gone/image3.png")
    with pytest.raises(DataError, match=r"gone/image3\.png"):
        evaluate_cams(manifest=manifest, classes=tiny.classes, cams=cams, settings=SWEEP)


def test_a_missing_map_is_named(tiny, tmp_path, random_maps, write_store):
    fewer = Manifest.of(tiny.manifest.rows[:-1])
    cams = write_store(tmp_path / "fewer.zarr", fewer, random_maps(fewer))
    with pytest.raises(StoreError, match=r"fewer\.zarr holds no maps of image image7"):
        evaluate_cams(manifest=tiny.manifest, classes=tiny.classes, cams=cams, settings=SWEEP)


def perfect_masks(tiny, folder):
    for row in tiny.manifest:
        mask = tiny.mask(row)
        write_mask(folder / f"{row.id}.png", np.where(mask == 255, 0, mask).astype(np.uint8), tiny.classes)


def test_perfect_masks_score_one(tiny, tmp_path):
    perfect_masks(tiny, tmp_path)
    assert evaluate_masks(manifest=tiny.manifest, classes=tiny.classes, folder=tmp_path)["miou"] == 1.0


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        (None, "cannot be read"),
        (np.zeros((32, 48), np.uint8), "height x width is 32 x 48, the image's is 48 x 32"),
        (np.full((48, 32), 9, np.uint8), r"mask values \[9\] belong to no class"),
        (np.full((48, 32), 255, np.uint8), "void pixels in a prediction"),
    ],
    ids=["missing", "size", "value", "void"],
)
def test_a_faulty_prediction_is_named(tiny, tmp_path, fault, text):
    perfect_masks(tiny, tmp_path)
    path = tmp_path / "image5.png"
    path.unlink()
    if fault is not None:
        write_grey(path, fault)
    with pytest.raises(DataError, match=rf"image5\.png.*{text}"):
        evaluate_masks(manifest=tiny.manifest, classes=tiny.classes, folder=tmp_path)


def test_nothing_to_score_is_an_error(tiny, cams):
    with pytest.raises(DataError, match="no images to score"):
        evaluate_cams(manifest=Manifest.of([]), classes=tiny.classes, cams=cams, settings=SWEEP)


# --- the file ------------------------------------------------------------------------------------------------------


def test_a_result_explains_itself(tiny, cams, tmp_path):
    result = evaluate_cams(manifest=tiny.manifest, classes=tiny.classes, cams=cams, settings=SWEEP)
    write_result(tmp_path / "out" / "miou.json", result, dataset="tiny", split="train", image_level_labels_used=True)
    content = json.loads((tmp_path / "out" / "miou.json").read_text(encoding="utf-8"))
    assert list(content) == [
        "dataset", "split", "image_level_labels_used", "miou", "iou", "images", "pixels", "threshold",
        "threshold_choice", "fixed", "curve", "scoring",
    ]  # fmt: skip
    assert content["iou"].keys() == set(NAMES)
    assert content["miou"] == result["miou"]
    assert "versions" in content["scoring"]
