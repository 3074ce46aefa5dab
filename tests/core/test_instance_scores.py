"""Average precision of instances: hand-made values by both protocols."""

import numpy as np
import pytest

from wsss_core.data import Manifest, Row, make_classes
from wsss_core.instances.store import InstanceStore, InstanceWriter, instances_of
from wsss_core.recipes.settings import InstanceScoreSettings
from wsss_core.scores.instances import average_precision, evaluate_instances, instance_ap

THRESHOLDS = [0.25, 0.5, 0.75]
BOTH = pytest.mark.parametrize("protocol", ["coco", "voc"])


def box(top: int, left: int, bottom: int, right: int) -> np.ndarray:
    mask = np.zeros((20, 40), bool)
    mask[top:bottom, left:right] = True
    return mask


ONE, TWO = box(2, 2, 12, 12), box(2, 14, 12, 24)
TRUTH = [[(ONE, 0), (TWO, 0)], [(ONE, 1)]]


@BOTH
def test_perfect_detections(protocol):
    found = [[(mask, label, 0.9 - 0.1 * place) for place, (mask, label) in enumerate(image)] for image in TRUTH]
    np.testing.assert_allclose(instance_ap(TRUTH, found, THRESHOLDS, 2, protocol), 1)


@BOTH
def test_a_duplicate_lowers_precision_and_not_recall(protocol):
    """Hit, duplicate, hit: precision 1 up to recall 1/2, then 2/3; pycocotools takes it at 0, 0.01, ..., 1."""
    found = [[(ONE, 0, 0.9), (ONE, 0, 0.8), (TWO, 0, 0.7)], [(ONE, 1, 0.9)]]
    expected = {"coco": (51 + 50 * 2 / 3) / 101, "voc": (1 + 2 / 3) / 2}[protocol]
    np.testing.assert_allclose(instance_ap(TRUTH, found, THRESHOLDS, 2, protocol), [[expected, 1]] * 3)


@BOTH
def test_a_mask_of_two_objects_finds_one_at_most(protocol):
    """Its overlap with each is a half: one of the two is found at 0.25, at precision 1."""
    merged = [[(ONE | TWO, 0, 0.9)], []]
    ap = instance_ap(TRUTH, merged, [0.25, 0.51], 2, protocol)
    np.testing.assert_allclose(ap, [[{"coco": 51 / 101, "voc": 0.5}[protocol], 0], [0, 0]])


@BOTH
def test_classes_without_truth(protocol):
    """Class 1 has true objects alone, class 2 detections alone, class 3 neither."""
    found = [[(ONE, 0, 0.9), (TWO, 0, 0.8), (TWO, 2, 0.8)], []]
    ap = instance_ap(TRUTH, found, THRESHOLDS, 4, protocol)
    np.testing.assert_array_equal(ap, [[1, 0, 0 if protocol == "coco" else np.nan, np.nan]] * 3)


def test_a_detection_whose_best_object_is_taken():
    """COCO gives it the other object that it overlaps enough, VOC does not."""
    near, far = box(0, 0, 10, 10), box(0, 4, 10, 14)
    truth = [[(near, 0), (far, 0)]]
    shifted = box(0, 1, 10, 11)  # overlaps the first by 90 / 110, the second by 70 / 130
    found = [[(near, 0, 0.9), (shifted, 0, 0.8)]]
    np.testing.assert_allclose(instance_ap(truth, found, [0.5], 1, "coco"), [[1]])
    np.testing.assert_allclose(instance_ap(truth, found, [0.5], 1, "voc"), [[0.5]])


def test_crowds_are_let_be_by_coco():
    crowd = [instances_of(np.stack([ONE, box(0, 14, 20, 40)]), [0, 0], crowd=[False, True])]
    found = [instances_of(np.stack([TWO, ONE]), [0, 0], [0.9, 0.8])]  # the first lies in the crowd
    np.testing.assert_allclose(average_precision(crowd, found, [0.5], 1, "coco"), [[1]])
    np.testing.assert_allclose(average_precision(crowd, found, [0.5], 1, "voc"), [[0.5]])


def test_random_detections_by_another_way():
    """VOC's protocol against its plain loop over detections."""
    rng = np.random.default_rng(0)
    images = [(rng.random((3, 6, 6)) < 0.6, rng.random((9, 6, 6)) < 0.6, rng.permutation(100)[:9]) for _ in range(8)]
    truth = [[(mask, 0) for mask in masks] for masks, _, _ in images]
    found = [
        [(m, 0, float(s) + i / 10) for m, s in zip(masks, scores, strict=True)]
        for i, (_, masks, scores) in enumerate(images)
    ]
    ranked = sorted(((score, i, mask) for i, one in enumerate(found) for mask, _, score in one), key=lambda x: -x[0])
    taken, hits, ap = set(), [], 0.0
    for _, i, mask in ranked:
        overlaps = [(mask & other).sum() / (mask | other).sum() for other, _ in truth[i]]
        best = int(np.argmax(overlaps))
        hits.append(overlaps[best] >= 0.4 and (i, best) not in taken)
        taken |= {(i, best)} if hits[-1] else set()
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    for place, hit in enumerate(hits):
        ap += hit * precision[place:].max() / 24
    assert 0.1 < ap < 0.9
    np.testing.assert_allclose(instance_ap(truth, found, [0.4], 1, "voc"), [[ap]])


def test_lists_of_another_length_or_protocol_are_refused():
    with pytest.raises(ValueError, match="2 images have true objects, 1 have detections"):
        instance_ap(TRUTH, [[]], THRESHOLDS, 2)
    with pytest.raises(ValueError, match="unknown protocol 'pascal'; there are coco, voc"):
        instance_ap(TRUTH, [[], []], THRESHOLDS, 2, "pascal")


def test_a_result_tells_apart_pictures_with_several_objects_of_a_class(tmp_path):
    """The first has two objects of a class that touch, the second two apart, the third one."""
    beside = box(2, 12, 12, 24)
    objects = {"touching": [ONE, beside], "apart": [ONE, box(2, 30, 12, 38)], "single": [ONE], "none": []}
    manifest = Manifest.of([Row(name, f"{name}.jpg", "", 20, 40, (0,)) for name in objects])

    def store(name: str, **masks: np.ndarray) -> InstanceStore:
        with InstanceWriter(tmp_path / name, manifest, about={"truth": "objects"}) as out:
            for id, own in objects.items():
                found = masks.get(id, np.array(own).reshape(-1, 20, 40))
                out.write(id, instances_of(found, [0] * len(found)))
        return InstanceStore(tmp_path / name)

    result = evaluate_instances(
        manifest=manifest,
        classes=make_classes(["cat", "dog"]),
        truth=store("truth.zarr"),
        detections=store("found.zarr", touching=(ONE | beside)[None]),
        settings=InstanceScoreSettings((0.25, 0.75)),
    )
    assert (result["images"], result["objects"], result["instances"]) == (4, 5, 4)
    assert (result["several_of_a_class"]["images"], result["touching"]["images"]) == (2, 1)
    assert result["touching"]["ap"]["voc"] == {"0.25": 0.5, "0.75": 0}
    assert result["ap"]["voc"] == pytest.approx({"0.25": 0.8, "0.75": 0.6 * 3 / 4})
    assert result["by_class"]["dog"] == {
        "objects": 0, "coco": {"0.25": None, "0.75": None}, "voc": {"0.25": None, "0.75": None},
    }  # fmt: skip
    assert result["true_objects_from"] == "objects"


def test_the_recall_of_proposals_stands_beside_what_was_chosen_among_them(tmp_path):
    manifest = Manifest.of([Row("a", "a.jpg", "", 20, 40, (0,))])

    def store(name: str, masks: list[np.ndarray], **about: str) -> InstanceStore:
        with InstanceWriter(tmp_path / name, manifest, about=about) as out:
            out.write("a", instances_of(np.stack(masks), [0] * len(masks)))
        return InstanceStore(tmp_path / name)

    other = box(2, 20, 12, 30)
    how = {
        "manifest": manifest, "classes": make_classes(["cat"]), "settings": InstanceScoreSettings((0.25, 0.75)),
        "truth": store("truth", [ONE, other], truth="objects"), "detections": store("found", [ONE]),
    }  # fmt: skip
    chosen_from = store("proposals", [ONE, box(2, 20, 12, 25)], supervision="clicks")
    assert "proposals" not in evaluate_instances(**how)
    assert evaluate_instances(**how, proposals=chosen_from)["proposals"] == {
        "recall": {"0.25": 1.0, "0.75": 0.5}, "a_picture": 2.0, "supervision": "clicks",
    }  # fmt: skip
