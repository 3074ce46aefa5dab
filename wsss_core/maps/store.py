"""The form of maps on disk: one Zarr v3 group for one stage's maps of one split.

Layout ``wsss-maps/4``. One row is one map; an image has a row a label (class maps) or a single row (hints, saliency).

====================  =======================  =======================================================
array                 shape, dtype             meaning
====================  =======================  =======================================================
``map``               (rows, Y, X) float16     maps, padded bottom/right; a chunk a row, 256 rows a shard. In uint8 they
                      or uint8                 are ``round(254 * map)``, and 255 is the fill value
``label``             (rows,) int16            class from 0 without background, -1 for a map of no class
``first_row``         (images + 1,) int64      rows of image i are ``first_row[i]:first_row[i + 1]``
``image_id``          (images,) string         in the order of the manifest
``size``              (images, 2) int32        height and width of the picture
====================  =======================  =======================================================

A side of a map is the picture's, rounded up to a multiple of 16 pixels (or of the stride, after a walk), over the
stride: see ``maps.sizes``.

``attrs["wsss"]`` says what it is (layout, stride, multiple, settings) and, written last, that it is complete, with
digests of the tables' values and of all it says. Every shard is written once and whole; the fill values are no possible
entries (NaN or 255 of maps), so that a lost file is found out and never read as empty maps.
"""

import hashlib
import os
import warnings
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
import zarr
from numcodecs.checksum32 import CRC32C
from numcodecs.zstd import Zstd
from zarr.codecs import ZstdCodec
from zarr.errors import ZarrUserWarning

from wsss_core.base.files import reading
from wsss_core.base.jobs import digest_of
from wsss_core.data.manifest import Manifest
from wsss_core.maps.sizes import MULTIPLE, cells

LAYOUT = "wsss-maps/4"
SHARD = 256
STEPS = 254  # of a map in uint8
NO_CHUNK = 2**64 - 1  # in the index of a shard, for a chunk that was never written
LOST = -32768  # fill value of the tables of numbers, which no entry has
TABLES = "label", "first_row", "size", "image_id"
WAY_OUT = "delete it and run its rule again"


class StoreError(ValueError):
    """A store of maps that is missing, incomplete, damaged or of another layout."""


class MapWriter:
    """Write a store's rows in the order of a manifest; use it as a context manager.

    A thread writes a full shard while the next one is filled; an error of it is raised when that one is full, or at
    the end.

    Args:
        path: the folder to create; it must not exist (see ``base.files.whole``).
        stride, multiple: the grid of the maps, see ``maps.sizes.cells``.
        classwise: a row for each label of an image; otherwise one row an image.
        about: plain values for the attributes: settings, run, device, ...
        dtype: ``float16``, or ``uint8`` for maps in [0, 1].
    """

    def __init__(
        self,
        path: str | Path,
        manifest: Manifest,
        *,
        stride: int,
        classwise: bool,
        about: dict,
        dtype: str = "float16",
        multiple: int = MULTIPLE,
    ):
        self.path, self.rows, self.classwise, self.dtype = Path(path), manifest.rows, classwise, dtype
        counts = [len(row.labels) if classwise else 1 for row in self.rows]
        self.first_row = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        self.shapes = [tuple(cells(side, stride, multiple) for side in (row.height, row.width)) for row in self.rows]
        self.about = {**about, "layout": LAYOUT, "stride": stride, "multiple": multiple, "classwise": classwise}
        self.done = 0
        y, x = np.max(self.shapes, axis=0)
        self.block, self.spare = np.zeros((2, SHARD, y, x), dtype)  # one is filled while the other is written
        self.thread = ThreadPoolExecutor(1)
        self.writing: Future[None] = Future()
        self.writing.set_result(None)

    def __enter__(self) -> "MapWriter":
        self.group = zarr.create_group(self.path, overwrite=False)
        rows, shape, small = int(self.first_row[-1]), self.block.shape[1:], self.block.dtype == np.uint8
        self.maps = self.group.create_array(
            "map", shape=(rows, *shape), dtype=self.block.dtype, chunks=(1, *shape), shards=(SHARD, *shape),
            fill_value=255 if small else np.nan, dimension_names=("row", "y", "x"),
            compressors=ZstdCodec(level=1, checksum=True), attributes={"scale_factor": 1 / STEPS} if small else None,
        )  # fmt: skip
        labels = [c for row in self.rows for c in row.labels] if self.classwise else [-1] * rows
        self.tables: dict[str, np.ndarray] = {
            "label": np.array(labels, np.int16),
            "first_row": self.first_row,
            "size": np.array([(row.height, row.width) for row in self.rows], np.int32),
            "image_id": np.array([row.id for row in self.rows], dtype=np.dtypes.StringDType()),
        }
        self._table("label", ("row",))
        self._table("first_row", ("edge",))
        self._table("size", ("image", "side"))
        self._table("image_id", ("image",))
        return self

    def _table(self, name: str, dimensions: tuple[str, ...]) -> None:
        values = self.tables[name]
        array = self.group.create_array(
            name, shape=values.shape, dtype=str if name == "image_id" else values.dtype, fill_value=_fill(name),
            dimension_names=dimensions, compressors=ZstdCodec(level=0, checksum=True),
        )  # fmt: skip
        array[...] = values

    def append(self, image_id: str, maps: np.ndarray) -> None:
        """Add the next image's maps, (its rows, h, w) floats, in the manifest's order."""
        row, shape = self.rows[self.done], self.shapes[self.done]
        begin, end = self.first_row[self.done], self.first_row[self.done + 1]
        if image_id != row.id or maps.shape != (end - begin, *shape):
            raise ValueError(f"{self.path}: expected {end - begin} maps of {shape} of {row.id}, got {maps.shape} of "
                             f"{image_id}")  # fmt: skip
        if not np.isfinite(maps).all():
            raise FloatingPointError(
                f"the maps of {image_id} are not finite: the network that made them is broken, or its numbers do not "
                "fit into float16 (set prior.cams.precision to float32 in config.yaml; bfloat16 rounds too coarsely)"
            )
        if self.block.dtype == np.uint8:
            if maps.min(initial=0) < 0 or maps.max(initial=0) > 1:
                raise ValueError(f"the maps of {image_id} leave the range from 0 to 1, which uint8 is for")
            maps = np.rint(STEPS * maps)
        for index, values in zip(range(begin, end), maps, strict=True):
            slot = self.block[index % SHARD]
            slot[:] = 0
            slot[: shape[0], : shape[1]] = values
            if (index + 1) % SHARD == 0:
                self._flush(index + 1)
        self.done += 1

    def _flush(self, end: int) -> None:
        self.writing.result()
        begin = (end - 1) // SHARD * SHARD
        self.writing = self.thread.submit(self.maps.__setitem__, slice(begin, end), self.block[: end - begin])
        self.block, self.spare = self.spare, self.block

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            self.thread.shutdown()  # so that nothing is written into a folder that is being removed

    def _finish(self) -> None:
        if self.done != len(self.rows):
            raise StoreError(f"{self.path}: {self.done} of {len(self.rows)} images were written")
        rows = int(self.first_row[-1])
        if rows % SHARD:
            self._flush(rows)
        self.writing.result()
        about = {**self.about, "complete": True}
        digests = {"tables": _digest_of_tables(self.tables), "attributes": digest_of(about)}
        self.group.attrs["wsss"] = {**about, "digests": digests}
        with warnings.catch_warnings():  # Zarr warns that other libraries may ignore it, which does no harm
            warnings.simplefilter("ignore", ZarrUserWarning)
            zarr.consolidate_metadata(self.path)


class MapStore:
    """Read a store of maps; it opens on first use in each process and pickles as its path.

    ``len(store)`` counts images, iterating gives their ids, ``store[id]`` gives ``(labels, maps)``: (rows,) int and
    (rows, h, w) float32 at the store's stride. Maps are taken straight from the shards, whose form is specified by
    Zarr: by way of the library a read takes eight times as long, most of it in its event loop.

    Raises:
        StoreError: on first use, if the store is missing, incomplete, damaged or of another layout.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)

    def __reduce__(self) -> tuple[type["MapStore"], tuple[Path]]:
        return MapStore, (self.path,)

    @cached_property
    def _group(self) -> zarr.Group:
        try:
            with self._sound():
                group = zarr.open_group(self.path, mode="r")
        except FileNotFoundError as error:
            if (self.path / "zarr.json").exists():
                raise StoreError(f"{self.path} is damaged at zarr.json: {WAY_OUT}") from error
            raise StoreError(f"there is no store of maps at {self.path}") from error
        about = _about(group)
        if about.get("layout") != LAYOUT or not about.get("complete") or "digests" not in about:
            raise StoreError(f"{self.path} is not a complete store of layout {LAYOUT}: {WAY_OUT}")
        with self._sound("its attributes"):
            digests = about.pop("digests")
            if digest_of(about) != digests["attributes"]:
                raise ValueError("they do not have their digest")
        return group

    @contextmanager
    def _sound(self, place: str = "") -> Iterator[None]:
        """Call what the block raises damage of the store, but for a failure to read it (``OSError``)."""
        try:
            with reading(self.path, f"is damaged at {place}" if place else "is damaged", WAY_OUT):
                yield
        except OSError:  # among them one of Zarr's that is a ValueError as well
            raise
        except ValueError as error:
            if isinstance(error.__cause__, StoreError):  # it says more
                raise error.__cause__  # noqa: B904
            raise StoreError(str(error)) from error.__cause__

    @property
    def about(self) -> dict[str, Any]:
        """What the store says of itself: stride, settings, run, ...; all but its digests."""
        about = _about(self._group)
        del about["digests"]
        return about

    @cached_property
    def stride(self) -> int:
        """Pixels of the picture a cell."""
        return self.about["stride"]

    @cached_property
    def _tables(self) -> dict[str, np.ndarray]:
        tables = {name: self._table(name) for name in TABLES}
        with self._sound("its tables"):
            if _digest_of_tables(tables) != _about(self._group)["digests"]["tables"]:
                raise ValueError("they do not have their digest")
        return tables

    @cached_property
    def _index(self) -> dict[str, int]:
        return {str(image_id): index for index, image_id in enumerate(self._tables["image_id"])}

    def _array(self, name: str) -> zarr.Array:
        found = self._group[name]
        if not isinstance(found, zarr.Array):
            raise TypeError(f"{name} is no array")
        return found

    def _table(self, name: str) -> np.ndarray:
        with self._sound(name):
            values = np.asarray(self._array(name)[:])
            lost = np.any(values == _fill(name))
        if lost:
            raise StoreError(f"{self.path} has lost its table {name}: {WAY_OUT}")
        return values

    def digest(self) -> str:
        """A digest of the store's arrays and attributes."""
        state = hashlib.sha256()
        for path in sorted(self.path.rglob("*")):
            if path.is_file() and not path.name.startswith("."):  # Snakemake puts a hidden file beside ours
                state.update(path.relative_to(self.path).as_posix().encode() + path.read_bytes())
        return state.hexdigest()

    def __len__(self) -> int:
        return len(self._index)

    def __iter__(self) -> Iterator[str]:
        return iter(self._index)

    def __contains__(self, image_id: str) -> bool:
        return image_id in self._index

    def size(self, image_id: str) -> tuple[int, int]:
        """Height and width of the picture."""
        height, width = self._tables["size"][self._position(image_id)]
        return int(height), int(width)

    def _position(self, image_id: str) -> int:
        if image_id not in self._index:
            raise StoreError(f"{self.path} holds no maps of image {image_id}: it was made from another manifest")
        return self._index[image_id]

    def __getitem__(self, image_id: str) -> tuple[np.ndarray, np.ndarray]:
        position = self._position(image_id)
        begin, end = (int(row) for row in self._tables["first_row"][position : position + 2])
        h, w = (cells(side, self.stride, self._multiple) for side in self.size(image_id))
        maps = np.empty((end - begin, h, w), np.float32)
        for place, row in enumerate(range(begin, end)):
            try:
                with self._sound(f"image {image_id}"):
                    maps[place] = self._map(row)[:h, :w]
            except FileNotFoundError as error:
                raise StoreError(f"{self.path} has lost a shard (image {image_id}): {WAY_OUT}") from error
        if self._form[1] == np.uint8:
            maps /= STEPS
        return self._tables["label"][begin:end].astype(int), maps

    @cached_property
    def _form(self) -> tuple[tuple[int, int], np.dtype, int]:
        """Shape and type of a row, rows a shard."""
        with self._sound("map"):
            maps = self._array("map")
            assert maps.shards is not None  # the layout has them
            _, height, width = maps.shape
            return (height, width), maps.dtype.newbyteorder("<"), maps.shards[0]

    @cached_property
    def _multiple(self) -> int:
        return self.about["multiple"]

    def _map(self, row: int) -> np.ndarray:
        """A row as it is stored, (Y, X) with its padding."""
        shape, dtype, rows = self._form
        shard, chunk = divmod(row, rows)
        path = self.path / f"map/c/{shard}/0/0"
        with open(path, "rb") as file:
            if shard not in self._chunks:
                self._chunks[shard] = _read_index(file, rows)
            offset, length = self._chunks[shard][chunk]
            if offset == NO_CHUNK:
                raise FileNotFoundError(f"{path} does not hold its map {chunk}")
            file.seek(offset)
            pixels = Zstd().decode(file.read(length))
        return np.frombuffer(pixels, dtype).reshape(shape)

    @cached_property
    def _chunks(self) -> dict[int, list[list[int]]]:
        """Indices of the shards that were read."""
        return {}


def _about(group: zarr.Group) -> dict[str, Any]:
    """What a store says of itself; nothing if it is none."""
    about = group.attrs.get("wsss")
    return dict(about) if isinstance(about, Mapping) else {}


def _fill(table: str) -> str | int:
    return "" if table == "image_id" else LOST


def _digest_of_tables(tables: Mapping[str, np.ndarray]) -> str:
    return digest_of({name: tables[name].tolist() for name in TABLES})


def _read_index(file: BinaryIO, chunks: int) -> list[list[int]]:
    """Offset and length of each chunk of a shard: uint64 at its end, with a checksum."""
    file.seek(-16 * chunks - 4, os.SEEK_END)
    return np.frombuffer(CRC32C(location="end").decode(file.read()), "<u8").reshape(-1, 2).tolist()
