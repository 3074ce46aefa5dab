"""Arrays by name from a ``.params`` file of MXNet, read without MXNet.

The format is that of ``NDArray::Save`` in MXNet's ``src/ndarray/ndarray.cc``; all numbers are little-endian. A file is
a magic number and a reserved one (uint64 each), the count of arrays (uint64) and the arrays, then the count of names
(uint64) and the names (uint64 length and bytes). An array is a header, its shape, its device (two int32), the number of
its type (int32), and its values. The header tells how the shape is written:

=============  ==========================================================================================
first uint32   what follows it
=============  ==========================================================================================
0xF993FAC8     V1: uint32 dimensions, int64 sizes
0xF993FAC9     V2: int32 storage (0 is dense), int32 dimensions, int64 sizes
0xF993FACA     V3: as V2; no dimensions now mean a scalar, and -1 an array without values
anything else  before V1: the number itself counts the dimensions; uint32 sizes
=============  ==========================================================================================
"""

import math
from pathlib import Path
from typing import BinaryIO

import numpy as np

LIST_MAGIC = 0x112
V1, V2, V3 = 0xF993FAC8, 0xF993FAC9, 0xF993FACA
TYPES = dict(enumerate(["<f4", "<f8", "<f2", "|u1", "<i4", "|i1", "<i8", "|b1"]))
MOST_DIMENSIONS = 32


def read_params(path: str | Path) -> dict[str, np.ndarray]:
    """Arrays by their full names, such as ``arg:conv1a_weight`` or ``aux:bn7_moving_var``.

    An array without values, as MXNet calls one that was never filled, has the shape (0,).

    Raises:
        ValueError: no such file, cut off, or with sparse arrays or types that numpy lacks; the message names it.
    """
    path = Path(path)
    with path.open("rb") as file:
        try:
            return _read_list(_Reader(file, path.stat().st_size))
        except _Unreadable as error:
            raise ValueError(f"{path} is not a readable .params file of MXNet: {error}") from error


class _Unreadable(Exception):
    """What is wrong with the file."""


class _Reader:
    """Numbers from a file, never beyond its end: a damaged count must not ask for terabytes."""

    def __init__(self, file: BinaryIO, left: int):
        self.file, self.left = file, left

    def values(self, dtype: str, count: int) -> np.ndarray:
        size = count * np.dtype(dtype).itemsize
        if size > self.left:
            raise _Unreadable(f"it is cut off, {size} bytes are due where {self.left} are left")
        self.left -= size
        return np.fromfile(self.file, dtype, count)

    def number(self, dtype: str) -> int:
        return int(self.values(dtype, 1)[0])


def _read_list(reader: _Reader) -> dict[str, np.ndarray]:
    if reader.number("<u8") != LIST_MAGIC:
        raise _Unreadable("it starts with another number")
    reader.number("<u8")  # reserved
    arrays = [_read_array(reader) for _ in range(reader.number("<u8"))]
    names = [_read_name(reader) for _ in range(reader.number("<u8"))]
    if len(names) != len(arrays) or len(set(names)) != len(names):
        raise _Unreadable(f"{len(arrays)} arrays have {len(set(names))} names")
    if reader.left:
        raise _Unreadable(f"{reader.left} bytes follow its end")
    return dict(zip(names, arrays, strict=True))


def _read_name(reader: _Reader) -> str:
    return reader.values("|u1", reader.number("<u8")).tobytes().decode("utf-8", errors="replace")


def _read_array(reader: _Reader) -> np.ndarray:
    shape = _read_shape(reader)
    if shape is None:
        return np.empty(0, np.float32)
    reader.values("<i4", 2)  # the device that it was saved from
    flag = reader.number("<i4")
    if flag not in TYPES:
        raise _Unreadable(f"type {flag} of an array is unknown")
    return reader.values(TYPES[flag], math.prod(shape)).reshape(shape)


def _read_shape(reader: _Reader) -> tuple[int, ...] | None:
    """The shape of the next array, or None where no device, type and values follow."""
    magic = reader.number("<u4")
    if magic in (V2, V3) and (storage := reader.number("<i4")) != 0:
        raise _Unreadable(f"an array has storage {storage}, only dense ones (0) can be read")
    dimensions = reader.number("<i4") if magic in (V1, V2, V3) else magic
    if dimensions == (-1 if magic == V3 else 0):
        return None
    if not 0 <= dimensions <= MOST_DIMENSIONS:
        raise _Unreadable(f"an array has {dimensions} dimensions")
    shape = tuple(reader.values("<i8" if magic in (V1, V2, V3) else "<u4", dimensions).tolist())
    if any(size < 0 for size in shape):
        raise _Unreadable(f"an array has the shape {shape}")
    return shape
