"""Data sets as config.yaml declares them."""

from pathlib import Path

import pytest

from wsss_core.data import DEMO_CLASSES, VOC_CLASSES, DataError, make_demo
from wsss_core.data.declared import declared_classes, declared_manifest


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


def test_known_data_sets_bring_their_classes():
    assert declared_classes({"kind": "voc", "classes": None}).names == tuple(VOC_CLASSES)
    assert declared_classes({"kind": "demo", "classes": None}).names == tuple(DEMO_CLASSES)
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


def test_a_subset_without_a_list_is_named(folders):
    with pytest.raises(DataError, match="no list of the subset 'val'; it has some"):
        declared_manifest(folders, subset="val", root=None, workers=1)


def test_a_made_data_set_is_read_from_where_it_was_made(tmp_path):
    make_demo(folder=tmp_path / "VOC2012", seed=0, images={"train": 3, "val": 2}, size=(48, 64))
    declared = {"kind": "demo", "classes": None, "splits": {}}
    manifest = declared_manifest(declared, subset="val", root=tmp_path / "VOC2012", workers=1)
    assert len(manifest) == 2
    assert all(Path(row.mask).is_file() for row in manifest)
