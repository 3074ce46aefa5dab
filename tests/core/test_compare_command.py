"""The command wsss compare: tables by stage, class and image, bars, and what cannot be compared."""

import itertools
import json
from contextlib import nullcontext

import pytest
import yaml
from PIL import Image

from wsss_core.commands.app import main
from wsss_core.commands.compare import Comparison, compare, draw_comparison, tables
from wsss_core.commands.project import open_project
from wsss_core.commands.run import RunOnDisk

HEAD = "image_id,labels,miou,foreground,true_foreground,pixels,iou background,iou cat,iou dog\n"


@pytest.fixture
def folder(tmp_path):
    declared = {"kind": "folders", "images": "i", "labels": "l.csv", "names": ["cat", "dog"]}
    declared |= {"lists": {"train": "train.txt", "val": "val.txt"}}
    (tmp_path / "my.yaml").write_text(yaml.safe_dump({"results": str(tmp_path), "datasets": {"my": declared}}))
    write(
        tmp_path, "cam", {"background": 0.9, "cat": 0.5, "dog": None}, [("a", 0.4), ("b", 0.8), ("c", 0.6), ("d", "")]
    )
    write(
        tmp_path, "pnoc", {"background": 0.8, "cat": 0.7, "dog": None}, [("a", 0.9), ("b", 0.5), ("c", 0.6), ("d", 0.1)]
    )
    return tmp_path


def write(folder, run, iou, images, stage="seg", split="val"):
    place = folder / "my" / run
    place.mkdir(parents=True, exist_ok=True)
    known = [value for value in iou.values() if value is not None]
    result = {"dataset": "my", "run": run, "stage": stage, "split": split, "images": 4, "seed": 0, "iou": iou}
    result["miou"] = sum(known) / len(known)
    (place / f"{stage}_miou.json").write_text(json.dumps(result))
    rows = [f"{id},cat,{miou},0.5,0.5,100,0.5,0.5,\n" for id, miou in images]
    (place / f"{stage}_images.csv").write_text(HEAD + "".join(rows))


def of(folder, *runs):
    project = open_project([folder / "my.yaml"])
    return [RunOnDisk(project, "my", run) for run in runs or ("cam", "pnoc")]


def test_scores_are_put_side_by_side(folder):
    stages, classes, images = tables(compare(of(folder)), most=1)
    assert stages == [("stage", "cam", "pnoc", "change"), ("prediction", "70.0", "75.0", "+5.0")]
    assert classes[1:] == [
        ("background", "90.0", "80.0", "-10.0"),
        ("cat", "50.0", "70.0", "+20.0"),
        ("dog", "-", "-", ""),
    ]
    assert images[1:] == [("a", "40.0", "90.0", "+50.0"), ("b", "80.0", "50.0", "-30.0")]


def test_an_image_that_did_not_change_or_has_no_score_is_not_listed(folder):
    _, _, images = tables(compare(of(folder)), most=9)
    assert [image[0] for image in images[1:]] == ["a", "b"]


def test_a_stage_can_be_named_and_all_common_ones_are_summed_up(folder):
    for run in ("cam", "pnoc"):
        write(folder, run, {"background": 0.5, "cat": 0.3, "dog": 0.1}, [("x", 0.3)], stage="priors", split="train")
    found = compare(of(folder), "priors")
    assert list(found.means) == ["priors", "seg"]
    assert found.classes["dog"] == (0.1, 0.1)
    assert tables(found, 5)[2] == [("image", "cam", "pnoc", "change")]


def test_of_several_runs_the_spread_is_told(folder):
    write(
        folder, "poc", {"background": 0.7, "cat": 0.75, "dog": None}, [("a", 0.5), ("b", 0.9), ("c", 0.6), ("d", 0.1)]
    )
    stages, classes, images = tables(compare(of(folder, "cam", "pnoc", "poc")), most=2)
    assert stages == [("stage", "cam", "pnoc", "poc", "spread"), ("prediction", "70.0", "75.0", "72.5", "5.0")]
    assert classes[1:3] == [("background", "90.0", "80.0", "70.0", "20.0"), ("cat", "50.0", "70.0", "75.0", "25.0")]
    assert images[1:] == [("a", "40.0", "90.0", "50.0", "50.0"), ("b", "80.0", "50.0", "90.0", "40.0")]


@pytest.mark.parametrize("classes", [["background", "bird", "fish", "car", "house", "tree"], ["a", "pottedplant"]])
@pytest.mark.parametrize("runs", [("one", "two"), tuple("abcdefg")])
def test_names_below_the_bars_do_not_overlap(tmp_path, monkeypatch, classes, runs):
    drawn = []
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda sheet, *_, **__: drawn.append(sheet))
    monkeypatch.setattr("wsss_core.commands.compare.whole", lambda path: nullcontext(path))
    scores = dict.fromkeys(classes, (0.5,) * len(runs))
    draw_comparison(Comparison(runs, "seg", {"seg": (0.5,) * len(runs)}, scores, []), "title", tmp_path / "bars.png")
    (sheet,) = drawn
    sheet.draw_without_rendering()
    names = sheet.axes[0].get_xticklabels()
    boxes = [name.get_window_extent() for name in names]
    if names[0].get_rotation() == 0:
        assert all(left.x1 < right.x0 for left, right in itertools.pairwise(boxes))
    else:  # lines that lean alike are apart by more than a letter's height
        ends = [box.x1 for box in boxes]
        assert all(right - left > names[0].get_fontsize() for left, right in itertools.pairwise(ends))
    assert [name.get_text() for name in names] == [*classes, "mIoU"]


def wsss(capsys, folder, *words):
    code = main(["compare", *words, "--configfile", str(folder / "my.yaml"), "-o", str(folder / "bars.png")])
    out = capsys.readouterr()
    return code, out.err if code else out.out


def test_the_command_prints_and_draws(folder, capsys):
    code, said = wsss(capsys, folder, "my", "cam", "pnoc")
    assert code == 0
    assert "wsss show my pnoc b a" in said
    assert "+20.0" in said
    with Image.open(folder / "bars.png") as drawn:
        assert min(drawn.size) > 400


@pytest.mark.parametrize(
    ("damage", "words", "message"),
    [
        (None, ["my", "cam", "pnok"], "unknown run 'pnok'"),
        (None, ["my", "cam", "pnoc", "--scores", "sge"], "unknown stage of --scores 'sge'"),
        (None, ["my", "cam", "pnoc", "--scores", "priors"], "my/cam/priors_miou.json and "),
        ({"images": 5}, ["my", "cam", "pnoc"], "scored on other images: images 4 of cam, 5 of pnoc"),
        ({"iou": {"cat": 1.0}}, ["my", "cam", "pnoc"], "scored on other classes"),
        ({"miou": None, "seed": None}, ["my", "cam", "poc"], "make "),
        (None, ["my", "cam"], "name two runs or more, such as wsss compare my cam OTHER"),
    ],
)
def test_what_cannot_be_compared_is_told_in_one_line(folder, capsys, damage, words, message):
    path = folder / "my/pnoc/seg_miou.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | (damage or {})))
    code, said = wsss(capsys, folder, *words)
    assert code == 2
    assert message in said
    assert len(said.splitlines()) == 1


def test_a_damaged_result_is_named(folder, capsys):
    (folder / "my/pnoc/seg_miou.json").write_text("{")
    assert "seg_miou.json is not a whole result file" in wsss(capsys, folder, "my", "cam", "pnoc")[1]
