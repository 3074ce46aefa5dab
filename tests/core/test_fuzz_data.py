"""Random damage to tables of labels, lists, annotations, pictures and masks: an error that names a file, or no harm."""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from damage import CASES, damaged, kept_within
from PIL import Image

from wsss_core.data import DataError, Manifest, folder_manifest, make_classes, write_mask
from wsss_core.data.kinds.coco import COCO_CLASSES, coco_manifest, make_masks
from wsss_core.data.kinds.voc import VOC_CLASSES, voc_manifest

pytestmark = pytest.mark.fuzz


@pytest.fixture(autouse=True)
def watched(tmp_path):
    with kept_within(tmp_path):
        yield


SIZE = 6, 8
IDS = ("a", "b", "c")
NAMES = ("hot dog", "bee", "cow")


def outcome(make: Callable[[], Manifest]) -> list | DataError:
    """(id, height, width, labels) of a manifest's images, or the error; one of another kind is let through."""
    try:
        return [(row.id, row.height, row.width, row.labels) for row in make()]
    except DataError as error:
        return error


def check_message(text: str, names: set[str]) -> None:
    """One line that names a file, or a line for each of several images."""
    head, *others = text.splitlines()
    for line in others if "images of the split are faulty" in head else [head]:
        assert any(name in line for name in names), text
    assert len(text) < 2000 or others


def attack(path: Path, make: Callable[[], Manifest], *names: str) -> list[list]:
    """The rows that are read of a file's damaged versions, where there is no error; the file is put back."""
    content, found = path.read_bytes(), []
    for seed in range(CASES):
        path.write_bytes(damaged(content, random.Random(f"{path.name} {seed}")))
        try:
            result = outcome(make)
            if isinstance(result, DataError):
                check_message(str(result), {path.name, *names})
            else:
                found.append(result)
        except Exception as error:
            raise AssertionError(f"{path.name}, seed {seed}: {path.read_bytes()[:2000]!r}") from error
    path.write_bytes(content)
    assert len(found) < CASES
    return found


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def folders(tmp_path):
    for id, suffix in zip(IDS, ("jpg", "png", "tif"), strict=True):
        picture(tmp_path / f"images/{id}.{suffix}")
        write_mask(tmp_path / f"masks/{id}.png", np.eye(*SIZE, dtype=np.uint8), make_classes(NAMES))
    (tmp_path / "train.txt").write_text("c\na\nb\n")
    (tmp_path / "labels.csv").write_text('image_id,classes\na,cow;hot dog\nb,\nc,"bee"\n')
    return tmp_path


def from_folders(root):
    return folder_manifest(
        images=root / "images",
        masks=root / "masks",
        split=root / "train.txt",
        labels=root / "labels.csv",
        classes=make_classes(NAMES),
        drop_unlabelled=False,
        workers=1,
    )


@pytest.mark.parametrize("name", ["labels.csv", "train.txt"])
def test_damaged_tables_and_lists(folders, name):
    sound = {row.id: row for row in from_folders(folders)}
    for rows in attack(folders / name, lambda: from_folders(folders), "the split"):
        assert {id for id, *_ in rows} <= set(IDS)
        assert all((height, width) == SIZE and set(labels) <= {0, 1, 2} for _, height, width, labels in rows)
        if name == "train.txt":
            assert all(labels == sound[id].labels for id, *_, labels in rows)


@pytest.mark.parametrize("name", ["images/a.jpg", "images/b.png", "images/c.tif", "masks/a.png"])
def test_damaged_pictures_and_masks(folders, name):
    for rows in attack(folders / name, lambda: from_folders(folders), Path(name).stem + ".png"):
        assert [id for id, *_ in rows] == ["c", "a", "b"]


@pytest.mark.parametrize("name", ["labels.csv", "train.txt"])
def test_what_means_the_same_is_read_as_the_same(folders, name):
    path, rng = folders / name, random.Random(name)
    text, sound = path.read_text(), from_folders(folders).rows
    head, *rows = text.splitlines() if name == "labels.csv" else ["", *text.splitlines()]
    for _ in range(CASES // 5):
        lines = [
            f"{' ' * rng.randrange(2)}{line}{' ' * rng.randrange(2)}" if '"' not in line else line for line in rows
        ]
        if name == "labels.csv":
            rng.shuffle(lines)
        lines += [""] * rng.randrange(3)
        end = rng.choice(("\n", "\r\n"))
        lines = [head, *lines] if head else lines
        path.write_bytes((end.join(lines) + end).encode(rng.choice(("utf-8", "utf-8-sig"))))
        assert from_folders(folders).rows == sound


def test_damaged_annotations_of_voc(tmp_path):
    picture(tmp_path / "JPEGImages/a.jpg")
    for folder in ("Annotations", "ImageSets/Segmentation", "SegmentationClass"):
        (tmp_path / folder).mkdir(parents=True)
    write_mask(tmp_path / "SegmentationClass/a.png", np.zeros(SIZE, np.uint8), make_classes(VOC_CLASSES))
    (tmp_path / "ImageSets/Segmentation/train.txt").write_text("a\n")
    sides = "<xmin>1</xmin><ymin>2</ymin><xmax>5.5</xmax><ymax>4</ymax>"
    objects = "".join(f"<object><name>{name}</name><bndbox>{sides}</bndbox></object>" for name in ("dog", "cow"))
    text = f"<annotation><size><width>8</width><height>6</height></size>{objects}</annotation>"
    (tmp_path / "Annotations/a.xml").write_text(f'<?xml version="1.0" encoding="utf-8"?>{text}')

    def make():
        return voc_manifest(root=tmp_path, subset="train", classes=make_classes(VOC_CLASSES), workers=1)

    for rows in attack(tmp_path / "Annotations/a.xml", make, "the split"):
        assert [row[:3] for row in rows] == [("a", *SIZE)]


def test_damaged_annotations_of_coco(tmp_path):
    outlines = [[[1, 1, 5, 1, 5, 3]], {"size": list(SIZE), "counts": [8, 20, 20]}, {"size": list(SIZE), "counts": "`1"}]
    notes = [
        {"id": index, "image_id": 9, "category_id": 18, "iscrowd": index % 2, "segmentation": outline}
        for index, outline in enumerate(outlines)
    ]
    content = {
        "images": [{"id": id, "file_name": f"{id}.jpg", "height": SIZE[0], "width": SIZE[1]} for id in (9, 10)],
        "categories": [{"id": 18, "name": "dog"}, {"id": 21, "name": "cow"}],
        "annotations": notes,
    }
    for id in (9, 10):
        picture(tmp_path / f"images/{id}.jpg")
    file = tmp_path / "instances.json"
    file.write_text(json.dumps(content))

    def make():
        manifest = coco_manifest(
            images=tmp_path / "images",
            annotations=file,
            listed=None,
            classes=make_classes(COCO_CLASSES),
            ready_masks=None,
            made_masks=None,
            workers=1,
        )
        shutil.rmtree(tmp_path / "masks", ignore_errors=True)
        make_masks(annotations=file, listed=None, folder=tmp_path / "masks")
        return manifest

    for rows in attack(file, make, "images/", "the split"):
        assert all((height, width) == SIZE for _, height, width, _ in rows)


def test_damaged_manifests(tmp_path, folders):
    path = tmp_path / "manifest.csv"
    from_folders(folders).write(path)
    for rows in attack(path, lambda: Manifest.read(path)):
        for id, height, width, labels in rows:
            assert Path(id).name == id
            assert min(height, width, *labels) >= 0
