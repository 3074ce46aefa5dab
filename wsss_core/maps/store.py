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

from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from types import TracebackType

import numpy as np
import zarr
from zarr.codecs import ZstdCodec

from wsss_core.data.manifest import Manifest
from wsss_core.maps.shards import Store, StoreError, complete, write_table
from wsss_core.maps.sizes import MULTIPLE, cells

__all__ = ["MapStore", "MapWriter", "StoreError"]

LAYOUT = "wsss-maps/4"
SHARD = 256  # rows, and fewer where a row has so many cells that these would be more
SHARD_CELLS = 2**24
STEPS = 254  # of a map in uint8
TABLES = {"label": ("row",), "first_row": ("edge",), "size": ("image", "side"), "image_id": ("image",)}


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
        self.shard = min(SHARD, max(1, SHARD_CELLS // int(y * x)))
        self.block, self.spare = np.zeros((2, self.shard, y, x), dtype)  # one is filled while the other is written
        self.thread = ThreadPoolExecutor(1)
        self.writing: Future[None] = Future()
        self.writing.set_result(None)

    def __enter__(self) -> "MapWriter":
        self.group = zarr.create_group(self.path, overwrite=False)
        rows, shape, small = int(self.first_row[-1]), self.block.shape[1:], self.block.dtype == np.uint8
        self.maps = self.group.create_array(
            "map", shape=(rows, *shape), dtype=self.block.dtype, chunks=(1, *shape), shards=(self.shard, *shape),
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
        for name, dimensions in TABLES.items():
            write_table(self.group, name, self.tables[name], dimensions)
        return self

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
            slot = self.block[index % self.shard]
            slot[:] = 0
            slot[: shape[0], : shape[1]] = values
            if (index + 1) % self.shard == 0:
                self._flush(index + 1)
        self.done += 1

    def _flush(self, end: int) -> None:
        self.writing.result()
        begin = (end - 1) // self.shard * self.shard
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
        if rows % self.shard:
            self._flush(rows)
        self.writing.result()
        complete(self.group, self.path, self.about, self.tables)


class MapStore(Store):
    """Read a store of maps; it opens on first use in each process and pickles as its path.

    ``len(store)`` counts images, iterating gives their ids, ``store[id]`` gives ``(labels, maps)``: (rows,) int and
    (rows, h, w) float32 at the store's stride.

    Raises:
        StoreError: on first use, if the store is missing, incomplete, damaged or of another layout.
    """

    layout = LAYOUT
    holds = "maps"
    tables = tuple(TABLES)

    @cached_property
    def stride(self) -> int:
        """Pixels of the picture a cell."""
        return self.about["stride"]

    @cached_property
    def _multiple(self) -> int:
        return self.about["multiple"]

    def __getitem__(self, image_id: str) -> tuple[np.ndarray, np.ndarray]:
        position = self._position(image_id)
        begin, end = (int(row) for row in self._tables["first_row"][position : position + 2])
        h, w = (cells(side, self.stride, self._multiple) for side in self.size(image_id))
        maps, small = np.empty((end - begin, h, w), np.float32), False
        for place, row in enumerate(range(begin, end)):
            stored = self._rows("map", row, row + 1, image_id)[0, :h, :w]
            small = stored.dtype == np.uint8
            with self._sound(f"image {image_id}"):
                maps[place] = stored
        if small:
            maps /= STEPS
        return self._tables["label"][begin:end].astype(int), maps
