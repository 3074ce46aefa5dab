"""Stores of maps: what goes in comes out, and nothing damaged is taken for whole."""

import errno
import json
import operator
import pickle
import shutil
import threading
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import zarr
from torch.utils.data import DataLoader, Dataset
from zarr.storage import LocalStore

from wsss_core.base.files import whole
from wsss_core.data import Manifest, Row
from wsss_core.maps import shards as shard_files
from wsss_core.maps import store as module
from wsss_core.maps.sizes import cells, full_size
from wsss_core.maps.store import MapStore, MapWriter, StoreError


@pytest.fixture
def manifest(tiny) -> Manifest:
    """The tiny images, and in their middle one without labels."""
    rows = list(tiny.manifest)
    return Manifest.of([*rows[:4], Row("plain", "plain.png", "", 20, 30, ()), *rows[4:]])


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr(module, "SHARD", 5)


@pytest.fixture
def store(manifest, tmp_path, random_maps, write_store, small_shards) -> MapStore:
    return write_store(tmp_path / "cams.zarr", manifest, random_maps(manifest))


def shards(store: MapStore, name: str = "map") -> list[Path]:
    return sorted(path for path in (store.path / name / "c").rglob("*") if path.is_file())


class Samples(Dataset):
    def __init__(self, store: MapStore, ids: list[str]):
        self.store, self.ids = store, ids

    def __len__(self):
        return len(self.ids)

    def __getitem__(self, index):
        return self.store[self.ids[index]]


def test_maps_come_back_within_half_precision(store, manifest, random_maps):
    expected = random_maps(manifest)
    assert list(store) == manifest.ids
    assert len(store) == len(manifest)
    for row in manifest:
        labels, maps = store[row.id]
        assert tuple(labels) == row.labels
        assert maps.dtype == np.float32
        assert maps.shape == (len(row.labels), cells(row.height, 4), cells(row.width, 4))
        np.testing.assert_allclose(maps, expected[row.id], rtol=2**-11, atol=1e-7)
        assert store.size(row.id) == (row.height, row.width)


def test_rows_fill_several_shards_and_the_last_one_in_part(store, manifest):
    rows = sum(len(row.labels) for row in manifest)
    assert (rows, len(shards(store))) == (12, 3)


def test_an_image_without_labels_has_no_maps(store):
    labels, maps = store["plain"]
    assert labels.shape == (0,)
    assert maps.shape == (0, 8, 8)
    assert "plain" in store


def test_a_store_without_a_single_map(tmp_path, write_store):
    manifest = Manifest.of([Row("a", "a.png", "", 8, 8, ()), Row("b", "b.png", "", 8, 12, ())])
    store = write_store(tmp_path / "cams.zarr", manifest, {"a": np.zeros((0, 4, 4)), "b": np.zeros((0, 4, 4))})
    assert len(store) == 2
    assert store["b"][1].shape == (0, 4, 4)


def test_one_map_an_image(manifest, tmp_path, random_maps, write_store, small_shards):
    maps = random_maps(manifest, stride=1, classwise=False)
    store = write_store(tmp_path / "hints.zarr", manifest, maps, stride=1, classwise=False)
    labels, found = store["plain"]
    assert labels.tolist() == [-1]
    np.testing.assert_allclose(found, maps["plain"], rtol=2**-11, atol=1e-7)


@pytest.mark.parametrize(
    ("stride", "multiple", "shape"),
    [(4, 16, (4, 8)), (1, 16, (16, 32)), (8, 16, (2, 4)), (4, 4, (3, 5)), (1, 1, (11, 17))],
)
def test_the_grid_covers_sides_rounded_up_to_a_multiple(tmp_path, write_store, stride, multiple, shape):
    manifest = Manifest.of([Row("a", "a.png", "", 11, 17, (0,))])
    maps = {"a": np.full((1, *shape), 0.5)}
    store = write_store(tmp_path / "cams.zarr", manifest, maps, stride=stride, multiple=multiple)
    assert (store.about["stride"], store.about["multiple"]) == (stride, multiple)
    np.testing.assert_array_equal(store["a"][1], maps["a"])
    np.testing.assert_array_equal(full_size(store, "a")[1], np.full((1, 11, 17), 0.5))


def test_maps_are_those_that_zarr_reads(store, manifest):
    group = zarr.open(store.path, mode="r")
    maps = [values for row in manifest for values in store[row.id][1]]
    for values, whole_map in zip(maps, group["map"][:], strict=True):
        np.testing.assert_array_equal(values, whole_map[: values.shape[0], : values.shape[1]])


def test_bytes_have_254_steps(manifest, tmp_path, random_maps, write_store, small_shards):
    expected = random_maps(manifest)
    expected["image0"][0, 0, :2] = 0, 1
    store = write_store(tmp_path / "cams.zarr", manifest, expected, dtype="uint8")
    for row in manifest:
        found = store[row.id][1]
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected[row.id], atol=0.5 / 254 + 1e-6)
    assert store["image0"][1][0, 0, :2].tolist() == [0, 1]
    array = zarr.open(store.path, mode="r")["map"]
    assert (array.dtype, array.fill_value, store.about["layout"]) == (np.uint8, 255, "wsss-maps/4")
    np.testing.assert_allclose(array[0, :8, :12] * array.attrs["scale_factor"], store["image0"][1][0], rtol=1e-6)


@pytest.mark.parametrize("value", [-0.1, 1.1])
def test_bytes_are_for_maps_from_0_to_1(manifest, tmp_path, random_maps, write_store, value):
    maps = random_maps(manifest)
    maps["image2"][0, 3, 5] = value
    with pytest.raises(ValueError, match="the maps of image2 leave the range from 0 to 1"):
        write_store(tmp_path / "cams.zarr", manifest, maps, dtype="uint8")


def test_a_store_says_what_it_is(store):
    assert store.about == {
        "run": "test", "layout": "wsss-maps/4", "stride": 4, "multiple": 16, "classwise": True, "complete": True,
    }  # fmt: skip


def test_plain_zarr_reads_it(store, manifest):
    group = zarr.open(store.path, mode="r")
    first = manifest.rows[0]
    assert group.attrs["wsss"].items() > store.about.items()
    assert group["map"].dtype == np.float16
    assert group["map"].metadata.dimension_names == ("row", "y", "x")
    assert group["image_id"][:].tolist() == manifest.ids
    assert group["label"][:].tolist() == [label for row in manifest for label in row.labels]
    assert group["size"][0].tolist() == [first.height, first.width]
    np.testing.assert_array_equal(group["map"][0, :8, :12], store[first.id][1][0])
    assert np.isnan(group["map"].fill_value)


# --- damage --------------------------------------------------------------------------------------------------------


def test_a_lost_shard_is_an_error_not_an_empty_map(store):
    shards(store)[1].unlink()
    reopened = MapStore(store.path)
    reopened["image3"]  # in the first shard
    with pytest.raises(StoreError, match=r"cams\.zarr has lost a shard \(image image4\)"):
        reopened["image4"]


@pytest.mark.parametrize("table", ["label", "first_row", "size", "image_id"])
def test_a_lost_table_is_an_error_too(store, table):
    for path in shards(store, table):
        path.unlink()
    with pytest.raises(StoreError, match=rf"cams\.zarr has lost its table {table}"):
        MapStore(store.path)["image0"]


def test_a_shard_that_is_cut_short_is_an_error(store):
    path = shards(store)[0]
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(StoreError, match=r"cams\.zarr is damaged at image image0"):
        MapStore(store.path)["image0"]


def test_an_index_that_is_cut_by_an_entry_does_not_give_other_maps(store):
    path = shards(store)[0]
    path.write_bytes(path.read_bytes()[:-16])
    with pytest.raises(StoreError, match=r"cams\.zarr is damaged at image image1 .*checksum"):
        MapStore(store.path)["image1"]


def test_a_map_that_its_shard_does_not_hold_is_an_error(store):
    group = zarr.open(store.path, mode="r+")
    group["map"][:] = np.where(np.arange(12)[:, None, None] == 1, np.nan, group["map"][:])  # all fill: left out
    with pytest.raises(StoreError, match=r"cams\.zarr has lost a shard \(image image1\)"):
        MapStore(store.path)["image1"]


def test_a_table_that_is_cut_short_is_an_error(store):
    path = shards(store, "first_row")[0]
    path.write_bytes(path.read_bytes()[:7])
    with pytest.raises(StoreError, match=r"cams\.zarr is damaged at first_row"):
        MapStore(store.path)["image0"]


def test_metadata_that_are_cut_short_are_an_error(store):
    path = store.path / "zarr.json"
    path.write_text(path.read_text()[:40])
    with pytest.raises(StoreError, match=r"cams\.zarr is damaged"):
        len(MapStore(store.path))


@pytest.mark.parametrize("change", [{"complete": False}, {"layout": "wsss-maps/3"}, None])
def test_an_incomplete_store_or_another_layout_is_refused(store, change):
    path = store.path / "zarr.json"
    metadata = json.loads(path.read_text())
    about = metadata["attributes"]["wsss"]
    metadata["attributes"] = {} if change is None else {"wsss": about | change}
    path.write_text(json.dumps(metadata))
    with pytest.raises(StoreError, match=r"cams\.zarr is not a complete store of layout wsss-maps/4: delete it"):
        MapStore(store.path)["image0"]


@pytest.mark.parametrize("change", [{"stride": 8}, {"run": "other"}, {"digests": None}])
def test_what_a_store_says_of_itself_cannot_be_edited(store, change):
    path = store.path / "zarr.json"
    metadata = json.loads(path.read_text())
    metadata["attributes"]["wsss"] |= change
    path.write_text(json.dumps(metadata))
    with pytest.raises(StoreError, match=r"cams\.zarr is damaged at its attributes .*: delete it and run"):
        len(MapStore(store.path))


@pytest.mark.parametrize("table", ["label", "first_row", "size", "image_id"])
def test_other_values_of_a_table_are_an_error(store, table):
    array = zarr.open(store.path, mode="r+")[table]
    array[:] = array[:][::-1]  # with checksums that fit
    with pytest.raises(StoreError, match=r"cams\.zarr is damaged at its tables .*: delete it and run its rule again"):
        MapStore(store.path)["image0"]


def everything(path: Path) -> list:
    store = MapStore(path)
    return [store.about, *((name, store.size(name), *map(np.ndarray.tolist, store[name])) for name in store)]


@pytest.mark.parametrize("dtype", ["float16", "uint8"])
def test_a_flipped_bit_is_found_out_or_does_no_harm(manifest, tmp_path, random_maps, write_store, small_shards, dtype):
    path = write_store(tmp_path / "cams.zarr", manifest, random_maps(manifest), dtype=dtype).path
    sound, refusals = everything(path), []
    for file in [file for file in sorted(path.rglob("*")) if file.is_file()]:
        content = file.read_bytes()
        for bit in range(0, 8 * len(content), 8 * len(content) // 24 + 1):
            flipped = bytearray(content)
            flipped[bit // 8] ^= 1 << bit % 8
            file.write_bytes(flipped)
            try:
                assert everything(path) == sound, (file, bit)
            except StoreError as error:
                refusals.append(str(error))
        file.write_bytes(content)
    assert len(refusals) > 100
    assert all(str(path) in text for text in refusals)


def test_zarr_alone_finds_flipped_bits_of_a_table(store):
    path = shards(store, "label")[0]
    content = bytearray(path.read_bytes())
    content[-1] ^= 1  # of the checksum
    path.write_bytes(content)
    with pytest.raises(RuntimeError, match="checksum"):
        zarr.open(store.path, mode="r")["label"][:]


FAULTS = [PermissionError(errno.EACCES, "Permission denied"), OSError(errno.ESTALE, "Stale file handle")]


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("file", ["zarr.json", "size/c/0/0"])
def test_a_table_that_cannot_be_read_is_not_called_damaged(store, monkeypatch, fault, file):
    get = LocalStore.get

    async def failing(local, key, *args, **options):
        if key == file:
            raise type(fault)(*fault.args)
        return await get(local, key, *args, **options)

    monkeypatch.setattr(LocalStore, "get", failing)
    with pytest.raises(type(fault), match=rf"{fault.args[1]}: .*cams\.zarr"):
        MapStore(store.path)["image0"]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_shard_that_cannot_be_read_is_not_called_damaged(store, monkeypatch, fault):
    def failing(path, mode):
        raise type(fault)(*fault.args, str(path))

    monkeypatch.setattr(shard_files, "open", failing, raising=False)
    with pytest.raises(type(fault), match=rf"{fault.args[1]}: .*cams\.zarr/map/c/0/0/0"):
        store["image0"]


def test_a_missing_store_is_named(tmp_path):
    with pytest.raises(StoreError, match=r"there is no store of maps at .*nowhere\.zarr"):
        len(MapStore(tmp_path / "nowhere.zarr"))
    (tmp_path / "empty.zarr").mkdir()
    with pytest.raises(StoreError, match=r"there is no store of maps at .*empty\.zarr"):
        len(MapStore(tmp_path / "empty.zarr"))


def test_an_unknown_image_is_named(store):
    with pytest.raises(StoreError, match="no maps of image stranger: it was made from another manifest"):
        store["stranger"]
    assert "stranger" not in store


# --- writing -------------------------------------------------------------------------------------------------------


def test_an_interrupted_writer_leaves_nothing(manifest, tmp_path, random_maps, small_shards):
    maps = random_maps(manifest)

    def write(count: int):
        with (
            whole(tmp_path / "cams.zarr") as partial,
            MapWriter(partial, manifest, stride=4, classwise=True, about={}) as out,
        ):
            for row in manifest.rows[:count]:
                out.append(row.id, maps[row.id])
            if count == 5:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(5)
    with pytest.raises(StoreError, match="6 of 9 images were written"):
        write(6)
    assert list(tmp_path.iterdir()) == []


def test_a_killed_writer_leaves_no_complete_store(manifest, tmp_path, random_maps, small_shards):
    writer = MapWriter(tmp_path / "cams.zarr", manifest, stride=4, classwise=True, about={})
    writer.__enter__()
    for row in manifest:
        writer.append(row.id, random_maps(manifest)[row.id])
    with pytest.raises(StoreError, match="not a complete store"):
        len(MapStore(tmp_path / "cams.zarr"))


def test_a_shard_is_written_while_the_next_one_is_filled(manifest, tmp_path, random_maps, small_shards, monkeypatch):
    filled, seen, write = threading.Event(), [], zarr.Array.__setitem__

    def slow(array, where, values):
        if array.ndim == 3:
            seen.append(filled.wait(timeout=10))
        write(array, where, values)

    monkeypatch.setattr(zarr.Array, "__setitem__", slow)
    maps = random_maps(manifest)
    with MapWriter(tmp_path / "cams.zarr", manifest, stride=4, classwise=True, about={}) as out:
        for row in manifest:
            out.append(row.id, maps[row.id])
            if out.done == 7:  # the second shard has been begun
                filled.set()
    assert seen == [True] * 3
    store = MapStore(tmp_path / "cams.zarr")
    for row in manifest:
        np.testing.assert_allclose(store[row.id][1], maps[row.id], rtol=2**-11, atol=1e-7)


def test_an_error_of_writing_leaves_no_store(manifest, tmp_path, random_maps, small_shards, monkeypatch):
    write = zarr.Array.__setitem__

    def full(array, where, values):
        if array.ndim == 3 and where.start == 5:
            raise OSError("no space left on device")
        write(array, where, values)

    monkeypatch.setattr(zarr.Array, "__setitem__", full)

    def fill():
        with (
            whole(tmp_path / "cams.zarr") as partial,
            MapWriter(partial, manifest, stride=4, classwise=True, about={}) as out,
        ):
            for row in manifest:
                out.append(row.id, random_maps(manifest)[row.id])

    with pytest.raises(OSError, match="no space left"):
        fill()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_maps_that_are_not_finite_are_refused(manifest, tmp_path, random_maps, value):
    maps = random_maps(manifest)["image0"]
    maps[0, 3, 5] = value
    with (
        pytest.raises(FloatingPointError, match="the maps of image0 are not finite"),
        MapWriter(tmp_path / "cams.zarr", manifest, stride=4, classwise=True, about={}) as out,
    ):
        out.append("image0", maps)


def test_maps_out_of_order_or_of_another_size_are_refused(manifest, tmp_path, random_maps):
    maps = random_maps(manifest)
    writer = MapWriter(tmp_path / "cams.zarr", manifest, stride=4, classwise=True, about={})
    with pytest.raises(ValueError, match=r"expected 1 maps of \(8, 12\) of image0, got .* of image1"):
        writer.append("image1", maps["image1"])
    with pytest.raises(ValueError, match=r"got \(1, 8, 11\) of image0"):
        writer.append("image0", maps["image0"][:, :, 1:])


# --- processes -----------------------------------------------------------------------------------------------------


def test_it_pickles_as_its_path_even_when_it_is_open(store):
    store["image0"]
    text = pickle.dumps(store)
    assert len(text) < 1000
    np.testing.assert_array_equal(pickle.loads(text)["image3"][1], store["image3"][1])


def test_dataloader_workers_read_an_open_store(store, manifest):
    store["image0"]
    loader = DataLoader(Samples(store, manifest.ids), batch_size=None, num_workers=2)
    for image_id, (labels, maps) in zip(manifest.ids, loader, strict=True):
        np.testing.assert_array_equal(labels, store[image_id][0])
        np.testing.assert_array_equal(maps, store[image_id][1])


def test_spawned_processes_read_it(store, manifest):
    store["image0"]
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        _, maps = pool.submit(operator.getitem, store, "image5").result()
    np.testing.assert_array_equal(maps, store["image5"][1])


def test_a_moved_store_is_whole(store, tmp_path):
    moved = shutil.copytree(store.path, tmp_path / "elsewhere" / "cams.zarr")
    np.testing.assert_array_equal(MapStore(moved)["image5"][1], store["image5"][1])


def test_changed_bytes_within_a_map_are_an_error(store, manifest):
    shard = shards(store)[0]
    content = bytearray(shard.read_bytes())
    content[20] ^= 0xFF  # inside the first compressed map: the index of a shard is at its end
    shard.write_bytes(content)
    with pytest.raises(StoreError, match=str(store.path)):
        list(map(store.__getitem__, manifest.ids))


def test_the_digest_follows_the_maps_and_not_the_files_beside_them(store):
    before = store.digest()
    (store.path / ".snakemake_timestamp").touch()
    assert MapStore(store.path).digest() == before
    shard = shards(store)[0]
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    assert MapStore(store.path).digest() != before
