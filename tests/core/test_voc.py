"""VOC 2012: composition of the splits, labels by the published rules, and what is said of missing pieces."""

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from wsss_core.data import (
    VOC_CLASSES,
    DataError,
    Manifest,
    Row,
    make_classes,
    read_mask,
    voc_manifest,
    voc_palette,
    write_mask,
)
from wsss_core.data.kinds.voc import LABEL_TOTALS, check_label_totals, read_sbd_mask, read_xml_labels, sbd_mask_of
from wsss_core.recipes import sources

CLASSES = make_classes(VOC_CLASSES)
BOX = (1, 1, 3, 3)


def annotation(*things, width=6, height=4):
    """XML of (name, box, extra elements)."""
    objects = "".join(
        f"<object><name>{name}</name>{extra}<bndbox><ymin>{box[1]}</ymin><xmin>{box[0]}</xmin>"
        f"<xmax>{box[2]}</xmax><ymax>{box[3]}</ymax></bndbox></object>"
        for name, box, extra in things
    )
    size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
    return f"<annotation>{size}{objects}</annotation>"


@pytest.fixture
def root(tmp_path):
    """A devkit with train a, b; val c; test t; and d, e that SBD alone lists."""
    root = tmp_path / "VOC2012"
    for folder in ("JPEGImages", "Annotations", "SegmentationClass", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    names = {"a": "person", "b": "cat", "c": "dog", "d": "cat", "e": "tvmonitor"}
    for id in [*names, "t"]:
        Image.fromarray(np.full((4, 6, 3), 90, np.uint8)).save(root / "JPEGImages" / f"{id}.jpg")
    for id, name in names.items():
        (root / "Annotations" / f"{id}.xml").write_text(annotation((name, BOX, "")))
    for id in "abc":
        write_mask(root / "SegmentationClass" / f"{id}.png", np.zeros((4, 6), np.uint8), CLASSES)
    for subset, ids in {"train": "ab", "val": "c", "trainval": "abc", "test": "t"}.items():
        (root / "ImageSets" / "Segmentation" / f"{subset}.txt").write_text("\n".join(ids) + "\n")
    return root


@pytest.fixture
def sbd(tmp_path):
    folder = tmp_path / "benchmark_RELEASE" / "dataset"
    folder.mkdir(parents=True)
    (folder / "train.txt").write_text("e\na\nc\n")
    (folder / "val.txt").write_text("d\nb\n")
    return tmp_path


def manifest_of(root, subset, **changes):
    return voc_manifest(**(dict(root=root, subset=subset, classes=CLASSES, workers=2) | changes))


def test_labels_come_from_the_annotations_and_masks_from_their_folder(root):
    manifest = manifest_of(root, "train")
    path = root / "SegmentationClass" / "a.png"
    assert manifest.row("a") == Row("a", str(root / "JPEGImages" / "a.jpg"), str(path), 4, 6, (14,))
    assert manifest_of(root, "trainval").ids == ["a", "b", "c"]


def test_train_aug_is_train_then_sbd_without_val(root, sbd):
    manifest = manifest_of(root, "train_aug", sbd_root=sbd)
    assert manifest.ids == ["a", "b", "d", "e"]
    assert [bool(row.mask) for row in manifest] == [True, True, False, False]


@pytest.mark.parametrize("place", [".", "dataset"])
def test_the_lists_of_sbd_may_lie_higher(root, tmp_path, place):
    (tmp_path / "sbd" / place).mkdir(parents=True, exist_ok=True)
    for name, text in {"train.txt": "d\n", "val.txt": "c\n"}.items():
        (tmp_path / "sbd" / place / name).write_text(text)
    assert manifest_of(root, "train_aug", sbd_root=tmp_path / "sbd").ids == ["a", "b", "d"]


def test_a_ready_list_of_train_aug_is_taken(root):
    path = root / "ImageSets" / "Segmentation" / "train_aug.txt"
    path.write_text("/JPEGImages/d.jpg /SegmentationClassAug/d.png\n/JPEGImages/a.jpg /SegmentationClassAug/a.png\n")
    assert manifest_of(root, "train_aug").ids == ["d", "a"]


def test_a_ready_list_that_shares_images_with_val_is_an_error(root):
    (root / "ImageSets" / "Segmentation" / "train_aug.txt").write_text("a\nc\n")
    with pytest.raises(DataError, match="1 of its images are in val too, for example c"):
        manifest_of(root, "train_aug")


def test_train_aug_without_sbd_says_the_ways_out(root, tmp_path):
    with pytest.raises(DataError, match="or train on the subset train"):
        manifest_of(root, "train_aug")
    with pytest.raises(DataError, match=r"no train\.txt and val\.txt of SBD here"):
        manifest_of(root, "train_aug", sbd_root=tmp_path)


def test_test_has_no_labels_and_no_masks_and_keeps_its_images(root):
    (row,) = manifest_of(root, "test").rows
    assert (row.id, row.mask, row.labels) == ("t", "", ())
    assert manifest_of(root, "test", classes=make_classes(VOC_CLASSES, keep=["cat"])).ids == ["t"]


STORED = np.array([[0, 15, 15], [0, 8, 255]], np.uint8)  # person, cat


def test_masks_of_sbd_are_read_from_grey_pngs_palettes_and_its_own_files(tmp_path):
    Image.fromarray(STORED).save(tmp_path / "a.png")
    write_mask(tmp_path / "b.png", STORED, CLASSES)
    savemat(tmp_path / "c.mat", {"GTcls": {"Boundaries": 0, "Segmentation": STORED}})
    cats = make_classes(VOC_CLASSES, keep=["cat"])
    for id in "abc":
        path = sbd_mask_of(tmp_path, id)
        np.testing.assert_array_equal(read_sbd_mask(path, CLASSES, (2, 3)), STORED)
        assert read_sbd_mask(path, cats, (2, 3)).tolist() == [[0, 255, 255], [0, 1, 255]]
    assert sbd_mask_of(tmp_path, "d") is None


def test_a_wrong_mask_of_sbd_is_an_error_naming_it(tmp_path):
    savemat(tmp_path / "a.mat", {"GTcls": {"Segmentation": STORED}})
    savemat(tmp_path / "b.mat", {"GTcls": {"Segmentation": np.full((2, 3), 21, np.uint8)}})
    (tmp_path / "c.mat").write_bytes(b"no such file")
    savemat(tmp_path / "d.mat", {"GTcls": {"Segmentation": STORED.astype(np.int16) - 300}})
    with pytest.raises(DataError, match=r"a\.mat: height x width is 2 x 3, the image's is 3 x 2"):
        read_sbd_mask(tmp_path / "a.mat", CLASSES, (3, 2))
    with pytest.raises(DataError, match=r"b\.mat: mask values \[21\] belong to no class"):
        read_sbd_mask(tmp_path / "b.mat", CLASSES, (2, 3))
    with pytest.raises(DataError, match=r"d\.mat: a mask of SBD has values of 8 bits, not int16"):
        read_sbd_mask(tmp_path / "d.mat", CLASSES, (2, 3))
    with pytest.raises(DataError, match=r"c\.mat: cannot be read as a mask of SBD"):
        read_sbd_mask(tmp_path / "c.mat", CLASSES, (2, 3))


def test_a_subset_of_classes_drops_images_without_them(root):
    manifest = manifest_of(root, "train", classes=make_classes(VOC_CLASSES, keep=["cat"]))
    assert [(row.id, row.labels) for row in manifest] == [("b", (0,))]


def test_rgb_masks_are_read_by_colour(root):
    image = Image.fromarray(voc_palette(21)[np.full((4, 6), 15)])
    image.save(root / "SegmentationClass" / "a.png")
    assert (read_mask(manifest_of(root, "train").row("a").mask, CLASSES) == 15).all()


@pytest.mark.parametrize(
    ("box", "counts"),
    [
        ((1, 1, 2, 2), True),
        (("1.9", "1.2", "2.1", "3.7"), True),
        (("1.2", 1, "1.9", 3), False),  # both sides are cut to 1
        ((2, 1, 2, 3), False),
        ((1, 3, 4, 3), False),
        ((-5, -5, 2, 2), True),
        ((-5, 1, 0, 3), False),  # nothing is left inside the image
        ((6, 1, 9, 3), False),
        ((5, 3, 9, 9), True),
    ],
)
def test_boxes_are_cut_and_clamped_and_empty_ones_dropped(tmp_path, box, counts):
    (tmp_path / "a.xml").write_text(annotation(("dog", box, "")))
    assert read_xml_labels(tmp_path / "a.xml") == (["dog"] if counts else [])


def test_difficult_and_truncated_objects_count_and_parts_do_not(tmp_path):
    part = "<part><name>head</name><bndbox><xmin>1</xmin></bndbox></part>"
    things = [
        ("dog", BOX, "<difficult>1</difficult>"),
        ("cat", BOX, "<truncated>1</truncated><occluded>1</occluded>"),
        ("person", BOX, part),
        ("dog", BOX, ""),
    ]
    (tmp_path / "a.xml").write_text(annotation(*things))
    assert read_xml_labels(tmp_path / "a.xml") == ["cat", "dog", "person"]


@pytest.mark.parametrize("text", ["<annotation>", "<annotation/>", annotation(("dog", (1, 1, "x", 3), ""))])
def test_a_broken_annotation_is_an_error_naming_it(root, text):
    (root / "Annotations" / "b.xml").write_text(text)
    with pytest.raises(DataError, match=r"b\.xml: cannot be read as a VOC annotation"):
        manifest_of(root, "train")


def test_an_unknown_class_is_an_error_naming_the_annotation(root):
    (root / "Annotations" / "b.xml").write_text(annotation(("unicorn", BOX, "")))
    with pytest.raises(DataError, match=r"b\.xml: unknown class 'unicorn'; the classes are aeroplane"):
        manifest_of(root, "train")


@pytest.mark.parametrize("missing", ["Annotations/b.xml", "JPEGImages/b.jpg", "SegmentationClass/b.png"])
def test_missing_files_give_one_message_with_the_page(root, missing):
    (root / missing).unlink()
    with pytest.raises(DataError, match=f"1 of 2 files are missing: {missing.split('/')[1]}") as caught:
        manifest_of(root, "train")
    assert sources.VOC in str(caught.value)


def test_a_missing_folder_or_list_is_an_error_with_the_layout(root):
    (root / "ImageSets" / "Segmentation" / "val.txt").unlink()
    for place, subset in ((root / "nowhere", "train"), (root, "val")):
        with pytest.raises(DataError, match="does not exist") as caught:
            manifest_of(place, subset)
        assert sources.VOC in str(caught.value)
        assert "SegmentationClass/<id>.png" in str(caught.value)
    with pytest.raises(DataError, match="unknown subset 'aug'; VOC has train, val"):
        manifest_of(root, "aug")


def manifest_with_totals(totals):
    rows = [
        Row(f"{label}_{index}", "i.jpg", "", 4, 6, (label,))
        for label, total in enumerate(totals)
        for index in range(total)
    ]
    return Manifest.of(rows)


def test_the_label_totals_of_the_full_split_are_checked():
    totals = LABEL_TOTALS[1464]
    assert sum(totals) == 2171
    check_label_totals(manifest_with_totals(totals), 1464, "train", CLASSES)
    other = manifest_with_totals((87, *totals[1:]))
    with pytest.raises(DataError, match=r"87 65 105 [0-9 ]*\n.* 88 65 105"):
        check_label_totals(other, 1464, "train", CLASSES)
    check_label_totals(other, 1463, "train", CLASSES)  # not the split of VOC 2012
    check_label_totals(other, 1464, "train", make_classes(VOC_CLASSES, keep=VOC_CLASSES[:-1]))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (annotation(("dog", BOX, ""), width=0), "<size> says height x width is 4 x 0"),
        (annotation(("dog", BOX, ""), height=-4), "<size> says height x width is -4 x 6"),
        (annotation(("dog", (1, 1, "inf", 3), "")), "infinity"),
        (annotation(("dog", (1, 1, "nan", 3), "")), "NaN"),
        ('<?xml version="1.0" encoding="klingon"?><annotation/>', "unknown encoding"),
    ],
)
def test_all_annotations_that_cannot_be_read_are_named(root, text, message):
    for id in "ab":
        (root / "Annotations" / f"{id}.xml").write_text(text)
    with pytest.raises(DataError, match="2 images of the split are faulty") as caught:
        manifest_of(root, "train")
    for id in "ab":
        line = next(line for line in str(caught.value).splitlines() if f"{id}.xml" in line)
        assert "cannot be read as a VOC annotation" in line
        assert message in line


def test_the_annotation_of_another_picture_is_an_error(root):
    (root / "Annotations" / "b.xml").write_text(annotation(("cat", BOX, ""), width=7, height=5))
    with pytest.raises(DataError, match=r"b\.xml: <size> says height x width is 5 x 7, the image's is 4 x 6"):
        manifest_of(root, "train")


def test_exchanged_sides_are_let_through_where_they_change_no_label(root):
    (root / "Annotations" / "b.xml").write_text(annotation(("cat", BOX, ""), width=4, height=6))
    assert manifest_of(root, "train").row("b").labels == (7,)
    things = ("cat", BOX, ""), ("dog", (4, 1, 6, 3), "")  # right of what is said to be the image
    (root / "Annotations" / "b.xml").write_text(annotation(*things, width=4, height=6))
    with pytest.raises(DataError, match=r"b\.xml: <size> says height x width is 6 x 4, the image's is 4 x 6"):
        manifest_of(root, "train")


def test_a_picture_of_another_format_than_voc_s_is_refused(root):
    Image.new("RGB", (6, 4)).save(root / "JPEGImages" / "b.jpg", format="BMP")
    with pytest.raises(DataError, match=r"b\.jpg: the image cannot be read, it is broken or none of JPEG, PNG"):
        manifest_of(root, "train")
