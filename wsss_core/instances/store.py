"""The form of instances on disk: one Zarr v3 group for the true, proposed or detected objects of one split.

Layout ``wsss-instances/1``. A row is an instance; an image has as many as there are, in the order they were given.

====================  =======================  =======================================================
array                 shape, dtype             meaning
====================  =======================  =======================================================
``run_lengths``       (bytes,) uint8           COCO's compressed run lengths of all masks, one after the other
``length``            (rows,) int32            bytes of the mask's run lengths
``label``             (rows,) int16            class from 0 without background, -1 for a mask of no class
``score``             (rows,) float32          as whatever made it says; 1 of the truth
``box``               (rows, 4) int32          x0, y0, x1, y1 in pixels, the ends exclusive
``area``              (rows,) int32            pixels
``crowd``             (rows,) uint8            1 for a region of many objects that were not told apart
``first_row``         (images + 1,) int64      rows of image i are ``first_row[i]:first_row[i + 1]``
``first_byte``        (images + 1,) int64      as ``first_row``, of ``run_lengths``
``checksum``          (images,) int64          CRC-32 of all that is said of the image's instances
``image_id``          (images,) string         in the order of the manifest
``size``              (images, 2) int32        height and width of the picture, which the masks have too
====================  =======================  =======================================================

All but the last five, which are read as a whole, lie in shards: an image is read from the few chunks that it is in,
whatever the size of the store. How damage is found out: ``maps.shards``.
"""

import warnings
import zlib
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
import zarr
from pycocotools import mask as run_lengths
from zarr.codecs import ZstdCodec

from wsss_core.data.manifest import Manifest
from wsss_core.maps.shards import Store, StoreError, complete, write_table

LAYOUT = "wsss-instances/1"
CHUNK, SHARD = 2**12, 2**18  # rows
BYTE_CHUNK, BYTE_SHARD = 2**16, 2**24
# The rows by array: dtype, length of a row (0 for a number), a fill value that no entry has.
ROWS: dict[str, tuple[type[np.generic], int, float]] = {
    "length": (np.int32, 0, -1),
    "label": (np.int16, 0, -32768),
    "score": (np.float32, 0, np.nan),
    "box": (np.int32, 4, -1),
    "area": (np.int32, 0, -1),
    "crowd": (np.uint8, 0, 255),
}
TABLES = {
    "first_row": ("edge",),
    "first_byte": ("edge",),
    "checksum": ("image",),
    "size": ("image", "side"),
    "image_id": ("image",),
}


class Instances(NamedTuple):
    """The instances of a picture: D of them.

    Attributes:
        masks: COCO's compressed run lengths, ``{"size": [height, width], "counts": bytes}``; pycocotools takes them.
        labels: (D,) int16, class from 0 without background, -1 for a mask of no class.
        scores: (D,) float32.
        boxes: (D, 4) int32, x0, y0, x1, y1 in pixels, the ends exclusive.
        areas: (D,) int32, pixels.
        crowd: (D,) bool, a region of many objects that were not told apart.
    """

    masks: list[dict[str, Any]]
    labels: np.ndarray
    scores: np.ndarray
    boxes: np.ndarray
    areas: np.ndarray
    crowd: np.ndarray

    def dense(self, size: tuple[int, int] = (0, 0)) -> np.ndarray:
        """The masks, (D, H, W) bool; ``size`` is their height and width where there are none."""
        if not self.masks:
            return np.zeros((0, *size), bool)
        with warnings.catch_warnings():  # pycocotools' arrays miss a keyword that NumPy 2 wants; it does no harm
            warnings.simplefilter("ignore", DeprecationWarning)
            return np.moveaxis(run_lengths.decode(self.masks), -1, 0).view(bool)  # of 0 and 1

    def kept(self, which: np.ndarray) -> "Instances":
        """Those at these places, in this order; or those that (D,) bool says."""
        places = np.arange(len(self.masks))[which]
        return Instances([self.masks[place] for place in places], *(values[places] for values in self[1:]))


def instances_of(
    masks: Iterable[np.ndarray],
    labels: Iterable[int],
    scores: Iterable[float] | None = None,
    crowd: Iterable[bool] | None = None,
) -> Instances:
    """Instances of dense masks.

    Args:
        masks: (D, H, W), or D masks (H, W) one after the other, of which one at a time is looked at; not 0 is inside.
        labels: class from 0 of each, -1 for none.
        scores: of each; None is 1, as the truth has.
        crowd: of each; None is False.
    """
    if isinstance(masks, np.ndarray) and masks.ndim != 3:
        raise ValueError(f"masks are (D, H, W), got {masks.shape}")
    encoded = [run_lengths.encode(np.asfortranarray(mask != 0).view(np.uint8)) for mask in masks]
    return encoded_instances(encoded, labels, scores, crowd)


def encoded_instances(
    masks: list[dict[str, Any]],
    labels: Iterable[int],
    scores: Iterable[float] | None = None,
    crowd: Iterable[bool] | None = None,
) -> Instances:
    """Instances of COCO's compressed run lengths; the others as for ``instances_of``.

    Raises:
        ValueError: labels, scores or marks of crowds of another number than masks.
    """
    count = len(masks)
    boxes = run_lengths.toBbox(masks).astype(np.int32).reshape(count, 4) if masks else np.zeros((0, 4), np.int32)
    boxes[:, 2:] += boxes[:, :2]  # COCO's are x, y, width, height
    found = Instances(
        list(masks),
        np.array(list(labels), np.int16),
        np.ones(count, np.float32) if scores is None else np.array([float(score) for score in scores], np.float32),
        boxes,
        areas_of(masks),
        np.zeros(count, bool) if crowd is None else np.array(list(crowd), bool),
    )
    if any(len(values) != count for values in found):
        raise ValueError(f"{count} masks, but {len(found.labels)} labels, {len(found.scores)} scores and "
                         f"{len(found.crowd)} marks of crowds")  # fmt: skip
    return found


def areas_of(masks: list[dict[str, Any]]) -> np.ndarray:
    """Pixels of each mask, (D,) int32; pycocotools itself fails above 255 masks."""
    parts = [run_lengths.area(masks[begin : begin + 255]) for begin in range(0, len(masks), 255)]
    return np.concatenate([np.zeros(0), *parts]).astype(np.int32)


class InstanceWriter:
    """Write a store's images in the order of a manifest; use it as a context manager.

    Args:
        path: the folder to create; it must not exist (see ``base.files.whole``).
        about: plain values for the attributes: settings, run, device, ...
    """

    def __init__(self, path: str | Path, manifest: Manifest, *, about: dict[str, Any]):
        self.path, self.rows = Path(path), manifest.rows
        self.about = {**about, "layout": LAYOUT, "manifest": manifest.digest()}
        self.first_row, self.first_byte, self.checksums = [0], [0], list[int]()

    def __enter__(self) -> "InstanceWriter":
        self.group = zarr.create_group(self.path, overwrite=False)
        self.columns = {
            name: _Column(self.group, name, np.dtype(dtype), (size,) if size else (), fill, CHUNK, SHARD)
            for name, (dtype, size, fill) in ROWS.items()
        }
        # run lengths are letters and digits, so that 0 is none of them
        self.bytes = _Column(self.group, "run_lengths", np.dtype(np.uint8), (), 0, BYTE_CHUNK, BYTE_SHARD)
        return self

    @property
    def done(self) -> int:
        """Images that were written."""
        return len(self.checksums)

    @property
    def count(self) -> int:
        """Instances that were written."""
        return self.first_row[-1]

    def write(self, image_id: str, instances: Instances) -> None:
        """Add the next image's instances, in the manifest's order; there may be none.

        Raises:
            ValueError: another image is next, or a mask is not of its picture's size.
            FloatingPointError: a score that is no number.
        """
        row = self.rows[self.done] if self.done < len(self.rows) else None
        if row is None or image_id != row.id:
            raise ValueError(f"{self.path}: expected the instances of {row.id if row else 'no more'}, got {image_id}")
        for mask in instances.masks:
            if tuple(mask["size"]) != (row.height, row.width):
                raise ValueError(f"{self.path}: a mask of {image_id} is {mask['size']}, not {[row.height, row.width]}")
        if not np.isfinite(instances.scores).all():
            raise FloatingPointError(f"a score of the instances of {image_id} is no number: its network is broken")
        counts, columns = _columns(instances)
        for name, values in columns.items():
            self.columns[name].append(values)
        self.bytes.append(counts)
        self.checksums.append(_checksum(counts, columns))
        self.first_row.append(self.first_row[-1] + len(instances.masks))
        self.first_byte.append(self.first_byte[-1] + len(counts))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._finish()

    def _finish(self) -> None:
        if self.done != len(self.rows):
            raise StoreError(f"{self.path}: {self.done} of {len(self.rows)} images were written")
        for column in (*self.columns.values(), self.bytes):
            column.flush()
        tables: dict[str, np.ndarray] = {
            "first_row": np.array(self.first_row, np.int64),
            "first_byte": np.array(self.first_byte, np.int64),
            "checksum": np.array(self.checksums, np.int64),
            "size": np.array([(row.height, row.width) for row in self.rows], np.int32),
            "image_id": np.array([row.id for row in self.rows], dtype=np.dtypes.StringDType()),
        }
        for name, dimensions in TABLES.items():
            write_table(self.group, name, tables[name], dimensions)
        complete(self.group, self.path, self.about, tables)


class _Column:
    """An array that grows by whole shards; the last one may be filled in part."""

    def __init__(
        self, group: zarr.Group, name: str, dtype: np.dtype, shape: tuple[int, ...], fill: float, chunk: int, shard: int
    ):
        self.array = group.create_array(
            name, shape=(0, *shape), dtype=dtype, chunks=(chunk, *shape), shards=(shard, *shape), fill_value=fill,
            dimension_names=("byte" if name == "run_lengths" else "row", *["side"] * len(shape)),
            compressors=ZstdCodec(level=1, checksum=True),
        )  # fmt: skip
        self.shard = shard
        self.waiting: list[np.ndarray] = []
        self.count = 0

    def append(self, values: np.ndarray) -> None:
        """Take further values; whole shards of them are written at once."""
        self.waiting.append(values)
        self.count += len(values)
        if self.count >= self.shard:
            joined = np.concatenate(self.waiting)
            ready = self.count // self.shard * self.shard
            self.array.append(joined[:ready])
            self.waiting, self.count = [joined[ready:]], self.count - ready

    def flush(self) -> None:
        if self.count:
            self.array.append(np.concatenate(self.waiting))


class InstanceStore(Store):
    """Read a store of instances; it opens on first use in each process and pickles as its path.

    ``len(store)`` counts images, iterating gives their ids, ``store[id]`` gives ``Instances``.

    Raises:
        StoreError: on first use, if the store is missing, incomplete, damaged or of another layout.
    """

    layout = LAYOUT
    holds = "instances"
    tables = tuple(TABLES)

    def count(self, image_id: str) -> int:
        """How many instances an image has."""
        begin, end = self._span("first_row", image_id)
        return end - begin

    def check(self, manifest: Manifest) -> None:
        """Refuse a store of other images, sizes or labels than the manifest's.

        Raises:
            StoreError: it was made from another manifest.
        """
        if self.about.get("manifest") != manifest.digest():
            raise StoreError(f"{self.path} was made from another manifest: delete it and run its rule again")

    def __getitem__(self, image_id: str) -> Instances:
        begin, end = self._span("first_row", image_id)
        columns = {name: self._rows(name, begin, end, image_id) for name in ROWS}
        counts = self._rows("run_lengths", *self._span("first_byte", image_id), image_id)
        with self._sound(f"image {image_id}"):
            if _checksum(counts, columns) != self._tables["checksum"][self._position(image_id)]:
                raise ValueError("its instances do not have their checksum")
        size, content = list(self.size(image_id)), counts.tobytes()
        ends = np.cumsum(columns["length"], dtype=np.int64).tolist()
        masks = [
            {"size": size, "counts": content[start:stop]} for start, stop in zip([0, *ends[:-1]], ends, strict=False)
        ]
        labels, scores, boxes, areas = (columns[name].copy() for name in ("label", "score", "box", "area"))
        return Instances(masks, labels, scores, boxes, areas, columns["crowd"].astype(bool))

    def _span(self, table: str, image_id: str) -> tuple[int, int]:
        position = self._position(image_id)
        begin, end = self._tables[table][position : position + 2]
        return int(begin), int(end)


def _columns(instances: Instances) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The bytes of all run lengths, and the rows by array."""
    counts = [mask["counts"] for mask in instances.masks]
    values = [len(count) for count in counts], *instances[1:]
    columns = {
        name: np.ascontiguousarray(column, dtype).reshape(len(counts), *[size] * bool(size))
        for (name, (dtype, size, _)), column in zip(ROWS.items(), values, strict=True)
    }
    return np.frombuffer(b"".join(counts), np.uint8), columns


def _checksum(counts: np.ndarray, columns: dict[str, np.ndarray]) -> int:
    state = zlib.crc32(counts.tobytes())
    for name, (dtype, *_) in ROWS.items():
        state = zlib.crc32(columns[name].astype(np.dtype(dtype).newbyteorder("<"), copy=False).tobytes(), state)
    return state
