"""The form of scores of proposals on disk: one Zarr v3 group for the proposals of one split.

Layout ``wsss-scores/1``. A row is a proposal, in the order of the store of proposals.

====================  =======================  =======================================================
array                 shape, dtype             meaning
====================  =======================  =======================================================
``score``             (rows, classes) float32  of classes from 0; half precision would lose what is below 1e-5
``first_row``         (images + 1,) int64      rows of image i are ``first_row[i]:first_row[i + 1]``
``image_id``          (images,) string         in the order of the manifest
``size``              (images, 2) int32        height and width of the picture
====================  =======================  =======================================================

How damage is found out: ``maps.shards``.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import ZstdCodec

from wsss_core.data.manifest import Manifest
from wsss_core.instances.store import InstanceStore
from wsss_core.maps.shards import Store, StoreError, complete, write_table

LAYOUT = "wsss-scores/1"
CHUNK, SHARD = 2**10, 2**15  # rows


def write_scores(
    path: str | Path,
    manifest: Manifest,
    proposals: InstanceStore,
    scores: Iterable[tuple[str, np.ndarray]],
    *,
    classes: int,
    about: dict[str, Any],
) -> None:
    """Write the scores of all images.

    Args:
        path: the folder to create; it must not exist (see ``base.files.whole``).
        scores: id and (N, classes) float32 of each image, in the manifest's order.
        about: plain values for the attributes: settings, run, device, ...

    Raises:
        ValueError: scores of another image or shape than is due.
        FloatingPointError: a score that is no number.
    """
    counts = [proposals.count(image_id) for image_id in manifest.ids]
    first_row = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    group = zarr.create_group(path, overwrite=False)
    array = group.create_array(
        "score", shape=(int(first_row[-1]), classes), dtype=np.float32, chunks=(CHUNK, classes),
        shards=(SHARD, classes), fill_value=np.nan, dimension_names=("row", "class"),
        compressors=ZstdCodec(level=1, checksum=True),
    )  # fmt: skip
    waiting, begin = np.zeros((0, classes), np.float32), 0
    for (image_id, values), due, count in zip(scores, manifest.ids, counts, strict=True):
        if image_id != due or values.shape != (count, classes):
            raise ValueError(f"{path}: expected {count} x {classes} scores of {due}, got {values.shape} of {image_id}")
        if not np.isfinite(values).all():
            raise FloatingPointError(f"a score of the proposals of {image_id} is no number: the network is broken, "
                                     "train it again at a lower learning_rate")  # fmt: skip
        waiting = np.concatenate([waiting, values])
        while len(waiting) >= SHARD:  # a shard is written once and whole
            array[begin : begin + SHARD] = waiting[:SHARD]
            waiting, begin = waiting[SHARD:], begin + SHARD
    if len(waiting):
        array[begin:] = waiting
    tables: dict[str, np.ndarray] = {
        "first_row": first_row,
        "size": np.array([(row.height, row.width) for row in manifest.rows], np.int32),
        "image_id": np.array(manifest.ids, dtype=np.dtypes.StringDType()),
    }
    for name, dimensions in (("first_row", ("edge",)), ("size", ("image", "side")), ("image_id", ("image",))):
        write_table(group, name, tables[name], dimensions)
    about = {**about, "layout": LAYOUT, "manifest": manifest.digest(), "proposals": proposals.digest()}
    complete(group, Path(path), about, tables)


class ScoreStore(Store):
    """Read a store of scores; ``store[image_id]`` gives (N, classes) float32. It opens on first use in each process.

    Raises:
        StoreError: on first use, if the store is missing, incomplete, damaged or of another layout.
    """

    layout = LAYOUT
    holds = "scores"
    tables = ("first_row", "size", "image_id")

    def check(self, manifest: Manifest, proposals: InstanceStore) -> None:
        """Refuse scores of other images or of other proposals.

        Raises:
            StoreError: they were made from others.
        """
        if (self.about.get("manifest"), self.about.get("proposals")) != (manifest.digest(), proposals.digest()):
            raise StoreError(
                f"{self.path} was made from another manifest or from other proposals: delete it and run its rule again"
            )

    def __getitem__(self, image_id: str) -> np.ndarray:
        place = self._position(image_id)
        begin, end = self._tables["first_row"][place : place + 2]
        return self._rows("score", int(begin), int(end), image_id)
