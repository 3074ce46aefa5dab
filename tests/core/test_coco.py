"""MS COCO: labels and masks from a file of annotated instances."""

import json
import logging

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as packing

from wsss_core.data import DataError, Manifest, make_classes, read_mask
from wsss_core.data.kinds import coco as module
from wsss_core.data.kinds.coco import (
    COCO_CLASSES,
    Picture,
    Thing,
    coco_manifest,
    make_masks,
    read_pictures,
    semantic_mask,
)

PERSON, DOG, CUP = 1, 18, 47  # category ids; their mask values are 1, 17, 42
SIZE = 6, 8
CLASSES = make_classes(COCO_CLASSES)


def box(left, top, right, bottom):
    """The polygon around whole pixels, ends excluded."""
    return [[left, top, right, top, right, bottom, left, bottom]]


def run_lengths(mask):
    """Plain run lengths, down the columns and from 0 on, counted one by one."""
    counts, value = [0], 0
    for pixel in mask.T.ravel().tolist():
        if pixel != value:
            counts, value = [*counts, 0], pixel
        counts[-1] += 1
    return {"size": list(mask.shape), "counts": counts}


def picture(*things):
    return Picture("000000000009", "a.jpg", *SIZE, things)


def note(id, image, category, outline, crowd=0):
    return {"id": id, "image_id": image, "category_id": category, "iscrowd": crowd, "segmentation": outline}


def instances():
    """Image 42: a dog and a crowd of persons; 9: nothing; 100: two cups. Not in the order of their ids."""
    crowd = run_lengths(np.ones(SIZE, int))
    return {
        "images": [
            {"id": id, "file_name": f"COCO_train2014_{id:012d}.jpg", "height": SIZE[0], "width": SIZE[1]}
            for id in (42, 9, 100)
        ],
        "categories": [
            {"id": CUP, "name": "cup"},
            {"id": PERSON, "name": "person"},
            {"id": DOG, "name": "dog"},
        ],
        "annotations": [
            note(1, 42, DOG, box(1, 1, 4, 3)),
            note(2, 100, CUP, box(0, 0, 2, 2)),
            note(3, 42, PERSON, crowd, crowd=1),
            note(4, 100, CUP, box(4, 4, 6, 6)),
        ],
    }


@pytest.fixture
def root(tmp_path):
    (tmp_path / "train2014").mkdir()
    content = instances()
    for image in content["images"]:
        Image.fromarray(np.full((*SIZE, 3), 90, np.uint8)).save(tmp_path / "train2014" / image["file_name"])
    save(tmp_path, content)
    return tmp_path


def save(root, content):
    (root / "instances.json").write_text(json.dumps(content))


def manifest_of(root, **changes):
    arguments = dict(
        images=root / "train2014",
        annotations=root / "instances.json",
        listed=None,
        classes=CLASSES,
        ready_masks=None,
        made_masks=None,
        workers=2,
    )
    return coco_manifest(**(arguments | changes))


def test_the_classes_are_eighty_with_a_colour_each():
    assert (COCO_CLASSES[0], COCO_CLASSES[16], COCO_CLASSES[41], COCO_CLASSES[79]) == (
        *("person", "dog", "cup", "toothbrush"),
    )
    assert len({tuple(colour) for colour in CLASSES.colours.tolist()}) == len(CLASSES) + 1 == 81


def test_labels_count_crowds_and_images_without_objects_stay(root):
    manifest = manifest_of(root)
    assert [(row.id, row.labels) for row in manifest] == [
        ("000000000009", ()),
        ("000000000042", (0, 16)),
        ("000000000100", (41,)),
    ]
    row = manifest.row("000000000042")
    assert row.image == str(root / "train2014" / "COCO_train2014_000000000042.jpg")
    assert (row.height, row.width, row.mask) == (*SIZE, "")


def test_a_subset_of_classes_keeps_its_images_and_those_without_objects(root):
    manifest = manifest_of(root, classes=make_classes(COCO_CLASSES, keep=["dog"]))
    assert [(row.id, row.labels) for row in manifest] == [("000000000009", ()), ("000000000042", (0,))]


@pytest.mark.parametrize("line", ["100", "000000000100", "COCO_train2014_000000000100", "000000000100.jpg"])
def test_a_list_chooses_images_and_their_order(root, line):
    (root / "some.txt").write_text(f"{line}\n9\n")
    assert manifest_of(root, listed=root / "some.txt").ids == ["000000000100", "000000000009"]


def test_a_listed_image_that_is_not_annotated_is_named(root):
    (root / "some.txt").write_text("9\n10\n")
    with pytest.raises(DataError, match=r"some\.txt: images not in .*instances\.json \(1 of 2\): 10"):
        manifest_of(root, listed=root / "some.txt")


def test_made_masks_are_named_before_they_are_made(root):
    rows = manifest_of(root, made_masks=root / "masks").rows
    assert [row.mask for row in rows] == [str(root / "masks" / f"{row.id}.png") for row in rows]


def test_made_masks_hold_the_labels_and_are_whole(root):
    make_masks(annotations=root / "instances.json", listed=None, folder=root / "masks", workers=1)
    manifest = manifest_of(root, made_masks=root / "masks")
    masks = [read_mask(row.mask, CLASSES, SIZE) for row in manifest]
    assert [np.unique(mask).tolist() for mask in masks] == [[0], [17, 255], [0, 42]]
    assert (masks[1] == 17).sum() == 6
    assert len(list((root / "masks").iterdir())) == 3


def test_masks_are_the_same_for_any_number_of_workers(root, monkeypatch, through_pickles):
    monkeypatch.setattr(module, "in_processes", through_pickles)
    make_masks(annotations=root / "instances.json", listed=None, folder=root / "others", workers=2)
    for item in read_pictures(root / "instances.json"):
        assert (read_mask(root / "others" / f"{item.id}.png", CLASSES) == semantic_mask(item)).all()


def test_a_broken_outline_leaves_no_folder_of_masks(root):
    content = instances()
    content["annotations"][3]["segmentation"] = []
    save(root, content)
    with pytest.raises(DataError, match=r"annotation 4 \(cup\) of image 000000000100"):
        make_masks(annotations=root / "instances.json", listed=None, folder=root / "masks")
    assert sorted(path.name for path in root.iterdir()) == ["instances.json", "train2014"]


def test_ready_masks_are_taken_and_checked(root):
    (root / "ready").mkdir()
    file = root / "ready" / "000000000042.png"
    Image.fromarray(np.full(SIZE, 17, np.uint8)).save(file)
    manifest = manifest_of(root, ready_masks=root / "ready", made_masks=root / "masks")
    assert [row.mask for row in manifest] == ["", str(file), ""]
    Image.fromarray(np.full(SIZE, 81, np.uint8)).save(file)
    with pytest.raises(DataError, match=r"000000000042\.png: mask values \[81\]"):
        manifest_of(root, ready_masks=root / "ready", made_masks=None)


def test_polygons_and_both_kinds_of_run_lengths_are_the_same_region():
    expected = np.zeros(SIZE, np.uint8)
    expected[1:3, 1:4] = 17
    plain = run_lengths((expected > 0).astype(int))
    packed = packing.encode(np.asfortranarray((expected > 0).astype(np.uint8)))
    text = {"size": list(SIZE), "counts": packed["counts"].decode()}
    for outline in (box(1, 1, 4, 3), plain, text):
        assert (semantic_mask(picture(Thing(1, "dog", False, outline))) == expected).all()


def test_parts_of_a_thing_are_joined():
    parts = [*box(0, 0, 2, 2), *box(5, 4, 8, 6)]
    assert (semantic_mask(picture(Thing(1, "dog", False, parts))) == 17).sum() == 4 + 6


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_smaller_things_lie_on_larger_ones_and_crowds_below_all(order):
    things = (
        Thing(1, "person", True, run_lengths(np.pad(np.ones((2, 2), int), ((2, 2), (2, 4))))),  # smallest, yet below
        Thing(2, "dog", False, box(0, 0, 4, 6)),
        Thing(3, "cup", False, box(2, 0, 6, 3)),
    )
    expected = np.zeros(SIZE, np.uint8)
    expected[:, :4] = 17
    expected[:3, 2:6] = 42
    assert (semantic_mask(picture(*(things[index] for index in order))) == expected).all()


def test_a_crowd_beside_the_objects_is_void():
    thing = Thing(1, "person", True, run_lengths(np.pad(np.ones((2, 2), int), ((2, 2), (2, 4)))))
    mask = semantic_mask(picture(thing))
    assert (mask[2:4, 2:4] == 255).all()
    assert (mask > 0).sum() == 4


@pytest.mark.parametrize(
    "outline",
    [
        [],
        [[1, 1, 5, 1]],  # pycocotools would take it for a box
        [[1, 1, 5, 1, 5, "x"]],
        {"size": [8, 6], "counts": [48]},
        {"size": [6, 8], "counts": [5, 5]},
        {"size": [6, 8], "counts": "no"},
        {"counts": [48]},
        None,
    ],
)
def test_an_outline_that_is_none_is_an_error_naming_the_annotation(outline):
    with pytest.raises(DataError, match=r"annotation 7 \(dog\) of image 000000000009, 6 x 8, has no usable segm"):
        semantic_mask(picture(Thing(7, "dog", False, outline)))


def test_an_image_of_another_size_than_annotated_is_an_error(root):
    file = root / "train2014" / "COCO_train2014_000000000042.jpg"
    Image.new("RGB", (6, 8)).save(file)
    with pytest.raises(DataError, match=r"42\.jpg: height x width is 8 x 6, .*instances\.json says 6 x 8"):
        manifest_of(root)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("images", None, "'images' is missing"),
        ("annotations", [note(1, 7, DOG, [])], "annotation 1 is of an image 7"),
        ("annotations", [note(1, 9, 99, [])], "99 is missing"),
        ("categories", [{"id": 1, "name": "wasp"}], "the categories wasp are none of COCO's: .* `folders`"),
    ],
)
def test_annotations_of_another_form_are_an_error_naming_the_file(root, key, value, message):
    content = instances() | {key: value}
    if value is None:
        del content[key]
    save(root, content)
    with pytest.raises(DataError, match=rf"instances\.json: cannot be read .*{message}"):
        read_pictures(root / "instances.json")


def test_what_is_missing_is_named_with_the_layout(root):
    with pytest.raises(DataError, match=r"(?s)pictures: the folder of images does not exist.*cocodataset\.org"):
        manifest_of(root, images=root / "pictures")
    (root / "train2014" / "COCO_train2014_000000000042.jpg").unlink()
    with pytest.raises(DataError, match=r"COCO_train2014_000000000042\.jpg: the image does not exist"):
        manifest_of(root)
    (root / "instances.json").write_text('{"images": [')
    with pytest.raises(DataError, match=r"instances\.json: cannot be read"):
        manifest_of(root)
    (root / "instances.json").unlink()
    with pytest.raises(DataError, match=r"(?s)instances\.json: the file of annotations does not exist.*cocodataset"):
        manifest_of(root)


def test_the_number_of_labelled_images_is_that_of_the_complete_set(root, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(module, "LABELLED_OF", {3: 2})
    assert isinstance(manifest_of(root), Manifest)
    assert "the number of images with a class is that of COCO 2014" in caplog.text
    monkeypatch.setattr(module, "LABELLED_OF", {3: 1})
    with pytest.raises(DataError, match=r"instances\.json: 2 of its 3 images have a class, in COCO 2014 1 have"):
        manifest_of(root)
    assert len(manifest_of(root, classes=make_classes(COCO_CLASSES, keep=["dog", "cup"]))) == 3


def packed(mask):
    return packing.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"]


def test_packed_run_lengths_are_unpacked_as_pycocotools_does():
    rng = np.random.default_rng(0)
    for share in (0, 0.01, 0.5, 0.99, 1):
        mask = rng.random((70, 90)) < share
        counts = packed(mask)
        assert module._unpacked(counts) == run_lengths(mask.astype(int))["counts"]
        assert module._unpacked(counts.decode()) == module._unpacked(counts)


NAN, INFINITE = float("nan"), float("inf")
GOOD = packed(np.pad(np.ones((2, 2)), ((2, 2), (2, 4)))).decode()


@pytest.mark.parametrize(
    ("outline", "message"),
    [
        ([[1, 1, 5, 1, 5, NAN]], "a corner is no finite number"),
        ([[1, 1, 5, 1, 5, INFINITE]], "a corner is no finite number"),
        ([[1, 1, 5, 1, 5, 10**400]], ""),
        ([[1, 1, 1e9, 1, 5, 3]], "the corner 1000000000.0 is far outside of the image"),
        ([[1, -1e9, 5, 1, 5, 3]], "the corner -1000000000.0 is far outside of the image"),
        ([[1, 1, 5, 1, 5, 3], [1, 1, "x", 1, 5, 3]], ""),
        ([[1, 1, 5, 1, 5, [3]]], ""),
        ({"size": list(SIZE), "counts": GOOD + "1"}, "its run lengths are not those of 48 pixels"),
        ({"size": list(SIZE), "counts": GOOD[:-2]}, "its run lengths are not those of 48 pixels"),
        ({"size": list(SIZE), "counts": ""}, "its run lengths are not those of 48 pixels"),
        ({"size": list(SIZE), "counts": GOOD + "o"}, "its packed run lengths are cut short"),
        ({"size": list(SIZE), "counts": "\x00" + GOOD}, "its packed run lengths are damaged"),
        ({"size": list(SIZE), "counts": "oooooooooooo0"}, "its packed run lengths are damaged"),
        ({"size": list(SIZE), "counts": [-5, 53]}, "its run lengths are not those of 48 pixels"),
        ({"size": list(SIZE), "counts": [NAN, 48]}, ""),
        ({"size": list(SIZE), "counts": 48}, ""),
        ({"size": list(SIZE)}, "'counts' is missing"),
        (7, ""),
    ],
)
def test_a_damaged_outline_is_no_label_either(root, outline, message):
    content = instances()
    content["annotations"][2]["segmentation"] = outline
    save(root, content)
    named = rf"instances\.json: annotation 3 \(person\) of image 000000000042, 6 x 8, has no usable seg.*: {message}"
    with pytest.raises(DataError, match=named):
        manifest_of(root)
    with pytest.raises(DataError, match=named):
        make_masks(annotations=root / "instances.json", listed=None, folder=root / "masks")
    (root / "some.txt").write_text("9\n100\n")
    assert len(manifest_of(root, listed=root / "some.txt")) == 2  # which the damage has no part in


def test_outlines_may_reach_a_little_beyond_their_image():
    outline = [[-0.5, 1, 8.4, 1, 8.4, 3, -0.5, 3]]
    assert (semantic_mask(picture(Thing(1, "dog", False, outline)))[1:3] == 17).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"file_name": "../secret.jpg"}, r"image 42: the file_name '\.\./secret\.jpg' is none within the folder"),
        ({"file_name": "/etc/secret.jpg"}, "is none within the folder"),
        ({"file_name": None}, "is none within the folder"),
        ({"height": 0}, "image 42: height x width is 0 x 8"),
        ({"width": 10**9}, "image 42: height x width is 6 x 1000000000"),
        ({"width": "8"}, "image 42: height x width is 6 x '8'"),
        ({"id": -1}, "the image id -1 is no number"),
        ({"id": 9}, "two images have the same id"),
    ],
)
def test_an_entry_of_an_image_that_cannot_be_is_an_error(root, changes, message):
    content = instances() | {"annotations": []}
    content["images"][0] |= changes
    save(root, content)
    with pytest.raises(DataError, match=rf"instances\.json: cannot be read .*{message}"):
        read_pictures(root / "instances.json")


def test_annotations_may_begin_with_a_byte_order_mark_and_may_not_be_nested_without_end(root):
    (root / "instances.json").write_text(json.dumps(instances()), encoding="utf-8-sig")
    assert len(read_pictures(root / "instances.json")) == 3
    for text in ("[" * 100_000, "[]", "3", '{"images": 3, "annotations": [], "categories": []}'):
        (root / "instances.json").write_text(text)
        with pytest.raises(DataError, match=r"instances\.json: cannot be read as annotations"):
            read_pictures(root / "instances.json")
