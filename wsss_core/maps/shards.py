"""What the forms of stores on disk have in common: tables with digests, rows in shards, what they say of themselves.

A store is a Zarr v3 group. ``attrs["wsss"]`` says what it is and, written last, that it is complete, with digests of
the values of its tables and of all it says. Shards are written once and whole; a fill value is no possible entry, so
that a lost file is found out. ``maps.store`` and ``instances.store`` are such forms.
"""

import hashlib
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Self

import numpy as np
import zarr
from numcodecs.checksum32 import CRC32C
from numcodecs.zstd import Zstd
from zarr.codecs import ZstdCodec
from zarr.errors import ZarrUserWarning

from wsss_core.base.files import reading
from wsss_core.base.jobs import digest_of

NO_CHUNK = 2**64 - 1  # in the index of a shard, for a chunk that was never written
LOST = -32768  # fill value of the tables of numbers, which no entry has
WAY_OUT = "delete it and run its rule again"


class StoreError(ValueError):
    """A store that is missing, incomplete, damaged or of another layout."""


class Store:
    """Read a store; it opens on first use in each process and pickles as its path.

    ``len(store)`` counts images, iterating gives their ids. Rows are taken straight from the shards, whose form is
    specified by Zarr: by way of the library a read takes eight times as long, most of it in its event loop.

    Attributes:
        layout: the name of the form, with a number that rises with each change of it.
        holds: what is in it, for messages.
        tables: arrays that are read as a whole and have a common digest; ``image_id`` and ``size`` are among them.

    Raises:
        StoreError: on first use, if the store is missing, incomplete, damaged or of another layout.
    """

    layout: ClassVar[str]
    holds: ClassVar[str]
    tables: ClassVar[tuple[str, ...]]

    def __init__(self, path: str | Path):
        self.path = Path(path)

    def __reduce__(self) -> tuple[type[Self], tuple[Path]]:
        return type(self), (self.path,)

    @cached_property
    def _group(self) -> zarr.Group:
        try:
            with self._sound():
                group = zarr.open_group(self.path, mode="r")
        except FileNotFoundError as error:
            if (self.path / "zarr.json").exists():
                raise StoreError(f"{self.path} is damaged at zarr.json: {WAY_OUT}") from error
            raise StoreError(f"there is no store of {self.holds} at {self.path}") from error
        about = _about(group)
        if about.get("layout") != self.layout or not about.get("complete") or "digests" not in about:
            raise StoreError(f"{self.path} is not a complete store of layout {self.layout}: {WAY_OUT}")
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
        """What the store says of itself: settings, run, ...; all but its digests."""
        about = _about(self._group)
        del about["digests"]
        return about

    @cached_property
    def _tables(self) -> dict[str, np.ndarray]:
        tables = {name: self._table(name) for name in self.tables}
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

    def arrays(self) -> dict[str, zarr.Array]:
        """All arrays by name."""
        return {name: self._array(name) for name in sorted(self._group.array_keys())}

    def labels(self) -> np.ndarray:
        """The label of each row, (rows,); none where the rows of the store have none."""
        with self._sound("label"):
            return np.asarray(self._array("label")[:]) if "label" in self._group else np.zeros(0, np.int16)

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
            raise StoreError(
                f"{self.path} holds no {self.holds} of image {image_id}: it was made from another manifest"
            )
        return self._index[image_id]

    @cached_property
    def _shards(self) -> dict[str, "Shards"]:
        """Arrays that were read from."""
        return {}

    def _rows(self, name: str, begin: int, end: int, image_id: str) -> np.ndarray:
        """Rows of a sharded array, which belong to this image."""
        if name not in self._shards:
            with self._sound(name):
                self._shards[name] = Shards(self.path / name, self._array(name))
        try:
            with self._sound(f"image {image_id}"):
                return self._shards[name].rows(begin, end)
        except FileNotFoundError as error:
            raise StoreError(f"{self.path} has lost a shard (image {image_id}): {WAY_OUT}") from error


class Shards:
    """Rows of a sharded array: its first axis is cut into chunks and these into shards, the others are not cut.

    Args:
        path: the array's folder.
        array: what Zarr says of it.
    """

    def __init__(self, path: Path, array: zarr.Array):
        assert array.shards is not None  # the layouts have them
        self.path, self.shape, self.dtype = path, array.shape[1:], array.dtype.newbyteorder("<")
        self.size = array.chunks[0]
        self.chunks = array.shards[0] // self.size
        self.indices: dict[int, list[list[int]]] = {}  # of shards that were read
        self.last: tuple[int, np.ndarray] = (-1, np.empty(0))

    def rows(self, begin: int, end: int) -> np.ndarray:
        """Rows ``begin`` to ``end`` as they are stored, (end - begin, ...).

        Raises:
            FileNotFoundError: a shard is not there, or does not hold one of them.
        """
        if begin == end:
            return np.empty((0, *self.shape), self.dtype)
        first = begin // self.size
        found = [self._chunk(number) for number in range(first, (end - 1) // self.size + 1)]
        joined = found[0] if len(found) == 1 else np.concatenate(found)
        return joined[begin - first * self.size : end - first * self.size]

    def _chunk(self, number: int) -> np.ndarray:
        if self.last[0] != number:  # chunks of many rows are asked for again and again
            self.last = number, self._read(number)
        return self.last[1]

    def _read(self, number: int) -> np.ndarray:
        shard, chunk = divmod(number, self.chunks)
        path = self.path.joinpath("c", str(shard), *["0"] * len(self.shape))
        with open(path, "rb") as file:
            if shard not in self.indices:
                self.indices[shard] = _read_index(file, self.chunks)
            offset, length = self.indices[shard][chunk]
            if offset == NO_CHUNK:
                raise FileNotFoundError(f"{path} does not hold its chunk {chunk}")
            file.seek(offset)
            content = Zstd().decode(file.read(length))
        return np.frombuffer(content, self.dtype).reshape(self.size, *self.shape)


def write_table(group: zarr.Group, name: str, values: np.ndarray, dimensions: tuple[str, ...]) -> None:
    """Write an array that is read as a whole."""
    array = group.create_array(
        name, shape=values.shape, dtype=str if name == "image_id" else values.dtype, fill_value=_fill(name),
        dimension_names=dimensions, compressors=ZstdCodec(level=0, checksum=True),
    )  # fmt: skip
    array[...] = values


def complete(group: zarr.Group, path: Path, about: Mapping[str, Any], tables: Mapping[str, np.ndarray]) -> None:
    """Mark a store complete: the last thing that is written to it."""
    about = {**about, "complete": True}
    digests = {"tables": _digest_of_tables(tables), "attributes": digest_of(about)}
    group.attrs["wsss"] = {**about, "digests": digests}
    with warnings.catch_warnings():  # Zarr warns that other libraries may ignore it, which does no harm
        warnings.simplefilter("ignore", ZarrUserWarning)
        zarr.consolidate_metadata(path)


def layout_of(path: str | Path) -> str:
    """The layout that a folder says it has, whatever else is wrong with it.

    Raises:
        StoreError: it is no store of this pipeline.
    """
    with Store(path)._sound("zarr.json"):
        about = _about(zarr.open_group(path, mode="r"))
    if "layout" not in about:
        raise StoreError(f"{path} is not a complete store of this pipeline: {WAY_OUT}")
    return str(about["layout"])


def _about(group: zarr.Group) -> dict[str, Any]:
    """What a store says of itself; nothing if it is none."""
    about = group.attrs.get("wsss")
    return dict(about) if isinstance(about, Mapping) else {}


def _fill(table: str) -> str | int:
    return "" if table == "image_id" else LOST


def _digest_of_tables(tables: Mapping[str, np.ndarray]) -> str:
    return digest_of({name: values.tolist() for name, values in tables.items()})


def _read_index(file: BinaryIO, chunks: int) -> list[list[int]]:
    """Offset and length of each chunk of a shard: uint64 at its end, with a checksum."""
    file.seek(-16 * chunks - 4, os.SEEK_END)
    return np.frombuffer(CRC32C(location="end").decode(file.read()), "<u8").reshape(-1, 2).tolist()
