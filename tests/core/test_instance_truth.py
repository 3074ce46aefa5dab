"""True objects of each kind of data set, components of masks, what a detector learns from, and COCO's form."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from scipy.io import savemat

from wsss_core.data import VOC_CLASSES, DataError, Manifest, Row, make_classes, make_demo, write_mask
from wsss_core.data.kinds import declared_manifest
from wsss_core.data.kinds.coco import COCO_CLASSES
from wsss_core.instances.components import components, make_components
from wsss_core.instances.export import to_coco, write_coco
from wsss_core.instances.labels import make_instance_labels
from wsss_core.instances.store import InstanceStore, InstanceWriter, instances_of
from wsss_core.instances.truth import make_instance_truth
from wsss_core.recipes.settings import ComponentSettings, InstanceLabelSettings
from wsss_core.scores.instances import instance_ap

SIZE = 12, 16
VOC = make_classes(VOC_CLASSES)
CAT, DOG = VOC_CLASSES.index("cat"), VOC_CLASSES.index("dog")


@pytest.fixture
def devkit(tmp_path) -> Path:
    """Image a: a cat, and two dogs with a border of void between them."""
    root = tmp_path / "VOC2012"
    for folder in ("SegmentationClass", "SegmentationObject"):
        (root / folder).mkdir(parents=True)
    numbers = np.zeros(SIZE, np.uint8)
    numbers[1:4, 1:6], numbers[6:11, 1:7], numbers[6:11, 8:15], numbers[6:11, 7] = 3, 1, 2, 255
    values = np.array([0, DOG + 1, DOG + 1, CAT + 1], np.uint8)
    save(root, numbers, np.where(numbers == 255, 255, values[np.where(numbers == 255, 0, numbers)]))
    return root


def save(root: Path, numbers: np.ndarray, mask: np.ndarray) -> None:
    grey = Image.fromarray(numbers.astype(np.uint8)).convert("P")
    grey.save(root / "SegmentationObject" / "a.png")
    write_mask(root / "SegmentationClass" / "a.png", mask.astype(np.uint8), VOC)


def row_of(root: Path, id: str = "a", **others) -> Row:
    values = {"mask": str(root / "SegmentationClass" / f"{id}.png"), "height": SIZE[0], "width": SIZE[1]} | others
    return Row(id, f"{id}.jpg", labels=(CAT, DOG), **values)


def truth_of(root: Path, *rows: Row, classes=VOC, **declared) -> InstanceStore:
    path = root.parent / "truth.zarr"
    make_instance_truth(
        declared={"kind": "voc", "root": str(root), "sbd": None, **declared},
        subset="train",
        root=None,
        manifest=Manifest.of(rows or [row_of(root)]),
        classes=classes,
        store=path,
        about={},
    )
    return InstanceStore(path)


def test_objects_of_voc_have_their_class_and_no_void(devkit):
    found = truth_of(devkit)["a"]
    assert found.labels.tolist() == [DOG, DOG, CAT]
    assert found.boxes.tolist() == [[1, 6, 7, 11], [8, 6, 15, 11], [1, 1, 6, 4]]
    assert found.areas.tolist() == [30, 35, 15]
    assert found.scores.tolist() == [1, 1, 1]
    assert truth_of(devkit).about["truth"] == "objects"


def test_a_dropped_class_is_no_object_and_an_image_may_have_none(devkit):
    cats = make_classes(VOC_CLASSES, keep=["cat"])
    assert truth_of(devkit, classes=cats)["a"].labels.tolist() == [0]
    save(devkit, np.zeros(SIZE), np.zeros(SIZE))
    found = truth_of(devkit)["a"]
    assert found.masks == []
    assert found.boxes.shape == (0, 4)


def test_objects_follow_the_size_that_stages_work_at(devkit):
    small = truth_of(devkit, row_of(devkit, height=6, width=8, full=SIZE))["a"]
    assert small.dense().shape == (3, 6, 8)
    assert small.boxes.tolist() == [[0, 3, 3, 5], [4, 3, 7, 5], [0, 0, 3, 2]]


@pytest.mark.parametrize(
    ("value", "said"), [(0, "background and dog"), (255, "dog and void"), (1, "aeroplane and dog")]
)
def test_objects_and_masks_that_disagree_are_named(devkit, value, said):
    numbers = np.array(Image.open(devkit / "SegmentationObject" / "a.png"))
    mask = np.where(numbers == 0, 0, DOG + 1)
    mask[7, 3] = value
    save(devkit, np.where(numbers == 1, 1, 0), mask)
    with pytest.raises(
        DataError, match=rf"SegmentationObject/a\.png: object 1 is {said} in .*Class/a\.png: an object ha"
    ):
        truth_of(devkit)


def test_missing_objects_are_said_with_the_way_out(devkit):
    (devkit / "SegmentationObject" / "a.png").unlink()
    with pytest.raises(
        DataError, match=r"there is no .*SegmentationObject/a\.png: unpack .* or set the data set's key"
    ):
        truth_of(devkit)
    with pytest.raises(DataError, match=r"there is no .*a\.png, nor .*/sbd/inst/a\.mat of SBD"):
        truth_of(devkit, sbd=str(devkit / "sbd"))
    with pytest.raises(DataError, match="declares no true objects"):
        truth_of(devkit, instances=None)


def test_objects_of_sbd(devkit):
    folder = devkit / "sbd" / "dataset" / "inst"
    folder.mkdir(parents=True)
    numbers = np.zeros(SIZE, np.uint8)
    numbers[:4, :4], numbers[6:, 6:] = 2, 1
    kinds = np.array([[DOG + 1], [CAT + 1]], np.float64)
    content = np.array([(numbers, kinds)], [("Segmentation", "O"), ("Categories", "O")])
    savemat(folder / "b.mat", {"GTinst": content.reshape(1, 1)})
    found = truth_of(devkit, row_of(devkit, "b", mask=""), sbd=str(devkit / "sbd"))["b"]
    assert found.labels.tolist() == [DOG, CAT]
    assert found.areas.tolist() == [60, 16]
    (folder / "b.mat").write_bytes(b"no matrix")
    with pytest.raises(DataError, match=r"b\.mat: cannot be read as objects of SBD"):
        truth_of(devkit, row_of(devkit, "b", mask=""), sbd=str(devkit / "sbd"))


def test_components_stand_in_for_objects_and_say_so(devkit):
    store = truth_of(devkit, instances="components")
    assert store["a"].areas.tolist() == [35, 30, 15]
    assert store.about["truth"] == "components"


def test_the_demo_has_the_objects_that_it_drew(tmp_path):
    make_demo(folder=tmp_path / "VOC2012", seed=0, images={"train": 6, "val": 1}, size=(48, 64), twins=1.0)
    declared = {"kind": "demo", "classes": None, "root": str(tmp_path / "VOC2012")}
    manifest = declared_manifest(declared, subset="train", root=tmp_path / "VOC2012", workers=1)
    classes = make_classes(["bird", "fish", "car", "tree", "house"])
    make_instance_truth(
        declared={"kind": "demo"}, subset="train", root=tmp_path / "VOC2012", manifest=manifest, classes=classes,
        store=tmp_path / "truth.zarr", about={},
    )  # fmt: skip
    store = InstanceStore(tmp_path / "truth.zarr")
    twins = 0
    for row in manifest:
        labels = store[row.id].labels.tolist()
        assert set(labels) == set(row.labels)
        twins += len(labels) > len(row.labels)
    assert twins


# --- COCO ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def coco(tmp_path) -> dict:
    """Image 42 with a dog, a cup and a crowd of persons, image 9 with nothing."""
    square = [[2, 2, 8, 2, 8, 9, 2, 9]]
    outlines = [(18, square, 0), (47, [[10, 1, 14, 1, 14, 5, 10, 5]], 0), (1, square, 1)]
    notes = [
        {"id": 7 + k, "image_id": 42, "category_id": category, "iscrowd": crowd, "segmentation": outline}
        for k, (category, outline, crowd) in enumerate(outlines)
    ]
    images = [{"id": id, "file_name": f"{id}.jpg", "height": SIZE[0], "width": SIZE[1]} for id in (42, 9)]
    names = {1: "person", 18: "dog", 47: "cup"}
    content = {"images": images, "annotations": notes, "categories": [{"id": i, "name": n} for i, n in names.items()]}
    (tmp_path / "images").mkdir()
    for image in images:
        Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(tmp_path / "images" / image["file_name"])
    (tmp_path / "notes.json").write_text(json.dumps(content))
    subset = {"images": "images", "annotations": "notes.json", "list": None}
    return {
        "kind": "coco", "classes": None, "root": str(tmp_path), "subsets": {"train": subset}, "masks": None,
        "made_masks": None,
    }  # fmt: skip


def test_objects_of_coco_keep_crowds_apart(coco, tmp_path):
    manifest, classes = declared_manifest(coco, subset="train", root=None, workers=1), make_classes(COCO_CLASSES)
    make_instance_truth(
        declared=coco,
        subset="train",
        root=None,
        manifest=manifest,
        classes=classes,
        store=tmp_path / "t.zarr",
        about={},
    )
    store = InstanceStore(tmp_path / "t.zarr")
    found = store["000000000042"]
    assert [COCO_CLASSES[label] for label in found.labels] == ["dog", "cup", "person"]
    assert found.crowd.tolist() == [False, False, True]
    assert found.boxes.tolist() == [[2, 2, 8, 9], [10, 1, 14, 5], [2, 2, 8, 9]]
    assert store["000000000009"].masks == []
    exported = to_coco(store, manifest, classes)
    assert [(one["image_id"], one["category_id"], one["iscrowd"]) for one in exported["annotations"]] == [
        (42, 18, 0), (42, 47, 0), (42, 1, 1),
    ]  # fmt: skip
    assert exported["annotations"][0]["bbox"] == [2, 2, 6, 7]


def test_exported_files_load_in_pycocotools_and_give_the_same_score(tmp_path):
    rng = np.random.default_rng(0)
    manifest = Manifest.of([Row(f"2007_{k:06d}", f"{k}.jpg", "", *SIZE, (0,)) for k in range(5)])
    classes = make_classes(["one", "two", "three"], keep=["one", "three"])
    masks = {name: rng.random((5, 4, *SIZE)) < 0.5 for name in ("truth", "found")}
    masks["found"][:, :3] = masks["truth"][:, :3] ^ (rng.random((5, 3, *SIZE)) < 0.12)
    labels, scores = rng.integers(0, 2, (5, 4)), rng.random((5, 4)).round(3)
    for name in masks:
        with InstanceWriter(tmp_path / f"{name}.zarr", manifest, about={}) as out:
            for k, row in enumerate(manifest):
                out.write(row.id, instances_of(masks[name][k], labels[k], scores[k] if name == "found" else None))
        store = InstanceStore(tmp_path / f"{name}.zarr")
        write_coco(tmp_path / f"{name}.json", store, manifest, classes, results=name == "found")
    truth = COCO(tmp_path / "truth.json")
    assert sorted(truth.getImgIds()) == [2007000000 + k for k in range(5)]
    assert truth.loadCats(truth.getCatIds()) == [{"id": 1, "name": "one"}, {"id": 3, "name": "three"}]
    evaluation = COCOeval(truth, truth.loadRes(str(tmp_path / "found.json")), "segm")
    evaluation.evaluate()
    evaluation.accumulate()
    expected = evaluation.eval["precision"][[0, 5], :, :, 0, -1].mean(1)
    assert 0.1 < expected.mean() < 1
    pairs = [[(m, c) for m, c in zip(masks["truth"][k], labels[k], strict=True)] for k in range(5)]
    found = [[(m, c, s) for m, c, s in zip(masks["found"][k], labels[k], scores[k], strict=True)] for k in range(5)]
    np.testing.assert_allclose(instance_ap(pairs, found, [0.5, 0.75], 2), expected)


# --- components and labels -----------------------------------------------------------------------------------------


def test_components_are_the_largest_pieces_of_each_class():
    mask = np.zeros((6, 8), np.uint8)
    mask[0, :3], mask[2:4, 0:2], mask[4, 2], mask[5, 5:], mask[5, 4] = 1, 2, 2, 1, 255  # the two of 2 share a corner
    found, labels = components(mask)
    assert labels.tolist() == [1, 0, 0, 1]
    assert found.sum((1, 2)).tolist() == [4, 3, 3, 1]
    assert components(mask, limit=2)[1].tolist() == [1, 0]
    assert components(mask, smallest=3)[0].sum() == 10
    assert components(np.full((4, 4), 255, np.uint8))[0].shape == (0, 4, 4)


def test_thousands_of_components_are_cut_to_the_limit():
    noise = (np.indices((300, 300)).sum(0) % 2).astype(np.uint8)
    noise[10:20, 10:30] = 1
    found, labels = components(noise, limit=5)
    assert (len(found), set(labels.tolist())) == (5, {0})
    assert found[0].sum() > 200


def test_components_have_the_score_of_their_map_and_scraps_have_none(tiny, tmp_path, write_store):
    """Maps are the true masks at stride 4, one class half as high; a scrap of two pixels is in the first mask."""
    manifest = Manifest.of(tiny.manifest.rows[:2])
    (tmp_path / "masks").mkdir()
    maps = {}
    for row in manifest:
        mask = np.where(tiny.mask(row) == 255, 0, tiny.mask(row))
        if row.id == "image0":
            mask[30, 40:42] = row.labels[0] + 1
        write_mask(tmp_path / "masks" / f"{row.id}.png", mask.astype(np.uint8), tiny.classes)
        small = mask[::4, ::4]
        grid = np.zeros((len(row.labels), *(side // 4 for side in (row.height, row.width))), np.float32)
        for place, label in enumerate(row.labels):
            grid[place, : small.shape[0], : small.shape[1]] = (small == label + 1) * (3.0 if place == 0 else 1.5)
        maps[row.id] = grid
    make_components(
        manifest=manifest, classes=tiny.classes, masks=tmp_path / "masks",
        maps=write_store(tmp_path / "m.zarr", manifest, maps), store=tmp_path / "c.zarr", settings=ComponentSettings(),
        about={},
    )  # fmt: skip
    store = InstanceStore(tmp_path / "c.zarr")
    first = store["image0"]
    assert first.labels.tolist() == [tiny.manifest.rows[0].labels[0]] * 2
    assert first.areas.tolist() == [132, 2]
    assert first.scores.tolist() == [1, 0]
    second = store["image1"]
    assert dict(zip(second.labels.tolist(), second.scores.tolist(), strict=True)) == pytest.approx(
        {label: 1.0 if place == 0 else 0.5 for place, label in enumerate(manifest.rows[1].labels)}
    )
    labelled = tmp_path / "labels.zarr"
    settings = InstanceLabelSettings(0.6)
    make_instance_labels(manifest=manifest, instances=store, store=labelled, settings=settings, about={"run": "x"})
    kept = InstanceStore(labelled)
    assert [kept.count(id) for id in kept] == [1, 1]
    assert not kept["image1"].crowd.any()


def test_a_detector_needs_an_instance_of_a_class_of_its_image(tmp_path):
    """The first image has an instance of another class, the second one that is not sure."""
    manifest = Manifest.of([Row(id, f"{id}.jpg", "", *SIZE, (2,)) for id in "ab"])
    with InstanceWriter(tmp_path / "found.zarr", manifest, about={}) as out:
        out.write("a", instances_of(np.ones((1, *SIZE)), [1], [0.9]))
        out.write("b", instances_of(np.ones((1, *SIZE)), [2], [0.2]))
    found, settings = InstanceStore(tmp_path / "found.zarr"), InstanceLabelSettings(0.3)
    with pytest.raises(
        DataError, match=r"no instance of its 2 images has a score of 0\.3 or more .* set instances\.labels"
    ):
        make_instance_labels(
            manifest=manifest, instances=found, store=tmp_path / "labels.zarr", settings=settings, about={}
        )
    assert not (tmp_path / "labels.zarr").exists()
