"""CIM's runs against values written down by hand from its paper and its authors' code, and PRM's; what is refused."""

import re

import pytest
import yaml
from snakemake_cli import ROOT

from wsss_core.recipes.config import RecipeError, merge, read_config
from wsss_core.recipes.kinds import completed, deciding, proposals_declared
from wsss_core.recipes.recipes import Recipes
from wsss_core.recipes.settings import plain

CONFIG = read_config([], ROOT)
RECIPES = Recipes(CONFIG)

CIM = {
    "backbone": "resnet50", "weights": "pretrained", "output_stride": 16, "stage": 3, "frozen": "first_stage",
    "hidden": 4096, "branches": 3, "strategy": "cim", "integrity_head": True, "cluster_labels": True, "seeds": 0.1,
    "foreground": 0.25, "integrity": 0.5, "cascade": 0.1, "containment": 0.85, "largest": 0.9, "sampling": True,
    "cluster_form": "bce", "cluster_weight": 12.0, "bag_loss": True, "branch_weights": [3.0, 1.0, 1.0],
    "integrity_weight": 3.0, "longer_sides": [480, 576, 688, 864, 1200], "batch_size": 4, "iterations": 45000,
    "decay_at": [30000], "learning_rate": 1e-3, "warmup": {"iterations": 500, "factor": 1 / 3}, "weight_decay": 5e-4,
    "momentum": 0.9, "clip": None, "precision": "float32",
}  # fmt: skip
# Without AGPL, the integrity head and CIM: MIST, with one threshold for all.
NONE = {
    "strategy": "mist", "integrity_head": False, "cluster_labels": False, "foreground": 0.5, "cascade": 0.0,
}  # fmt: skip
VGG = {
    "backbone": "vgg16_torchvision", "output_stride": 8, "stage": 4, "iterations": 30000, "decay_at": [20000],
}  # fmt: skip
DEMO = {
    "backbone": "test_resnet", "weights": "ordinary", "hidden": 256, "longer_sides": [192, 256, 320],
    "iterations": 1120, "decay_at": [750], "learning_rate": 0.01, "warmup": {"iterations": 100, "factor": 0.3333},
}  # fmt: skip
RUNS = {
    "cim": {},
    "cim_cam": {},
    "maskrcnn_cim": {},
    "cim_vgg16": VGG,
    "cim_hrnet48": {"backbone": "hrnet_w48", "output_stride": 32, "stage": 4, "frozen": "second_stage"},
    "cim_mist_vgg16": VGG | NONE,
    "cim_none": NONE,
    "cim_agpl": NONE | {"cluster_labels": True},
    "cim_agpl_integrity": NONE | {"cluster_labels": True, "integrity_head": True},
    "cim_cam_agpl": NONE | {"cluster_labels": True},
    **{f"cim_cascade{rise:02}": {"cascade": rise / 100} for rise in (0, 5, 15, 20)},
    **{f"cim_seeds{share:02}": {"seeds": share / 100} for share in (5, 15, 20)},
    **{f"cim_seeds{share:02}_all": {"seeds": share / 100, "sampling": False} for share in (5, 10, 15, 20)},
}


# mmdetection's 1x recipe, and what torchvision has usually.
DETECTOR = {
    "backbone": "resnet50", "weights": "pretrained", "frozen": "first_stage", "batch_norm": "fixed", "width": 256,
    "shorter_sides": [800], "longest_side": 1333, "batch_size": 16, "accumulation": 1, "epochs": 12,
    "decay_at": [8, 11], "learning_rate": 0.02, "warmup": {"iterations": 500, "factor": 0.001}, "weight_decay": 1e-4,
    "momentum": 0.9, "proposals": {"training": 2000, "test": 1000}, "samples": 512, "precision": "float32",
}  # fmt: skip


def values(dataset, run, section):
    return plain(RECIPES.section(dataset, run, section))


def changed(overlay):
    config = read_config([], ROOT)
    merge(config, overlay)
    return Recipes(config)


@pytest.mark.parametrize("run", RUNS)
def test_the_network_and_its_training(run):
    assert values("voc", run, "instances.cim") == CIM | RUNS[run]


def test_on_coco_trainings_are_longer():
    expected = {"cim": (240000, [200000]), "cim_hrnet48": (240000, [200000]), "cim_vgg16": (120000, [100000])}
    for run, (iterations, decay_at) in expected.items():
        longer = {"iterations": iterations, "decay_at": decay_at}
        assert values("coco17", run, "instances.cim") == CIM | RUNS[run] | longer


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("dataset", ["demo", "demo-instances"])
def test_the_demo_has_its_own_scale(dataset, run):
    same = {"output_stride": 16, "stage": 3, "frozen": "first_stage"}
    if "vgg" not in run and "hrnet" not in run:
        assert values(dataset, run, "instances.cim") == CIM | RUNS[run] | DEMO | same


def test_peaks_labels_scores_and_choice():
    peaks = {"size": 448, "enlarge": 8, "window": 3, "threshold": 10.0, "relative": False}
    assert values("voc", "cim", "instances.peaks") == peaks
    assert values("voc", "cim_cam", "instances.peaks") == peaks | {"threshold": 0.7, "relative": True}
    small = peaks | {"size": 192, "threshold": 0.7, "relative": True}
    assert values("demo", "cim", "instances.peaks") == values("demo", "cim_cam", "instances.peaks") == small
    assert values("voc", "cim", "instances.proposal_labels") == {"support": 0.7, "overlap": 0.5}
    assert values("voc", "cim", "instances.proposal_scores") == {
        "longer_sides": [480, 576, 688, 864, 1200], "mirror": True, "precision": "float32",
    }  # fmt: skip
    assert values("voc", "cim", "instances.selection") == {"score": 1e-5, "nms": "box", "overlap": 0.3, "limit": 100}
    assert values("voc", "cim", "instances.labels") == {"score": 0.3}
    assert values("voc", "cim", "instances.scores") == {"thresholds": [0.25, 0.5, 0.7, 0.75]}


@pytest.mark.parametrize("dataset", ["voc", "coco14", "coco17"])
def test_prms_classifier(dataset):
    expected = {
        "backbone": "resnet50", "weights": "pretrained", "output_stride": 32, "batch_norm": "trained", "frozen": "none",
        "crop": 448, "squash": True, "pooling": "peaks", "head_bias": True, "augmentation": "none", "batch_size": 16,
        "epochs": 20, "learning_rate": 1e-4, "head_rate": 100, "weight_decay": 1e-4, "momentum": 0.9,
        "decay_power": 0.0, "label_smoothing": 0.0, "as_irnet": True,
    }  # fmt: skip
    found = values(dataset, "cim", "prior.classifier")
    assert {key: found[key] for key in expected} == expected


@pytest.mark.parametrize(
    "run", ["maskrcnn_cim", "maskrcnn_cim_cam", "maskrcnn_irn", "maskrcnn_components", "supervised_maskrcnn"]
)
@pytest.mark.parametrize("dataset", ["voc", "coco17"])
def test_detectors(dataset, run):
    assert values(dataset, run, "detection.maskrcnn") == DETECTOR
    assert values(dataset, run, "detection.prediction") == {"score": 0.005, "overlap": 0.5, "limit": 100}


def test_irnets_instances():
    assert values("voc", "maskrcnn_irn", "instances.irn") == {
        "iterations": 300, "threshold": 2.5, "background": 0.25, "smallest": 0.01,
    }  # fmt: skip
    affinity = values("voc", "maskrcnn_irn", "refinement.affinity")
    assert (affinity["displacement"], affinity["displacement_rate"]) == (True, None)
    labels = values("voc", "maskrcnn_irn", "refinement.cam_labels")
    assert (labels["foreground"], labels["background"]) == (0.3, 0.05)
    assert values("voc", "maskrcnn_components", "instances.components") == {"smallest": 0.01, "limit": 100}


def test_overlaps_of_coco_are_cocos():
    every = [0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95]
    assert values("coco17", "cim", "instances.scores")["thresholds"] == every
    assert values("coco17", "maskrcnn_cim", "detection.scores")["thresholds"] == every


def test_full_supervision_has_the_network_of_its_row():
    for table in ("table1", "table2"):
        rows = yaml.safe_load((ROOT / f"workflow/papers/cim/{table}.yaml").read_text())["rows"]
        (row,) = [row for row in rows if row["label"][:2] == ["Mask R-CNN", "ResNet-101"]]
        assert values("voc", row["run"], "detection.maskrcnn")["backbone"] == "resnet101"
        assert RECIPES.filled("voc", row["run"], "instances")[1].method == "truth"


def test_other_runs_know_nothing_of_prms_settings():
    for dataset in ("voc", "demo"):
        for run in ("cam", "pnoc", "cam_irn", "recam"):
            told = RECIPES.stage_settings(dataset, run, "classifier")["classifier"]
            assert not {"pooling", "squash", "head_bias", "decay_power"} & told.keys()


def test_proposals_decide_about_no_manifest():
    for name, subset in (("demo", "train"), ("voc", "train_aug")):
        declared = RECIPES.data_set(name)
        assert declared["proposals"]
        assert deciding(declared, subset) == deciding(declared | {"proposals": None}, subset)
        assert proposals_declared(declared | {"proposals": None}) == {}


def test_what_decides_about_proposals():
    assert proposals_declared(RECIPES.data_set("demo-instances")) == {
        "kind": "grouping", "superpixels": 100, "smallest": 0.04, "largest": 0.85, "duplicates": 0.95, "diversity": 0.2,
        "limit": 40,
    }  # fmt: skip
    assert proposals_declared(RECIPES.data_set("voc")) == {"kind": "files", "limit": 200}
    proposals = {"kind": "files", "superpixels": 7, "limit": 9, "folders": {"train": "a"}, "supervision": "clicks"}
    own = completed({"kind": "demo", "splits": {"train": "train"}, "proposals": proposals})
    assert proposals_declared(own) == {"kind": "files", "limit": 9, "supervision": "clicks"}


def test_without_agpl_neither_peaks_nor_labels_are_behind_the_network():
    assert {"peaks", "proposal_labels"} <= RECIPES.behind("voc", "cim_agpl", "cim").keys()
    assert list(RECIPES.behind("voc", "cim_none", "cim")) == ["cim"]
    assert list(RECIPES.behind("demo", "cim_none", "cim")) == ["cim"]


def test_ablations_share_the_peaks_and_the_labels():
    for run in set(RUNS) - {"cim_cam", "cim_cam_agpl"}:
        assert RECIPES.source("voc", run, "proposal_labels") == "cim"
    assert RECIPES.source("voc", "cim_cam", "classifier") == "cam_irn"
    assert RECIPES.source("voc", "cim_cam_agpl", "proposal_labels") == "cim_cam"
    assert RECIPES.source("voc", "maskrcnn_cim", "instance_labels") == "cim"


def of_cim(**values):
    return {"runs": {"mine": {"extends": "cim", "instances": {"cim": values}}}}


@pytest.mark.parametrize(
    ("overlay", "artefact", "message"),
    [
        (of_cim(integrity_head=False), "cim", r"cim: the strategy cim needs integrity_head: true, or say strategy: m"),
        (of_cim(branches=2), "cim", r"cim\.branch_weights has 3 values for 2 branches: name one for each"),
        (
            {"runs": {"mine": {"prior": {"method": "puzzle", "classifier": {"pooling": "peaks"}}}}},
            "classifier",
            r"prior\.classifier\.pooling: puzzle scores maps by their means: leave it null",
        ),
    ],
)
def test_settings_that_cannot_go_together_are_refused(overlay, artefact, message):
    with pytest.raises(RecipeError, match=rf"run mine on data set demo: .*{message}"):
        changed(overlay).source("demo", "mine", artefact)


@pytest.mark.parametrize(
    ("proposals", "message"),
    [
        (
            {"kind": "files", "folders": None},
            "datasets.voc.proposals.folders: kind files needs the folder of each subs",
        ),
        (
            {"folders": {"vall": "data/masks"}},
            "datasets.voc.proposals.folders: unknown subset 'vall'; the data set has",
        ),
    ],
)
def test_proposals_that_cannot_be_found_are_refused(proposals, message):
    with pytest.raises(RecipeError, match=re.escape(message)):
        changed({"datasets": {"voc": {"proposals": proposals}}})
