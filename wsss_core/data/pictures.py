"""Pictures of a manifest, decoded."""

import logging
import mmap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from wsss_core.data.classes import DataError
from wsss_core.data.decoding import PICTURES, opened, shrink_while_decoding, upright, upright_size
from wsss_core.data.manifest import Row

logger = logging.getLogger(__name__)

KEPT_BYTES = 2**30  # of decoded pixels: 1900 images of VOC


def read_image(path: str | Path) -> Image.Image:
    """Decode a picture to RGB, turned as its EXIF orientation says.

    One that is missing, cut short, of more than 8 bits or no picture is an error that names it.
    """
    with opened(path, PICTURES) as image:
        return upright(path, image).convert("RGB")


def read_picture(row: Row) -> Image.Image:
    """Decode a row's picture to RGB, (height, width) of the row: what every stage works on.

    A larger photo is reduced on the way (bicubic, each pixel of the result from all that lie under it).

    Raises:
        DataError: as ``read_image``, and for a photo of another size than the manifest's.
    """
    size = row.width, row.height
    with opened(row.image, PICTURES) as image:
        found, own = upright_size(image), row.own_size[::-1]
        if found != own:
            raise DataError(
                f"{row.image} has {found[0]} x {found[1]} pixels, its manifest says {own[0]} x {own[1]}: delete the "
                "manifest to have it made again"
            )
        if row.full:
            shrink_while_decoding(image, max(size))
        picture = upright(row.image, image).convert("RGB")
        return picture if picture.size == size else picture.resize(size, Image.Resampling.BICUBIC)


class Pictures:
    """The decoded pictures of rows, RGB; those of a small data set are decoded once, not once an epoch.

    Their pixels lie in anonymous memory that forked workers share: unlike torch's shared tensors it needs no room in
    /dev/shm, which is small in containers. Pages are taken as pictures are read. A worker needs no lock, as it says
    that a picture is there after it has written it, and two that meet write the same. A pickled copy, as spawned
    workers get, decodes anew.

    Args:
        limit: bytes of pixels up to which a data set is kept.
    """

    def __init__(self, rows: Sequence[Row], limit: int = KEPT_BYTES):
        self.rows = rows
        self.ends = np.cumsum([3 * row.height * row.width for row in rows], dtype=np.int64)
        self.kept = self._memory(limit)

    def _memory(self, limit: int) -> tuple[np.ndarray, np.ndarray] | None:
        """Pixels of all pictures, uint8, and for each picture 1 once they are there; None without such memory."""
        size = int(self.ends[-1]) if self.rows else 0
        if not 0 < size <= limit:
            return None
        try:
            memory = np.frombuffer(mmap.mmap(-1, size + len(self.rows)), np.uint8)
        except OSError as error:
            logger.info("no memory to keep the decoded images in, each epoch decodes them: %s", error)
            return None
        logger.info("the decoded images are kept after the first epoch, in %d MB of memory", size >> 20)
        return memory[:size], memory[size:]

    def __getstate__(self) -> dict:
        return self.__dict__ | {"kept": None}

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Image.Image:
        row = self.rows[index]
        if self.kept is None:
            return read_picture(row)
        memory, present = self.kept
        pixels = memory[self.ends[index] - 3 * row.height * row.width : self.ends[index]]
        if present[index]:
            return Image.frombytes("RGB", (row.width, row.height), pixels)
        image = read_picture(row)
        pixels[:] = np.asarray(image).ravel()
        present[index] = 1
        return image
