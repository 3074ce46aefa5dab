"""A data set of the user's own folders."""

import numpy as np
import pytest
from PIL import Image

from wsss_core.data import DataError, folder_manifest, make_classes, write_mask

CLASSES = make_classes(["hot dog", "bee", "cow"])


@pytest.fixture
def root(tmp_path):
    """Images a.jpg, b.PNG and c.jpeg; masks of a (hot dog and cow) and b (background and void)."""
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    for name in ("a.jpg", "b.PNG", "c.jpeg"):
        Image.fromarray(np.full((4, 6, 3), 90, np.uint8)).save(tmp_path / "images" / name)
    (tmp_path / "images" / "notes.txt").write_text("not an image")
    for id, corner in {"a": 3, "b": 255}.items():
        mask = np.zeros((4, 6), np.uint8)
        mask[0, 0], mask[1, 1] = corner, 1 if id == "a" else 0
        write_mask(tmp_path / "masks" / f"{id}.png", mask, CLASSES)
    (tmp_path / "train.txt").write_text("c\na\nb\n")
    (tmp_path / "labels.csv").write_text("image_id,classes\na,cow;hot dog\nb,\nc, bee \nother,cow\n")
    return tmp_path


def manifest_of(root, **changes):
    arguments = dict(
        images=root / "images",
        masks=root / "masks",
        split=root / "train.txt",
        labels=root / "labels.csv",
        classes=CLASSES,
    )
    return folder_manifest(**(arguments | changes))


def test_labels_come_from_the_table_and_files_by_their_stem(root):
    manifest = manifest_of(root, drop_unlabelled=False)
    assert [(row.id, row.labels) for row in manifest] == [("c", (1,)), ("a", (0, 2)), ("b", ())]
    assert manifest.row("b").image == str(root / "images" / "b.PNG")
    assert manifest.row("a").mask == str(root / "masks" / "a.png")
    assert manifest.row("c").mask == ""


def test_unlabelled_images_are_left_out(root):
    assert manifest_of(root).ids == ["c", "a"]
    assert manifest_of(root, masks=None).row("a").mask == ""


def test_labels_can_come_from_masks(root):
    (root / "train.txt").write_text("a\nb\n")
    manifest = manifest_of(root, labels="masks", drop_unlabelled=False)
    assert [(row.id, row.labels) for row in manifest] == [("a", (0, 2)), ("b", ())]
    only_bees = make_classes(CLASSES.names, keep=["bee"])
    assert manifest_of(root, labels="masks", classes=only_bees, drop_unlabelled=False).ids == ["b"]


def test_labels_from_masks_need_every_mask(root):
    with pytest.raises(DataError, match=r"labels from masks: images without a mask .*\(1 of 3\): c"):
        manifest_of(root, labels="masks")


def test_masks_are_required_on_request(root):
    with pytest.raises(DataError, match=r"c\.jpeg: there is no mask"):
        manifest_of(root, require_masks=True)


def test_an_image_that_is_not_there_is_an_error_naming_split_and_folder(root):
    (root / "train.txt").write_text("a\nzz\n")
    message = r"train\.txt: images that are not in .*images with one of the suffixes \.jpg, .* \(1 of 2\): zz"
    with pytest.raises(DataError, match=message):
        manifest_of(root)


def test_an_image_without_a_row_of_labels_is_an_error(root):
    (root / "labels.csv").write_text("image_id,classes\na,cow\nb,\n")
    with pytest.raises(DataError, match=r"labels\.csv: images of .*train\.txt without a row \(1 of 3\): c"):
        manifest_of(root)


def test_an_unknown_class_is_an_error(root):
    (root / "labels.csv").write_text("image_id,classes\na,cat\nb,\nc,bee\n")
    with pytest.raises(DataError, match="image a: unknown class 'cat'; the classes are hot dog, bee, cow"):
        manifest_of(root)


@pytest.mark.parametrize("text", ["", "id,classes\na,cow\n"])
def test_a_table_of_another_form_is_an_error_naming_the_columns(root, text):
    (root / "labels.csv").write_text(text)
    with pytest.raises(DataError, match=r"labels\.csv: .* columns image_id and classes are needed"):
        manifest_of(root)


def test_a_table_written_by_a_spreadsheet_is_read(root):
    text = (root / "labels.csv").read_text()
    (root / "labels.csv").write_text(text.replace("\n", "\r\n"), encoding="utf-8-sig")
    assert manifest_of(root).ids == ["c", "a"]


def test_two_rows_or_two_files_of_an_image_are_an_error(root):
    with (root / "labels.csv").open("a") as table:
        table.write("a,bee\n")
    with pytest.raises(DataError, match="image a has more than one row"):
        manifest_of(root)
    Image.new("RGB", (6, 4)).save(root / "images" / "a.png")
    with pytest.raises(DataError, match=r"a\.png and a\.jpg have the same id"):
        manifest_of(root)


def test_a_missing_folder_is_an_error(root):
    with pytest.raises(DataError, match="pictures: the folder does not exist"):
        manifest_of(root, images=root / "pictures")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("a,round,long\n", "line 2: 'a,round,long' has 3 cells, the head has 2: join names by ;"),
        ("a,bee\nb\n", "line 3: 'b' has 1 cells, .* leave the cell of an image without any class empty, as in 'a001,'"),
        ('a,bee\n\n"b\nc",bee\nd\n', "line 6: 'd' has 1 cells"),
        ("a,bee\nb,\n a ,cow\n", "line 4: image a has more than one row, the first is line 2"),
        (" ,bee\n", "line 2: the image_id is empty"),
        ('a,"bee\nb,cow\n', "cannot be read as a table of labels: unexpected end of data"),
        ('a,"bee"cow\n', "cannot be read as a table of labels: "),
    ],
)
def test_labels_that_would_be_lost_are_an_error_with_their_line(root, rows, message):
    (root / "labels.csv").write_text(f"image_id,classes\n{rows}")
    with pytest.raises(DataError, match=rf"labels\.csv(, |: ){message}"):
        manifest_of(root)


def test_a_column_that_stands_twice_is_an_error(root):
    (root / "labels.csv").write_text("image_id,classes,classes\na,cow,bee\n")
    with pytest.raises(DataError, match=r"labels\.csv: .* the column classes stands more than once"):
        manifest_of(root)


def test_further_columns_and_quoted_cells_are_read(root):
    (root / "labels.csv").write_text('notes,classes,image_id\n"by night, wet","cow;bee",a\n,,b\n,bee,c\n')
    assert [row.labels for row in manifest_of(root, drop_unlabelled=False)] == [(1,), (1, 2), ()]


def test_images_that_are_predicted_alone_need_no_labels(root):
    (root / "labels.csv").write_text("image_id,classes\na,cow\n")
    by_table = manifest_of(root, labelled=False, drop_unlabelled=False)
    assert [(row.id, row.labels) for row in by_table] == [("c", ()), ("a", (2,)), ("b", ())]
    by_masks = manifest_of(root, labels="masks", labelled=False, drop_unlabelled=False)
    assert [(row.id, row.labels) for row in by_masks] == [("c", ()), ("a", (0, 2)), ("b", ())]
