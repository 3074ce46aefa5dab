"""The report of a run, and that of several runs, as targets: what they make, and what they leave alone."""

from snakemake_cli import planned, snakemake, succeed

from wsss_core.data import make_classes
from wsss_core.scores.results import write_result

WITHOUT_MASKS = {
    "datasets": {
        "cells": {
            "kind": "folders", "images": "images", "masks": None, "labels": "labels.csv", "names": ["round", "long"],
            "lists": {"train": "train.txt"}, "splits": {"train": "train", "scored": None, "val": None},
        }
    }
}  # fmt: skip


def test_the_report_makes_the_scores_and_the_health_of_its_run(tmp_path):
    plan = planned(tmp_path, targets=["results/demo/pnoc/report.html"])
    for rule in ("evaluate_cams", "evaluate_saliency", "evaluate_pseudo_masks", "evaluate_segmentation",
                 "check_health", "class_properties", "make_report"):  # fmt: skip
        assert plan[rule] == 1, rule
    assert not {"evaluate_epochs", "draw_pictures", "train_maskrcnn"} & set(plan)


def test_the_report_of_full_supervision_trains_its_network_alone(tmp_path):
    plan = planned(tmp_path, targets=["results/demo/supervised_v3/report.html"])
    assert plan["train_segmentation"] == plan["evaluate_segmentation"] == 1
    assert not {"dump_cams", "evaluate_cams", "make_pseudo_masks"} & set(plan)


def test_a_report_of_photos_without_masks_scores_nothing(tmp_path):
    (tmp_path / "train.txt").write_text("a\n")
    (tmp_path / "labels.csv").write_text("image_id,classes\na,round\n")
    (tmp_path / "images").mkdir()
    target = {"targets": ["results/cells/pnoc_nosal/report.html"], "config": WITHOUT_MASKS}
    plan = planned(tmp_path, **target)
    assert plan["make_report"] == plan["check_health"] == 1
    assert not {"evaluate_cams", "evaluate_segmentation", "class_properties"} & set(plan)


def test_a_run_that_is_not_there_is_named(tmp_path):
    done = snakemake(tmp_path, "--dry-run", targets=["results/demo/pnok/report.html"])
    assert done.returncode == 1
    assert "Error: unknown run 'pnok'" in done.stdout


def scored(folder, run, miou):
    """A score on the demo that lies there, without anything that it is made of."""
    about = {"stage": "priors", "split": "train", "seed": 0, "revision": 1}
    scores = {"miou": miou, "iou": {"background": miou, "bird": miou}, "images": 1}
    (folder / "results/demo" / run).mkdir(parents=True, exist_ok=True)
    write_result(folder / "results/demo" / run / "priors_miou.json", scores, **about)


COMPARISON = {"targets": ["results/demo/compare.html"]}


def test_a_comparison_of_runs_makes_nothing_but_its_page(tmp_path):
    scored(tmp_path, "cam", 0.5)
    scored(tmp_path, "pnoc", 0.6)
    assert planned(tmp_path, **COMPARISON) == {"make_comparison": 1}


def test_a_comparison_is_made_again_after_a_score_alone(tmp_path):
    scored(tmp_path, "cam", 0.5)
    scored(tmp_path, "pnoc", 0.6)
    make_classes(["bird"]).write(tmp_path / "results/demo/classes.csv")
    succeed(tmp_path, **COMPARISON)
    assert "60.0" in (tmp_path / "results/demo/compare.html").read_text()
    assert not planned(tmp_path, **COMPARISON)
    scored(tmp_path, "pnoc", 0.7)
    assert planned(tmp_path, **COMPARISON) == {"make_comparison": 1}


def test_the_config_may_name_the_runs_to_compare(tmp_path):
    scored(tmp_path, "cam", 0.5)
    scored(tmp_path, "pnoc", 0.6)
    config = {"compare": ["pnoc", "poc"]}
    done = snakemake(tmp_path, "--dry-run", config=config, **COMPARISON)
    assert done.returncode == 1
    assert "poc has no scores on demo; results/demo has those of cam, pnoc: make others first" in done.stdout


def test_a_comparison_of_one_run_is_refused(tmp_path):
    scored(tmp_path, "cam", 0.5)
    done = snakemake(tmp_path, "--dry-run", **COMPARISON)
    assert done.returncode == 1
    assert "Error: a comparison needs two runs or more; results/demo has those of cam" in done.stdout
