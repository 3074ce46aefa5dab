"""Manifests: every fault of the input is found before any stage begins."""

import logging

import numpy as np
import pytest
from PIL import Image

from wsss_core.data import DataError, Manifest, Row, build_manifest, make_classes, read_ids, write_mask

CLASSES = make_classes(["ant", "bee", "cow"])
LABELS = {"NA": ["cow", "ant"], "007": ["bee"], "x y": []}


@pytest.fixture
def folder(tmp_path):
    for index, id in enumerate(LABELS):
        pixels = np.full((4 + index, 6, 3), 90, np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{id}.jpg")
        write_mask(tmp_path / f"{id}.png", pixels[..., 0] * 0, CLASSES)
    return tmp_path


def build(folder, **changes):
    arguments = dict(
        ids=list(LABELS),
        image_of=lambda id: folder / f"{id}.jpg",
        mask_of=lambda id: folder / f"{id}.png",
        labels_of=LABELS.__getitem__,
        classes=CLASSES,
        drop_unlabelled=False,
        require_masks=True,
        workers=2,
    )
    return build_manifest(**(arguments | changes))


def test_a_manifest_comes_back_as_it_was_written(tmp_path):
    rows = [Row("NA", "a/NA.jpg", "", 4, 6, (0, 2)), Row("007", "a, b.jpg", "m.png", 5, 7, ())]
    Manifest.of(rows).write(tmp_path / "train.csv")
    again = Manifest.read(tmp_path / "train.csv")
    assert again.rows == rows
    assert list(again) == rows
    assert len(again) == 2
    assert again.ids == ["NA", "007"]
    assert again.row("007") == rows[1]


def test_the_table_can_be_read_by_eye(tmp_path):
    Manifest.of([Row("i", "i.jpg", "", 4, 6, (0, 2))]).write(tmp_path / "train.csv")
    assert (tmp_path / "train.csv").read_text() == "id,image,mask,height,width,labels\ni,i.jpg,,4,6,0 2\n"


def test_labels_become_multi_hot():
    manifest = Manifest.of([Row("a", "a", "", 1, 1, (0, 2)), Row("b", "b", "", 1, 1, ())])
    labels = manifest.multi_hot(CLASSES)
    assert labels.dtype == np.float32
    assert labels.tolist() == [[1, 0, 1], [0, 0, 0]]
    with pytest.raises(DataError, match="image a has the label 2, but there are 2 classes"):
        manifest.multi_hot(make_classes(["ant", "bee"]))


def test_labelled_images_alone_keep_their_order():
    manifest = Manifest.of([Row("b", "b", "", 1, 1, (0,)), Row("n", "n", "", 1, 1, ()), Row("a", "a", "", 1, 1, (1,))])
    assert manifest.labelled().ids == ["b", "a"]
    assert manifest.labelled().rows == [manifest.row("b"), manifest.row("a")]
    assert len(manifest) == 3
    assert manifest.labelled().labelled().digest() == manifest.labelled().digest() != manifest.digest()


def test_there_must_be_a_labelled_image_to_train_with():
    with pytest.raises(DataError, match="none of the 1 images of the manifest has a class to train with"):
        Manifest.of([Row("n", "n", "", 1, 1, ())]).labelled()


def test_an_unknown_id_is_an_error():
    with pytest.raises(DataError, match="no image z"):
        Manifest.of([]).row("z")


@pytest.mark.parametrize("text", ["", "id,image\n1,2\n", "id,image,mask,height,width,labels\na,a,,tall,6,\n"])
def test_a_file_of_another_form_is_an_error_naming_it(tmp_path, text):
    (tmp_path / "train.csv").write_text(text)
    with pytest.raises(DataError, match=r"train\.csv"):
        Manifest.read(tmp_path / "train.csv")


def test_sizes_and_labels_are_found(folder):
    rows = build(folder).rows
    assert [(row.id, row.height, row.width, row.labels) for row in rows] == [
        ("NA", 4, 6, (0, 2)),
        ("007", 5, 6, (1,)),
        ("x y", 6, 6, ()),
    ]
    assert rows[0].image == str(folder / "NA.jpg")
    assert rows[0].mask == str(folder / "NA.png")


def test_unlabelled_images_are_dropped_on_request(folder):
    assert build(folder, drop_unlabelled=True).ids == ["NA", "007"]


def test_images_left_without_a_class_by_a_subset_are_dropped_and_counted(folder, caplog):
    caplog.set_level(logging.INFO)
    manifest = build(folder, classes=make_classes(CLASSES.names, keep=["cow"]))
    assert manifest.ids == ["NA", "x y"]  # x y never had a class and is not to be dropped here
    assert manifest.row("NA").labels == (0,)
    assert "left out 1 of 3 images" in caplog.text


def test_about_twenty_progress_lines_are_logged(folder, caplog):
    caplog.set_level(logging.INFO)
    build(folder)
    assert sum("checked" in line for line in caplog.messages) == 3


def test_a_mask_may_be_absent_unless_required(folder):
    (folder / "007.png").unlink()
    assert build(folder, require_masks=False).row("007").mask == ""
    assert build(folder, require_masks=False, mask_of=lambda id: None).row("NA").mask == ""
    with pytest.raises(DataError, match=r"007\.png: the mask does not exist"):
        build(folder)


def test_a_truncated_image_is_an_error_naming_it(folder):
    whole = (folder / "007.jpg").read_bytes()
    (folder / "007.jpg").write_bytes(whole[:-40])
    with pytest.raises(DataError, match=r"007\.jpg: the image cannot be read"):
        build(folder)


def test_a_mask_of_another_size_is_an_error_naming_it(folder):
    write_mask(folder / "007.png", np.zeros((6, 5), np.uint8), CLASSES)
    with pytest.raises(DataError, match=r"007\.png: height x width is 6 x 5, the image's is 5 x 6"):
        build(folder)


def test_all_faulty_files_are_named_in_one_message(folder):
    (folder / "NA.jpg").unlink()
    (folder / "007.jpg").write_bytes(b"")
    with pytest.raises(DataError, match="2 images") as caught:
        build(folder)
    assert "NA.jpg: the image does not exist" in str(caught.value)
    assert "007.jpg: the image cannot be read" in str(caught.value)


def test_a_message_names_ten_faults_at_most(tmp_path):
    ids = [f"n{index}" for index in range(13)]
    with pytest.raises(DataError, match="13 images of the split are faulty") as caught:
        build(tmp_path, ids=ids, labels_of=lambda id: ["ant"])
    assert str(caught.value).count("does not exist") == 10
    assert str(caught.value).endswith("and 3 more")


def test_an_unknown_class_is_an_error_naming_the_image(folder):
    with pytest.raises(DataError, match="image 007: unknown class 'wasp'; the classes are ant, bee, cow"):
        build(folder, labels_of=(LABELS | {"007": ["wasp"]}).__getitem__)


def test_an_empty_split_is_an_error(folder):
    with pytest.raises(DataError, match="empty"):
        build(folder, ids=[])
    with pytest.raises(DataError, match="none of the 1 images"):
        build(folder, ids=["x y"], drop_unlabelled=True)


def test_an_id_given_twice_is_an_error(folder):
    with pytest.raises(DataError, match="image 007 more than once"):
        build(folder, ids=["007", "NA", "007"])


def test_ids_are_read_one_a_line(tmp_path):
    (tmp_path / "train.txt").write_text("b \n\n a\n")
    assert read_ids(tmp_path / "train.txt") == ["b", "a"]
    (tmp_path / "train.txt").write_text("\n")
    with pytest.raises(DataError, match=r"train\.txt: the split is empty"):
        read_ids(tmp_path / "train.txt")
    with pytest.raises(DataError, match=r"val\.txt: cannot read"):
        read_ids(tmp_path / "val.txt")


def test_a_byte_order_mark_is_no_part_of_an_id_or_a_column(tmp_path):
    (tmp_path / "train.txt").write_text("a\nb\n", encoding="utf-8-sig")
    assert read_ids(tmp_path / "train.txt") == ["a", "b"]
    manifest = Manifest.of([Row("a", "a.jpg", "", 4, 6, ())])
    manifest.write(tmp_path / "a.csv")
    (tmp_path / "b.csv").write_text((tmp_path / "a.csv").read_text(), encoding="utf-8-sig")
    assert Manifest.read(tmp_path / "b.csv").rows == manifest.rows


@pytest.mark.parametrize("id", ["../x", "a/../../x", ".."])
def test_a_list_that_leads_elsewhere_is_an_error(tmp_path, id):
    (tmp_path / "train.txt").write_text(f"a\n{id}\n")
    with pytest.raises(DataError, match=r"train\.txt: .* is no image id, it leads out of the folder"):
        read_ids(tmp_path / "train.txt")


@pytest.mark.parametrize("id", ["../x", "/etc/x", "a/b", "a\\b", "..", ""])
def test_an_id_that_leads_elsewhere_is_an_error_in_a_manifest_too(folder, tmp_path, id):
    with pytest.raises(DataError, match="is no image id"):
        build(folder, ids=[id])
    (tmp_path / "train.csv").write_text(f"id,image,mask,height,width,labels\n{id},a.jpg,,4,6,0\n")
    with pytest.raises(DataError, match=r"train\.csv: .* is no image id, it leads out of the folder"):
        Manifest.read(tmp_path / "train.csv")


@pytest.mark.parametrize("cells", ["0,6,0", "4,-6,0", "4,6,x", "4,6,0  1", "4,6,-1", "4,6,1.5"])
def test_sizes_and_labels_that_cannot_be_are_an_error(tmp_path, cells):
    (tmp_path / "train.csv").write_text(f"id,image,mask,height,width,labels\na,a.jpg,,{cells}\n")
    with pytest.raises(DataError, match=r"train\.csv: cannot be read as a manifest"):
        Manifest.read(tmp_path / "train.csv")
