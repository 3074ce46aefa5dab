"""Stores of instances: what goes in comes out, and nothing damaged is taken for whole."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import zarr
from torch.utils.data import DataLoader, Dataset

from wsss_core.base.files import whole
from wsss_core.data import Manifest, Row
from wsss_core.instances import store as module
from wsss_core.instances.store import Instances, InstanceStore, InstanceWriter, encoded_instances, instances_of
from wsss_core.maps.shards import StoreError

COUNTS = [2, 0, 5, 1, 3, 0]


@pytest.fixture
def manifest() -> Manifest:
    return Manifest.of([Row(f"image{k}", f"{k}.png", "", 20 + k, 30 - k, (0, 2)) for k in range(len(COUNTS))])


@pytest.fixture
def drawn(manifest) -> dict[str, Instances]:
    """Random instances; the third image has none."""
    rng = np.random.default_rng(0)
    return {
        row.id: instances_of(
            rng.random((count, row.height, row.width)) < 0.3, rng.integers(-1, 3, count), rng.random(count),
            rng.random(count) < 0.5,
        )
        for row, count in zip(manifest, COUNTS, strict=True)
    }  # fmt: skip


@pytest.fixture
def store(manifest, drawn, tmp_path, monkeypatch) -> InstanceStore:
    """Several chunks and shards of everything."""
    for name, size in {"CHUNK": 2, "SHARD": 4, "BYTE_CHUNK": 64, "BYTE_SHARD": 256}.items():
        monkeypatch.setattr(module, name, size)
    with InstanceWriter(tmp_path / "some.zarr", manifest, about={"run": "test"}) as out:
        for id, instances in drawn.items():
            out.write(id, instances)
    return InstanceStore(tmp_path / "some.zarr")


def assert_equal(one: Instances, other: Instances) -> None:
    assert one.masks == other.masks
    for mine, theirs in zip(one[1:], other[1:], strict=True):
        assert mine.dtype == theirs.dtype
        np.testing.assert_array_equal(mine, theirs)


def files(store: InstanceStore, name: str) -> list[Path]:
    return sorted(path for path in (store.path / name / "c").rglob("*") if path.is_file())


def test_instances_come_back(store, manifest, drawn):
    assert list(store) == manifest.ids
    assert [store.count(id) for id in store] == COUNTS
    for id in [*manifest.ids, *reversed(manifest.ids)]:
        assert_equal(store[id], drawn[id])
    assert len(files(store, "label")) == 3
    assert len(files(store, "run_lengths")) > 1


def test_boxes_and_areas_are_those_of_the_masks():
    masks = np.zeros((2, 6, 9), bool)
    masks[0, 2:5, 1:8] = True
    found = instances_of(masks, [4, -1])
    assert found.boxes.tolist() == [[1, 2, 8, 5], [0, 0, 0, 0]]
    assert found.areas.tolist() == [21, 0]
    assert found.scores.tolist() == [1, 1]
    assert not found.crowd.any()
    np.testing.assert_array_equal(found.dense(), masks)
    assert instances_of(np.zeros((0, 6, 9)), []).dense((6, 9)).shape == (0, 6, 9)


def test_some_are_kept(drawn):
    found = drawn["image2"]
    kept = found.kept(np.array([True, False, False, True, False]))
    assert_equal(kept, found.kept(np.array([0, 3])))
    np.testing.assert_array_equal(kept.dense(), found.dense()[[0, 3]])
    assert found.kept(np.zeros(5, bool)).masks == []


def test_numbers_that_do_not_belong_together_are_refused():
    with pytest.raises(ValueError, match="2 masks, but 1 labels, 2 scores and 2 marks of crowds"):
        encoded_instances(instances_of(np.ones((2, 3, 3)), [0, 0]).masks, [0], [1, 1])
    with pytest.raises(ValueError, match=r"masks are \(D, H, W\), got \(3, 3\)"):
        instances_of(np.ones((3, 3)), [])


def test_plain_zarr_reads_it(store, drawn, manifest):
    group = zarr.open(store.path, mode="r")
    assert group.attrs["wsss"].items() > store.about.items()
    assert store.about["layout"] == "wsss-instances/1"
    assert group["first_row"][:].tolist() == np.cumsum([0, *COUNTS]).tolist()
    assert group["label"][:].tolist() == [label for one in drawn.values() for label in one.labels]
    np.testing.assert_array_equal(group["box"][:], np.concatenate([one.boxes for one in drawn.values()]))
    lengths = group["run_lengths"][:].tobytes()
    assert lengths == b"".join(mask["counts"] for one in drawn.values() for mask in one.masks)
    assert group["length"][:].sum() == len(lengths)
    assert group["image_id"][:].tolist() == manifest.ids


def test_a_store_without_a_single_instance(manifest, tmp_path):
    nothing = instances_of(np.zeros((0, 1, 1)), [])
    with InstanceWriter(tmp_path / "none.zarr", manifest, about={}) as out:
        for row in manifest:
            out.write(row.id, nothing)
    assert InstanceStore(tmp_path / "none.zarr")["image3"].masks == []


def test_thousands_of_instances_of_a_picture(tmp_path):
    manifest = Manifest.of([Row("many", "many.png", "", 100, 100, (0,))])
    masks = np.eye(10000, dtype=bool)[:6000].reshape(-1, 100, 100)  # more than a chunk of them
    with InstanceWriter(tmp_path / "many.zarr", manifest, about={}) as out:
        out.write("many", instances_of(masks, [0] * 6000))
    found = InstanceStore(tmp_path / "many.zarr")["many"]
    assert found.areas.tolist() == [1] * 6000
    np.testing.assert_array_equal(found.kept(np.array([0, 4095, 4096, 5999])).dense(), masks[[0, 4095, 4096, 5999]])


# --- damage --------------------------------------------------------------------------------------------------------


def everything(path: Path) -> list:
    store = InstanceStore(path)
    return [store.about, *((id, store.size(id), one.masks, *map(np.ndarray.tolist, one[1:])) for id in store
                           for one in [store[id]])]  # fmt: skip


def test_a_flipped_bit_is_found_out_or_does_no_harm(store):
    sound, refusals = everything(store.path), []
    for file in [file for file in sorted(store.path.rglob("*")) if file.is_file()]:
        content = file.read_bytes()
        for bit in range(0, 8 * len(content), 8 * len(content) // 3 + 1):
            flipped = bytearray(content)
            flipped[bit // 8] ^= 1 << bit % 8
            file.write_bytes(flipped)
            try:
                assert everything(store.path) == sound, (file, bit)
            except StoreError as error:
                refusals.append(str(error))
        file.write_bytes(content)
    assert len(refusals) > 50
    assert all(str(store.path) in text for text in refusals)


@pytest.mark.parametrize("array", ["run_lengths", "length", "label", "score", "box", "area", "crowd"])
def test_a_lost_shard_is_an_error_not_an_empty_image(store, array):
    for path in files(store, array):
        path.unlink()
    with pytest.raises(StoreError, match=r"some\.zarr has lost a shard \(image image0\): delete it and run"):
        InstanceStore(store.path)["image0"]


@pytest.mark.parametrize("table", ["first_row", "first_byte", "checksum", "size", "image_id"])
def test_a_lost_table_is_an_error_too(store, table):
    for path in files(store, table):
        path.unlink()
    with pytest.raises(StoreError, match=rf"some\.zarr has lost its table {table}"):
        InstanceStore(store.path)["image0"]


@pytest.mark.parametrize("array", ["run_lengths", "label", "score", "box", "area", "crowd"])
def test_other_values_with_checksums_that_fit_are_an_error(store, array):
    values = zarr.open(store.path, mode="r+")[array]
    values[:] = values[:][::-1]
    with pytest.raises(StoreError, match=r"some\.zarr is damaged at image .* checksum"):
        list(map(InstanceStore(store.path).__getitem__, store))


@pytest.mark.parametrize("change", [{"complete": False}, {"layout": "wsss-maps/4"}])
def test_an_incomplete_store_or_another_layout_is_refused(store, change):
    path = store.path / "zarr.json"
    metadata = json.loads(path.read_text())
    metadata["attributes"]["wsss"] |= change
    path.write_text(json.dumps(metadata))
    with pytest.raises(StoreError, match=r"some\.zarr is not a complete store of layout wsss-instances/1: delete it"):
        InstanceStore(store.path)["image0"]


def test_a_store_of_another_manifest_is_refused(store, manifest):
    store.check(manifest)
    for changed in (manifest.rows[1:], [*manifest.rows[:-1], Row("image5", "5.png", "", 25, 25, (1,))]):
        with pytest.raises(StoreError, match=r"some\.zarr was made from another manifest: delete it and run its rule"):
            store.check(Manifest.of(changed))
    with pytest.raises(StoreError, match="holds no instances of image stranger: it was made from another manifest"):
        store["stranger"]


# --- writing and processes -----------------------------------------------------------------------------------------


def test_an_interrupted_writer_leaves_nothing(manifest, drawn, tmp_path):
    def write(count: int):
        with whole(tmp_path / "some.zarr") as folder, InstanceWriter(folder, manifest, about={}) as out:
            for id in manifest.ids[:count]:
                out.write(id, drawn[id])

    with pytest.raises(StoreError, match="4 of 6 images were written"):
        write(4)
    assert list(tmp_path.iterdir()) == []


def test_what_does_not_belong_is_refused(manifest, drawn, tmp_path):
    with (
        pytest.raises(ValueError, match="expected the instances of image0, got image1"),
        InstanceWriter(tmp_path / "1.zarr", manifest, about={}) as out,
    ):
        out.write("image1", drawn["image1"])
    with (
        pytest.raises(ValueError, match=r"a mask of image0 is \[22, 28\], not \[20, 30\]"),
        InstanceWriter(tmp_path / "2.zarr", manifest, about={}) as out,
    ):
        out.write("image0", drawn["image2"])
    broken = instances_of(np.ones((1, 20, 30)), [0], [np.nan])
    with (
        pytest.raises(FloatingPointError, match="a score of the instances of image0 is no number"),
        InstanceWriter(tmp_path / "3.zarr", manifest, about={}) as out,
    ):
        out.write("image0", broken)


class Samples(Dataset):
    def __init__(self, store: InstanceStore):
        self.store, self.ids = store, list(store)

    def __len__(self):
        return len(self.ids)

    def __getitem__(self, index):
        return self.store[self.ids[index]].dense()


def test_it_pickles_as_its_path_and_workers_read_it(store, drawn):
    assert len(pickle.dumps(store)) < 1000
    for id, masks in zip(store, DataLoader(Samples(store), batch_size=None, num_workers=1), strict=True):
        np.testing.assert_array_equal(masks, store[id].dense())
