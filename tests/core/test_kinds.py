"""Data sets as config.yaml declares them."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wsss_core.data import DEMO_CLASSES, VOC_CLASSES, DataError, make_demo, read_mask
from wsss_core.data.kinds import KINDS, declared_classes, declared_manifest, declared_masks
from wsss_core.data.kinds.coco import COCO_CLASSES
from wsss_core.recipes import kinds as planned


@pytest.fixture
def folders(tiny) -> dict:
    listed = tiny.folder / "some.txt"
    listed.write_text("image1\nimage4\n")
    return {
        "kind": "folders",
        "names": list(tiny.classes.names),
        "classes": None,
        "colours": None,
        "images": str(tiny.folder),
        "masks": str(tiny.masks),
        "labels": "masks",
        "lists": {"some": str(listed)},
    }


def test_what_can_be_planned_can_be_read():
    assert KINDS.keys() == planned.KINDS.keys()


def test_known_data_sets_bring_their_classes():
    assert declared_classes({"kind": "voc", "classes": None}).names == tuple(VOC_CLASSES)
    assert declared_classes({"kind": "demo", "classes": None}).names == tuple(DEMO_CLASSES)
    assert declared_classes({"kind": "coco", "classes": None}).names == COCO_CLASSES
    assert declared_classes({"kind": "voc", "classes": ["cow", "cat"]}).names == ("cat", "cow")


def test_a_declared_data_set_brings_names_and_colours(folders):
    declared = folders | {"colours": [[0, 0, 0], [1, 2, 3], [4, 5, 6], [7, 8, 9]], "classes": ["star", "circle"]}
    classes = declared_classes(declared)
    assert classes.names == ("circle", "star")
    assert classes.colours.tolist() == [[0, 0, 0], [1, 2, 3], [7, 8, 9]]


def test_a_declared_split_has_its_images_and_labels(folders, tiny):
    manifest = declared_manifest(folders, subset="some", root=None, workers=1)
    assert [(row.id, row.labels) for row in manifest] == [
        (name, tiny.manifest.row(name).labels) for name in ("image1", "image4")
    ]


def test_an_empty_cell_of_a_table_is_an_image_of_background(folders, tmp_path):
    table = tmp_path / "labels.csv"
    table.write_text("image_id,classes\nimage1,circle\nimage4,\n")
    manifest = declared_manifest(folders | {"labels": str(table)}, subset="some", root=None, workers=1)
    assert [(row.id, row.labels) for row in manifest] == [("image1", (0,)), ("image4", ())]
    assert manifest.labelled().ids == ["image1"]


@pytest.fixture
def coco(tmp_path) -> dict:
    """One image of 4 x 5 pixels, all of them dog."""
    outline = {"size": [4, 5], "counts": [0, 20]}
    content = {
        "images": [{"id": 9, "file_name": "000000000009.jpg", "height": 4, "width": 5}],
        "categories": [{"id": 18, "name": "dog"}],
        "annotations": [{"id": 1, "image_id": 9, "category_id": 18, "iscrowd": 0, "segmentation": outline}],
    }
    (tmp_path / "images").mkdir()
    Image.new("RGB", (5, 4)).save(tmp_path / "images/000000000009.jpg")
    (tmp_path / "instances.json").write_text(json.dumps(content))
    return {
        "kind": "coco",
        "classes": ["dog"],
        "root": str(tmp_path),
        "subsets": {"all": {"images": "images", "annotations": "instances.json", "list": None}},
        "masks": None,
        "made_masks": str(tmp_path / "masks"),
    }


def test_coco_is_read_from_its_root_and_its_masks_are_made_where_the_manifest_says(coco):
    manifest = declared_manifest(coco, subset="all", root=None, workers=1)
    declared_masks(coco, subset="all", folder=coco["made_masks"], workers=1)
    (row,) = manifest
    assert (row.image, row.labels) == (str(Path(coco["root"], "images/000000000009.jpg")), (0,))
    assert np.unique(read_mask(row.mask, declared_classes(coco | {"classes": None}))).tolist() == [17]
    assert np.unique(read_mask(row.mask, declared_classes(coco))).tolist() == [1]


def test_coco_has_the_declared_subsets_alone(coco):
    with pytest.raises(DataError, match="does not declare the subset 'val'; it has all"):
        declared_masks(coco, subset="val", folder=coco["made_masks"], workers=1)


def test_a_subset_without_a_list_is_named(folders):
    with pytest.raises(DataError, match="does not declare the subset 'val'; it has some"):
        declared_manifest(folders, subset="val", root=None, workers=1)


def test_a_made_data_set_is_read_from_where_it_was_made(tmp_path):
    make_demo(folder=tmp_path / "VOC2012", seed=0, images={"train": 3, "val": 2}, size=(48, 64))
    declared = {"kind": "demo", "classes": None, "splits": {}}
    manifest = declared_manifest(declared, subset="val", root=tmp_path / "VOC2012", workers=1)
    assert len(manifest) == 2
    assert all(Path(row.mask).is_file() for row in manifest)
