"""ReCAM's runs against values written down by hand from its paper, its authors' words and its code; what is refused."""

import pytest
import yaml
from snakemake_cli import ROOT

from wsss_core.recipes.config import RecipeError, read_config
from wsss_core.recipes.recipes import Recipes
from wsss_core.recipes.settings import plain

CONFIG = read_config([], ROOT)
RECIPES = Recipes(CONFIG)

# IRNet's classifier, from which ReCAM goes on; on COCO the same.
IRNET = {
    "backbone": "resnet50_undilated", "weights": "pretrained", "output_stride": 16, "batch_norm": "statistics",
    "frozen": "stem", "resize": [320, 640], "crop": 512, "augmentation": "none", "batch_size": 16, "accumulation": 1,
    "epochs": 5, "learning_rate": 0.1, "head_rate": 10, "weight_decay": 1e-4, "momentum": None, "as_irnet": True,
    "label_smoothing": 0.0, "label_loss": None, "mixing": None, "average": None, "dropout": None,
    "precision": "float32", "batch_norm_group": None, "rescale": None, "decay_power": None, "head_bias": None,
    "pooling": None, "squash": None,
}  # fmt: skip
# 5e-4 for the second head, 5e-5 for the first one and the backbone, 4 epochs.
RECAM = IRNET | {"weights": "ordinary", "epochs": 4, "learning_rate": 5e-5, "head_rate": 10}
LONGER = RECAM | {"head_rate": 1}
ON_COCO = {"batch_size": 6}
# Thresholds by run and data set: of the seeds, of the affinity labels (foreground, background), after the walk.
THRESHOLDS = {
    ("cam_irn", "voc"): (0.15, (0.3, 0.05), 0.25),
    ("recam", "voc"): (0.21, (0.35, 0.1), 0.28),
    ("recam", "coco14"): (0.15, (0.35, 0.1), 0.25),
}
V2 = {
    "backbone": "resnet101_caffe", "weights": "pretrained", "scales": [0.5, 0.75, 1.0, 1.25, 1.5], "crop": 321,
    "batch_size": 5, "accumulation": 2, "updates": 20000, "decay_every": 10, "learning_rate": 2.5e-4,
    "weight_decay": 5e-4, "momentum": 0.9, "precision": "float32",
}  # fmt: skip


def values(dataset, run, section):
    return plain(RECIPES.section(dataset, run, section))


@pytest.mark.parametrize(
    ("dataset", "run", "method", "expected"),
    [
        ("voc", "cam_irn", "cam", IRNET),
        ("voc", "cam_irn_softmax", "cam", IRNET | {"label_loss": "softmax"}),
        ("voc", "cam_irn_single", "cam", IRNET | {"label_loss": "softmax_if_single"}),
        ("voc", "cam_irn_longer", "cam", LONGER),
        *(("voc", run, "recam", RECAM) for run in ("recam", "recam_w", "recam_w2", "recam_sum", "recam_lambda4")),
        ("coco14", "cam_irn", "cam", IRNET),
        ("coco14", "cam_irn_longer", "cam", LONGER | ON_COCO),
        ("coco14", "recam", "recam", RECAM | ON_COCO),
    ],
)
def test_classifiers(dataset, run, method, expected):
    _, slot = RECIPES.filled(dataset, run, "prior")
    assert slot.method == method
    found = values(dataset, run, "prior.classifier")
    assert {key: value for key, value in found.items() if key != "compile"} == expected
    assert slot.references == ({} if expected["weights"] == "pretrained" else {"ordinary": "cam_irn"})


@pytest.mark.parametrize(
    ("dataset", "run", "weight", "head"),
    [
        ("voc", "recam", 1.0, "product"),
        ("voc", "recam_w", 1.0, None),
        ("voc", "recam_w2", 1.0, "second"),
        ("voc", "recam_sum", 1.0, "sum"),
        ("voc", "recam_lambda025", 0.25, "product"),
        ("voc", "recam_lambda05", 0.5, "product"),
        ("voc", "recam_lambda2", 2.0, "product"),
        ("voc", "recam_lambda4", 4.0, "product"),
        ("coco14", "recam", 0.1, None),
        ("coco14", "recam_product", 0.1, "product"),
    ],
)
def test_the_loss_and_the_maps(dataset, run, weight, head):
    assert values(dataset, run, "prior.reactivation") == {"weight": weight, "detach_masks": False}
    cams = values(dataset, run, "prior.cams")
    assert (cams["scales"], cams["head"]) == ([0.5, 1.0, 1.5, 2.0], head)


@pytest.mark.parametrize(("run", "dataset"), THRESHOLDS)
def test_thresholds(run, dataset):
    seeds, (foreground, background), walk = THRESHOLDS[run, dataset]
    scores = RECIPES.section(dataset, run, "prior.scores")
    assert scores.fixed == seeds
    assert scores.tried() == [round(0.01 * step, 2) for step in range(60)]
    labels = RECIPES.stage_settings(dataset, run, "affinity_labels")["labels"]
    assert labels == {
        "foreground": foreground, "background": background, "crf": {"iterations": 10, "confidence": 0.7},
    }  # fmt: skip
    assert values(dataset, run, "refinement.masks") == {"threshold": walk, "each_class": None, "crf": None}


@pytest.mark.parametrize("dataset", ["voc", "coco14"])
@pytest.mark.parametrize("run", ["cam_irn", "recam"])
def test_edges_and_walk(dataset, run):
    assert RECIPES.result(dataset, run, "saliency") is None
    affinity = {
        "backbone": "resnet50_undilated", "weights": "pretrained", "rescale": [0.5, 1.5], "crop": 512, "radius": 10,
        "batch_size": 32, "epochs": 3, "learning_rate": 0.1, "weight_decay": 1e-4, "displacement": None,
    }  # fmt: skip
    found = values(dataset, run, "refinement.affinity")
    assert {key: found[key] for key in affinity} == affinity
    walk = {"radius": 5, "beta": 10.0, "squarings": 8, "padding": 0, "power": None}
    found = values(dataset, run, "refinement.walk")
    assert {key: found[key] for key in walk} == walk


@pytest.mark.parametrize(
    ("run", "dataset", "threshold"),
    [("cam_irn_seeds", "voc", 0.15), ("recam_seeds", "voc", 0.21), ("recam_seeds", "coco14", 0.15)],
)
def test_masks_straight_from_the_maps(run, dataset, threshold):
    assert values(dataset, run, "refinement.masks") == {"threshold": threshold, "each_class": True, "crf": None}
    taken = RECIPES.behind(dataset, run, "pseudo_masks")
    assert list(taken)[-2:] == ["cams", "pseudo_masks"]
    assert taken["cams"]["run"] == run.removesuffix("_seeds")


@pytest.mark.parametrize(
    ("dataset", "expected"),
    [("voc", V2), ("coco14", V2 | {"batch_size": 10, "updates": 100000, "learning_rate": 2e-4})],
)
@pytest.mark.parametrize("run", ["cam_irn", "recam", "cam_irn_seeds", "recam_seeds"])
def test_networks(dataset, expected, run):
    found = values(dataset, run, "segmentation.v2")
    assert {key: found[key] for key in expected} == expected
    assert values(dataset, run, "segmentation.prediction") == {
        "scales": [1.0], "mirror": False, "crf_iterations": 10,
    }  # fmt: skip
    assert RECIPES.source(dataset, run, "pseudo_masks") == run


def test_the_maps_of_other_heads_come_from_one_training():
    """So another head makes maps again, and no classifier."""
    for run in ("recam_w", "recam_w2", "recam_sum", "recam_seeds"):
        assert RECIPES.source("voc", run, "classifier") == "recam"
    assert {RECIPES.source("voc", run, "cams") for run in ("recam_w", "recam_w2", "recam_sum")} == {
        "recam_w", "recam_w2", "recam_sum",
    }  # fmt: skip
    assert RECIPES.source("voc", "recam_product", "cams") == "recam"
    assert RECIPES.source("voc", "recam_lambda2", "classifier") == "recam_lambda2"


def test_every_run_of_a_table_is_written_down_above():
    found = set()
    for path in sorted((ROOT / "workflow/papers/recam").glob("*.yaml")):
        content = yaml.safe_load(path.read_text())
        entries = [entry for key in ("rows", "points", "levels", "bars") for entry in content.get(key, [])]
        found |= {entry["run"] for entry in entries if "run" in entry}
    assert found == {
        "cam_irn", "cam_irn_softmax", "cam_irn_single", "cam_irn_longer", "recam", "recam_w", "recam_w2", "recam_sum",
        "recam_product", "recam_lambda025", "recam_lambda05", "recam_lambda2", "recam_lambda4", "cam_irn_seeds",
        "recam_seeds",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("run", "message"),
    [
        ({"prior": {"method": "recam"}}, "prior needs an ordinary classifier: set ordinary to a run such as cam"),
        (
            {"extends": "recam", "prior": {"classifier": {"weights": "pretrained"}}},
            "classifier.weights is 'pretrained', but ReCAM goes on from a classifier: say ordinary",
        ),
        ({"extends": "cam_irn", "prior": {"cams": {"head": "sum"}}}, "cams.head: the method cam has one head"),
        (
            {"extends": "cam_irn", "prior": {"classifier": {"label_loss": "softmax", "label_smoothing": 0.1}}},
            "label_loss takes labels as they are, so set label_smoothing to 0",
        ),
        (
            {"extends": "cam_irn", "refinement": {"cam_labels": {"foreground": 0.1, "background": 0.1}}},
            "cam_labels: background 0.1 is not below foreground 0.1",
        ),
        (
            {"extends": "cam_irn", "refinement": {"affinity": {"rescale": [1.5, 0.5]}}},
            r"affinity.rescale is \[1.5, 0.5\]: smallest first",
        ),
        (
            {"extends": "cam_irn", "prior": {"scores": {"thresholds": {"start": 0.5, "stop": 0.1, "step": 0.1}}}},
            "scores.thresholds: stop 0.1 is below start 0.5",
        ),
    ],
)
def test_what_cannot_work_is_refused_when_planning(run, message):
    recipes = Recipes({**CONFIG, "runs": {**CONFIG["runs"], "mine": run}})
    with pytest.raises(RecipeError, match=message) as refused:
        recipes.behind("voc", "mine", "pseudo_masks")
    assert "\n" not in str(refused.value)
