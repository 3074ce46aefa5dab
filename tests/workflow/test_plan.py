"""What Snakemake would run: the whole plan of VOC, and after a change of a complete run."""

import os
import re
import shutil
import subprocess
import sys
from collections import Counter

import pytest
from snakemake_cli import ROOT, SCORES, command, jobs_in, planned, snakemake, succeed

from wsss_core.recipes.methods import METHODS

FROM_SEGMENTATION = {"train_segmentation", "predict_masks", "evaluate_segmentation"}
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
    "dump_c2am_maps",
    "make_saliency_masks",
    "train_poolnet",
    "predict_saliency",
    "evaluate_saliency",
} | FROM_AFFINITY_LABELS
# What a later version might have: a term of P-NOC with settings, and a setting of all classifiers that is off.
PATCHED = """
import sys
from dataclasses import make_dataclass, replace
from wsss_core.recipes import methods, settings

Term = make_dataclass("Term", [("weight", float, 0.1)], bases=(settings.Section,), frozen=True)
Wider = make_dataclass(
    "Wider", [("further", settings.LabelCrf | None, None)], bases=(settings.ClassifierSettings,), frozen=True
)
methods.SECTIONS["prior"] |= {{"term": Term, "classifier": Wider}}
pnoc = methods.METHODS["prior"]["pnoc"]
stages = (replace(pnoc.stages[0], sections=(*pnoc.stages[0].sections, "term")), *pnoc.stages[1:])
methods.METHODS["prior"]["pnoc"] = replace(pnoc, stages=stages, sections=(*pnoc.sections, "term"))
from snakemake.cli import main
main({words})
"""
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


def of_demo(slot, **sections):
    return {"datasets": {"demo": {"settings": {slot: sections}}}}


def of_run(run, slot, **sections):
    return {"runs": {run: {slot: sections}}}


def test_the_recipe_of_voc_is_planned_whole_and_the_plain_classifier_once(tmp_path):
    targets = ["results/voc/pnoc/seg_miou.json", "results/voc/cam/priors_miou.json"]
    plan = planned(tmp_path, targets=targets, config={"datasets": {"voc": {"root": "elsewhere/VOC2012"}}})
    assert plan == Counter(
        fetch_weights=1,  # ResNeSt-269; PoolNet's ResNet-50 cannot be fetched
        make_classes=1,
        make_manifest=3,
        train_classifier=2,
        dump_cams=2,
        evaluate_cams=1,
        make_hints=1,
        train_c2am=1,
        dump_c2am_maps=1,
        make_saliency_masks=1,
        train_poolnet=1,
        predict_saliency=1,
        make_affinity_labels=1,
        train_affinity=1,
        walk_cams=1,
        make_pseudo_masks=1,
        train_segmentation=1,
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
        "train_affinity", "walk_cams", "make_pseudo_masks", "train_segmentation", "predict_masks",
        "evaluate_segmentation",
    }  # fmt: skip


def test_full_supervision_needs_neither_a_classifier_nor_pseudo_masks(tmp_path):
    plan = planned(tmp_path, targets=["results/voc/supervised_v3/seg_miou.json"])
    assert set(plan) == {
        "fetch_weights", "make_manifest", "make_classes", "train_segmentation", "predict_masks",
        "evaluate_segmentation",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("demo/pnoc_nosal/saliency_miou.json", r"pnoc_nosal\.saliency is none: .* cannot be made"),
        ("demo/pnok/seg_miou.json", r"\nError: unknown run 'pnok' \(did you mean pnoc\?\)\n"),
        ("demo/pnoc@sed1/seg_miou.json", r"run 'pnoc@sed1': write a seed as in pnoc@seed2"),
        ("dem/pnoc/seg_miou.json", r"unknown data set 'dem'; config\.yaml has voc, .*\(did you mean demo\b"),
        (
            "demo/tables/pnoc_table77.md",
            r"unknown table 'pnoc_table77'.*did you mean pnoc_table7",
        ),
        ("demo/figures/pnoc_table7.png", r"unknown figure 'pnoc_table7'; workflow/papers has pnoc_figure6"),
        ("demo/supervised_v3/pseudo_miou.json", r"supervised_v3\.refinement is truth: .* cannot be made"),
        (
            "demo/pnoc_nosal/cams/train.zarr",
            r"pnoc_nosal shares this with pnoc: ask for results/demo/pnoc/cams/train\.zarr",
        ),
        (
            "demo/occse_depth7/priors_miou.json",
            r"run occse_depth7 on data set demo: prior\.erasing\.masking_depth is 7, but its ordinary classifier "
            r"cam_resnet38d has the backbone test_resnet with 5 groups",
        ),
    ],
)
def test_what_a_run_does_not_have_cannot_be_asked_for(tmp_path, target, message):
    done = snakemake(tmp_path, "--dry-run", targets=[f"results/{target}"])
    assert done.returncode != 0
    assert re.search(message, done.stdout), done.stdout[-2000:]


@pytest.mark.parametrize("score", ["priors_miou.json", "priors_miou_val.json", "pseudo_miou.json", "seg_miou.json"])
def test_scores_of_a_data_set_without_masks_are_refused_and_its_pictures_are_not(tmp_path, score):
    lists = {"train": "train.txt", "val": "val.txt"}
    own = {
        "kind": "folders", "images": "images", "masks": None, "labels": "labels.csv", "names": ["bee"], "colours": None,
        "lists": lists, "splits": {"train": "train", "scored": "train", "val": "val"}, "classes": None,
        "settings": {"saliency": {"poolnet": None}},
    }  # fmt: skip
    (tmp_path / "images").mkdir()
    (tmp_path / "labels.csv").write_text("image_id,classes\na,bee\nb,bee\n")
    for name, image in (("train", "a"), ("val", "b")):
        (tmp_path / lists[name]).write_text(f"{image}\n")
    call = {"config": {"datasets": {"own": own}}}
    done = snakemake(tmp_path, "--dry-run", targets=[f"results/own/cam/{score}"], **call)
    assert done.returncode != 0
    assert re.search(r"datasets\.own\.masks is null, so nothing can be scored", done.stdout), done.stdout[-2000:]
    plan = planned(tmp_path, targets=["results/own/cam/pictures.png", "results/own/cam/masks/val"], **call)
    assert (plan["draw_pictures"], plan["predict_masks"]) == (1, 1)


def test_a_run_with_another_seed_takes_nothing_from_the_first_seed_but_the_data(complete):
    plan = planned(complete, targets=["results/demo/pnoc/over_seeds.json"])
    trainings = ("train_c2am", "train_poolnet", "train_affinity", "train_segmentation")
    assert {rule: plan[rule] for rule in trainings} == dict.fromkeys(trainings, 2)
    assert plan["train_classifier"] == 4  # the ordinary one and P-NOC's
    assert plan["make_manifest"] == plan["make_demo"] == 0
    assert plan["mean_over_seeds"] == 1


def test_a_changed_setting_of_the_last_network_reruns_the_last_network(complete):
    plan = planned(complete, targets=SCORES, config=of_demo("segmentation", v3plus={"learning_rate": 0.001}))
    assert plan == Counter(FROM_SEGMENTATION)


def test_a_changed_threshold_of_affinity_labels_reruns_what_follows_from_them(complete):
    plan = planned(complete, targets=SCORES, config=of_demo("refinement", labels={"foreground": 0.5}))
    assert plan == Counter(FROM_AFFINITY_LABELS)


def test_thresholds_of_a_score_train_nothing(complete):
    plan = planned(complete, targets=SCORES, config=of_demo("prior", scores={"thresholds": [0.2, 0.4]}))
    assert plan == Counter(evaluate_cams=2, evaluate_saliency=1)


def test_a_part_of_the_loss_concerns_the_runs_whose_method_has_it(complete):
    """The plain classifier has no such part, so it and the score of its priors stay."""
    plan = planned(complete, targets=[*SCORES, BY_EPOCH], config=of_demo("prior", erasing={"by_epoch": True}))
    assert plan == Counter(FROM_CLASSIFIER)


def test_monitoring_scores_epochs_and_nothing_follows_from_it(complete):
    plan = planned(complete, targets=[*SCORES, BY_EPOCH], config=of_demo("prior", monitoring={"thresholds": [0.2]}))
    assert plan == Counter(evaluate_epochs=1)


def test_speed_and_the_order_of_keys_rerun_nothing(complete):
    speed = ("--cores", "1", "--set-threads", "train_classifier=1", "--set-resources", "train_classifier:mem_mb=900")
    reordered = of_demo("prior", discriminator={"weight": {"fraction": 1.0, "end": 1.0, "start": 0.0}, "every": 1})
    assert planned(complete, *speed, targets=[*SCORES, BY_EPOCH], config=reordered) == Counter()


@pytest.fixture
def edited(tmp_path):
    """A copy of the workflow in which a script is edited and newer than all results, as after a branch switch."""
    for name in ("Snakefile", "config.yaml", "config"):
        (tmp_path / name).symlink_to(ROOT / name)
    shutil.copytree(ROOT / "workflow", tmp_path / "workflow")
    script = tmp_path / "workflow/scripts/train_classifier.py"
    script.write_text(f"{script.read_text()}\n# a comment\n")
    return tmp_path / "Snakefile"


@pytest.mark.parametrize("profile", ["local", "slurm"])
def test_a_newer_script_reruns_nothing_with_the_shipped_profiles(complete, edited, profile):
    words = ("--snakefile", str(edited), "--profile", str(ROOT / "profiles" / profile))
    assert planned(complete, *words, targets=[*SCORES, BY_EPOCH]) == Counter()
    config = of_demo("segmentation", v3plus={"learning_rate": 0.001})
    assert planned(complete, *words, targets=SCORES, config=config) == Counter(FROM_SEGMENTATION)


def test_compiling_and_pictures_rerun_nothing(complete):
    config = of_demo("prior", classifier={"compile": True}) | {
        "settings": {"saliency": {"c2am": {"compile": True}}, "segmentation": {"v3plus": {"compile": True}}},
        "pictures_every": 1,
    }
    assert planned(complete, targets=[*SCORES, BY_EPOCH], config=config) == Counter()


def test_mixing_is_nothing_or_a_block_with_its_own_values(complete):
    config = {"settings": {"prior": {"classifier": {"mixing": {"kind": "cutmix"}}}}}
    assert planned(complete, targets=SCORES, config=config)["train_classifier"] == 2
    config = {"settings": {"prior": {"classifier": {"mixing": None, "average": None}}}}
    assert planned(complete, targets=SCORES, config=config) == Counter()


@pytest.mark.parametrize(
    "config",
    [
        of_demo("prior", puzzle={"pieces": 16}),
        of_run("pnoc", "prior", discriminator={"every": 2}),
    ],
    ids=["puzzle", "discriminator"],
)
def test_a_setting_of_one_method_changes_nothing_of_another(complete, config):
    assert planned(complete, targets=["results/demo/cam/priors_miou.json"], config=config) == Counter()


def test_a_new_section_of_a_method_and_a_new_null_setting_change_nothing_of_the_others(complete, tmp_path):
    """The plan of the complete demo, in a process where P-NOC has a further section and classifiers a further key."""
    code = PATCHED.format(root=ROOT, words=command(complete, "--dry-run", targets=SCORES)[3:])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    jobs = jobs_in(done.stdout + done.stderr)
    assert jobs["train_classifier"] == 1  # P-NOC's, whose method has the section; the plain classifier stays
    assert jobs["evaluate_cams"] == 1


def test_an_extending_run_trains_what_differs_and_nothing_else(complete):
    config = {"runs": {"mine": {"extends": "pnoc", "segmentation": {"v3plus": {"momentum": 0.5}}}}}
    plan = planned(complete, targets=["results/demo/mine/seg_miou.json"], config=config)
    assert plan == Counter(FROM_SEGMENTATION)


def test_saliency_may_do_without_poolnet(complete):
    config = {"runs": {"mine": {"extends": "pnoc", "saliency": {"poolnet": None}}}}
    targets = [f"results/demo/mine/{file}" for file in ("saliency_miou.json", "pseudo_miou.json", "pictures.png")]
    plan = planned(complete, targets=targets, config=config)
    others = {"train_affinity", "walk_cams", "make_affinity_labels", "make_pseudo_masks", "evaluate_pseudo_masks"}
    assert plan == Counter(others | {"evaluate_saliency", "draw_pictures"})


def test_results_may_have_another_folder(tmp_path):
    output = succeed(
        tmp_path, "--summary", targets=["trial/results/demo/pnoc/seg_miou.json"], config={"results": "trial/results"}
    )
    paths = [line.split("\t")[0] for line in output.splitlines() if line.count("\t") > 3][1:]
    assert len(paths) > 20
    assert all(path.startswith("trial/results/") for path in paths)


def test_a_new_run_of_any_method_on_the_demo_needs_no_entry(tmp_path):
    runs = {f"new_{name}": {"prior": {"method": name, "ordinary": "cam"}} for name in METHODS["prior"]}
    targets = [f"results/demo/{run}/priors_miou.json" for run in runs]
    plan = planned(tmp_path, targets=targets, config={"runs": runs})
    assert plan["train_classifier"] == len(runs) + 1
    assert plan["fetch_weights"] == 0


def test_an_edited_list_of_voc_remakes_its_manifest(complete):
    path = complete / "data/VOCdevkit/VOC2012/ImageSets/Segmentation/train.txt"
    assert planned(complete, targets=[VOC_MANIFEST]) == Counter()
    path.write_text("2007_000032\n2007_000039\n")
    later = path.stat().st_mtime + 60
    os.utime(path, (later, later))
    assert planned(complete, targets=[VOC_MANIFEST]) == Counter(make_manifest=1)
