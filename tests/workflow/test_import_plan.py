"""A classifier that was imported: Snakemake plans what follows from it, and no training."""

from pathlib import Path

import torch
from snakemake_cli import planned

from wsss_core.classifiers.network import build_classifier
from wsss_core.commands.app import main
from wsss_core.data import DEMO_CLASSES, make_classes

TARGET = "results/demo/cam/priors_miou.json"


def test_later_stages_are_planned_without_the_training(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("results/demo/manifest").mkdir(parents=True)
    Path("results/demo/VOC2012").mkdir()
    make_classes(DEMO_CLASSES).write("results/demo/classes.csv")
    Path("results/demo/manifest/train.csv").touch()
    assert "train_classifier" in planned(tmp_path, targets=[TARGET])
    model = build_classifier("test_resnet", len(DEMO_CLASSES), output_stride=16, weights=None)
    state = {f"model.{name}": value for name, value in model.backbone.network.state_dict().items()}
    torch.save(state | {"classifier.weight": model.head.weight.detach()}, "released.pth")
    assert main(["import", "released.pth", "demo", "cam"]) == 0
    assert set(planned(tmp_path, targets=[TARGET])) == {"dump_cams", "evaluate_cams"}
