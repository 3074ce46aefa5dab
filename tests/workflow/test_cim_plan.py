"""What would run for CIM: proposals once a data set, the chain of a run, files that are missing, what is refused."""

import re
from collections import Counter

import pytest
from snakemake_cli import jobs_in, planned, snakemake, succeed

CHAIN = [
    "results/demo-instances/cim_cam/cim_ap.json",
    "results/demo-instances/maskrcnn_cim_cam/detections_ap.json",
    "results/demo-instances/proposals_recall.json",
    "results/demo-instances/cim_cam/proposal_labels.json",
]
COB = ("data/COB_SBD_trainaug", "data/COB_SBD_val")


def listed(output: str) -> dict[str, str]:
    """What a dry run says is missing, {path: what it is}."""
    return dict(re.findall(r"^  (\S+): (.+)$", output, re.MULTILINE))


def test_the_chain_from_nothing(tmp_path):
    assert planned(tmp_path, targets=CHAIN) == Counter(
        make_demo=1,
        make_classes=1,
        make_manifest=2,
        make_instance_truth=2,
        make_proposals=2,
        evaluate_proposals=1,
        train_classifier=1,
        dump_peaks=1,
        make_proposal_labels=1,
        evaluate_proposal_labels=1,
        train_cim=1,
        score_proposals=2,
        make_cim_instances=2,
        evaluate_cim_instances=1,
        make_instance_labels=1,
        train_maskrcnn=1,
        predict_instances=1,
        evaluate_instances=1,
    )


def test_runs_of_a_data_set_share_its_proposals_and_ablations_their_labels(tmp_path):
    runs = ("cim", "cim_none", "cim_agpl", "cim_cascade00", "cim_cam")
    plan = planned(tmp_path, targets=[f"results/demo/{run}/cim_ap.json" for run in runs])
    made = {name: plan[name] for name in ("make_proposals", "dump_peaks", "make_proposal_labels", "train_cim")}
    assert made == {"make_proposals": 2, "dump_peaks": 2, "make_proposal_labels": 2, "train_cim": 5}


def test_without_agpl_nobody_looks_for_peaks(tmp_path):
    plan = planned(tmp_path, targets=["results/demo/cim_none/cim_ap.json"])
    assert not plan.keys() & {"dump_peaks", "make_proposal_labels"}
    assert plan["train_classifier"] == 1  # whose weights the network starts from on the demo


def test_pictures_of_validation_need_no_scores_of_training_images(tmp_path):
    plan = planned(tmp_path, targets=["results/demo-instances/cim_cam/instances/val.png"])
    assert plan["draw_instances_of_subset"] == plan["score_proposals"] == plan["make_cim_instances"] == 1
    assert "draw_instances" not in plan


def test_true_objects_enter_scores_alone(tmp_path):
    graph = succeed(tmp_path, "--dag", "--quiet", targets=CHAIN)
    names = dict(re.findall(r'^\s*(\d+)\[label = "(\w+)', graph, re.MULTILINE))
    users = {
        names[to]
        for origin, to in re.findall(r"^\s*(\d+) -> (\d+)", graph, re.MULTILINE)
        if names[origin] == "make_instance_truth"
    }
    assert users == {"evaluate_proposals", "evaluate_cim_instances", "evaluate_instances", "evaluate_proposal_labels"}
    readers = {
        names[to]
        for origin, to in re.findall(r"^\s*(\d+) -> (\d+)", graph, re.MULTILINE)
        if names[origin] == "evaluate_proposal_labels"
    }
    assert readers <= {"all"}  # nothing is made of what they are worth


def test_the_score_of_a_detector_tells_the_recall_of_the_proposals_behind_it(tmp_path):
    users = {}
    for run in ("maskrcnn_cim_cam", "maskrcnn_irn", "supervised_maskrcnn"):
        graph = succeed(tmp_path, "--dag", "--quiet", targets=[f"results/demo-instances/{run}/detections_ap.json"])
        names = dict(re.findall(r'^\s*(\d+)\[label = "(\w+)', graph, re.MULTILINE))
        edges = re.findall(r"^\s*(\d+) -> (\d+)", graph, re.MULTILINE)
        users[run] = {names[to] for origin, to in edges if names[origin] == "make_proposals"}
    assert "evaluate_instances" in users["maskrcnn_cim_cam"]
    assert users["maskrcnn_irn"] == users["supervised_maskrcnn"] == set()


def test_labels_of_proposals_are_counted_where_there_is_no_truth(tmp_path):
    target = "results/demo/cim_cam/proposal_labels.json"
    plan = planned(tmp_path, targets=[target], config={"datasets": {"demo": {"instances": None}}})
    assert plan["evaluate_proposal_labels"] == 1
    assert "make_instance_truth" not in plan
    assert planned(tmp_path, targets=[target])["make_instance_truth"] == 1


def test_published_proposals_that_are_not_there_are_listed_with_both_layouts_and_their_pages(tmp_path):
    output = succeed(tmp_path, "--dry-run", targets=["results/voc/tables/cim_table1.md"])
    found = listed(output)
    assert set(COB) <= found.keys()
    for part in ("`superpixels`, `labels` and `scores`", "`maskmat`", "cvlsegmentation/cob", "mcg", "ZechengLi19/CIM"):
        assert part in found[COB[0]]


def test_published_proposals_that_are_there_are_taken(tmp_path):
    for folder in COB:
        (tmp_path / folder).mkdir(parents=True)
    output = succeed(tmp_path, "--dry-run", targets=["results/voc/cim/cim_ap.json"])
    assert not set(COB) & listed(output).keys()
    assert jobs_in(output)["make_proposals"] == 2


@pytest.mark.parametrize(
    ("target", "config", "said"),
    [
        (
            "demo/cim/cim_ap.json",
            {"datasets": {"demo": {"proposals": None}}},
            r"datasets\.demo\.proposals is null or not said, so there are no masks that CIM could choose among: say "
            r"proposals: \{kind: grouping\}, or see docs/cim\.md",
        ),
        ("demo/proposals/val.zarr", {"datasets": {"demo": {"proposals": None}}}, r"datasets\.demo\.proposals is null"),
        (
            "voc/proposals/trainval.zarr",
            None,
            r"datasets\.voc\.proposals\.folders names none of the subset trainval, only of train_aug, train, val",
        ),
        ("demo/pnoc/cim_ap.json", None, r"runs\.pnoc\.instances is none: cim_instances cannot be made on demo"),
        (
            "demo/cim/cim_ap.json",
            {"datasets": {"demo": {"proposals": {"superpixel": 9}}}},
            r"datasets\.demo\.proposals\.superpixel: unknown key; did you mean superpixels\?",
        ),
    ],
)
def test_what_cannot_be_made_is_said_in_one_line(tmp_path, target, config, said):
    done = snakemake(tmp_path, "--dry-run", "--quiet", "host", targets=[f"results/{target}"], config=config)
    assert done.returncode != 0
    assert re.search(said, done.stdout.splitlines()[-1]), done.stdout[-2000:]
