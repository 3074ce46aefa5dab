"""Result files, tables of them, and means over seeds."""

import json

import pytest

from wsss_core.reports.tables import ResultError, mean_over_seeds, over_seeds, read_result, score_table
from wsss_core.scores.results import write_result


def result(**changes):
    base = {"dataset": "voc", "run": "pnoc", "stage": "segmentation", "split": "val", "images": 1449, "seed": 0}
    return {**base, "miou": 0.7, **changes}


SEEDS = [result(miou=0.70), result(miou=0.72, seed=1, run="pnoc@seed1"), result(miou=0.74, seed=2, run="pnoc@seed2")]


def test_a_result_file_says_what_scored_it_where_and_how_long(tmp_path):
    write_result(tmp_path / "seg_miou.json", {"miou": 0.5, "images": 3}, **result(), revision=4)
    read = read_result(tmp_path / "seg_miou.json")
    assert (read["miou"], read["images"], read["revision"]) == (0.5, 3, 4)
    assert read["scoring"]["device"] == "cpu"
    assert read["scoring"]["seconds"] >= 0
    assert {"python", "wsss-core", "torch", "timm"} <= set(read["scoring"]["versions"])


@pytest.mark.parametrize("content", ["", "[]", '{"miou": 0.5}'])
def test_a_torn_result_is_refused_with_its_path(tmp_path, content):
    path = tmp_path / "seg_miou.json"
    path.write_text(content)
    with pytest.raises(ResultError, match=r"seg_miou\.json is not a whole result file"):
        read_result(path)


def test_a_table_has_a_row_a_result_with_its_threshold_as_far_as_there_is_one():
    swept = result(stage="priors", split="train", images=1464, threshold=0.25, threshold_choice="best of 16")
    head, rule, first, second = score_table([swept, result()]).splitlines()
    assert head.split("|")[1].strip() == "run"
    assert set(rule) == set("|- ")
    cells = [cell.strip() for cell in first.strip("|").split("|")]
    assert cells == ["voc pnoc", "priors", "train, 1464 images", "70.00 %", "at 0.25, best of 16"]
    assert second.count("|") == 6


def test_means_over_seeds_are_those_of_a_pocket_calculator():
    scores = over_seeds(SEEDS[::-1])["stages"]["segmentation"]
    assert scores["mean"] == pytest.approx(0.72)
    assert scores["standard_deviation"] == pytest.approx(0.02)  # sqrt((0.02² + 0.02²) / (3 - 1))
    assert scores["values"] == {"0": 0.70, "1": 0.72, "2": 0.74}


def test_a_single_seed_has_no_deviation():
    assert over_seeds(SEEDS[:1])["stages"]["segmentation"]["standard_deviation"] is None


@pytest.mark.parametrize(
    "stray",
    [
        result(run="cam"),
        result(dataset="demo"),
        result(seed=1, images=1448),
        result(stage="priors", seed=2),
        SEEDS[1],
    ],
)
def test_results_that_do_not_belong_together_have_no_mean(stray):
    with pytest.raises(ResultError):
        over_seeds([*SEEDS, stray])


def test_the_json_and_its_markdown_twin_hold_the_same_numbers(tmp_path):
    paths = []
    for index, content in enumerate([*SEEDS, *({**r, "stage": "priors", "miou": 0.5} for r in SEEDS)]):
        paths.append(tmp_path / f"{index}.json")
        paths[-1].write_text(json.dumps(content))
    mean_over_seeds(results=paths, output=tmp_path / "over.json", table=tmp_path / "over.md", revision=1)
    assert json.loads((tmp_path / "over.json").read_text())["stages"]["priors"]["mean"] == 0.5
    title, _, _, _, first, second = (tmp_path / "over.md").read_text().splitlines()
    assert title == "# voc pnoc"
    assert [cell.strip() for cell in first.strip("|").split("|")][2:] == [
        "72.00 %", "2.00 %", "70.00 %", "72.00 %", "74.00 %",
    ]  # fmt: skip
    assert "50.00 %" in second
