"""What Snakemake would run: the whole plan of VOC, and after a change of a complete run."""

import os
from collections import Counter

import pytest
from snakemake_cli import SCORES, planned, succeed

FROM_SEGMENTATION = {"train_deeplab", "predict_masks", "evaluate_segmentation"}
FROM_AFFINITY_LABELS = {
    "make_affinity_labels",
    "train_affinity",
    "walk_cams",
    "make_pseudo_masks",
    "evaluate_pseudo_masks",
} | FROM_SEGMENTATION
VOC_MANIFEST = "results/voc/manifest/train.csv"


@pytest.fixture(scope="module")
def complete(tmp_path_factory):
    """A folder where every output of the demo is there and recorded as made, in no time at all; and VOC's lists."""
    folder = tmp_path_factory.mktemp("complete")
    lists = folder / "data/VOCdevkit/VOC2012/ImageSets/Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("2007_000032\n")
    targets = [*SCORES, VOC_MANIFEST]
    summary = succeed(folder, "--summary", targets=targets)
    for line in summary.splitlines():
        path = folder / line.split("\t")[0]
        if not line.startswith(("results/", "resources/")):
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix in (".csv", ".json", ".pt"):
            path.touch()
        else:
            path.mkdir()
    succeed(folder, "--touch", "--forceall", targets=targets)
    return folder


def of_demo(section, **values):
    return {"datasets": {"demo": {"settings": {section: values}}}}


def test_the_recipe_of_voc_is_planned_whole_and_the_plain_classifier_once(tmp_path):
    targets = ["results/voc/pnoc/seg_miou.json", "results/voc/cam/priors_miou.json"]
    plan = planned(tmp_path, targets=targets, config={"datasets": {"voc": {"root": "elsewhere/VOC2012"}}})
    assert plan == Counter(
        fetch_weights=2,  # ResNeSt-269 and PoolNet's ResNet-50
        make_classes=1,
        make_manifest=3,
        train_vanilla=1,
        train_pnoc=1,
        dump_cams=2,
        evaluate_cams=1,
        make_hints=1,
        train_c2am=1,
        dump_saliency=1,
        make_saliency_masks=1,
        train_poolnet=1,
        predict_saliency=1,
        make_affinity_labels=1,
        train_affinity=1,
        walk_cams=1,
        make_pseudo_masks=1,
        train_deeplab=1,
        predict_masks=1,
        evaluate_segmentation=1,
    )


def test_a_run_with_another_seed_takes_nothing_from_the_first_seed_but_the_data(complete):
    plan = planned(complete, targets=["results/demo/pnoc/over_seeds.json"])
    trainings = ("train_vanilla", "train_pnoc", "train_c2am", "train_poolnet", "train_affinity", "train_deeplab")
    assert {rule: plan[rule] for rule in trainings} == dict.fromkeys(trainings, 2)
    assert plan["make_manifest"] == plan["make_demo"] == 0
    assert plan["mean_over_seeds"] == 1


def test_a_changed_setting_of_the_last_network_reruns_the_last_network(complete):
    plan = planned(complete, targets=SCORES, config=of_demo("deeplab", learning_rate=0.001))
    assert plan == Counter(FROM_SEGMENTATION)


def test_a_changed_threshold_of_affinity_labels_reruns_what_follows_from_them(complete):
    plan = planned(complete, targets=SCORES, config=of_demo("affinity_labels", foreground=0.5))
    assert plan == Counter(FROM_AFFINITY_LABELS)


def test_thresholds_of_a_score_train_nothing(complete):
    plan = planned(complete, targets=SCORES, config=of_demo("priors", thresholds=[0.2, 0.4]))
    assert plan == Counter(evaluate_cams=2, evaluate_saliency=1)


def test_speed_and_the_order_of_keys_rerun_nothing(complete):
    speed = ("--cores", "1", "--set-threads", "train_pnoc=1", "--set-resources", "train_pnoc:mem_mb=900")
    reordered = of_demo("pnoc", erasing={"fraction": 1.0, "end": 1.0, "start": 0.3}, pieces=4)
    assert planned(complete, *speed, targets=SCORES, config=reordered) == Counter()


def test_an_edited_list_of_voc_remakes_its_manifest(complete):
    path = complete / "data/VOCdevkit/VOC2012/ImageSets/Segmentation/train.txt"
    assert planned(complete, targets=[VOC_MANIFEST]) == Counter()
    path.write_text("2007_000032\n2007_000039\n")
    later = path.stat().st_mtime + 60
    os.utime(path, (later, later))
    assert planned(complete, targets=[VOC_MANIFEST]) == Counter(make_manifest=1)
