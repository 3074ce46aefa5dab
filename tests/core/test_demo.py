"""The made-up data set: the same from the same seed, and as hard as it says."""

import filecmp
import xml.etree.ElementTree as ET

import cv2
import numpy as np
import pytest

from wsss_core.data import DEMO_CLASSES, VOID, make_classes, make_demo, read_mask, voc_manifest
from wsss_core.data.kinds.demo import KINDS, PORTRAIT, draw_picture

CLASSES = make_classes(DEMO_CLASSES)
SIZE = (48, 64)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo") / "VOC2012"
    make_demo(folder=folder, seed=5, images={"train": 20, "val": 5}, size=SIZE)
    return folder


@pytest.fixture(scope="module")
def pictures():
    return [draw_picture(seed=1, split="train", index=index, size=(96, 128)) for index in range(40)]


def files_of(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_the_same_seed_gives_the_same_files_and_more_images_keep_the_first(folder, tmp_path):
    make_demo(folder=tmp_path / "again", seed=5, images={"val": 7}, size=SIZE)
    ours = [path for path in files_of(folder) if "val_" in path]
    assert len(ours) == 20  # five pictures: themselves, annotations, two masks
    assert filecmp.cmpfiles(folder, tmp_path / "again", ours, shallow=False) == (ours, [], [])


def test_another_seed_or_split_gives_other_pictures():
    first, *others = (
        draw_picture(seed=seed, split=split, index=3, size=SIZE)[0].astype(int)
        for seed, split in ((1, "train"), (2, "train"), (1, "val"))
    )
    assert all(other.shape != first.shape or np.abs(other - first).mean() > 5 for other in others)


def test_it_is_read_like_voc_and_its_labels_are_those_of_its_masks(folder):
    for subset, count in {"train": 20, "val": 5}.items():
        manifest = voc_manifest(root=folder, subset=subset, classes=CLASSES, workers=2)
        assert len(manifest) == count
        for row in manifest:
            values = np.unique(read_mask(row.mask, CLASSES, (row.height, row.width)))
            assert {value - 1 for value in values.tolist()} - {-1, VOID - 1} == set(row.labels)
            assert {row.height, row.width} == set(SIZE)


def test_boxes_are_those_of_the_masks(folder):
    alone = 0
    for path in sorted((folder / "Annotations").iterdir()):
        boxes = [[int(side.text) for side in box] for box in ET.parse(path).getroot().iter("bndbox")]
        if len(boxes) > 1:
            continue
        mask = read_mask(folder / "SegmentationClass" / f"{path.stem}.png", CLASSES)
        ys, xs = np.nonzero((mask != 0) & (mask != VOID))
        assert boxes == [[xs.min() + 1, ys.min() + 1, xs.max() + 1, ys.max() + 1]]
        alone += 1
    assert alone > 3


def test_every_kind_begins_as_many_pictures(pictures):
    first = [boxes[0][0] for _, _, boxes, _ in pictures]
    assert {name: first.count(name) for name in DEMO_CLASSES} == dict.fromkeys(DEMO_CLASSES, 8)


def test_pictures_hold_one_to_three_objects_on_a_tenth_to_four_tenths_of_their_area(pictures):
    counts = [len(boxes) for _, _, boxes, _ in pictures]
    covered = [np.mean((mask != 0) & (mask != VOID)) for _, mask, _, _ in pictures]
    assert set(counts) == {1, 2, 3}
    assert min(covered) > 0.1
    assert max(covered) < 0.4
    upright = np.mean([mask.shape == (128, 96) for _, mask, _, _ in pictures])
    assert abs(upright - PORTRAIT) < 0.2


def test_some_objects_touch_others_of_another_kind(pictures):
    """Void beside two kinds within two pixels."""
    touching = 0
    for _, mask, _, _ in pictures:
        left, right = mask[:, :-2], mask[:, 2:]
        kinds = (left != right) & (left != 0) & (right != 0) & (left != VOID) & (right != VOID)
        touching += bool((kinds & (mask[:, 1:-1] == VOID)).any())
    assert touching >= 4


def test_objects_have_a_border_of_void_one_pixel_wide(pictures):
    for _, mask, _, _ in pictures:
        void = mask == VOID
        labels = np.where(void, 0, mask).astype(int)
        for one, other in ((labels[:-1], labels[1:]), (labels[:, :-1], labels[:, 1:])):
            assert not ((one != other) & (one > 0) & (other > 0)).any()
        assert 0.01 < void.mean() < 0.12


@pytest.mark.parametrize("name", DEMO_CLASSES)
def test_the_telling_part_is_small_and_its_contrast_high(name):
    sprite = KINDS[name].draw(np.random.default_rng(0))
    assert 0.10 < sprite.part.sum() / sprite.body.sum() < 0.18
    inside = sprite.part > 0
    assert sprite.pattern[inside].std(0).max() > 2 * sprite.shade[(sprite.body > 0) & ~inside].std()
    assert abs(sprite.shade[(sprite.body > 0) & ~inside].mean()) < 1e-4


def test_the_numbers_of_objects_and_the_masks_agree(pictures):
    for _, mask, boxes, numbers in pictures:
        assert ((mask == 0) == (numbers == 0)).all()
        assert ((mask == VOID) == (numbers == VOID)).all()
        for number, (name, (left, top, right, bottom)) in enumerate(boxes, start=1):
            ys, xs = np.nonzero(numbers == number)
            assert set(mask[ys, xs].tolist()) == {DEMO_CLASSES.index(name) + 1}
            # the border that an object in front has lies on the one behind
            assert left - 1 <= xs.min() <= xs.max() <= right - 1
            assert top - 1 <= ys.min() <= ys.max() <= bottom - 1


def test_twins_are_of_a_kind_that_is_there_and_some_touch(pictures):
    twins = touching = 0
    for index, (_, _, before, _) in enumerate(pictures):
        _, _, boxes, numbers = draw_picture(seed=1, split="train", index=index, size=(96, 128), twins=1.0)
        names = [name for name, _ in boxes]
        assert names[: len(before)] == [name for name, _ in before]
        if len(boxes) == len(before):
            continue  # no place
        twins += 1
        assert len(boxes) == len(before) + 1
        assert names[-1] in names[:-1]
        partners = [number for number, name in enumerate(names[:-1], start=1) if name == names[-1]]
        near = cv2.dilate((numbers == len(names)).astype(np.uint8), np.ones((5, 5)))
        touching += bool((near.astype(bool) & np.isin(numbers, partners)).any())
    assert twins > 20
    assert 0.25 * twins < touching < twins


def test_pictures_without_a_twin_stay_what_they_are(pictures):
    for index, found in enumerate(pictures[:10]):
        again = draw_picture(seed=1, split="train", index=index, size=(96, 128), twins=1.0)
        if len(again[2]) == len(found[2]):
            np.testing.assert_array_equal(again[0], found[0])
