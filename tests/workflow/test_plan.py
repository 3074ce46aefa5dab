"""What Snakemake would run: the whole plan of VOC, and after a change of a complete run."""

import os
import re
from collections import Counter

import pytest
from snakemake_cli import SCORES, jobs_in, planned, snakemake, succeed

FROM_SEGMENTATION = {"train_deeplab", "predict_masks", "evaluate_segmentation"}
FROM_AFFINITY_LABELS = {
    "make_affinity_labels",
    "train_affinity",
    "walk_cams",
    "make_pseudo_masks",
    "evaluate_pseudo_masks",
} | FROM_SEGMENTATION
FROM_CLASSIFIER = {
    "train_classifier",
    "dump_cams",
    "evaluate_cams",
    "evaluate_epochs",
    "make_hints",
    "train_c2am",
    "dump_saliency",
    "make_saliency_masks",
    "train_poolnet",
    "predict_saliency",
    "evaluate_saliency",
} | FROM_AFFINITY_LABELS
VOC_MANIFEST = "results/voc/manifest/train.csv"
BY_EPOCH = "results/demo/pnoc/priors_by_epoch.json"


@pytest.fixture(scope="module")
def complete(tmp_path_factory):
    """A folder where every output of the demo is there and recorded as made, in no time at all; and VOC's lists."""
    folder = tmp_path_factory.mktemp("complete")
    lists = folder / "data/VOCdevkit/VOC2012/ImageSets/Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("2007_000032\n")
    targets = [*SCORES, BY_EPOCH, VOC_MANIFEST]
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
        train_classifier=2,
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


def with_classifiers(folder, targets):
    """What would run, and the runs whose classifiers would be trained."""
    output = succeed(folder, "--dry-run", targets=targets)
    return jobs_in(output), sorted(re.findall(r"Classifier of demo (\S+)", output))


def test_a_classifier_is_trained_once_for_all_runs_that_use_it(tmp_path):
    """As the ordinary one of two runs, as weights to start from, and as the priors of another run."""
    runs = ("poc", "puzzle", "pnoc", "pnoc_nosal", "cam_nols")
    plan, classifiers = with_classifiers(tmp_path, [f"results/demo/{run}/priors_miou.json" for run in runs])
    assert classifiers == ["cam", "cam_nols", "pnoc", "poc", "puzzle"]
    assert (plan["train_classifier"], plan["dump_cams"], plan["evaluate_cams"]) == (5, 4, 5)


def test_a_run_with_another_runs_priors_shares_all_that_its_classifier_leaves(tmp_path):
    files = ("priors_by_epoch.json", "pseudo_miou.json", "pseudo_miou_val.json")
    targets = [f"results/demo/{run}/{file}" for run in ("pnoc", "pnoc_nosal") for file in files]
    plan, classifiers = with_classifiers(tmp_path, targets)
    assert classifiers == ["cam", "pnoc"]
    assert plan["dump_cams"] == 2  # of the training subset and of val
    assert (plan["evaluate_epochs"], plan["evaluate_pseudo_masks_on_val"]) == (2, 2)


def test_a_run_without_saliency_makes_none(tmp_path):
    plan = planned(tmp_path, targets=["results/demo/pnoc_nosal/seg_miou.json"])
    assert set(plan) == {
        "make_demo", "make_manifest", "make_classes", "train_classifier", "dump_cams", "make_affinity_labels",
        "train_affinity", "walk_cams", "make_pseudo_masks", "train_deeplab", "predict_masks", "evaluate_segmentation",
    }  # fmt: skip


def test_full_supervision_needs_neither_a_classifier_nor_pseudo_masks(tmp_path):
    plan = planned(tmp_path, targets=["results/voc/supervised_v3/seg_miou.json"])
    assert set(plan) == {
        "fetch_weights", "make_manifest", "make_classes", "train_deeplab", "predict_masks", "evaluate_segmentation",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("demo/pnoc_nosal/saliency_miou.json", r"pnoc_nosal\.saliency is none: .* cannot be made"),
        ("demo/supervised_v3/pseudo_miou.json", r"supervised_v3\.pseudo_masks is ground_truth: .* cannot"),
        (
            "demo/occse_depth7/priors_miou.json",
            r"run occse_depth7 on data set demo: erasing\.masking_depth is 7, but its ordinary classifier cam_resnet38d"
            r" has the backbone test_resnet with 5 groups",
        ),
    ],
)
def test_what_a_run_does_not_have_cannot_be_asked_for(tmp_path, target, message):
    done = snakemake(tmp_path, "--dry-run", targets=[f"results/{target}"])
    assert done.returncode != 0
    assert re.search(message, done.stdout), done.stdout[-2000:]


def test_a_run_with_another_seed_takes_nothing_from_the_first_seed_but_the_data(complete):
    plan = planned(complete, targets=["results/demo/pnoc/over_seeds.json"])
    trainings = ("train_c2am", "train_poolnet", "train_affinity", "train_deeplab")
    assert {rule: plan[rule] for rule in trainings} == dict.fromkeys(trainings, 2)
    assert plan["train_classifier"] == 4  # the ordinary one and P-NOC's
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


def test_a_part_of_the_loss_concerns_the_runs_whose_method_has_it(complete):
    """The plain classifier has no such part, so it and the score of its priors stay."""
    plan = planned(complete, targets=[*SCORES, BY_EPOCH], config=of_demo("erasing", by_epoch=True))
    assert plan == Counter(FROM_CLASSIFIER)


def test_monitoring_scores_epochs_and_nothing_follows_from_it(complete):
    plan = planned(complete, targets=[*SCORES, BY_EPOCH], config=of_demo("monitoring", thresholds=[0.2]))
    assert plan == Counter(evaluate_epochs=1)


def test_speed_and_the_order_of_keys_rerun_nothing(complete):
    speed = ("--cores", "1", "--set-threads", "train_classifier=1", "--set-resources", "train_classifier:mem_mb=900")
    reordered = of_demo("discriminator", weight={"fraction": 1.0, "end": 1.0, "start": 0.0}, every=1)
    assert planned(complete, *speed, targets=[*SCORES, BY_EPOCH], config=reordered) == Counter()


def test_an_edited_list_of_voc_remakes_its_manifest(complete):
    path = complete / "data/VOCdevkit/VOC2012/ImageSets/Segmentation/train.txt"
    assert planned(complete, targets=[VOC_MANIFEST]) == Counter()
    path.write_text("2007_000032\n2007_000039\n")
    later = path.stat().st_mtime + 60
    os.utime(path, (later, later))
    assert planned(complete, targets=[VOC_MANIFEST]) == Counter(make_manifest=1)
