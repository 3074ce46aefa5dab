"""What would run for instances: the runs of the papers, what is shared, and where true objects go."""

import inspect
import re
from collections import Counter
from dataclasses import fields

import pytest
from snakemake_cli import ROOT, planned, snakemake, succeed

from wsss_core.data import make_demo
from wsss_core.recipes.kinds import DemoDataSet

RUNS = ("cam_irn_instances", "components", "maskrcnn_irn", "maskrcnn_components")
WEAK = [
    "results/demo-instances/cam_irn_instances/irn_ap.json",
    "results/demo-instances/components/components_ap.json",
    "results/demo-instances/maskrcnn_irn/detections_ap.json",
    "results/demo-instances/maskrcnn_components/detections_ap.json",
    "results/demo-instances/maskrcnn_irn/detections.png",
    "results/demo-instances/cam_irn_instances/instances.png",
]
CEILING = "results/demo-instances/supervised_maskrcnn/detections_ap.json"


def users_of(folder, rule: str, targets: list[str]) -> set[str]:
    """The rules that take in what a rule makes."""
    graph = succeed(folder, "--dag", "--quiet", targets=targets)
    names = dict(re.findall(r'^\s*(\d+)\[label = "(\w+)', graph, re.MULTILINE))
    edges = re.findall(r"^\s*(\d+) -> (\d+)", graph, re.MULTILINE)
    assert rule in names.values()
    return {names[to] for origin, to in edges if names[origin] == rule}


def test_true_objects_enter_scores_and_pictures_alone(tmp_path):
    assert users_of(tmp_path, "make_instance_truth", WEAK) == {
        "evaluate_instances", "evaluate_irn_instances", "evaluate_components", "draw_instances", "draw_detections",
    }  # fmt: skip


def test_the_ceiling_learns_from_true_objects(tmp_path):
    assert users_of(tmp_path, "make_instance_truth", [CEILING]) == {"train_maskrcnn", "evaluate_instances"}
    plan = planned(tmp_path, targets=[CEILING])
    assert set(plan) == {
        "make_demo", "make_classes", "make_manifest", "make_instance_truth", "train_classifier", "train_maskrcnn",
        "predict_instances", "evaluate_instances",
    }  # fmt: skip


def test_edges_and_displacements_are_trained_once_for_all_of_them(tmp_path):
    plan = planned(tmp_path, targets=[*WEAK[:4], CEILING])
    assert plan == Counter(
        make_demo=1,
        make_classes=1,
        make_manifest=2,
        make_instance_truth=2,
        train_classifier=1,
        dump_cams=1,
        make_affinity_labels=1,
        train_affinity=1,
        walk_cams=1,
        make_pseudo_masks=1,
        make_irn_instances=1,
        make_components=1,
        make_instance_labels=2,
        train_maskrcnn=3,
        predict_instances=3,
        evaluate_instances=3,
        evaluate_irn_instances=1,
        evaluate_components=1,
    )


@pytest.mark.parametrize("dataset", ["voc", "coco17"])
def test_the_rows_of_the_paper_are_planned(tmp_path, dataset):
    targets = [f"results/{dataset}/{run}/detections_ap.json" for run in ("maskrcnn_irn", "supervised_maskrcnn")]
    plan = planned(tmp_path, targets=targets)
    assert (plan["train_maskrcnn"], plan["make_irn_instances"], plan["make_instance_truth"]) == (2, 1, 2)


def test_runs_without_instances_have_none(tmp_path):
    plan = planned(tmp_path, targets=["results/demo/pnoc/seg_miou.json"])
    assert not {rule for rule in plan if "instance" in rule or "maskrcnn" in rule or "components" in rule}


@pytest.mark.parametrize(
    ("target", "config", "said"),
    [
        (
            "demo/pnoc/irn_ap.json",
            {},
            r"runs\.pnoc\.instances is none: irn_instances cannot be made on demo",
        ),
        (
            "demo/mine/irn_ap.json",
            {"runs": {"mine": {"extends": "pnoc", "instances": "irn"}}},
            r"irn needs a displacement field: .* the refinement affinity with affinity: \{displacement: true\}",
        ),
        (
            "demo/mine/components_ap.json",
            {"runs": {"mine": {"extends": "pnoc", "refinement": "truth", "instances": "components"}}},
            r"components needs pseudo masks: the run's refinement makes none",
        ),
        (
            "demo/mine/detections_ap.json",
            {"runs": {"mine": {"extends": "pnoc", "detection": "maskrcnn"}}},
            r"runs\.mine\.instances is none: instance_labels cannot be made on demo",
        ),
        (
            "demo-instances/maskrcnn_irn/detections_ap.json",
            {"datasets": {"demo-instances": {"instances": None}}},
            r"datasets\.demo-instances\.instances is null or not said, so there are no true objects",
        ),
    ],
)
def test_what_cannot_be_made_is_said_before_anything_starts(tmp_path, target, config, said):
    done = snakemake(tmp_path, "--dry-run", targets=[f"results/{target}"], config=config or None)
    assert done.returncode != 0
    assert re.search(said, re.sub(r"\s+", " ", done.stdout)), done.stdout[-2000:]


def test_missing_objects_of_voc_are_listed_when_planning(tmp_path):
    output = succeed(tmp_path, "--dry-run", targets=["results/voc/instances/val.zarr"])
    assert re.search(
        r"data/VOCdevkit/VOC2012/SegmentationObject: true objects of VOC 2012, .* or `instances: null`", output
    )


def test_all_that_the_demo_is_drawn_by_reaches_its_job():
    rule = re.search(
        r"rule make_demo:.*?of_dataset\((.*?)\)", (ROOT / "workflow/rules/data.smk").read_text(), re.DOTALL
    )
    drawn_by = inspect.signature(make_demo).parameters.keys() - {"folder"}
    assert set(re.findall(r'"(\w+)"', rule[1])) == drawn_by
    assert drawn_by <= {field.name for field in fields(DemoDataSet)}
