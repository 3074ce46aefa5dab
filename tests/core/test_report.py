"""The report of a run: what the page says, and what it says where a part is missing."""

import base64
import html
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

from wsss_core.commands.project import open_project
from wsss_core.data import DataError, Manifest, Row, write_grey, write_mask
from wsss_core.recipes.config import ordered
from wsss_core.reports import charts
from wsss_core.reports.analysis import class_properties
from wsss_core.reports.citations import BEHIND, PAPERS
from wsss_core.reports.contents import STAGES, files_of_report, resolve_report
from wsss_core.reports.gallery import data_uri, groups_by_foreground, groups_by_score
from wsss_core.reports.page import duration, jobs, make_report
from wsss_core.reports.tables import ResultError
from wsss_core.scores.health import health
from wsss_core.scores.images import ImageScore
from wsss_core.scores.masks import evaluate_masks
from wsss_core.scores.priors import evaluate_cams
from wsss_core.scores.results import write_result

HOSTILE = '<b>&"{{ 7 * 7 }}'  # a file's name may be this


@pytest.fixture
def project(tiny, tmp_path, monkeypatch):
    """A function that opens a project of the tiny images, with or without masks and a val split."""
    monkeypatch.chdir(tmp_path)

    def open_it(masks=True, val=True):
        declared = {
            "kind": "folders", "images": str(tiny.folder), "masks": str(tiny.masks) if masks else None,
            "labels": "masks" if masks else "labels.csv", "names": list(tiny.classes.names),
            "lists": {"train": "train.txt"} | ({"val": "val.txt"} if val else {}),
            "splits": {"train": "train", "scored": None, "val": "val" if val else None},
        }  # fmt: skip
        (tmp_path / "tiny.yaml").write_text(yaml.safe_dump({"datasets": {"tiny": declared}}))
        return open_project([tmp_path / "tiny.yaml"])

    return open_it


@pytest.fixture
def left(tiny, tmp_path, random_maps, write_store):
    """A function that makes what a resolved report asks for, quickly: six images for training and two for val."""
    train, val = Manifest.of(tiny.manifest.rows[:6]), Manifest.of(tiny.manifest.rows[6:])

    def make(resolved, *, run=None, truth=True):
        classes = tiny.classes
        classes.write(resolved["classes"])
        for gallery in resolved["galleries"]:
            manifest = train if gallery["role"] == "scored" else val
            if not truth:
                manifest = Manifest.of([Row(r.id, r.image, "", r.height, r.width, r.labels) for r in manifest])
            manifest.write(gallery["manifest"])
            for name, path in gallery["panels"]:
                if name == "cams":
                    write_store(Path(path), train, random_maps(train))
                for row in manifest if name != "cams" else ():
                    mask = np.where(tiny.mask(row) == 255, 0, tiny.mask(row)).astype(np.uint8)
                    target = Path(path) / f"{row.id}.png"
                    write_grey(target, mask) if "saliency" in name else write_mask(target, mask, classes)
        for score in resolved["scores"]:
            about = {"stage": score["name"], "dataset": "tiny", "run": "any", "seed": 0, "revision": 3}
            images = Path(score["images"]) if score["images"] else None
            if score["role"] == "val":
                found = evaluate_masks(manifest=val, classes=classes, folder=path_of(resolved, "masks"), images=images)
            else:
                settings = run.section("tiny", "pnoc", "prior.scores")
                store = write_store(tmp_path / f"{score['name']}.zarr", train, random_maps(train))
                found = evaluate_cams(manifest=train, classes=classes, cams=store, settings=settings, images=images)
            write_result(score["result"], found, split="val" if score["role"] == "val" else "train", **about)
        if resolved["health"]:
            folders = {"pseudo_masks": path_of(resolved, "pseudo_masks")}
            found = health(manifest=train, classes=classes, cams=None, threshold=0.3, folders=folders)
            write_result(resolved["health"], found, stage="health", split="train", seed=0, revision=1)
        if resolved["properties"]:
            class_properties(manifest=train, classes=classes, kind="folders").write(resolved["properties"])
        return resolved

    return make


def path_of(resolved, artefact):
    return Path(next(path for gallery in resolved["galleries"] for name, path in gallery["panels"] if name == artefact))


def made(resolved, tmp_path) -> tuple[str, Page]:
    output = tmp_path / "report.html"
    make_report(resolved=ordered(resolved), output=output, images=1)
    text = output.read_text(encoding="utf-8")
    return text, Page(text)


@pytest.fixture
def whole_run(project, left):
    opened = project()
    return left(resolve_report("tiny", "pnoc", opened.recipes, opened.tree), run=opened.recipes)


def test_a_page_says_what_a_run_is_and_needs_nothing_beside_it(whole_run, tmp_path):
    history = Path(next(stop["history"] for stop in whole_run["road"] if stop["artefact"] == "c2am"))
    history.write_text(
        "epoch,positive,negative,lr,seconds,gpu_memory_mb\n1,0.5,0.25,0.1,30,100\n2,0.4,0.2,0.1,31,120\n"
    )
    measured = Path("benchmarks/tiny/pnoc/train_c2am.tsv")
    measured.parent.mkdir(parents=True)
    measured.write_text("s\th:m:s\tmax_rss\n3720.0\t1:02:00\t2048.4\n")
    text, page = made(whole_run, tmp_path)
    assert {tag for tag, _ in page.links} == {"a", "img", "image", "link", "use"}
    loaded = [link for tag, link in page.links if tag != "a"]
    assert all(link.startswith(("data:", "#")) for link in loaded)
    assert "script" not in page.tags
    assert "@import" not in text
    seg = json.loads(Path("results/tiny/pnoc/seg_miou.json").read_text())
    assert f"{100 * seg['miou']:.1f} % mIoU" in page.text
    assert "C²AM pnoc 1 h 02 min 2,048 MB" in page.text  # a stage on the road
    assert "2 epochs, 1 min, 120 MB of the GPU's memory" in page.text
    assert "CAMs by background threshold" in page.text
    assert "classes by size: small" in page.text
    assert "images: one class" in page.text
    assert "No number is out of the ordinary." in page.text or "Look at this first" in page.text
    assert "prior.classifier.augmentation jitter randaug method pnoc" in page.text
    assert "P-NOC: adversarial training" in page.text
    assert "Mask R-CNN" not in page.text
    assert "<title>pnoc on tiny</title>" in text


def test_the_numbers_of_the_page_are_those_of_the_files(whole_run, tmp_path):
    result = Path("results/tiny/pnoc/seg_miou.json")
    found = json.loads(result.read_text())
    names = list(found["iou"])
    found |= {"miou": 0.4321, "iou": dict(zip(names, (0.9, 0.125, None, 0.5), strict=True))}
    found["confusion"] = [[80, 20, 0, 0], [30, 10, 0, 0], [0, 0, 0, 0], [0, 0, 0, 5]]
    result.write_text(json.dumps(found))
    _, page = made(whole_run, tmp_path)
    assert "43.2 % mIoU" in page.text
    priors, pseudo = (json.loads(Path(f"results/tiny/pnoc/{name}_miou.json").read_text())["iou"]["circle"]
                      for name in ("priors", "pseudo"))  # fmt: skip
    row = re.search(r"circle (\d+) ([\d.]+) ([\d.]+) ([\d.]+) ([\d.]+)", page.text)
    assert (row[1], row[2], row[4], row[5]) == ("3", f"{100 * priors:.1f}", f"{100 * pseudo:.1f}", "12.5")
    assert re.search(r"square \d+ [\d.]+ [\d.]+ [\d.]+ –", page.text)  # a class that is nowhere has no score
    # 30 of 40 pixels of circles, 20 of 100 of the background; squares have none at all
    assert "Share circle background 75.0 background circle 20.0 " in page.text


def test_names_are_shown_as_they_are_and_never_run(whole_run, tiny, tmp_path):
    gallery = whole_run["galleries"][1]
    manifest = Manifest.read(gallery["manifest"])
    first = manifest.rows[0]
    named = [Row(HOSTILE, first.image, first.mask, first.height, first.width, first.labels), *manifest.rows[1:]]
    Manifest.of(named).write(gallery["manifest"])
    table = Path(gallery["images"])
    cell = '"' + HOSTILE.replace('"', '""') + '"'
    table.write_text(table.read_text().replace(first.id, cell))
    folder = Path(gallery["panels"][0][1])
    shutil.copy(folder / f"{first.id}.png", folder / f"{HOSTILE}.png")
    whole_run["settings"] = [["a.b", HOSTILE, "1", "run </code><script>"]]
    text, page = made(whole_run, tmp_path)
    assert HOSTILE not in text
    assert html.escape(HOSTILE, quote=False)[:12] in text
    assert HOSTILE in page.text
    assert "script" not in page.tags
    assert page.tags.count("b") == 4 + 4 + 3 + 2  # of scores, slots and images: none is from a name


def test_a_class_may_have_any_name_in_charts():
    text = charts.matrix("a < b", np.eye(2, dtype=int), ["<script>", "$x_1$ & co"])
    assert "<script>" not in text
    assert "&lt;script&gt;" in text
    assert 'aria-label="a &lt; b"' in text


def test_a_run_without_masks_shows_its_health(project, left, tiny, tmp_path):
    opened = project(masks=False, val=False)
    (tmp_path / "labels.csv").write_text("image_id,classes\n")
    resolved = resolve_report("tiny", "pnoc", opened.recipes, opened.tree)
    assert resolved["scores"] == []
    assert resolved["properties"] is None
    left(resolved, truth=False)
    masks = path_of(resolved, "masks")
    for row in tiny.manifest.rows[:6]:  # predicted to be stars, whatever their labels are
        write_mask(masks / f"{row.id}.png", np.full((row.height, row.width), 3, np.uint8), tiny.classes)
    _, page = made(resolved, tmp_path)
    assert len(re.findall(r"Predictions (?:background )?[a-z ]*star", page.text)) == 3  # classes of legends
    assert "There are no true masks of this data set" in page.text
    assert "looked at without any true mask" in page.text
    assert "Not ranked, as there are no scores by image." in page.text
    assert all(title in page.text for title in ("Most foreground", "Evenly spread", "Least foreground"))
    assert "Truth" not in page.text
    assert page.text.count("Pseudo masks Predictions") == 3  # seen on training images, as there are no others
    assert "Scores by class" not in page.text


def test_a_run_without_saliency_has_none_on_its_page(project, left, tmp_path):
    opened = project()
    resolved = left(resolve_report("tiny", "cam_irn", opened.recipes, opened.tree), run=opened.recipes)
    assert "saliency_miou" not in [score["name"] for score in resolved["scores"]]
    _, page = made(resolved, tmp_path)
    assert "PoolNet" not in page.text
    assert "C²AM" not in page.text
    assert "(no measurement is there)" in page.text  # nor are there benchmark files
    assert "Losses by epoch" not in page.text  # nor histories


def test_a_run_that_learns_from_true_masks_goes_through_its_network_alone(project):
    opened = project()
    resolved = resolve_report("tiny", "supervised_v3", opened.recipes, opened.tree)
    assert [stop["artefact"] for stop in resolved["road"]] == ["segmentation", "masks"]
    assert [score["name"] for score in resolved["scores"]] == ["seg_miou"]
    assert [gallery["role"] for gallery in resolved["galleries"]] == ["val"]
    assert not [key for key, *_ in resolved["settings"] if key.startswith("prior")]


def test_scores_of_what_is_shared_are_taken_from_where_it_lies(project):
    opened = project()
    resolved = resolve_report("tiny", "pnoc_v2", opened.recipes, opened.tree)
    folders = {score["name"]: Path(score["result"]).parent.name for score in resolved["scores"]}
    assert folders == {"priors_miou": "pnoc", "saliency_miou": "pnoc", "pseudo_miou": "pnoc", "seg_miou": "pnoc_v2"}
    assert "results/tiny/pnoc/random_walk" not in " ".join(files_of_report(resolved))
    seeded = resolve_report("tiny", "pnoc_v2@seed2", opened.recipes, opened.tree)
    assert seeded["scores"][0]["result"] == "results/tiny/pnoc@seed2/priors_miou.json"


def test_masks_that_the_pipeline_makes_are_there_before_the_page(project):
    opened = project()
    files = files_of_report(resolve_report("coco14", "pnoc", opened.recipes, opened.tree))
    assert {"results/coco14/masks/train2014", "results/coco14/masks/val2014"} <= set(files)


def test_a_run_with_instances_shows_the_true_objects(project):
    opened = project()
    resolved = resolve_report("demo-instances", "maskrcnn_irn", opened.recipes, opened.tree)
    true = [f"results/demo-instances/instances/{subset}.zarr" for subset in ("train", "val")]
    assert [gallery["objects"] for gallery in resolved["galleries"]] == true
    assert set(true) <= set(files_of_report(resolved))
    masks = resolve_report("demo-instances", "pnoc", opened.recipes, opened.tree)
    assert [gallery["objects"] for gallery in masks["galleries"]] == [None, None]


def test_every_score_of_instances_is_told(project, left, tmp_path):
    opened = project()
    resolved = left(resolve_report("tiny", "supervised_v3", opened.recipes, opened.tree) | {"health": None})
    ap = {"coco": {"0.25": 0.9, "0.5": 0.615}, "voc": {"0.25": 0.9, "0.5": None}}
    result = tmp_path / "detections_ap.json"
    by_class = {"circle": {"objects": 7, **ap}}
    write_result(result, {"ap": ap, "images": 2, "by_class": by_class}, stage="detections", split="val", seed=0,
                 revision=1)  # fmt: skip
    resolved["scores"].append(
        {"name": "detections_ap", "artefact": "detections", "role": "val", "result": str(result), "images": None}
    )
    _, page = made(resolved, tmp_path)
    assert "Detections 61.5 % AP50" in page.text
    assert "0.25 90.0 90.0 0.5 61.5 –" in page.text
    assert "circle 7 61.5 –" in page.text


def test_a_damaged_file_is_named(whole_run, tmp_path):
    path = Path("results/tiny/pnoc/pseudo_miou.json")
    path.write_text("{}")
    with pytest.raises(ResultError, match=r"pseudo_miou.json is not a whole result file .*: run its rule again"):
        made(whole_run, tmp_path)


def test_a_damaged_table_is_named_and_leaves_no_page(whole_run, tmp_path):
    Path("results/tiny/pnoc/seg_images.csv").write_text("id\nx\n")
    with pytest.raises(DataError, match=r"seg_images.csv cannot be read"):
        made(whole_run, tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_the_best_the_typical_and_the_worst():
    scores = [ImageScore(str(place), (), place / 10, 0.0, 0.0, {}) for place in range(9)]
    scores.append(ImageScore("void", (), None, None, None, {}))
    groups = groups_by_score(scores, 2)
    assert [(group.title, group.ids) for group in groups] == [
        ("Best", ["8", "7"]), ("Typical", ["5", "4"]), ("Worst", ["0", "1"]),
    ]  # fmt: skip
    for count in range(1, 9):  # few images: none twice
        ids = [id for group in groups_by_score(scores[:count], 3) for id in group.ids]
        assert len(ids) == len(set(ids)) == count if count < 4 else len(ids) == len(set(ids))


def test_without_scores_images_are_found_by_their_foreground():
    stage = {"most": {"f": 0.9, "gone": 0.8, "e": 0.7}, "least": {"a": 0.1, "f": 0.2}}
    groups = groups_by_foreground(stage, list("abcdef"), 2)
    assert [(group.title, group.ids) for group in groups] == [
        ("Most foreground", ["f", "e"]), ("Evenly spread", ["b", "c"]), ("Least foreground", ["a"]),
    ]  # fmt: skip
    assert [group.title for group in groups_by_foreground(None, ["a"], 3)] == ["Evenly spread"]


def test_a_mask_keeps_its_colours_where_it_is_shown_smaller():
    mask = np.zeros((1000, 500, 3), np.uint8)
    mask[:, 250:] = (128, 0, 0)
    picture = Image.open(io.BytesIO(base64.b64decode(data_uri(mask).partition(",")[2])))
    assert (picture.format, picture.size) == ("PNG", (160, 320))
    assert {colour for _, colour in picture.convert("RGB").getcolors()} == {(0, 0, 0), (128, 0, 0)}


def test_seconds_are_read_where_snakemake_left_them(tmp_path):
    for name, seconds in {"walk_cams.train": "3.5", "walk_cams.val": "NA", "walk_cams_too.train": "9"}.items():
        (tmp_path / f"{name}.tsv").write_text(f"s\tmax_rss\n{seconds}\t-\n")
    assert jobs(str(tmp_path / "walk_cams")) == [{"subset": "train", "seconds": 3.5, "memory": None}]
    assert jobs(None) == jobs(str(tmp_path / "none")) == []
    assert [duration(seconds) for seconds in (None, 3.25, 89, 3720)] == ["–", "3.2 s", "1 min", "1 h 02 min"]


def test_every_stage_has_a_name_and_every_paper_is_there(project):
    recipes = project().recipes
    for run in recipes.runs:
        assert set(recipes.artefacts("tiny", run)) <= set(STAGES)
    assert {key for keys in BEHIND.values() for key in keys} <= set(PAPERS)


@pytest.mark.skipif(BROWSER is None, reason="no Chromium")
def test_a_phone_shows_the_page_without_sideways_scrolling(whole_run, tmp_path):
    text, _ = made(whole_run, tmp_path)
    width, pictures, broken, faults = on_a_phone(text, tmp_path)
    assert width <= 390
    assert pictures > 20
    assert (broken, faults) == (0, 0)
