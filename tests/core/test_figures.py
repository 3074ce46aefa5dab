"""Figures of papers: which files they need, what they draw, and the gradients in closed form."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml
from PIL import Image
from snakemake_cli import ROOT

from wsss_core.classifiers.losses import softmax_label_loss
from wsss_core.recipes.config import read_config
from wsss_core.recipes.recipes import Recipes
from wsss_core.recipes.tree import Tree
from wsss_core.reports.figures import binary_gradient, files_of_figure, make_figure, resolve_figure, softmax_gradient
from wsss_core.reports.tables import ResultError

RECIPES = Recipes(read_config([], ROOT))
CURVE = [
    {"threshold": 0.1, "miou": 0.25, "false_positives": 0.7, "false_negatives": 0.05},
    {"threshold": 0.3, "miou": 0.5, "false_positives": 0.3, "false_negatives": 0.2},
]


@pytest.fixture
def score(tmp_path):
    """A function that writes a result file and gives its path."""

    def write(name: str, **content) -> str:
        about = {"dataset": "demo", "run": "cam", "stage": "priors", "split": "train", "images": 4, "seed": 0}
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(about | {"miou": 0.5} | content))
        return str(path)

    return write


@pytest.fixture
def draw(tmp_path):
    """A function that draws a figure and gives its picture, (H, W, 3), and the rows of its table."""

    def run(**resolved) -> tuple[np.ndarray, list[list[str]]]:
        picture, table = tmp_path / "figure.png", tmp_path / "figure.csv"
        make_figure(resolved={"title": "A figure"} | resolved, picture=picture, table=table)
        with open(table, newline="") as file:
            return np.asarray(Image.open(picture).convert("RGB")), list(csv.reader(file))

    return run


def declared(name: str) -> dict:
    return yaml.safe_load(Path(ROOT, "workflow/papers", f"{name}.yaml").read_text())


def test_threshold_curves_are_drawn_in_per_cent(score, draw):
    picture, rows = draw(lines=[{"name": "CAM", "run": "cam", "files": [score("cam", curve=CURVE)]}])
    assert rows == [
        ["run", "threshold", "miou", "false_positives", "false_negatives"],
        ["CAM", "0.1", "25.0", "70.0", "5.0"],
        ["CAM", "0.3", "50.0", "30.0", "20.0"],
    ]
    assert picture.shape[1] == 3 * picture.shape[0]
    assert (picture == 0).all(-1).any()  # the first line is black


def test_a_result_without_a_curve_cannot_be_drawn(score, draw):
    with pytest.raises(ResultError, match=r"seg\.json has no threshold curve"):
        draw(lines=[{"name": "CAM", "run": "cam", "files": [score("seg")]}])


def test_a_sweep_has_its_points_in_order_and_the_spread_over_seeds(score, draw):
    points = [
        {"x": 2, "files": [score("a", miou=0.4), score("b", miou=0.6)]},
        {"x": 0.5, "files": [score("c", miou=0.3)]},
    ]
    levels = [{"name": "CAM", "files": [score("d", miou=0.2)]}]
    _, rows = draw(x="weight", y="mIoU", key="miou", points=points, levels=levels)
    assert rows == [
        ["weight", "mean", "standard_deviation", "seeds"],
        ["0.5", "30.0", "0.0", "1"],
        ["2", "50.0", "14.1421", "2"],
        ["CAM", "20.0", "0.0", "1"],
    ]


def test_bars_are_by_group(score, draw):
    both = {"single": {"miou": 0.25}, "multi": {"miou": 0.75}}
    _, rows = draw(
        y="mIoU",
        groups=[{"name": "one", "key": "by_labels.single.miou"}, {"name": "several", "key": "by_labels.multi.miou"}],
        bars=[{"name": "CAM", "files": [score("a", by_labels=both)]}],
    )
    assert rows[1:] == [["CAM", "one", "25.0", "0.0", "1"], ["CAM", "several", "75.0", "0.0", "1"]]


def test_a_missing_number_is_named(score, draw):
    with pytest.raises(ResultError, match=r"a\.json has no score 'by_labels\.single\.miou'"):
        draw(y="", groups=[{"name": "one", "key": "by_labels.single.miou"}], bars=[{"name": "", "files": [score("a")]}])


def test_gradients_are_those_of_the_losses(draw):
    labels = torch.tensor([[1.0, 0.0, 1.0]])
    z = torch.tensor([[0.3, -2.0, 1.5]], requires_grad=True)
    (binary,) = torch.autograd.grad(F.binary_cross_entropy_with_logits(z, labels), z)
    np.testing.assert_allclose(binary_gradient(z.detach().numpy(), labels.numpy()), binary, atol=1e-6)
    one = torch.tensor([[0.0, 1.0, 0.0]])
    (softmax,) = torch.autograd.grad(softmax_label_loss(z, one), z)
    np.testing.assert_allclose(softmax_gradient(z.detach().numpy(), one.numpy()), softmax, atol=1e-6)
    _, rows = draw(formula="gradients")
    assert [row[3:] for row in rows[1:5]] == [["0.5", "0.5"], ["0.0", "0.0"], ["0.0", "0.5"], ["0.5", "0.0"]]
    assert [row[3:] for row in rows[5:]] == [["1.0", "1.0"], ["0.0", "0.0"], ["0.5", "0.5"], ["0.5", "0.5"]]


def test_a_figure_needs_the_scores_of_its_runs_and_of_their_seeds():
    tree = Tree()
    found = files_of_figure(resolve_figure(declared("recam/figure6a"), "demo", RECIPES, tree))
    assert "results/demo/recam_lambda2@seed1/priors_miou.json" in found
    assert len(found) == 7 * 3
    found = files_of_figure(resolve_figure(declared("recam/figure6b"), "voc", RECIPES, tree))
    assert found == [
        f"results/voc/{run}/{score}.json" for score in ("priors_miou", "pseudo_miou") for run in ("cam_irn", "recam")
    ]
    assert files_of_figure(resolve_figure(declared("recam/figure_gradients"), "voc", RECIPES, tree)) == []
