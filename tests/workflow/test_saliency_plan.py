"""Which files saliency is made from, with and without hints, and whose settings its scores state."""

from collections import Counter

import pytest
from snakemake_cli import planned, succeed

RUNS = {
    "split": {"extends": "cam", "saliency": {"method": "c2am"}},
    "borrower": {"extends": "cam", "saliency": {"from": "split"}},
    "hinted": {"extends": "cam", "saliency": {"hints": {"threshold": 0.5}}},
}
CONFIG = {
    "runs": RUNS,
    "datasets": {"demo": {"settings": {"saliency": {"c2am": {"weights": "none"}, "poolnet": {"weights": "none"}}}}},
}
BORROWED = "results/demo/borrower/saliency_miou.json"
SALIENCY = {"train_c2am", "dump_c2am_maps", "make_saliency_masks", "train_poolnet", "predict_saliency"}


def test_c2am_without_hints_needs_no_cams_and_no_labels(tmp_path):
    plan = planned(tmp_path, targets=["results/demo/split/saliency_gt_miou.json"], config=CONFIG)
    assert set(plan) == SALIENCY | {"make_demo", "make_manifest", "make_classes", "evaluate_saliency_gt"}


def test_hints_come_from_the_priors_of_the_run(tmp_path):
    output = succeed(tmp_path, "--dry-run", targets=["results/demo/hinted/c2am.pt"], config=CONFIG)
    assert "results/demo/cam/hints/train.zarr" in output
    assert "results/demo/hinted/hints" not in output


@pytest.fixture
def scored(tmp_path):
    """A folder where the score of the borrowed saliency is there with all that it is made from, in no time at all."""
    for line in succeed(tmp_path, "--summary", targets=[BORROWED], config=CONFIG).splitlines():
        path = tmp_path / line.split("\t")[0]
        if line.startswith("results/"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch() if path.suffix in (".csv", ".json", ".pt") else path.mkdir()
    succeed(tmp_path, "--touch", "--forceall", targets=[BORROWED], config=CONFIG)
    return tmp_path


def with_threshold(run):
    """The runs, one of them with another threshold of its saliency masks."""
    other = {run: {"extends": "cam", "saliency": {"method": "c2am", "masks": {"threshold": 0.5}}}}
    return CONFIG | {"runs": RUNS | other}


def test_the_score_follows_the_settings_of_the_run_that_made_the_saliency(scored):
    assert planned(scored, targets=[BORROWED], config=CONFIG) == Counter()
    plan = planned(scored, targets=[BORROWED], config=with_threshold("split"))
    assert set(plan) == {"make_saliency_masks", "train_poolnet", "predict_saliency", "evaluate_saliency"}
