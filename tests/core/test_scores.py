"""Scores against loops over thresholds and classes, and evaluations that stop rather than skip."""

import dataclasses
import json
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from wsss_core.affinity.pseudo_masks import make_pseudo_masks
from wsss_core.base.parallel import in_processes
from wsss_core.data import DataError, Manifest, Row, make_classes, read_grey, write_grey, write_mask
from wsss_core.data.pictures import read_image
from wsss_core.maps.crf import crf_labels
from wsss_core.maps.sizes import full_size
from wsss_core.maps.store import MapStore, StoreError
from wsss_core.recipes.settings import LabelCrf, PseudoMaskSettings, SaliencyScoreSettings, Steps, SweepSettings
from wsss_core.scores import metrics, saliency, totals
from wsss_core.scores.images import by_score, image_counts, read_image_scores, write_image_scores
from wsss_core.scores.masks import evaluate_masks, evaluate_pseudo_masks
from wsss_core.scores.priors import evaluate_cams
from wsss_core.scores.results import swept, write_result
from wsss_core.scores.saliency import evaluate_saliency, evaluate_saliency_gt

SWEEP = SweepSettings(thresholds=(0.2, 0.4, 0.6, 0.8), fixed=0.5)
NAMES = ["background", "circle", "square", "star"]


@pytest.fixture(autouse=True)
def pickled_work(monkeypatch, through_pickles):
    monkeypatch.setattr(totals, "in_processes", through_pickles)


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
    assert (result["classes_scored"], result["classes_absent"]) == (2, ["ghost"])


def test_a_split_without_any_object_is_refused(tiny):
    nothing = np.zeros((1, 2, 2), int)
    nothing[:, 0, 0] = 5
    with pytest.raises(DataError, match="no mask of the scored split shows an object"):
        swept(nothing, SweepSettings((0.3,), 0.3), make_classes(["thing"]), tiny.manifest)


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
        "cams": write_store(tmp_path / "one.zarr", manifest, {"a": CAMS}, stride=1, multiple=1),
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
    assert result["refined"]["miou"] == result["miou"]
    assert result["decision"] == "best class where its CAM exceeds 1 - saliency"
    assert (result["images"], result["pixels"]) == (1, 5)


def test_saliency_is_also_scored_against_all_objects(one_picture):
    result = evaluate_saliency(**one_picture)
    refined, coarse = (result[name]["foreground_background"] for name in ("refined", "coarse"))
    assert (refined["miou"], refined["threshold"]) == (1.0, 0.3)
    assert (coarse["miou"], coarse["threshold"]) == (pytest.approx((0 + 4 / 5) / 2), 0.3)
    assert refined["iou"] == {"background": 1.0, "foreground": 1.0}
    assert coarse["iou"] == {"background": 0.0, "foreground": pytest.approx(4 / 5)}
    assert "not comparable" in refined["note"]


@pytest.mark.parametrize("folder", ["coarse", "refined"])
def test_a_missing_saliency_map_is_named(one_picture, folder):
    (one_picture[folder] / "a.png").unlink()
    with pytest.raises(DataError, match=rf"{folder}/a\.png"):
        evaluate_saliency(**one_picture)


@pytest.fixture
def known(one_picture, tmp_path, write_store):
    """A function that gives arguments for the score with known classes; C²AM's maps are 1 everywhere."""
    maps = {"a": np.ones((1, 2, 3), np.float32), "b": np.ones((1, 2, 3), np.float32)}

    def arguments(**changes) -> dict:
        store = tmp_path / f"c2am_{len(one_picture['manifest'])}.zarr"
        if not store.exists():
            write_store(store, one_picture["manifest"], maps, stride=1, multiple=1, classwise=False)
        values = {"thresholds": (0.3, 0.6), "fixed": 0.5} | changes
        others = {key: value for key, value in one_picture.items() if key not in ("cams", "settings")}
        return others | {"coarse": MapStore(store), "crf": None, "settings": SaliencyScoreSettings(**values)}

    return arguments


def test_with_known_classes_only_the_outline_counts(known):
    # salient above 0.3: [[1, 1, 0], [1, 1, .]]; 127 / 255 is 0.498
    result = evaluate_saliency_gt(**known(fixed=0.499))
    assert result["iou"] == {"background": 1, "circle": 1, "square": None, "star": 1}
    assert (result["miou"], result["threshold"]) == (1.0, 0.3)
    # at 0.499: [[1, 1, 0], [0, 0, .]]; background 1 of 3, circle 2 of 3, star 0 of 1
    assert result["fixed"] == {"threshold": 0.499, "miou": pytest.approx((1 / 3 + 2 / 3 + 0) / 3)}
    assert result["refined"]["miou"] == 1.0
    assert result["refined"]["foreground_background"]["miou"] == 1.0
    assert (result["images"], result["pixels"]) == (1, 5)
    assert result["crf"] is None


def test_salient_background_has_a_class_of_the_image(known):
    coarse = evaluate_saliency_gt(**known())["coarse"]
    # all is salient: the one pixel of background is circle or star, never square
    circle, star = coarse["iou"]["circle"], coarse["iou"]["star"]
    assert (circle, star) in [(pytest.approx(3 / 4), 1.0), (1.0, pytest.approx(1 / 2))]
    assert (coarse["iou"]["background"], coarse["iou"]["square"]) == (0, None)
    assert coarse["miou"] == pytest.approx((0 + circle + star) / 3)
    assert coarse["foreground_background"]["miou"] == pytest.approx((0 + 4 / 5) / 2)


@pytest.fixture
def saliency_of_tiny(tiny, tmp_path, random_maps, write_store):
    """Random maps of C²AM and of PoolNet for the tiny pictures, and the settings of their score."""
    rng = np.random.default_rng(5)
    for row in tiny.manifest:
        saliency = rng.integers(0, 256, (row.height, row.width)).astype(np.uint8)
        write_grey(tmp_path / "refined" / f"{row.id}.png", saliency)
    maps = random_maps(tiny.manifest, classwise=False, seed=6)
    return {
        "manifest": tiny.manifest, "classes": tiny.classes, "refined": tmp_path / "refined", "crf": None,
        "coarse": write_store(tmp_path / "c2am.zarr", tiny.manifest, maps, classwise=False),
        "settings": SaliencyScoreSettings((0.2, 0.4, 0.8), 0.6),
    }  # fmt: skip


def drawn_classes(row, truth) -> np.ndarray:
    """The class of each pixel if it is salient; the draw of the image's id."""
    values = np.array([label + 1 for label in row.labels], np.uint8)
    return np.where(truth > 0, truth, np.random.default_rng(list(row.id.encode())).choice(values, truth.shape))


@pytest.mark.parametrize("crf", [None, LabelCrf(2, 0.7)])
@pytest.mark.parametrize("kind", ["coarse", "refined"])
def test_known_classes_are_scored_as_by_a_loop_over_thresholds(tiny, saliency_of_tiny, kind, crf):
    """Thresholds cut the maps, of C²AM and of PoolNet, and then there is a CRF; each has its own."""
    own = {"crf": crf} if kind == "coarse" else {}
    settings = dataclasses.replace(saliency_of_tiny["settings"], crf=None if own else crf)
    result = evaluate_saliency_gt(**saliency_of_tiny | {"settings": settings} | own)
    means, means_of_two = {}, {}
    for threshold in (0.2, 0.4, 0.8):
        pairs, objects = [], []
        for row in tiny.manifest:
            if kind == "coarse":
                soft = full_size(saliency_of_tiny["coarse"], row.id)[1][0]
            else:
                soft = read_grey(saliency_of_tiny["refined"] / f"{row.id}.png") / np.float32(255)
            truth, salient = tiny.mask(row), (soft > np.float32(threshold)).astype(np.uint8)
            salient = crf_labels(np.asarray(read_image(row.image)), salient, 2, 2 if crf else 0, 0.7)
            pairs.append((np.where(salient, drawn_classes(row, truth), 0), truth))
            objects.append((salient, np.where(truth == 255, 255, truth > 0)))
        means[threshold] = np.mean(ious(pairs))
        means_of_two[threshold] = np.mean(ious(objects, 2))
    assert result[kind]["miou"] == pytest.approx(max(means.values()))
    assert means[result[kind]["threshold"]] == pytest.approx(max(means.values()))
    two = result[kind]["foreground_background"]
    assert two["miou"] == pytest.approx(max(means_of_two.values()))
    assert means_of_two[two["threshold"]] == pytest.approx(two["miou"])
    if kind == "refined":
        assert {p["threshold"]: p["miou"] for p in result["curve"] if p["threshold"] != 0.6} == pytest.approx(means)
    other = "refined" if kind == "coarse" else "coarse"
    stated = crf and {"kind": "labels", "iterations": 2, "confidence": 0.7}
    assert (result[kind]["crf"], result[other]["crf"]) == (stated, None)
    assert result["crf"] == result["refined"]["crf"]


def test_random_classes_depend_on_the_image_alone(tiny, saliency_of_tiny):
    result = evaluate_saliency_gt(**saliency_of_tiny)
    rows = list(tiny.manifest)
    backwards = Manifest.of(rows[::-1])
    assert evaluate_saliency_gt(**saliency_of_tiny | {"manifest": backwards}) == result
    np.random.seed(1)  # noqa: NPY002 - the global generator must not matter
    assert evaluate_saliency_gt(**saliency_of_tiny) == result
    truth = np.zeros((48, 32), np.uint8)
    drawn, other = (saliency._known_classes(Row(name, "", "", 48, 32, (0, 2)), truth) for name in ("a", "b"))
    assert np.unique(drawn).tolist() == [1, 3]
    assert not np.array_equal(drawn, other)


def test_salient_background_of_an_image_without_labels_stays_background(one_picture, known, tmp_path):
    write_mask(tmp_path / "empty.png", np.zeros((2, 3), np.uint8), one_picture["classes"])
    write_grey(tmp_path / "refined" / "b.png", COARSE)
    empty = Row("b", "unused.png", str(tmp_path / "empty.png"), 2, 3, ())
    one_picture["manifest"] = Manifest.of([*one_picture["manifest"], empty])
    result = evaluate_saliency_gt(**known())
    assert result["refined"]["iou"] == {"background": 1, "circle": 1, "square": None, "star": 1}
    assert result["refined"]["foreground_background"]["iou"] == {"background": 1 / 7, "foreground": 4 / 10}
    # C²AM's map of such an image counts as 0, as where it becomes binary
    assert result["coarse"]["foreground_background"]["iou"] == {"background": 6 / 7, "foreground": 4 / 5}


def test_a_class_of_the_mask_that_the_labels_lack_is_known_all_the_same(one_picture, known):
    one_picture["manifest"] = altered(one_picture["manifest"], 0, labels=(0,))
    result = evaluate_saliency_gt(**known())
    assert result["iou"]["star"] == 1


def test_known_classes_need_the_map_of_every_image(one_picture, known):
    arguments = known()
    arguments["manifest"] = altered(one_picture["manifest"], 0, id="other")
    write_grey(one_picture["refined"] / "other.png", REFINED)
    with pytest.raises(StoreError, match="holds no maps of image other"):
        evaluate_saliency_gt(**arguments)


@pytest.mark.parametrize("evaluate", [evaluate_saliency, evaluate_saliency_gt])
def test_without_refined_maps_the_scores_are_those_of_the_coarse_ones(one_picture, known, evaluate):
    """A run without PoolNet takes C²AM's masks as they are."""
    given = known() if evaluate is evaluate_saliency_gt else one_picture
    both, alone = evaluate(**given), evaluate(**given | {"refined": None})
    assert "refined" not in alone
    assert alone["coarse"] == both["coarse"]
    assert alone["miou"] == both["coarse"]["miou"]
    again = evaluate(**given | {"refined": one_picture["coarse"]})
    assert alone == {name: value for name, value in again.items() if name != "refined"}


# --- pseudo masks and masks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("each_class", [None, True])
@pytest.mark.parametrize("crf", [None, LabelCrf(1, 0.9)])
def test_pseudo_masks_are_scored_as_they_are_written(tiny, cams, tmp_path, crf, each_class):
    common = {"manifest": tiny.manifest, "classes": tiny.classes, "maps": cams}
    masks = PseudoMaskSettings(crf=crf, each_class=each_class)
    result = evaluate_pseudo_masks(**common, masks=masks, settings=SweepSettings((0.5, 0.9), 0.7))
    for point in result["curve"]:
        folder = tmp_path / str(point["threshold"])
        make_pseudo_masks(**common, folder=folder, settings=dataclasses.replace(masks, threshold=point["threshold"]))
        written = evaluate_masks(manifest=tiny.manifest, classes=tiny.classes, folder=folder)
        assert written["miou"] == pytest.approx(point["miou"])
    assert result["crf"] == (crf and {"kind": "labels", "iterations": 1, "confidence": 0.9})


def test_masks_straight_from_cams_have_the_score_of_the_cams(tiny, cams):
    common = {"manifest": tiny.manifest, "classes": tiny.classes, "settings": SWEEP}
    masks = PseudoMaskSettings(crf=None, each_class=True)
    of_masks, of_cams = evaluate_pseudo_masks(**common, maps=cams, masks=masks), evaluate_cams(**common, cams=cams)
    assert of_masks["curve"] == of_cams["curve"]
    assert of_masks["by_labels"] == of_cams["by_labels"]


def test_images_of_one_class_and_of_several_are_scored_apart_too(tiny, cams):
    common = {"classes": tiny.classes, "cams": cams, "settings": SWEEP}
    result = evaluate_cams(manifest=tiny.manifest, **common)
    for name, wanted in (("single", lambda count: count == 1), ("multi", lambda count: count > 1)):
        part = Manifest.of([row for row in tiny.manifest if wanted(len(row.labels))])
        at = SweepSettings((result["threshold"],), result["threshold"])
        alone = evaluate_cams(manifest=part, **common | {"settings": at})
        assert result["by_labels"][name] == {
            "images": len(part),
            **{key: value for key, value in alone["curve"][0].items() if key != "threshold"},
        }
    assert sum(1 for row in tiny.manifest if row.labels) == sum(of["images"] for of in result["by_labels"].values())


def test_thresholds_at_equal_distances_include_both_ends():
    steps = SweepSettings(Steps(0.0, 0.59, 0.01), 0.155)
    assert len(steps.tried()) == 60
    assert (steps.tried()[0], steps.tried()[29], steps.tried()[-1]) == (0.0, 0.29, 0.59)
    assert len(steps.all()) == 61


def test_masks_are_scored_pixel_by_pixel(tiny, tmp_path):
    rng, pairs = np.random.default_rng(0), []
    for row in tiny.manifest:
        prediction = rng.integers(0, 4, (row.height, row.width), np.uint8)
        write_mask(tmp_path / f"{row.id}.png", prediction, tiny.classes)
        pairs.append((prediction, tiny.mask(row)))
    result = evaluate_masks(manifest=tiny.manifest, classes=tiny.classes, folder=tmp_path)
    assert result["iou"] == pytest.approx(dict(zip(NAMES, ious(pairs), strict=True)))


# --- scores an image -----------------------------------------------------------------------------------------------


def image_scores_by_hand(prediction, target):
    """IoU by class that is there, and the shares of foreground among what is scored."""
    scored = target != 255
    found = dict(zip(NAMES, ious([(prediction, target)]), strict=True))
    found = {name: score for name, score in found.items() if not np.isnan(score)}
    return found, [float((mask[scored] > 0).mean()) for mask in (prediction, target)]


def test_each_image_is_scored_at_the_best_threshold(tiny, cams, tmp_path):
    result = evaluate_cams(
        manifest=tiny.manifest, classes=tiny.classes, cams=cams, settings=SWEEP, images=tmp_path / "images.csv"
    )
    scores = read_image_scores(tmp_path / "images.csv")
    assert [one.image_id for one in scores] == tiny.manifest.ids
    for one, row, pair in zip(scores, tiny.manifest, naive_predictions(tiny, cams, result["threshold"]), strict=True):
        iou, (foreground, true_foreground) = image_scores_by_hand(*pair)
        assert one.labels == tuple(tiny.classes.names[label] for label in row.labels)
        assert one.iou == pytest.approx(iou, abs=1e-6)
        assert one.miou == pytest.approx(np.mean(list(iou.values())), abs=1e-6)
        assert (one.foreground, one.true_foreground) == pytest.approx((foreground, true_foreground), abs=1e-6)


def test_tables_of_images_change_no_score(tiny, cams, tmp_path):
    common = {"manifest": tiny.manifest, "classes": tiny.classes, "settings": SWEEP}
    assert evaluate_cams(**common, cams=cams, images=tmp_path / "c.csv") == evaluate_cams(**common, cams=cams)
    masks = {**common, "maps": cams, "masks": PseudoMaskSettings(crf=None, each_class=True)}
    assert evaluate_pseudo_masks(**masks, images=tmp_path / "p.csv") == evaluate_pseudo_masks(**masks)
    assert (tmp_path / "c.csv").read_text() == (tmp_path / "p.csv").read_text()  # the masks are the CAMs' own


def test_masks_are_scored_an_image_and_added_up(tiny, tmp_path):
    perfect_masks(tiny, tmp_path / "masks")
    first = tiny.manifest.rows[0]
    write_mask(tmp_path / "masks" / f"{first.id}.png", np.full((first.height, first.width), 2, np.uint8), tiny.classes)
    result = evaluate_masks(
        manifest=tiny.manifest, classes=tiny.classes, folder=tmp_path / "masks", images=tmp_path / "images.csv"
    )
    scores = read_image_scores(tmp_path / "images.csv")
    iou, _ = image_scores_by_hand(np.full((first.height, first.width), 2), tiny.mask(first))
    assert scores[0].iou == pytest.approx(iou, abs=1e-6)
    assert iou["background"] == 0
    assert scores[0].foreground == 1
    assert [one.miou for one in scores[1:]] == [1.0] * 7
    assert by_score(scores)[0].image_id == first.id
    confusion = np.array(result["confusion"])
    assert confusion.sum() == result["pixels"]
    assert (
        confusion.sum(axis=1) == [sum((tiny.mask(row) == c).sum() for row in tiny.manifest) for c in range(4)]
    ).all()
    assert list(np.diagonal(confusion) / (confusion.sum(0) + confusion.sum(1) - np.diagonal(confusion))) == (
        pytest.approx(list(result["iou"].values()))
    )


def test_what_is_kept_of_an_image_is_little(tiny):
    rng, matrices = np.random.default_rng(0), np.zeros((60, 81, 81), int)
    matrices[:, [0, 0, 7, 7], [0, 7, 0, 7]] = rng.integers(1, 1000, (60, 4))
    matrices[:, [0, 7], [0, 7]] = 5000 - matrices[:, [0, 7], [7, 0]]  # as many true pixels at every threshold
    kept = image_counts(matrices)
    assert kept.values.tolist() == [0, 7]
    assert sum(array.nbytes for array in kept) < 1000
    for index in (0, 59):
        assert kept.iou(index) == pytest.approx(metrics.iou(matrices[index])[[0, 7]])


def test_an_image_that_is_void_everywhere_has_no_score(tiny, tmp_path):
    void = image_counts(np.zeros((4, 4), int))
    manifest = Manifest.of(tiny.manifest.rows[:1])
    write_image_scores(tmp_path / "i.csv", manifest, tiny.classes, [void])
    (one,) = read_image_scores(tmp_path / "i.csv")
    assert (one.miou, one.foreground, one.true_foreground, one.iou) == (None, None, None, {})
    assert by_score([one]) == []


def test_a_table_of_images_of_another_form_is_refused(tmp_path):
    (tmp_path / "i.csv").write_text("image_id,labels\na,b\n")
    with pytest.raises(DataError, match=r"i\.csv cannot be read as scores by image"):
        read_image_scores(tmp_path / "i.csv")


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
        (None, "does not exist"),
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


def test_any_number_of_processes_gives_the_same_score(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(totals, "in_processes", in_processes)
    rows = [dataclasses.replace(row, id=f"{row.id}{copy}") for row in tiny.manifest for copy in range(11)]
    for index, row in enumerate(rows):
        prediction = np.random.default_rng(index).integers(0, 4, (row.height, row.width), np.uint8)
        write_mask(tmp_path / f"{row.id}.png", prediction, tiny.classes)
    task = partial(totals.mask_confusion, folder=tmp_path, classes=tiny.classes)
    one_by_one = sum(task(row) for row in rows)
    for workers in (1, 2):  # chunks of 4 and of 2 images
        np.testing.assert_array_equal(totals.total(task, Manifest.of(rows), workers), one_by_one)


def counted(row: Row, broken: str = "") -> np.ndarray:
    if row.id == broken:
        raise ValueError("the scores hold NaN")
    return np.ones(1, int)


def test_progress_is_shown_some_twenty_times(tiny, caplog):
    rows = [dataclasses.replace(row, id=f"{row.id}{copy}") for row in tiny.manifest for copy in range(25)]
    with caplog.at_level("INFO"):
        totals.total(counted, Manifest.of(rows), 1)
    assert caplog.messages == [f"{done} of 200 images" for done in range(10, 201, 10)]


def test_a_value_that_cannot_be_counted_names_its_image(tiny):
    with pytest.raises(DataError, match="image image5: the scores hold NaN"):
        totals.total(partial(counted, broken="image5"), tiny.manifest, 1)


def test_nothing_to_score_is_an_error(tiny, cams):
    with pytest.raises(DataError, match="no images to score"):
        evaluate_cams(manifest=Manifest.of([]), classes=tiny.classes, cams=cams, settings=SWEEP)


# --- the file ------------------------------------------------------------------------------------------------------


def test_a_result_explains_itself(tiny, cams, tmp_path):
    result = evaluate_cams(manifest=tiny.manifest, classes=tiny.classes, cams=cams, settings=SWEEP)
    write_result(tmp_path / "out" / "miou.json", result, dataset="tiny", split="train", image_level_labels_used=True)
    content = json.loads((tmp_path / "out" / "miou.json").read_text(encoding="utf-8"))
    assert list(content) == [
        "dataset", "split", "image_level_labels_used", "miou", "iou", "classes_scored", "classes_absent", "images",
        "pixels", "confusion", "threshold", "threshold_choice", "fixed", "curve", "by_labels", "scoring",
    ]  # fmt: skip
    assert content["iou"].keys() == set(NAMES)
    assert content["miou"] == result["miou"]
    assert {"versions", "commit", "clean"} <= content["scoring"].keys()
    text = (tmp_path / "out" / "miou.json").read_text(encoding="utf-8")
    assert f"\n    {result['confusion'][0]},\n    {result['confusion'][1]},\n" in text  # a row a line
    made_with = {"cams": {"run": "cam", "cams": {"stride": 4}}}
    write_result(tmp_path / "out" / "miou.json", result, dataset="tiny", made_with=made_with)
    assert json.loads((tmp_path / "out" / "miou.json").read_text())["made_with"] == made_with


def test_a_score_that_is_no_number_is_not_written(tmp_path):
    with pytest.raises(ValueError, match=r"miou\.json is not written: one of iou, images is not a finite number"):
        write_result(tmp_path / "miou.json", {"iou": {"circle": float("nan")}, "images": 2}, dataset="tiny")
    assert list(tmp_path.iterdir()) == []
