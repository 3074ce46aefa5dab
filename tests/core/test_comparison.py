"""Several runs on one page: which ones, what is said of them, and that nothing is made for it."""

import base64
import io
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from html_pages import BROWSER, Page, on_a_phone
from PIL import Image

from wsss_core.commands.app import main
from wsss_core.commands.project import open_project
from wsss_core.data import Manifest, write_mask
from wsss_core.instances.store import InstanceWriter, instances_of
from wsss_core.recipes.config import RecipeError, ordered
from wsss_core.reports.comparable import resolve_comparison
from wsss_core.reports.comparison import differences, make_comparison
from wsss_core.reports.tables import ResultError
from wsss_core.scores.results import write_result

NAMES = ("background", "circle", "square", "star")
HEAD = "image_id,labels,miou,foreground,true_foreground,pixels," + ",".join(f"iou {name}" for name in NAMES) + "\n"
WITH = {"classifier": {"run": "cam", "weights": "none", "classifier": {"epochs": 5, "crop": 64, "squash": None}}}


@pytest.fixture
def project(tiny, tmp_path, monkeypatch):
    """A project of the tiny images, six to train on and two for val, with nothing made but lists and classes."""
    monkeypatch.chdir(tmp_path)
    declared = {
        "kind": "folders", "images": str(tiny.folder), "masks": str(tiny.masks), "labels": "masks",
        "names": list(NAMES[1:]), "lists": {"train": "train.txt", "val": "val.txt"}, "instances": "components",
    }  # fmt: skip
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump({"datasets": {"tiny": declared}}))
    folder = tmp_path / "results/tiny"
    folder.mkdir(parents=True)
    tiny.classes.write(folder / "classes.csv")
    Manifest.of(tiny.manifest.rows[:6]).write(folder / "manifest/train.csv")
    Manifest.of(tiny.manifest.rows[6:]).write(folder / "manifest/val.csv")
    return open_project([tmp_path / "tiny.yaml"])


def score(run, name, iou, *, images=None, split="train", count=6, curve=None, made_with=None, revision=1):
    """A result file of hand-made scores, and scores by image if there are any."""
    folder = Path("results/tiny") / run
    known = [value for value in iou if value is not None]
    about = {"stage": name, "dataset": "tiny", "run": run, "split": split, "seed": 0, "revision": revision}
    found = {"miou": sum(known) / len(known), "iou": dict(zip(NAMES, iou, strict=True)), "images": count}
    if curve:
        points = [{"threshold": at, "miou": miou, "false_positives": 0.1, "false_negatives": 0.1} for at, miou in curve]
        found |= {"curve": points, "threshold": 0.3, "fixed": {"threshold": 0.3, "miou": 0.5}}
    folder.mkdir(parents=True, exist_ok=True)
    write_result(folder / f"{name}_miou.json", found, made_with=made_with or WITH, **about)
    if images:
        rows = [f"{id},circle,{miou},0.5,0.5,100,0.5,0.5,,\n" for id, miou in images.items()]
        (folder / f"{name}_images.csv").write_text(HEAD + "".join(rows))


def masks(tiny, run, artefact, subset, rows, value):
    for row in rows:
        path = Path("results/tiny") / run / artefact / subset / f"{row.id}.png"
        write_mask(path, np.full((row.height, row.width), value, np.uint8), tiny.classes)


@pytest.fixture
def two(project, tiny):
    """The runs cam and pnoc with CAMs that are scored, and pnoc with a second seed and a network."""
    score("cam", "priors", (0.8, 0.4, None, 0.3), curve=[(0.2, 0.4), (0.3, 0.5)])
    made = {"classifier": {"run": "pnoc", "weights": "cam", "classifier": {"epochs": 8, "crop": 64, "squash": 1.5},
                           "puzzle": {"pieces": 4}}}  # fmt: skip
    score("pnoc", "priors", (0.9, 0.6, None, 0.25), curve=[(0.2, 0.5), (0.3, 0.6)], made_with=made)
    score("pnoc@seed1", "priors", (0.7, 0.5, None, 0.25), made_with=made)
    made |= {"segmentation": {"run": "pnoc"}, "masks": {"run": "pnoc", "prediction": {"mirror": True}}}
    score("pnoc", "seg", (0.9, 0.7, 0.5, 0.7), split="val", count=2, made_with=made)
    return project


def resolved(project, *names):
    return resolve_comparison("tiny", names or None, project.recipes, project.tree)


def page_of(found, **further) -> tuple[str, Page]:
    make_comparison(resolved=ordered(found), output=Path("compare.html"), **further)
    text = Path("compare.html").read_text(encoding="utf-8")
    return text, Page(text)


def test_runs_with_scores_are_put_side_by_side(two):
    text, page = page_of(resolved(two))
    assert {tag for tag, _ in page.links} <= {"a", "img", "image", "link", "use"}
    assert all(link.startswith(("data:", "#")) for _, link in page.links)
    assert "script" not in page.tags
    assert "<title>Runs on tiny</title>" in text
    assert "CAMs train, 6 images Predicted val, 2 images" in page.text
    assert re.search(r"cam 50\.0 – pnoc 58\.3 \+8\.3 53\.3 ± 7\.1 of 2 seeds 70\.0", page.text)
    assert "background 80.0 90.0 +10.0 circle 40.0 60.0 +20.0 square – – star 30.0 25.0 −5.0" in page.text
    assert "CAMs by background threshold" in page.text
    assert "--tint: var(--good); --share: 45%" in text  # 20 points and more have the full colour
    assert "--tint: var(--bad); --share: 11%" in text
    assert "results/tiny/pnoc/seg_miou.json val 0 1 cpu" in page.text


def test_a_stage_of_one_run_alone_is_no_table_by_class(two):
    _, page = page_of(resolved(two))
    assert page.text.count("IoU in per cent, and the difference from cam: green is better") == 1


def test_settings_are_those_that_scores_were_made_with():
    base, other = (
        {"classifier": {"run": "x", "classifier": own}} for own in ({"a": 1, "b": [1, 2]}, {"a": 1, "b": [1]})
    )
    third = {"classifier": {"run": "x", "classifier": {"a": 1, "b": [1, 2], "c": 3}, "puzzle": {"d": 1}},
             "cams": {"run": "x", "cams": {"scales": [1]}}}  # fmt: skip

    class Found:
        def __init__(self, made_with):
            self.found = {"made_with": made_with}

    seeded = {"classifier": {"run": "x@seed1", "weights": "cam@seed1", **base["classifier"]}}
    runs = [{"measured": {"CAMs": Found(made)}} for made in (seeded, seeded | {"classifier": seeded["classifier"] | {
        "weights": "cam"}})]  # fmt: skip
    assert differences(runs) == []  # another seed is no other setting
    runs = [{"measured": {"CAMs": Found(made)}} for made in (base, other, third)]
    rows = [(row["stage"], row["key"], row["values"]) for row in differences(runs)]
    assert rows == [
        ("Classifier", "classifier.b", ["[1, 2]", "[1]", "[1, 2]"]),
        ("Classifier", "classifier.c", ["null", "null", "3"]),  # a null is left out of what a job is told
        ("Classifier", "puzzle", ["", "", "yes"]),
        ("CAMs", "", ["", "", "yes"]),
    ]
    silent = differences([runs[0], {"measured": {"CAMs": Found(None)}}, runs[1]])
    assert [(row["key"], row["values"]) for row in silent] == [("classifier.b", ["[1, 2]", "?", "[1]"])]


def test_runs_are_those_with_scores_of_their_own_in_the_order_of_the_config(two, tiny):
    found = resolved(two)
    assert [run["run"] for run in found["runs"]] == ["cam", "pnoc"]
    assert found["runs"][1]["scores"][0]["seeds"] == ["results/tiny/pnoc@seed1/priors_miou.json"]
    Path("results/tiny/pnoc_v2").mkdir()  # shares pnoc's CAMs and has no score itself
    Path("results/tiny/no_run_at_all").mkdir()
    assert [run["run"] for run in resolved(two)["runs"]] == ["cam", "pnoc"]
    named = resolved(two, "pnoc@seed1", "pnoc", "cam", "pnoc")
    assert [run["run"] for run in named["runs"]] == ["pnoc@seed1", "pnoc", "cam"]


def test_what_runs_share_is_shown_once(two, tiny):
    score("pnoc_v2", "seg", (0.8, 0.7, 0.5, 0.6), split="val", count=2)
    for run in ("pnoc", "cam"):
        masks(tiny, run, "pseudo_masks", "train", tiny.manifest.rows[:6], 1)
    found = resolved(two, "pnoc", "pnoc_v2")
    assert found["galleries"] == []  # of one run alone, though two have them
    _, page = page_of(found)
    assert "pnoc_v2 58.3 of pnoc 65.0 −5.0" in page.text
    assert "CAMs by background threshold" not in page.text
    panels = resolved(two, "pnoc", "pnoc_v2", "cam")["galleries"][0]["panels"]
    assert [panel[0] for panel in panels] == ["pnoc", "cam"]


def test_scores_of_other_images_or_by_other_code_are_told(two):
    score("cam", "priors", (0.8, 0.4, None, 0.3), count=5, revision=2)
    _, page = page_of(resolved(two))
    assert "CAMs: scored on other images (cam: train, 5 images; pnoc: train, 6 images)." in page.text
    assert "CAMs: scored by other revisions of the code (cam: 2; pnoc: 1)." in page.text
    score("pnoc@seed1", "priors", (0.7, 0.5, None, 0.25), count=5)
    assert (
        "seeds" not in re.search(r"cam 53\.3.*?Thresholds", page_of(resolved(two))[1].text + " cam 53.3 Thresholds")[0]
    )


def test_the_images_that_changed_most_come_first(two, tiny):
    ids = tiny.manifest.ids[:6]
    score("cam", "pseudo", (0.5, 0.5, 0.5, 0.5), images=dict.fromkeys(ids, 0.5))
    score("pnoc", "pseudo", (0.5, 0.5, 0.5, 0.5), images=dict(zip(ids, (0.5, 0.6, 0.1, 0.7, "", 0.55), strict=True)))
    for run, value in (("cam", 1), ("pnoc", 2)):
        masks(tiny, run, "pseudo_masks", "train", tiny.manifest.rows[:6], value)
    text, page = page_of(resolved(two), images=3)
    assert re.findall(r"\b(image\d)\b (?:circle|square|star)", page.text) == ["image2", "image3", "image1"]
    assert "Photo cam 50.0 pnoc 10.0 Truth" in page.text
    drawn = re.search(r'alt="pnoc 10.0 of image2" src="data:image/png;base64,([^"]*)"', text)
    with Image.open(io.BytesIO(base64.b64decode(drawn[1]))) as picture:
        assert picture.convert("RGB").getpixel((0, 0)) == tuple(tiny.classes.colours[2])


def test_objects_are_compared_by_how_many_there_are(project, tiny):
    rows = tiny.manifest.rows[6:]
    ap = {"coco": {"0.25": 0.9, "0.5": 0.5}, "voc": {"0.5": 0.5}}
    for run, found in (("supervised_maskrcnn", 1), ("maskrcnn_irn", 3)):
        folder = Path("results/tiny") / run
        folder.mkdir()
        by_class = {name: {"objects": 2, **ap} for name in NAMES[1:]}
        write_result(folder / "detections_ap.json", {"ap": ap, "images": 2, "by_class": by_class}, stage="detections",
                     split="val", seed=0, revision=1)  # fmt: skip
        with InstanceWriter(folder / "detections/val.zarr", Manifest.of(rows), about={}) as out:
            for place, row in enumerate(rows):
                boxes = np.zeros((found if place else 1, row.height, row.width), bool)
                boxes[:, 4:9, 4:9] = True
                out.write(row.id, instances_of(boxes, [0] * len(boxes), [0.9] * len(boxes)))
    shutil.copytree("results/tiny/maskrcnn_irn/detections/val.zarr", "results/tiny/instances/val.zarr")
    _, page = page_of(resolved(project), images=1)
    assert "AP50 in per cent, and the difference from maskrcnn_irn" in page.text
    assert "circle 50.0 50.0 0.0" in page.text
    assert re.search(r"image7 \w+.* Photo maskrcnn_irn 3 supervised_maskrcnn 1 True objects", page.text)


def test_a_store_of_an_earlier_version_is_left_out_and_told(two, tiny):
    for run in ("cam", "pnoc"):
        Path(f"results/tiny/{run}/cams/train.zarr").mkdir(parents=True)
    _, page = page_of(resolved(two))
    assert "Not shown: cam (there is no store of maps at results/tiny/cam/cams/train.zarr)" in page.text
    assert "Photo" not in page.text
    assert "CAMs train, 6 images" in page.text


def test_a_page_changes_with_the_scores_and_with_nothing_else(two):
    before = resolved(two)
    assert resolved(two) == before
    Path("results/tiny/pnoc/notes.txt").write_text("any")
    assert resolved(two) == before
    score("pnoc@seed1", "priors", (0.7, 0.5, None, 0.3))
    assert resolved(two)["digest"] != before["digest"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((), "a comparison needs two runs or more; results/tiny has those of cam: make others first"),
        (("cam",), "a comparison needs two runs or more"),
        (("cam", "poc"), "poc has no scores on tiny; .* snakemake --cores all -- results/tiny/poc/priors_miou.json"),
        (("cam", "pnok"), "unknown run 'pnok'"),
    ],
)
def test_a_comparison_needs_two_runs_with_scores(project, names, message):
    score("cam", "priors", (0.8, 0.4, None, 0.3))
    with pytest.raises(RecipeError, match=message):
        resolved(project, *names)


def test_a_damaged_result_is_named(two):
    found = resolved(two)
    Path("results/tiny/cam/priors_miou.json").write_text("{")
    with pytest.raises(ResultError, match=r"cam/priors_miou.json is not a whole result file"):
        page_of(found)
    assert not Path("compare.html").exists()


def test_the_command_writes_the_same_page(two, capsys):
    words = ["compare", "tiny", "cam", "pnoc", "--configfile", "tiny.yaml", "--html", "out.html"]
    assert main(words) == 0
    assert capsys.readouterr().out.strip() == "page: out.html"
    said = Page(Path("out.html").read_text()).text
    assert "wsss compare tiny cam pnoc --html out.html" in said
    assert said.split(" It shows")[0] == page_of(resolved(two))[1].text.split(" It shows")[0]
    assert main([*words, "--scores", "seg"]) == 2
    assert "leave out --scores and -o" in capsys.readouterr().err


def test_a_name_from_a_file_is_shown_as_it_is(two):
    path = Path("results/tiny/cam/priors_miou.json")
    found = json.loads(path.read_text())
    found["made_with"]["classifier"]["classifier"]["augmentation"] = "</code><script>"
    path.write_text(json.dumps(found))
    text, page = page_of(resolved(two))
    assert "script" not in page.tags
    assert "&lt;script&gt;" in text


@pytest.mark.skipif(BROWSER is None, reason="no Chromium")
@pytest.mark.parametrize("many", [False, True])
def test_a_phone_shows_the_page_without_sideways_scrolling(two, tiny, tmp_path, many):
    runs = ["cam", "pnoc", "puzzle", "poc", "cam_nols", "pnoc_nols", "supervised_v3"] if many else ["cam", "pnoc"]
    ids = tiny.manifest.ids[:6]
    for place, run in enumerate(runs):
        score(run, "priors", (0.8, 0.4, None, 0.3), curve=[(0.2, 0.4), (0.3, 0.5)])
        score(run, "pseudo", (0.5, 0.5, 0.5, 0.5), images=dict.fromkeys(ids, place / 10))
        score(run, "seg", (0.9, 0.7, 0.5, 0.7), split="val", count=2)
        masks(tiny, run, "pseudo_masks", "train", tiny.manifest.rows[:6], 1)
        measured = Path(f"benchmarks/tiny/{run}/train_classifier.tsv")
        measured.parent.mkdir(parents=True)
        measured.write_text("s\tmax_rss\n3720.0\t2048.4\n")
    text, _ = page_of(resolved(two))
    width, pictures, broken, faults = on_a_phone(text, tmp_path)
    assert width <= 390
    assert pictures > 20
    assert (broken, faults) == (0, 0)
