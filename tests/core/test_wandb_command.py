"""``wsss wandb``: off unless it is typed, and what it sends then. The library is a stand-in, so nothing is sent."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from snakemake_cli import ROOT
from torch.utils.tensorboard import SummaryWriter

from wsss_core.commands.app import main

HISTORY = "epoch,loss,even,lr\n1,0.5,,0.1\n2,0.25,1.5,0.05\n"


class Library:
    """What the command uses of wandb."""

    def __init__(self):
        self.about, self.logged, self.summary, self.metrics = {}, [], {}, {}

    def init(self, **about):
        self.about = about
        return self

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.finished = True

    def define_metric(self, name, step_metric):
        self.metrics[name] = step_metric

    def log(self, row):
        self.logged.append(row)

    Error = RuntimeError
    Image = staticmethod(lambda picture: SimpleNamespace(size=picture.size))


@pytest.fixture
def library(monkeypatch):
    found = Library()
    monkeypatch.setitem(sys.modules, "wandb", found)
    return found


@pytest.fixture
def left(tmp_path, monkeypatch):
    """What a run has left that is half done: a classifier's losses and pictures, and a score."""
    monkeypatch.chdir(tmp_path)
    folder = Path("results/demo/pnoc")
    folder.mkdir(parents=True)
    (folder / "classifier.history.csv").write_text(HISTORY)
    (folder / "priors_miou.json").write_text(json.dumps({"miou": 0.625, "images": 3, "split": "train"}))
    with SummaryWriter(folder / "classifier.tensorboard") as writer:
        writer.add_image("maps/a", np.zeros((2, 4, 3), np.uint8), 2, dataformats="HWC")
    return folder


def test_losses_pictures_and_scores_are_sent(left, library, capsys):
    assert main(["wandb", "demo", "pnoc", "--project", "lab"]) == 0
    assert capsys.readouterr().out == "sent: classifier (2 epochs)\n"
    settings = library.about.pop("config")
    assert library.about == {
        "project": "lab", "name": "pnoc", "group": "demo", "id": "demo-pnoc", "mode": "online",
    }  # fmt: skip
    assert settings["prior.classifier.backbone"] == "test_resnet"
    assert library.metrics == {"classifier/*": "classifier/epoch"}
    first, second = library.logged
    assert first == {"classifier/epoch": 1, "classifier/loss": 0.5, "classifier/lr": 0.1}
    assert second.pop("classifier/maps/a").size == (4, 2)
    assert second == {
        "classifier/epoch": 2, "classifier/loss": 0.25, "classifier/even": 1.5, "classifier/lr": 0.05,
    }  # fmt: skip
    assert library.summary == {"priors_miou/mIoU": 0.625}
    assert library.finished


def test_who_is_not_logged_in_is_told(left, library, monkeypatch, capsys):
    def refused(**_):
        raise library.Error("No API key configured. Use `wandb login`")

    monkeypatch.setattr(library, "init", refused)
    assert main(["wandb", "demo", "pnoc", "--project", "lab"]) == 2
    assert "Use `wandb login`; --offline writes for later" in capsys.readouterr().err


def test_offline_sends_nothing(left, library, capsys):
    assert main(["wandb", "demo", "pnoc", "--project", "lab", "--offline"]) == 0
    assert library.about["mode"] == "offline"
    assert capsys.readouterr().out.startswith("written: ")


def test_without_the_library_one_line_says_how_to_get_it(left, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "wandb", None)  # as if it were not installed
    assert main(["wandb", "demo", "pnoc", "--project", "lab"]) == 2
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1
    assert "pip install wandb, then wandb login" in said


def test_a_run_that_left_nothing_is_refused(tmp_path, monkeypatch, library, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["wandb", "demo", "pnoc", "--project", "lab"]) == 2
    assert "has neither losses nor scores on demo yet" in capsys.readouterr().err
    assert not library.about


def test_nothing_else_knows_of_it():
    """No job, no setting and no dependency: nobody's data leave by themselves."""
    files = [*ROOT.glob("wsss_core/**/*.py"), *ROOT.glob("workflow/**/*"), *ROOT.glob("config/**/*.yaml")]
    files += [ROOT / name for name in ("Snakefile", "config.yaml", "pyproject.toml", "environment.yml")]
    found = {path.name for path in files if path.is_file() and "wandb" in path.read_text(errors="replace").lower()}
    assert found == {"app.py", "tracking.py"}
