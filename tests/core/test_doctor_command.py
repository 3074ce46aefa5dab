"""The command wsss doctor: what it reads of a plan, what it reckons, and what it says of a mistake."""

import dataclasses
import subprocess
from importlib.metadata import version

import pytest
import yaml

from wsss_core.commands import doctor, machine
from wsss_core.commands.app import main
from wsss_core.commands.project import open_project
from wsss_core.data import Manifest

OUTPUT = """Building DAG of jobs...
Job stats:
job              count
-------------  -------
dump_cams            1
walk_cams            2
total                3

Not there, and nothing makes it (docs/data.md, Files from elsewhere):
  data/VOC: VOC 2012, http://host, for voc
  resources/weights/a.pt: weights of a: a.pth
This was a dry-run (flag -n).
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return open_project()


@pytest.fixture
def planned(monkeypatch):
    """Have Snakemake say this."""

    def say(output, code=0):
        done = subprocess.CompletedProcess([], code, output)
        calls = []
        monkeypatch.setattr(doctor.subprocess, "run", lambda words, **_: calls.append(words) or done)
        return calls

    return say


def test_a_plan_is_read():
    plan = doctor.read_plan(OUTPUT)
    assert plan.jobs == {"dump_cams": 1, "walk_cams": 2}
    assert plan.missing == ["data/VOC: VOC 2012, http://host, for voc", "resources/weights/a.pt: weights of a: a.pth"]
    assert doctor.read_plan("Nothing to be done.\n") == doctor.Plan({}, [])


def test_a_run_means_its_last_score(project):
    assert doctor.target_of(project, "voc/pnoc") == "results/voc/pnoc/seg_miou.json"
    assert doctor.target_of(project, "voc/maskrcnn_cim") == "results/voc/maskrcnn_cim/detections_ap.json"
    assert doctor.target_of(project, "results/voc/pnoc/health.json") == "results/voc/pnoc/health.json"


@pytest.mark.parametrize("lacking", [{"masks": None}, {"splits": {"train": "train", "scored": "train", "val": None}}])
def test_a_run_on_photos_that_nothing_can_be_scored_with_means_its_health(tmp_path, monkeypatch, lacking):
    monkeypatch.chdir(tmp_path)
    declared = {
        "kind": "folders", "images": "photos", "masks": "masks", "labels": "labels.csv", "names": ["cat"],
        "lists": {"train": None, "new": "new"}, "splits": {"train": "train", "scored": "train", "val": "new"},
    }  # fmt: skip
    for lack, target in (({}, "seg_miou"), (lacking, "health")):
        (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"datasets": {"mine": declared | lack}}))
        project = open_project([tmp_path / "mine.yaml"])
        assert doctor.target_of(project, "mine/pnoc") == f"results/mine/pnoc/{target}.json"


def test_what_is_missing_is_printed_with_exit_code_1(project, planned, capsys):
    calls = planned(OUTPUT)
    assert main(["doctor", "demo/pnoc"]) == 1
    said = capsys.readouterr().out
    assert "python" in said
    assert "resources/weights/a.pt  weights of a: a.pth" in said
    assert [line.split() for line in said.splitlines() if line.startswith("walk_cams")] == [["walk_cams", "2"]]
    (words,) = [words for words in calls if "snakemake" in words]
    assert "--dry-run" in words
    assert words[-1] == "results/demo/pnoc/seg_miou.json"


def test_a_target_that_cannot_be_planned_is_told_in_one_line(project, planned, capsys):
    planned("Building DAG\nError: unknown run 'pnok' (did you mean pnoc?)\n", code=1)
    assert main(["doctor", "results/demo/pnok/seg_miou.json"]) == 2
    assert capsys.readouterr().err == "error: unknown run 'pnok' (did you mean pnoc?)\n"
    assert main(["doctor", "demo/pnok"]) == 2


def test_costs_grow_with_images_and_pixels(project, tiny, monkeypatch):
    rows = [dataclasses.replace(tiny.manifest.rows[0], id=str(n), height=750, width=500) for n in range(2000)]
    Manifest.of(rows).write("results/demo/manifest/train.csv")
    monkeypatch.setattr(doctor, "cores", lambda: 4)
    found = doctor.cost(project, "demo", ["train_classifier", "walk_cams", "dump_cams", "predict_masks"])
    hours = 0.046 * 2 * 2 / 4  # twice a thousand images, twice the pixels, four cores
    assert found[0] == ("walk_cams", f"{hours:.2f} h", f"{8 * 2 * 375_000 / 77_000:.1f} MB")
    assert found[1][:2] == ("dump_cams", "")
    assert len(found) == 2  # nothing is known of val, or of a training


def test_versions_that_differ_are_named(tmp_path):
    (tmp_path / "c.txt").write_text(f"# lock\nnumpy=={version('numpy')}\nzarr==0.1\nnot-installed-here==1\n")
    assert doctor.differing(tmp_path / "c.txt") == [f"zarr {version('zarr')} (not 0.1)"]
    assert doctor.differing(tmp_path / "gone.txt") == []


def test_without_a_target_nothing_is_planned(project, planned, capsys):
    calls = planned(OUTPUT)
    assert main(["doctor"]) == 0
    assert [words for words in calls if "snakemake" in words] == []
    assert "cores" in capsys.readouterr().out


def test_free_memory_is_some_and_not_all():
    with open("/proc/meminfo") as file:
        total = int(file.readline().split()[1]) / 1e3
    assert 0 < machine.free_memory() < total
    assert machine.cores() >= 1
