"""Result files, tables of them, means over seeds, and threshold curves."""

import json

import numpy as np
import pytest
from PIL import Image

from wsss_core.reports.pictures import PLOT, plot_curves
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


CURVE = [
    {"threshold": 0.1, "miou": 0.25, "false_positives": 0.7, "false_negatives": 0.05},
    {"threshold": 0.3, "miou": 0.5, "false_positives": 0.3, "false_negatives": 0.2},
]


def test_threshold_curves_are_plotted_and_written_in_per_cent(tmp_path):
    (tmp_path / "priors_miou.json").write_text(json.dumps(result(curve=CURVE)))
    picture, table = tmp_path / "curves.png", tmp_path / "curves.csv"
    plot_curves(curves={"CAM": tmp_path / "priors_miou.json"}, picture=picture, table=table)
    assert table.read_text().splitlines() == [
        "run,threshold,miou,false_positives,false_negatives",
        "CAM,0.1,25.0,70.0,5.0",
        "CAM,0.3,50.0,30.0,20.0",
    ]
    pixels = np.asarray(Image.open(picture))
    assert pixels.shape == (PLOT, 3 * PLOT, 3)
    # mIoU and false negatives rise from left to right, false positives fall: where the line is dark in the frame
    left, right = ([pixels[60:-60, PLOT * i + x].sum(axis=-1).argmin() for i in range(3)] for x in (70, PLOT - 70))
    assert [bool(first > last) for first, last in zip(left, right, strict=True)] == [True, False, True]


def test_a_result_without_a_curve_cannot_be_plotted(tmp_path):
    (tmp_path / "seg_miou.json").write_text(json.dumps(result()))
    with pytest.raises(ResultError, match=r"seg_miou\.json has no threshold curve"):
        plot_curves(curves={"CAM": tmp_path / "seg_miou.json"}, picture=tmp_path / "p.png", table=tmp_path / "t.csv")
