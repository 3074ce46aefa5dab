"""The report of a run as a target: what it makes, and what it leaves alone."""

from snakemake_cli import planned, snakemake

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
