"""Proposals: overlaps, boxes, crops, published files, recall, stores."""

import json

import numpy as np
import pytest
from pycocotools import mask as run_lengths
from scipy.io import savemat

from wsss_core.data import DataError, Manifest
from wsss_core.data.pictures import read_image
from wsss_core.instances.store import Instances, InstanceStore, InstanceWriter, instances_of
from wsss_core.maps.shards import StoreError
from wsss_core.proposals.files import find_file, read_proposals
from wsss_core.proposals.grouping import group_superpixels
from wsss_core.proposals.making import import_proposals, make_declared_proposals, make_proposals
from wsss_core.proposals.overlaps import boxes, crops, overlaps, proposals_of
from wsss_core.proposals.recall import evaluate_proposals, recall
from wsss_core.recipes.settings import GroupingSettings, identity

SIZE = 12, 16


@pytest.fixture
def masks() -> np.ndarray:
    """Eight random blobs, one of them the whole picture."""
    rng = np.random.default_rng(3)
    found = rng.random((8, *SIZE)) < rng.uniform(0.1, 0.7, (8, 1, 1))
    found[5] = True
    return found


def pairwise(masks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    count = len(masks)
    iou, containment = np.zeros((count, count)), np.zeros((count, count))
    for i in range(count):
        for j in range(count):
            shared = (masks[i] & masks[j]).sum()
            iou[i, j] = shared / max((masks[i] | masks[j]).sum(), 1)
            containment[i, j] = shared / max(masks[j].sum(), 1)
    return iou, containment


# --- overlaps -----------------------------------------------------------------------------------------------------


def test_overlaps_are_those_of_pixels(masks):
    for found, expected in zip(overlaps(masks), pairwise(masks), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_containment_is_the_share_of_the_second_in_the_first():
    masks = np.zeros((2, *SIZE), bool)
    masks[0, :4, :4] = masks[1, :2, :1] = True
    assert overlaps(masks)[1].tolist() == [[1, 1], [2 / 16, 1]]


def test_an_empty_mask_overlaps_nothing(masks):
    masks[2] = False
    iou, containment = overlaps(masks)
    assert not iou[2].any()
    assert not iou[:, 2].any()
    assert not containment[2].any()
    assert not containment[:, 2].any()
    assert np.isfinite(iou).all()
    assert np.isfinite(containment).all()


def test_no_masks_have_no_overlaps_boxes_and_crops():
    nothing = np.zeros((0, *SIZE), bool)
    assert [part.shape for part in overlaps(nothing)] == [(0, 0), (0, 0)]
    assert boxes(nothing).shape == (0, 4)
    assert crops(nothing).shape == (0, 7, 7)


def test_more_masks_than_pycocotools_counts_in_a_byte():
    masks = np.zeros((300, 5, 60), bool)
    masks[np.arange(300), np.arange(300) // 60, np.arange(300) % 60] = True
    iou, _ = overlaps(masks)
    assert np.array_equal(iou, np.eye(300))
    assert proposals_of(masks).areas.tolist() == [1] * 300


def test_boxes_are_tight_and_their_ends_exclusive(masks):
    for mask, box in zip(masks, boxes(masks), strict=True):
        rows, columns = mask.any(1).nonzero()[0], mask.any(0).nonzero()[0]
        assert box.tolist() == [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]


@pytest.mark.parametrize("function", [boxes, crops])
def test_an_empty_mask_has_no_box(masks, function):
    masks[3] = False
    with pytest.raises(ValueError, match="mask 3 of 8 is empty"):
        function(masks)


def test_masks_of_another_form_are_refused():
    with pytest.raises(ValueError, match=r"\(12, 16\)"):
        overlaps(np.zeros(SIZE, bool))


def test_a_crop_takes_the_nearest_pixel_of_the_box():
    mask = np.zeros((1, 30, 40), bool)
    inside = np.random.default_rng(0).random((14, 21)) < 0.5
    inside[0, 0] = inside[-1, -1] = inside[0, -1] = inside[-1, 0] = True
    mask[0, 5:19, 8:29] = inside
    assert np.array_equal(crops(mask)[0], inside[::2, ::3])


def test_crops_of_many_masks_are_those_of_each(masks, monkeypatch):
    dense = []
    ours = Instances.dense
    monkeypatch.setattr(Instances, "dense", lambda self, *size: dense.append(len(self.masks)) or ours(self, *size))
    monkeypatch.setattr("wsss_core.proposals.overlaps.BLOCK", 3)
    found = crops(masks)
    assert dense == [3, 3, 2]  # so that memory does not grow with their number
    assert np.array_equal(found, np.concatenate([crops(mask[None]) for mask in masks]))


def test_a_crop_of_a_box_smaller_than_itself_repeats_pixels():
    mask = np.zeros((1, *SIZE), bool)
    mask[0, 3, 4] = mask[0, 4, 5] = True
    expected = np.zeros((7, 7), bool)
    expected[:4, :4] = expected[4:, 4:] = True  # floor(i * 2 / 7) is 0 up to 3
    assert np.array_equal(crops(mask)[0], expected)


# --- files --------------------------------------------------------------------------------------------------------


def cells(arrays: list[np.ndarray]) -> np.ndarray:
    found = np.empty((len(arrays), 1), object)
    for place, array in enumerate(arrays):
        found[place, 0] = array
    return found


@pytest.fixture
def superpixels() -> np.ndarray:
    """From 1: three columns of superpixels of two rows each."""
    return (np.arange(12)[:, None] // 6 * 3 + np.arange(16) // 6 + 1).astype(np.uint16)


@pytest.fixture
def released(tmp_path, superpixels):
    """A file as COB and MCG have them."""

    def write(**changes):
        labels = [np.array([[1, 2]]), np.array([[5]]), np.array([[1], [4], [6]])]
        content = {"superpixels": superpixels, "labels": cells(labels), "scores": np.array([[0.9], [0.5], [0.25]])}
        path = tmp_path / "image.mat"
        savemat(path, content | changes, do_compression=True)
        return path

    return write


def test_proposals_of_cob_are_unions_of_superpixels(released, superpixels):
    found = read_proposals(released(), SIZE, 10)
    expected = [np.isin(superpixels, own) for own in ([1, 2], [5], [1, 4, 6])]
    assert np.array_equal(found.dense(), expected)
    assert found.scores.tolist() == pytest.approx([0.9, 0.5, 0.25])
    assert found.labels.tolist() == [-1] * 3


def test_the_first_ones_are_taken_and_empty_ones_do_not_count(released, superpixels):
    labels = [np.zeros((1, 0)), *(np.array([[1 + n % 6]]) for n in range(100))]
    path = released(labels=cells(labels), scores=np.linspace(1, 0, 101))
    found = read_proposals(path, SIZE, 80)
    assert len(found.masks) == 80
    assert found.scores[0] == pytest.approx(0.99)
    assert np.array_equal(found.dense()[70], superpixels == 70 % 6 + 1)


@pytest.mark.parametrize("own", [[0], [7], [1, 2, 900]])
def test_a_superpixel_that_is_not_there_is_an_error(released, own):
    path = released(labels=cells([np.array([own])]), scores=np.ones(1))
    with pytest.raises(DataError, match=r"image\.mat: a proposal names a superpixel that is not from 1 to 6"):
        read_proposals(path, SIZE, 10)


def test_scores_of_another_number_are_an_error(released):
    with pytest.raises(DataError, match="3 proposals and 2 scores"):
        read_proposals(released(scores=np.ones(2)), SIZE, 10)


def test_a_score_that_is_no_number_is_an_error(released):
    with pytest.raises(DataError, match="a score is no number"):
        read_proposals(released(scores=np.array([1, np.nan, 0])), SIZE, 10)


@pytest.mark.parametrize("kind", ["voc", "coco"])
def test_both_forms_of_maskmat(tmp_path, masks, kind):
    masks[4] = False
    content = cells([mask.astype(np.uint8) for mask in masks]) if kind == "voc" else masks.astype(np.uint8)
    savemat(tmp_path / "a.mat", {"maskmat": content})
    found = read_proposals(tmp_path / "a.mat", SIZE, 100)
    assert np.array_equal(found.dense(), np.delete(masks, 4, 0))
    assert found.scores.tolist() == [1] * 7


@pytest.mark.parametrize("content", [{"maskmat": np.ones((2, 16, 12))}, {"maskmat": cells([np.ones((16, 12))])}])
def test_masks_of_another_size_are_an_error(tmp_path, content):
    savemat(tmp_path / "a.mat", content)
    with pytest.raises(DataError, match=r"a\.mat: a mask has 12 x 16 pixels, its picture 16 x 12"):
        read_proposals(tmp_path / "a.mat", SIZE, 10)


def test_superpixels_of_another_size_are_an_error(released):
    with pytest.raises(DataError, match="its superpixels have 16 x 12 pixels, its picture 12 x 16"):
        read_proposals(released(), (16, 12), 10)


def test_a_foreign_file_is_named_with_what_it_holds(tmp_path):
    savemat(tmp_path / "a.mat", {"boxes": np.ones((3, 4)), "names": "x"})
    with pytest.raises(DataError, match=r"a\.mat holds boxes, names, not `superpixels`"):
        read_proposals(tmp_path / "a.mat", SIZE, 10)


def test_matlab_7_3_is_refused_with_the_way_out(tmp_path):
    head = b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM"
    (tmp_path / "a.mat").write_bytes(head.ljust(512, b"\0") + b"\x89HDF\r\n\x1a\n")
    with pytest.raises(DataError, match=r"a\.mat is a file of MATLAB 7\.3: save it in the older form") as caught:
        read_proposals(tmp_path / "a.mat", SIZE, 10)
    assert "\n" not in str(caught.value)


def test_damaged_files_are_named(released):
    path = released()
    whole, rng, messages = path.read_bytes(), np.random.default_rng(0), []
    for _ in range(60):
        damaged = bytearray(whole[: rng.integers(len(whole))] if rng.random() < 0.5 else whole)
        for place in rng.integers(0, max(len(damaged), 1), 4):
            if damaged:
                damaged[place] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            read_proposals(path, SIZE, 10)
        except DataError as error:  # any other error fails the test
            messages.append(str(error))
    assert len(messages) > 30
    assert all(str(path) in message and "\n" not in message for message in messages)


def test_masks_of_ones_own_in_json(tmp_path, masks):
    encoded = proposals_of(masks).masks
    listed = [
        {"segmentation": m | {"counts": m["counts"].decode()}, "score": 1 - n / 10} for n, m in enumerate(encoded)
    ]
    counts = [int(run) for run in np.diff(np.flatnonzero(np.diff(np.r_[-1, masks[0].T.ravel(), 2])))]
    uncompressed = [0, *counts] if masks[0, 0, 0] else counts
    sam = {"annotations": [{"segmentation": {"size": list(SIZE), "counts": uncompressed}, "predicted_iou": 0.25}]}
    (tmp_path / "a.json").write_text(json.dumps(listed))
    (tmp_path / "b.json").write_text(json.dumps(sam))
    found, one = (read_proposals(tmp_path / name, SIZE, 100) for name in ("a.json", "b.json"))
    assert np.array_equal(found.dense(), masks)
    assert found.scores.tolist() == pytest.approx([1 - n / 10 for n in range(8)])
    (tmp_path / "a.json").write_text(json.dumps([*listed[4:], *listed[:4]]))  # they may be in any order
    assert np.array_equal(read_proposals(tmp_path / "a.json", SIZE, 3).dense(), masks[:3])
    assert np.array_equal(one.dense(), masks[:1])
    assert one.scores.tolist() == [0.25]


@pytest.mark.parametrize(
    "text",
    ["", "[1]", '{"images": []}', '[{"segmentation": {"size": [12, 16], "counts": [1, 2]}}]',
     '[{"segmentation": {"size": [12, 16], "counts": [-1, 193]}}]'],
)  # fmt: skip
def test_other_json_is_refused(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(DataError, match=r"a\.json cannot be read as proposals"):
        read_proposals(tmp_path / "a.json", SIZE, 10)


def test_files_are_found_by_their_names_of_2014(tmp_path):
    for name in ("COCO_val2014_000000000042.mat", "000000000009.json"):
        (tmp_path / name).touch()
    assert find_file(tmp_path, "000000000042").name == "COCO_val2014_000000000042.mat"
    assert find_file(tmp_path, "000000000009").name == "000000000009.json"
    with pytest.raises(DataError, match=r"no proposals of image 000000000001 .*superpixels.*maskmat.*grouping"):
        find_file(tmp_path, "000000000001")


# --- recall -------------------------------------------------------------------------------------------------------


def squares(*sides: int) -> np.ndarray:
    masks = np.zeros((len(sides), 20, 20), bool)
    for mask, side in zip(masks, sides, strict=True):
        mask[:side, :side] = True
    return masks


def test_recall_by_hand():
    proposals = instances_of(squares(4, 10, 8), [-1] * 3)
    truth = instances_of(squares(10, 6, 20, 10), [0, 1, 1, 0], crowd=[False, False, False, True])
    found = recall([(proposals, truth)], counts=(1, 2), thresholds=(0.5, 0.15))
    # best of the first: 16/100, 16/36, 16/400; of two: 1, 36/100 or 16/36, 100/400; of all: 1, 36/64, 100/400
    assert (found["objects"], found["proposals"]) == (3, 3.0)
    assert found["first"]["1"]["recall"] == {"0.5": 0, "0.15": pytest.approx(2 / 3)}
    assert found["first"]["2"]["recall"] == {"0.5": pytest.approx(1 / 3), "0.15": 1}
    assert found["first"]["all"]["recall"]["0.5"] == pytest.approx(2 / 3)
    assert found["first"]["all"]["overlap"] == pytest.approx((1 + 36 / 64 + 0.25) / 3)
    assert found["first"]["all"]["class_overlap"] == pytest.approx((1 + (36 / 64 + 0.25) / 2) / 2)


def test_a_picture_without_proposals_finds_nothing_but_counts():
    truth = instances_of(squares(10), [0])
    found = recall([(instances_of(squares(), []), truth), (instances_of(squares(10), [-1]), truth)])
    assert found["first"]["10"]["recall"]["0.5"] == 0.5


def test_recall_without_objects_is_an_error():
    with pytest.raises(ValueError, match="needs true objects"):
        recall([(instances_of(squares(4), [-1]), instances_of(squares(), []))])


# --- stores -------------------------------------------------------------------------------------------------------


def test_our_own_proposals_of_a_split(tiny, tmp_path, monkeypatch, through_pickles):
    monkeypatch.setattr("wsss_core.proposals.making.in_processes", through_pickles)
    settings = GroupingSettings(superpixels=30, smallest=0.02, limit=10)
    make_proposals(manifest=tiny.manifest, store=tmp_path / "p.zarr", settings=settings, about={"run": "x"}, workers=2)
    store = InstanceStore(tmp_path / "p.zarr")
    store.check(tiny.manifest)
    assert store.about["settings"]["limit"] == 10
    row = tiny.manifest.rows[3]
    assert store[row.id].masks == group_superpixels(np.asarray(read_image(row.image)), settings).masks


def test_files_of_a_split(tiny, tmp_path):
    rows = tiny.manifest.rows[:2]
    for row in rows:
        savemat(tmp_path / f"{row.id}.mat", {"maskmat": np.ones((3, row.height, row.width), np.uint8)})
    import_proposals(
        manifest=Manifest.of(rows), folder=tmp_path, store=tmp_path / "p.zarr", limit=2, about={"run": "x"}
    )
    store = InstanceStore(tmp_path / "p.zarr")
    assert [store.count(row.id) for row in rows] == [2, 2]
    assert "PASCAL-Context" in store.about["supervision"]
    assert run_lengths.area(store[rows[0].id].masks).tolist() == [rows[0].height * rows[0].width] * 2


def test_declared_proposals_are_made_or_read(tiny, tmp_path):
    manifest = Manifest.of(tiny.manifest.rows[:2])
    for row in manifest.rows:
        savemat(tmp_path / f"{row.id}.mat", {"maskmat": np.ones((3, row.height, row.width), np.uint8)})
    how = {"manifest": manifest, "about": {}}
    files = {"kind": "files", "limit": 1, "supervision": "clicks"}
    make_declared_proposals(declared=files, folder=tmp_path, store=tmp_path / "read.zarr", **how)
    read = InstanceStore(tmp_path / "read.zarr")
    assert (read.about["supervision"], read.about["limit"], read.count(manifest.ids[0])) == ("clicks", 1, 1)
    grouping = {"kind": "grouping", "superpixels": 30, "smallest": 0.02, "limit": 5}
    make_declared_proposals(declared=grouping, folder=None, store=tmp_path / "made.zarr", **how)
    made = InstanceStore(tmp_path / "made.zarr")
    settings = GroupingSettings(superpixels=30, smallest=0.02, limit=5)
    row = manifest.rows[0]
    assert made[row.id].masks == group_superpixels(np.asarray(read_image(row.image)), settings).masks
    assert made.about["settings"] == identity(settings)


def test_recall_of_a_split_tells_what_the_proposals_were_learnt_from(tiny, tmp_path):
    manifest = Manifest.of(tiny.manifest.rows[:2])
    for name, about in (("truth", {"truth": "objects"}), ("proposals", {"supervision": "clicks"})):
        with InstanceWriter(tmp_path / name, manifest, about=about) as out:
            for place, row in enumerate(manifest.rows):
                masks = np.zeros((1, row.height, row.width), bool)
                masks[0, : 8 if place or name == "truth" else 3, :8] = True
                out.write(row.id, instances_of(masks, [0]))
    truth, proposals = (InstanceStore(tmp_path / name) for name in ("truth", "proposals"))
    found = evaluate_proposals(manifest=manifest, proposals=proposals, truth=truth, counts=(1,), thresholds=(0.5, 0.3))
    assert (found["images"], found["supervision"], found["true_objects_from"]) == (2, "clicks", "objects")
    assert found["first"]["1"]["recall"] == {"0.5": 0.5, "0.3": 1.0}
    with pytest.raises(StoreError, match="another manifest"):
        evaluate_proposals(manifest=Manifest.of(tiny.manifest.rows[:1]), proposals=proposals, truth=truth)


def test_a_missing_file_leaves_no_store(tiny, tmp_path):
    with pytest.raises(DataError, match="no proposals of image image0"):
        import_proposals(manifest=tiny.manifest, folder=tmp_path, store=tmp_path / "p.zarr", limit=2, about={})
    assert not (tmp_path / "p.zarr").exists()
