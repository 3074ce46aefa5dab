"""Data sets as config.yaml declares them."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wsss_core.data import DEMO_CLASSES, VOC_CLASSES, DataError, make_demo, read_mask
from wsss_core.data.kinds import KINDS, declared_classes, declared_manifest, declared_masks
from wsss_core.data.kinds.coco import COCO_CLASSES
from wsss_core.recipes import class_names, sources
from wsss_core.recipes import kinds as planned
from wsss_core.recipes.config import RecipeError


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
        "splits": {"train": "some", "scored": "some", "val": "val"},
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


def test_a_plan_looks_at_a_subset_s_own_rows_alone(folders, tmp_path):
    table, unseen = tmp_path / "labels.csv", tmp_path / "unseen.txt"
    unseen.write_text("image2\n")
    declared = folders | {"labels": str(table), "lists": folders["lists"] | {"unseen": str(unseen)}}
    table.write_text("image_id,classes\nimage1,circle;star\nimage4,\n")
    some, other = (planned.deciding(declared, subset) for subset in ("some", "unseen"))
    assert (some["labelled"], other["labelled"]) == (True, False)
    assert planned.list_files(declared, "unseen") == [str(unseen)]
    table.write_text("image_id,classes\nimage4,\nimage1, star; circle\nimage2,circle\n")
    assert planned.deciding(declared, "some") == some
    assert planned.deciding(declared, "unseen")["rows"] != other["rows"]
    table.write_text("image_id,classes\nimage4,\nimage1,star\n")
    assert planned.deciding(declared, "some")["rows"] != some["rows"]
    manifest = declared_manifest(
        planned.deciding(declared, "unseen") | {"colours": None}, subset="unseen", root=None, workers=1
    )
    assert [(row.id, row.labels) for row in manifest] == [("image2", ())]
    table.write_text("image_id,classes\nimage4,\n")
    with pytest.raises(RecipeError, match=r"labels\.csv: images of .*some\.txt without a row \(1 of 2\): image1"):
        planned.deciding(declared, "some")
    table.unlink()
    assert "rows" not in planned.deciding(declared, "some")  # the plan says that the table is not there


def test_a_plan_reads_lists_with_a_byte_order_mark(folders, tmp_path):
    for name, ids in {"train": "a\nb\n", "val": "a\n"}.items():
        (tmp_path / f"{name}.txt").write_text(ids, encoding="utf-8-sig")
    lists = {name: str(tmp_path / f"{name}.txt") for name in ("train", "val")}
    with pytest.raises(RecipeError, match="such as a"):
        planned.check_apart(folders | {"lists": lists, "splits": {"train": "train", "scored": "train", "val": "val"}})


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


# --- what a plan looks at ------------------------------------------------------------------------------------------


@pytest.fixture
def voc(tmp_path) -> dict:
    """A devkit's layout without images, and SBD with its lists."""
    for place, names in {"VOC2012/ImageSets/Segmentation": ("train", "val", "test"), "SBD": ("train", "val")}.items():
        (tmp_path / place).mkdir(parents=True)
        for name in names:
            (tmp_path / place / f"{name}.txt").write_text(f"{place[:3]}_{name}\n")
    for folder in ("JPEGImages", "Annotations", "SegmentationClass"):
        (tmp_path / "VOC2012" / folder).mkdir()
    splits = {"train": "train_aug", "scored": "train", "val": "val"}
    root, sbd = str(tmp_path / "VOC2012"), str(tmp_path / "SBD")
    return {"kind": "voc", "classes": None, "root": root, "sbd": sbd, "sbd_masks": None, "splits": splits}


def test_nothing_of_a_whole_voc_is_missing(voc):
    assert all(planned.missing_files(voc, subset) == {} for subset in ("train", "train_aug", "val", "test"))


def test_all_that_is_missing_of_voc_is_named_with_its_page(voc):
    nowhere = voc | {"root": "nowhere/VOC2012", "sbd": "nowhere/SBD"}
    found = planned.missing_files(nowhere, "train_aug")
    assert list(found) == ["nowhere/VOC2012", "nowhere/SBD"]
    assert "host.robots.ox.ac.uk" in found["nowhere/VOC2012"]
    assert "bharathh" in found["nowhere/SBD"]
    root = Path(voc["root"])
    (root / "SegmentationClass").rmdir()
    (root / "ImageSets/Segmentation/val.txt").unlink()
    lost = [str(root / "SegmentationClass"), str(root / "ImageSets/Segmentation/val.txt")]
    assert list(planned.missing_files(voc, "train_aug")) == lost
    assert list(planned.missing_files(voc, "test")) == []


def test_train_aug_needs_sbd_or_a_ready_list(voc):
    assert list(planned.missing_files(voc | {"sbd": None}, "train_aug")) == ["sbd (null)"]
    Path(voc["root"], "ImageSets/Segmentation/train_aug.txt").write_text("a\n")
    assert planned.missing_files(voc | {"sbd": None}, "train_aug") == {}


def test_all_that_is_missing_of_coco_is_named(coco):
    assert planned.missing_files(coco, "all") == {}
    parts = {"images": "gone", "annotations": "gone.json", "list": "gone.txt"}
    found = planned.missing_files(coco | {"subsets": {"all": parts}, "masks": "gone_masks"}, "all")
    root = Path(coco["root"])
    assert list(found) == [str(root / "gone"), str(root / "gone.json"), "gone.txt", "gone_masks"]
    assert "cocodataset.org" in found[str(root / "gone.json")]
    assert planned.missing_files(coco, "unknown") == {}  # which is left to the job


def test_all_that_is_missing_of_folders_is_named(folders):
    assert planned.missing_files(folders, "some") == {}
    gone = {"images": "gone", "masks": "gone_masks", "labels": "gone.csv", "lists": {"some": "gone.txt"}}
    assert list(planned.missing_files(folders | gone, "some")) == ["gone", "gone_masks", "gone.csv", "gone.txt"]
    assert list(planned.missing_files(folders | gone | {"masks": None, "labels": "masks"}, "some")) == [
        "gone",
        "gone.txt",
    ]


def test_full_supervision_needs_further_masks_on_train_aug_of_voc_alone(voc, coco):
    assert planned.needs_further_masks(voc)
    assert not planned.needs_further_masks(voc | {"splits": {"train": "train"}})
    assert not planned.needs_further_masks(coco)
    assert "sbd_masks" not in planned.deciding(voc, "train_aug")  # manifests know nothing of them


@pytest.mark.parametrize("role", ["train", "scored"])
def test_images_of_val_that_train_or_score_priors_are_an_error(folders, tmp_path, role):
    for name, ids in {"train": "a\nb\n", "scored": "a\n", "val": "c\n\n"}.items():
        (tmp_path / f"{name}.txt").write_text(ids)
    lists = {name: str(tmp_path / f"{name}.txt") for name in ("train", "scored", "val")}
    declared = folders | {"lists": lists, "splits": {name: name for name in lists}}
    planned.check_apart(declared)
    (tmp_path / f"{role}.txt").write_text("a\n c \n")
    with pytest.raises(RecipeError, match=rf"{role}\.txt and .*val\.txt share 1 of their images, such as c"):
        planned.check_apart(declared)
    (tmp_path / "val.txt").unlink()
    planned.check_apart(declared)  # the missing list is said elsewhere


def test_lists_of_voc_and_coco_are_kept_apart_too(voc, tmp_path):
    splits = {"train": "train", "scored": "train", "val": "val"}
    planned.check_apart(voc | {"splits": splits})
    Path(voc["root"], "ImageSets/Segmentation/val.txt").write_text("VOC_train\n")
    with pytest.raises(RecipeError, match="such as VOC_train"):
        planned.check_apart(voc | {"splits": splits})
    (tmp_path / "some.txt").write_text("9\n")
    part = {"images": "i", "annotations": "a.json", "list": str(tmp_path / "some.txt")}
    both = {"kind": "coco", "subsets": {"train": part, "val": part}, "splits": splits}
    with pytest.raises(RecipeError, match="such as 9"):
        planned.check_apart(both)
    planned.check_apart(both | {"subsets": {"train": part | {"list": None}, "val": part | {"list": None}}})


def test_weights_that_cannot_be_fetched_are_known_to_the_plan():
    assert set(sources.BACKBONES.values()) <= sources.FILES.keys()
    assert sources.fetched("resnest269")
    assert "deeplabv1_resnet101-imagenet.pth" in sources.weights_of("resnet101_caffe")
    assert "CCAM" in sources.page_of("moco_r50_v2-e3b0c442.pth")
    assert "your own" in sources.page_of("mine.pth")


# --- five keys ---


@pytest.fixture
def photos(tmp_path, monkeypatch) -> dict:
    """Photos in a folder for each class, one of both, one of none, and two new ones; declared by what is needed."""
    monkeypatch.chdir(tmp_path)
    for place in ("photos/cat/a", "photos/cat/b", "photos/dog/b", "photos/dog/c", "photos/later", "new/d", "new/e"):
        Path(f"{place}.jpg").parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (5, 4), (len(Path(place).stem), ord(Path(place).stem[0]), 9)).save(f"{place}.jpg")
    return {"kind": "folders", "images": "photos", "labels": "folders", "names": ["cat", "dog"]}


def read(declared, subset, **settings) -> list:
    """What a job makes of a declaration, as a plan hands it over."""
    found = planned.deciding(planned.completed(declared), subset) | {"colours": None} | settings
    manifest = declared_manifest(found, subset=subset, root=None, workers=1)
    return [(row.id, Path(row.image).as_posix(), row.labels) for row in manifest]


A, B, C = ("a", "photos/cat/a.jpg", (0,)), ("b", "photos/cat/b.jpg", (0, 1)), ("c", "photos/dog/c.jpg", (1,))


def test_four_keys_make_a_data_set_that_trains_on_all_its_labelled_photos(photos):
    declared = planned.completed(photos)
    assert declared["lists"] == {"train": None}
    assert declared["splits"] == {"train": "train", "scored": "train", "val": None}
    assert (declared["masks"], declared["classes"], declared["colours"]) == (None, None, None)
    assert planned.missing_files(declared, "train") == {}
    planned.check_apart(declared)
    assert read(photos, "train") == [A, B, C]


def test_a_folder_of_new_photos_is_a_subset(photos):
    mine = photos | {"lists": {"new": "new"}}
    assert list(planned.completed(mine)["lists"]) == ["train", "new"]
    assert read(mine, "new") == [("d", "new/d.jpg", ()), ("e", "new/e.jpg", ())]
    before = planned.deciding(planned.completed(mine), "new")
    assert planned.deciding(planned.completed(mine), "train") == planned.deciding(planned.completed(photos), "train")
    Image.new("RGB", (5, 4)).save("new/f.jpg")
    assert planned.deciding(planned.completed(mine), "new") != before
    assert [id for id, *_ in read(mine, "new")] == ["d", "e", "f"]


def test_a_photo_that_is_in_no_class_folder_can_be_predicted_and_not_trained_on(photos):
    Path("later.txt").write_text("later\n")
    mine = photos | {"lists": {"later": "later.txt"}}
    assert read(mine, "later") == [("later", "photos/later.jpg", ())]
    with pytest.raises(RecipeError, match=r"photos: images of later\.txt that are in no folder of a class .*: later"):
        planned.deciding(planned.completed(mine | {"splits": {"train": "later"}}), "later")


def test_what_val_lists_is_not_trained_on(photos):
    Path("val.txt").write_text("c\n")
    mine = photos | {"lists": {"val": "val.txt"}}
    assert planned.completed(mine)["splits"] == {"train": "train", "scored": "train", "val": "val"}
    assert read(mine, "train") == [A, B]
    assert read(mine, "val") == [C]
    planned.check_apart(planned.completed(mine))


def test_another_folder_is_another_label_for_its_subset_alone(photos):
    Path("val.txt").write_text("c\n")
    mine = planned.completed(photos | {"lists": {"val": "val.txt"}})
    train, val = (planned.deciding(mine, subset) for subset in ("train", "val"))
    Path("photos/dog/c.jpg").rename("photos/cat/c.jpg")
    assert planned.deciding(mine, "train") == train
    assert planned.deciding(mine, "val") != val


def test_rows_of_a_table_name_the_photos_to_train_on(photos):
    Path("labels.csv").write_text("image_id,classes\na,cat\nb,\n")
    for id in "ab":
        Image.new("RGB", (5, 4)).save(f"photos/{id}.jpg")
    assert [(id, labels) for id, _, labels in read(photos | {"labels": "labels.csv"}, "train")] == [
        ("a", (0,)),
        ("b", ()),
    ]


def test_two_pictures_of_one_id_are_refused(photos):
    Image.new("RGB", (5, 4), "white").save("photos/dog/b.jpg")
    with pytest.raises(
        DataError, match=r"photos/cat/b\.jpg and photos/dog/b\.jpg have the same id and are two pictures"
    ):
        read(photos, "train")


def test_a_folder_that_is_no_class_is_refused_with_what_was_meant(photos):
    Path("photos/dog").rename("photos/dgo")
    with pytest.raises(
        RecipeError, match=r"photos/dgo: unknown class 'dgo'; .* \(did you mean dog\?\); rename the folder"
    ):
        planned.deciding(planned.completed(photos), "train")


def test_an_empty_folder_of_photos_is_refused(photos):
    Path("none").mkdir()
    with pytest.raises(DataError, match="no photo with one of the suffixes"):
        read(photos | {"lists": {"new": "none"}}, "new")


def test_an_unknown_class_of_a_table_stops_a_plan(photos):
    Path("labels.csv").write_text("image_id,classes\na,cta\n")
    with pytest.raises(RecipeError, match=r"labels\.csv: image a: unknown class 'cta'; .* \(did you mean cat\?\)"):
        planned.deciding(planned.completed(photos | {"labels": "labels.csv"}), "train")


def test_names_of_the_drawings_are_known_to_a_plan():
    assert class_names.DEMO_CLASSES == DEMO_CLASSES


@pytest.mark.parametrize(
    ("kind", "usual"), [("voc", "objects"), ("coco", "annotations"), ("demo", "objects"), ("folders", None)]
)
def test_true_objects_are_the_kinds_own_unless_the_data_set_says_otherwise(kind, usual):
    assert planned.truth_of_instances({"kind": kind}) == usual
    assert planned.truth_of_instances({"kind": kind, "instances": "components"}) == "components"
    assert planned.truth_of_instances({"kind": kind, "instances": None}) is None


def test_files_of_true_objects_that_are_not_there_are_listed(tmp_path):
    declared = {"kind": "voc", "root": str(tmp_path), "sbd": str(tmp_path / "sbd")}
    missing = {str(tmp_path / "SegmentationObject"), str(tmp_path / "sbd/inst")}
    assert set(planned.missing_objects(declared, "train_aug")) == missing
    assert set(planned.missing_objects(declared, "val")) == {str(tmp_path / "SegmentationObject")}
    (tmp_path / "SegmentationObject").mkdir()
    (tmp_path / "sbd/dataset/inst").mkdir(parents=True)
    assert planned.missing_objects(declared, "train_aug") == {}
    assert planned.missing_objects(declared | {"sbd": None}, "train_aug").keys() == {"sbd (null)/inst"}
    assert planned.missing_objects(declared | {"root": "x", "instances": "components"}, "val") == {}
