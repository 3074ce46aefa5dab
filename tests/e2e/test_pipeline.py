"""The whole pipeline on a tiny data set, with real Snakemake, scripts and networks, on the CPU."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter

import numpy as np
import psutil
import pytest
import torch
import yaml
from PIL import Image
from snakemake_cli import ROOT, SCORES, command, jobs_in, planned, snakemake, succeed

from wsss_core.data import Manifest
from wsss_core.data.kinds.demo import DEMO_CLASSES
from wsss_core.maps.store import MapStore
from wsss_core.recipes.revisions import REVISION

pytestmark = pytest.mark.e2e

TINY = yaml.safe_load((ROOT / "tests/tiny/config.yaml").read_text())
CLASSIFIER = "results/demo/cam/classifier.pt"
BY_EPOCH = "results/demo/cam/priors_by_epoch.json"
LIMIT = 900  # seconds; the whole run takes two or three minutes on two cores
# Starting worker processes costs more than these few pictures: only these rules, one a kind of worker, have them.
WITH_WORKERS = {"train_classifier", "make_saliency_masks"}
TOY = {"method": "smooth", "smooth": {"sigma": 1.5}}
THREADS = ("--set-threads", *(f"{rule}=1" for rule in sorted(set(REVISION) - WITH_WORKERS)))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder in which every score was made from nothing."""
    folder = tmp_path_factory.mktemp("pipeline")
    succeed(folder, "--show-failed-logs", *THREADS, targets=[*SCORES, BY_EPOCH], config=TINY, timeout=LIMIT)
    return folder


@pytest.mark.parametrize("path", SCORES)
def test_a_score_answers_the_questions_of_the_protocol(finished, path):
    result = json.loads((finished / path).read_text())
    dataset, run, file = path.split("/")[1:]
    stages = {
        "priors": ("priors", "evaluate_cams"),
        "saliency": ("saliency", "evaluate_saliency"),
        "pseudo": ("pseudo masks", "evaluate_pseudo_masks"),
        "seg": ("segmentation", "evaluate_segmentation"),
    }
    stage, rule = stages[file.removesuffix("_miou.json")]
    assert (result["dataset"], result["run"], result["stage"]) == (dataset, run, stage)
    scored = {"segmentation": ("val", 8, False)}.get(result["stage"], ("train", 24, True))
    assert (result["split"], result["images"], result["image_level_labels_used"]) == scored
    assert set(result["iou"]) == {"background", *DEMO_CLASSES}
    ious = [value for value in result["iou"].values() if value is not None]
    assert all(0 <= value <= 1 for value in [*ious, result["miou"]])
    assert result["miou"] == pytest.approx(np.mean(ious))
    assert (result["seed"], result["revision"]) == (0, REVISION[rule])
    assert result["scoring"]["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert "settings" in result


@pytest.mark.parametrize("path", [path for path in SCORES if "priors" in path or "pseudo" in path])
def test_a_swept_score_says_how_its_threshold_was_chosen(finished, path):
    result = json.loads((finished / path).read_text())
    assert "chosen on the scored split" in result["threshold_choice"]
    best = max(result["curve"], key=lambda point: point["miou"])
    assert (best["miou"], best["threshold"]) == (result["miou"], result["threshold"])


def test_the_first_epoch_the_middle_one_and_the_last_are_scored(finished):
    result = json.loads((finished / BY_EPOCH).read_text())
    assert (result["stage"], result["split"], result["image_level_labels_used"]) == ("priors_by_epoch", "train", True)
    assert [result[name]["epoch"] for name in ("first", "middle", "last")] == [1, 2, 4]
    for name in ("first", "middle", "last"):
        assert result[name]["threshold"] in result["settings"]["thresholds"]
        for score in ("miou", "precision", "recall", "f1", "roc_auc"):
            assert 0 <= result[name][score] <= 1, (name, score)


def test_every_picture_of_the_val_split_has_a_mask_of_its_size(finished):
    rows = Manifest.read(finished / "results/demo/manifest/val.csv").rows
    for row in rows:
        with Image.open(finished / f"results/demo/pnoc/masks/val/{row.id}.png") as mask:
            assert (mask.mode, mask.size) == ("P", (row.width, row.height))
            assert np.asarray(mask).max() <= len(DEMO_CLASSES)
    assert len(rows) == 8


@pytest.mark.parametrize("store", ["cams", "hints", "c2am_maps", "random_walk"])
def test_every_store_is_whole_and_in_the_order_of_the_manifest(finished, store):
    manifest = Manifest.read(finished / "results/demo/manifest/train.csv")
    maps = MapStore(finished / f"results/demo/pnoc/{store}/train.zarr")
    assert list(maps) == manifest.ids
    for row in manifest:
        labels, values = maps[row.id]
        assert len(values) == (1 if store in ("hints", "c2am_maps") else len(row.labels)) == len(labels)


def test_a_second_call_has_nothing_to_do(finished):
    assert planned(finished, targets=[*SCORES, BY_EPOCH], config=TINY) == Counter()


def test_a_training_that_was_killed_ends_in_the_same_weights(finished, tmp_path):
    folder = tmp_path / "killed"
    shutil.copytree(finished, folder)
    shutil.rmtree(folder / "results/demo/cam")
    kill_after_an_epoch(folder)
    call = {"targets": [CLASSIFIER], "config": TINY}
    refused = snakemake(folder, **call)
    assert refused.returncode != 0
    assert "--rerun-incomplete" in refused.stdout
    succeed(folder, "--unlock", **call)
    succeed(folder, "--rerun-incomplete", **call)
    assert "resuming after epoch" in (folder / "logs/demo/cam/train_classifier.log").read_text()
    resumed, whole = (torch.load(f / CLASSIFIER, weights_only=True)["state"] for f in (folder, finished))
    assert resumed.keys() == whole.keys()
    assert [name for name in whole if not torch.equal(resumed[name], whole[name])] == []


def kill_after_an_epoch(folder):
    """Start the training of the plain classifier; kill Snakemake and all its jobs once an epoch is kept."""
    kept, log = (folder / CLASSIFIER).with_suffix(".resume.pt"), folder / "killed.log"
    with open(log, "w") as file:
        process = subprocess.Popen(command(folder, targets=[CLASSIFIER], config=TINY), stdout=file, stderr=file)
    deadline = time.monotonic() + LIMIT
    while not kept.exists():
        assert process.poll() is None, log.read_text()[-4000:]
        assert time.monotonic() < deadline
        time.sleep(0.005)
    coordinator = psutil.Process(process.pid)
    for victim in [coordinator, *coordinator.children(recursive=True)]:
        victim.kill()
    process.wait()
    assert not (folder / CLASSIFIER).exists()


def test_recam_and_its_refinement_run_without_saliency(finished, tmp_path):
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    of_walk, of_seeds = "results/demo/recam/pseudo_miou.json", "results/demo/recam_seeds/over_seeds.json"
    call = {"targets": [of_walk, of_seeds], "config": {**TINY, "seeds": [0]}}
    succeed(tmp_path, "--show-failed-logs", *THREADS, **call, timeout=LIMIT)
    scores = json.loads((tmp_path / of_walk).read_text())
    made = scores["made_with"]
    assert (made["cams"]["run"], made["classifier"]["weights"]) == ("recam", "cam_irn")
    assert set(scores["by_labels"]) <= {"single", "multi"}
    assert set(json.loads((tmp_path / of_seeds).read_text())["stages"]) == {"priors", "pseudo masks", "segmentation"}
    state = torch.load(tmp_path / "results/demo/recam/classifier.pt", weights_only=True)["state"]
    assert state["heads.reactivation.weight"].shape == state["head.weight"].shape

    # maps of another head, and what follows from them, but no classifier again
    call["config"] = {**call["config"], "runs": {"recam": {"prior": {"cams": {"head": "second"}}}}}
    again = planned(tmp_path, **call)
    assert again["dump_cams"] == 1
    assert again["train_classifier"] == 0


def test_objects_are_found_in_new_pictures_from_class_labels_alone(tmp_path):
    """IRNet's instances, a Mask R-CNN that learns from them, and true objects, which score both and nothing else."""
    detector = {"epochs": 1, "decay_at": [1], "shorter_sides": [64], "longest_side": 80}
    tiny = {**TINY["datasets"]["demo"]["settings"], "detection": {"maskrcnn": detector}}
    config = {"datasets": {"demo-instances": {**TINY["datasets"]["demo"], "settings": tiny}}}
    of_train = "results/demo-instances/cam_irn_instances/irn_ap.json"
    of_val = "results/demo-instances/maskrcnn_irn/detections_ap.json"
    succeed(tmp_path, "--show-failed-logs", *THREADS, targets=[of_train, of_val], config=config, timeout=LIMIT)
    for path, (split, images, labels) in {of_train: ("train", 24, True), of_val: ("val", 8, False)}.items():
        result = json.loads((tmp_path / path).read_text())
        assert (result["split"], result["images"], result["image_level_labels_used"]) == (split, images, labels)
        assert set(result["ap"]) == {"coco", "voc"}
        assert all(0 <= ap <= 1 for protocol in result["ap"].values() for ap in protocol.values())
        assert result["objects"] > images


def test_cim_chooses_among_proposals_and_teaches_a_detector(tmp_path):
    """Proposals, peaks, labels by AGPL, CIM's network, its instances, a Mask R-CNN, and pictures of what both find."""
    short = {"iterations": 6, "decay_at": [4], "warmup": {"iterations": 2, "factor": 0.5}}
    cim = {**short, "longer_sides": [96], "hidden": 32}
    tiny = {
        **TINY["datasets"]["demo"]["settings"],
        "instances": {"cim": cim, "proposal_scores": {"longer_sides": [96]}, "labels": {"score": 0.0}},
        "detection": {"maskrcnn": {"epochs": 1, "decay_at": [1], "shorter_sides": [64], "longest_side": 80}},
    }
    config = {"datasets": {"demo-instances": {**TINY["datasets"]["demo"], "settings": tiny}}}
    run, detector = "results/demo-instances/cim_cam", "results/demo-instances/maskrcnn_cim_cam"
    scores = [f"{run}/cim_ap.json", f"{detector}/detections_ap.json", f"{run}/proposal_labels.json"]
    pictures = [f"{run}/instances/val.png", f"{run}/instances.png", f"{detector}/detections.png"]
    recall = "results/demo-instances/proposals_recall.json"
    targets = [*scores, recall, *pictures]
    succeed(tmp_path, "--show-failed-logs", *THREADS, targets=targets, config=config, timeout=LIMIT)
    instances, detections, labels = (json.loads((tmp_path / path).read_text()) for path in scores)
    for result in (instances, detections):
        assert (result["split"], result["images"], result["image_level_labels_used"]) == ("val", 8, False)
        assert result["proposals"]["recall"] == instances["proposals"]["recall"]
        assert result["proposals"]["supervision"] == "nothing: the pictures themselves"
    assert 0 < labels["with_class"] < 1
    assert 0 < labels["all"]["right"] < 1
    found = json.loads((tmp_path / recall).read_text())
    assert found["objects"] == instances["objects"]
    for path in pictures:  # photo, true objects, what was found
        with Image.open(tmp_path / path) as sheet:
            assert sheet.format == "PNG"
            assert sheet.width % 3 == 0
            assert len(np.unique(np.asarray(sheet).reshape(-1, 3), axis=0)) > 1000


def test_a_truncated_picture_stops_the_manifest_and_is_named(finished, tmp_path):
    demo = finished / "results/demo/VOC2012"
    shutil.copytree(demo / "JPEGImages", tmp_path / "images")
    victim = tmp_path / "images/train_00003.jpg"
    victim.write_bytes(victim.read_bytes()[:600])
    own = {
        "kind": "folders",
        "images": "images",
        "masks": str(demo / "SegmentationClass"),
        "labels": "masks",
        "names": list(DEMO_CLASSES),
        "colours": None,
        "lists": {
            "train": str(demo / "ImageSets/Segmentation/train.txt"),
            "val": str(demo / "ImageSets/Segmentation/val.txt"),
        },
        "splits": {"train": "train", "scored": "train", "val": "val"},
        "classes": None,
    }
    target = "results/own/manifest/train.csv"
    call = {"targets": [target], "config": {"datasets": {"own": own}}}
    done = snakemake(tmp_path, "--show-failed-logs", **call)
    assert done.returncode != 0
    assert "images/train_00003.jpg: the image cannot be read" in done.stdout
    assert not (tmp_path / target).exists()
    shutil.copy(demo / "JPEGImages/train_00003.jpg", victim)
    succeed(tmp_path, **call)
    assert len(Manifest.read(tmp_path / target)) == 24


def test_a_refinement_of_ones_own_takes_its_own_files_and_an_entry_of_each_registry(finished, tmp_path):
    """A copy of the workflow with one rule, one script and one module more; see ``tests/toy``."""
    for name in ("config.yaml", "environment.yml", "config", "workflow"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name)
    toy = ROOT / "tests/toy"
    shutil.copy(toy / "toy_method.py", tmp_path)
    shutil.copy(toy / "toy.smk", tmp_path / "workflow/rules")
    shutil.copy(toy / "smooth_cams.py", tmp_path / "workflow/scripts")
    rules = (ROOT / "Snakefile").read_text() + '\n\ninclude: "workflow/rules/toy.smk"\n'
    (tmp_path / "Snakefile").write_text(rules.replace('min_version("9.0")', 'min_version("9.0")\nimport toy_method'))
    (tmp_path / "mine.yaml").write_text(
        yaml.safe_dump({**TINY, "runs": {"mine": {"extends": "cam", "saliency": "none", "refinement": TOY}}})
    )
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"}
    write = "from wsss_core.recipes.document import write; import toy_method; import os; os.mkdir('docs'); write('.')"
    subprocess.run([sys.executable, "-c", write], cwd=tmp_path, env=environment, check=True)  # the schema has it too
    shutil.copytree(finished / "results", tmp_path / "results")
    words = ["--cores", "2", "--configfile", "mine.yaml", "--show-failed-logs", *("--rerun-triggers", "mtime")]
    target = "results/demo/mine/pseudo_miou.json"
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", *words, "--", target, "results/demo/mine/pseudo_masks/train"],
        cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=LIMIT,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:]
    assert jobs_in(done.stdout) == Counter(smooth_cams=1, make_pseudo_masks=1, evaluate_pseudo_masks=1)
    assert json.loads((tmp_path / target).read_text())["images"] == 24
    assert MapStore(tmp_path / "results/demo/mine/smoothed/train.zarr").about["settings"] == {"sigma": 1.5}
