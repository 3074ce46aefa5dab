"""Snakemake's own report: its first page, the labels of results, and captions that can be read."""

import json
import re
from types import SimpleNamespace

import pytest
from docutils.core import publish_parts
from jinja2 import Environment
from snakemake_cli import ROOT, succeed

from wsss_core.reports.labels import score_labels

RULES = "\n".join(path.read_text() for path in sorted((ROOT / "workflow/rules").glob("*.smk")))
CAPTIONS = sorted((ROOT / "workflow/report").glob("*.rst"))
FIRST = "workflow.rst"


def rendered(name: str, **known) -> str:
    """A page or caption as Snakemake makes it, and no word of complaint in it."""
    text = (ROOT / "workflow/report" / name).read_text()
    environment = Environment(trim_blocks=True, lstrip_blocks=True)
    html = publish_parts(environment.from_string(text).render(**known), writer="html")["html_body"]
    assert "system-message" not in html
    return html


def result(**changes) -> dict:
    return {"stage": "priors", "split": "train", "images": 320, "miou": 0.6187} | changes


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (result(), {"images": "320 of train", "score": "mIoU 61.9 %"}),
        (
            {"split": "val", "images": 80, "ap": {"coco": {"0.25": 0.9, "0.5": 0.7}, "voc": {"0.5": 0.1}}},
            {"images": "80 of val", "score": "AP50 70.0 %"},
        ),
        ({"split": "val", "images": 80, "epochs": []}, {"images": "80 of val"}),
    ],
)
def test_a_result_is_told_by_its_score(tmp_path, content, expected):
    (tmp_path / "score.json").write_text(json.dumps(content))
    assert score_labels(tmp_path / "score.json") == expected


def test_every_caption_is_used_and_there():
    named = set(re.findall(r'"\.\./report/(\w+\.rst)"', RULES))
    assert named | {FIRST} == {path.name for path in CAPTIONS}
    assert f'report: "workflow/report/{FIRST}"' in (ROOT / "Snakefile").read_text()


@pytest.mark.parametrize("path", [path for path in CAPTIONS if path.name != FIRST], ids=lambda path: path.stem)
def test_a_caption_is_words(path):
    wildcards = {"dataset": "demo", "run": "pnoc", "subset": "val", "table": "t", "figure": "f"}

    class Wildcards(dict):  # as Snakemake's: by attribute, and with keys
        __getattr__ = dict.__getitem__

    html = rendered(path.name, snakemake=SimpleNamespace(wildcards=Wildcards(wildcards)))
    assert len(re.sub(r"<[^>]*>", "", html).split()) > 8
    assert "{" not in html


def test_the_report_opens_on_words_with_the_scores_of_its_runs(tmp_path):
    results = tmp_path / "results/demo"
    for run in ("cam", "pnoc"):
        (results / run).mkdir(parents=True)
        (results / run / "classifier.history.csv").write_text("epoch,loss\n1,0.5\n")
    (results / "pnoc/priors_miou.json").write_text(json.dumps(result()))
    (results / "pnoc/priors_images.csv").write_text("image,miou\na,0.5\n")
    succeed(tmp_path, "--report", str(tmp_path / "lab.html"), targets=["results/demo/pnoc/priors_miou.json"])
    page = (tmp_path / "lab.html").read_text()

    def of_page(name: str):
        return json.loads(re.search(rf'<script id="{name}">\s*var \w+ = (.*);\n', page)[1])

    words = of_page("workflow-desc")
    assert "system-message" not in words
    told = " ".join(re.sub(r"<[^>]*>", " ", words).split())
    assert "data set demo : cam, pnoc" in told
    assert "demo pnoc CAMs 320 of train mIoU 61.9 %" in told
    # of what a reader is sent to, there is no more than the report has
    assert re.findall(r'href="javascript:app.showCategory\(\'(\w+)', words) == ["Scores", "Scores", "Curves"]
    found = of_page("results")
    assert found["results/demo/pnoc/priors_miou.json"]["labels"] == {
        "data set": "demo", "run": "pnoc", "what": "CAMs", "images": "320 of train", "score": "mIoU 61.9 %",
    }  # fmt: skip
    assert all(entry["caption"] and entry["labels"]["data set"] == "demo" for entry in found.values())
    assert set(of_page("categories")) == {"Scores", "Scores by image", "Curves"}
