"""Files from elsewhere that a plan lacks: a dry run lists all of them at once, and before a job they are an error."""

import os
import re

import pytest
from snakemake_cli import ROOT, jobs_in, planned, snakemake, succeed

SUPERVISED = ["results/voc/supervised_v3/seg_miou.json", "results/voc/supervised_v2/seg_miou.json"]
COB = ("data/COB_SBD_trainaug", "data/COB_SBD_val")
AUG = "data/SegmentationClassAug"
OBJECTS = "data/VOCdevkit/VOC2012/SegmentationObject"
INST = "data/benchmark_RELEASE/dataset/inst"
POOLNET, CAFFE101 = (f"resources/weights/{name}_caffe.pt" for name in ("resnet50", "resnet101"))
RESNET38D = "data/weights/ilsvrc-cls_rna-a1_cls1000_ep-0001.params"
MOCO = "data/weights/moco_r50_v2-e3b0c442.pth"
SBD = "data/benchmark_RELEASE/dataset"


@pytest.fixture
def voc(tmp_path):
    """A folder with the layout of VOC 2012 and the lists of SBD, and no image."""
    root = tmp_path / "data/VOCdevkit/VOC2012"
    for name in ("JPEGImages", "Annotations", "SegmentationClass", "ImageSets/Segmentation"):
        (root / name).mkdir(parents=True)
    (tmp_path / SBD).mkdir(parents=True)
    for name in ("train", "val"):
        (root / f"ImageSets/Segmentation/{name}.txt").write_text(f"{name}\n")
        (tmp_path / SBD / f"{name}.txt").write_text(f"{name}\n")
    return tmp_path


@pytest.fixture
def coco(tmp_path):
    """A folder with the layout of MS COCO, and no image."""
    for name in ("train2014", "val2014"):
        (tmp_path / f"data/coco/{name}").mkdir(parents=True)
        (tmp_path / "data/coco/annotations").mkdir(exist_ok=True)
        (tmp_path / f"data/coco/annotations/instances_{name}.json").write_text("{}")
    return tmp_path


def missing(output: str) -> dict[str, str]:
    """The list of a dry run, {path: what it is}; it is said once."""
    said = re.findall(r"^Not there, and nothing makes it .*:\n((?:  .*\n)+)", output, re.MULTILINE)
    assert len(said) <= 1
    lines = said[0].splitlines() if said else []
    return dict(line.strip().split(": ", 1) for line in lines)


def listed(folder, targets, **call) -> dict[str, str]:
    return missing(succeed(folder, "--dry-run", targets=targets, **call))


def tables_of(dataset):
    papers = sorted((ROOT / "workflow/papers").glob("*/*.yaml"))
    return [
        f"results/{dataset}/figures/{path.parent.name}_{path.stem}.png"
        if path.stem.startswith("figure")
        else f"results/{dataset}/tables/{path.parent.name}_{path.stem}.md"
        for path in papers
    ]


def test_a_plan_from_nothing_lists_data_and_weights_with_where_they_are_published(tmp_path):
    output = succeed(tmp_path, "--dry-run", targets=["results/voc/pnoc/seg_miou.json"])
    found = missing(output)
    assert list(found) == ["data/VOCdevkit/VOC2012", SBD, POOLNET]
    assert "host.robots.ox.ac.uk" in found["data/VOCdevkit/VOC2012"]
    assert "resnet50_caffe.pth" in found[POOLNET]
    assert "github.com/backseason/PoolNet" in found[POOLNET]
    assert jobs_in(output)["evaluate_segmentation"] == 1  # planned all the same


def test_a_job_is_not_begun_where_files_are_missing_and_the_error_has_the_same_list(tmp_path):
    done = snakemake(tmp_path, targets=["results/voc/pnoc/seg_miou.json"])
    assert done.returncode != 0
    for path in (SBD, "data/VOCdevkit/VOC2012", POOLNET):
        assert f"  {path}: " in done.stdout
    assert not (tmp_path / "results").exists()
    assert not (tmp_path / "resources").exists()  # not even weights were fetched


def test_all_tables_of_voc_are_planned_and_list_what_they_lack_once(voc):
    assert list(listed(voc, tables_of("voc"))) == [*COB, AUG, OBJECTS, INST, RESNET38D, MOCO, CAFFE101, POOLNET]
    for name in (*COB, AUG, OBJECTS, INST):
        (voc / name).mkdir()
    for name in (RESNET38D, MOCO, CAFFE101, POOLNET):
        (voc / name).parent.mkdir(parents=True, exist_ok=True)
        (voc / name).touch()
    assert listed(voc, tables_of("voc")) == {}


def test_all_tables_of_coco_are_planned_and_list_what_they_lack_once(coco):
    assert list(listed(coco, tables_of("coco14"))) == [RESNET38D, MOCO, CAFFE101, POOLNET]
    (coco / "data/coco/annotations/instances_val2014.json").unlink()
    assert "data/coco/annotations/instances_val2014.json" in listed(coco, ["results/coco14/cam/priors_miou_val.json"])


def test_masks_of_sbd_are_asked_for_by_full_supervision_alone(voc):
    assert list(listed(voc, SUPERVISED)) == [AUG, CAFFE101]
    null = {"datasets": {"voc": {"sbd_masks": None}}}
    found = listed(voc, SUPERVISED, config=null)
    assert list(found) == ["resources/weights/resnet101_caffe.pt", "sbd_masks (null)"]
    assert "SegmentationClassAug" in found["sbd_masks (null)"]
    on_train = {"datasets": {"voc": {"sbd_masks": None, "splits": {"train": "train"}}}}
    assert list(listed(voc, SUPERVISED, config=on_train)) == [CAFFE101]
    assert list(listed(voc, ["results/voc/pnoc/seg_miou.json"], config=null)) == [POOLNET]


def make_all(folder, targets) -> None:
    """Let every file behind the targets be there and recorded as made, in no time at all."""
    for line in succeed(folder, "--summary", targets=targets).splitlines():
        path = folder / line.split("\t")[0]
        if line.startswith(("results/", "resources/")):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch() if path.suffix in (".csv", ".json", ".pt") else path.mkdir()
    succeed(folder, "--touch", "--forceall", targets=targets)


def test_masks_of_sbd_are_read_by_the_training_of_full_supervision_and_by_no_score(voc):
    (voc / AUG).mkdir()
    for name in (CAFFE101, POOLNET):
        (voc / name).parent.mkdir(parents=True, exist_ok=True)
        (voc / name).touch()
    targets = [*SUPERVISED, *(f"results/voc/pnoc/{name}.json" for name in ("seg_miou", "pseudo_miou", "priors_miou"))]
    make_all(voc, targets)
    assert not planned(voc, targets=targets)
    later = (voc / SUPERVISED[0]).stat().st_mtime + 60
    os.utime(voc / AUG, (later, later))
    output = succeed(voc, "--dry-run", targets=targets)
    remade = sorted(re.findall(r"^Job \d+: Segmentation network .* of (.*)", output, re.MULTILINE))
    assert remade == ["voc supervised_v2", "voc supervised_v3"]
    assert set(jobs_in(output)) == {"train_segmentation", "predict_masks", "evaluate_segmentation"}


def test_what_is_made_already_needs_its_files_no_more(voc):
    """Weights of a trained network and images of a manifest may be gone."""
    target = "results/voc/pnoc/poolnet.pt"
    lost = {"datasets": {"voc": {"root": "gone", "sbd": "gone_sbd"}}}
    assert list(listed(voc, [target], config=lost)) == ["gone", "gone_sbd", POOLNET]
    (voc / POOLNET).parent.mkdir(parents=True)
    (voc / POOLNET).touch()
    make_all(voc, [target])
    (voc / POOLNET).unlink()
    assert listed(voc, ["results/voc/pnoc/saliency/train_aug"], config=lost) == {}


def test_images_in_both_train_and_val_stop_a_plan(tmp_path):
    for name in ("train", "val"):
        (tmp_path / f"{name}.txt").write_text(f"{name}\nboth\n")
    mine = {
        "kind": "folders", "images": "images", "masks": "masks", "labels": "labels.csv", "names": ["cell"],
        "colours": None, "classes": None, "lists": {"train": "train.txt", "val": "val.txt"},
        "splits": {"train": "train", "scored": "train", "val": "val"},
    }  # fmt: skip
    done = snakemake(
        tmp_path, "--dry-run", targets=["results/cells/cam/priors_miou.json"], config={"datasets": {"cells": mine}}
    )
    assert done.returncode != 0
    assert "train.txt and val.txt share 1 of their images, such as both" in done.stdout
