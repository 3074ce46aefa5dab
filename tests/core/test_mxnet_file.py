"""Files of MXNet, written here byte by byte."""

import struct

import numpy as np
import pytest

from wsss_core.networks.backbones import read_state
from wsss_core.networks.mxnet_file import read_params

FLAGS = {"float32": 0, "float64": 1, "float16": 2, "uint8": 3, "int32": 4, "int8": 5, "int64": 6, "bool": 7}


def tail(array: np.ndarray) -> bytes:
    """Device, type and values."""
    return struct.pack("<iii", 1, 0, FLAGS[array.dtype.name]) + array.tobytes()


def before_v1(array: np.ndarray) -> bytes:
    return struct.pack(f"<I{array.ndim}I", array.ndim, *array.shape) + tail(array)


def v1(array: np.ndarray) -> bytes:
    return struct.pack(f"<II{array.ndim}q", 0xF993FAC8, array.ndim, *array.shape) + tail(array)


def v2(array: np.ndarray, magic: int = 0xF993FAC9) -> bytes:
    return struct.pack(f"<Iii{array.ndim}q", magic, 0, array.ndim, *array.shape) + tail(array)


def v3(array: np.ndarray) -> bytes:
    return v2(array, 0xF993FACA)


def listed(arrays: list[bytes], names: list[str]) -> bytes:
    parts = [struct.pack("<QQQ", 0x112, 0, len(arrays)), *arrays, struct.pack("<Q", len(names))]
    return b"".join([*parts, *(struct.pack("<Q", len(name)) + name.encode() for name in names)])


@pytest.fixture
def file(tmp_path):
    def write(content: bytes):
        path = tmp_path / "net.params"
        path.write_bytes(content)
        return path

    return write


@pytest.mark.parametrize("form", [before_v1, v1, v2, v3])
@pytest.mark.parametrize("dtype", FLAGS)
def test_arrays_of_every_header_and_type_are_read(file, form, dtype):
    matrix, vector = np.array([[0, 1, 2], [3, 4, 5]], dtype), np.array([7, 0], dtype)
    arrays = read_params(file(listed([form(matrix), form(vector)], ["arg:w", "aux:v"])))
    assert list(arrays) == ["arg:w", "aux:v"]
    for found, expected in zip(arrays.values(), [matrix, vector], strict=True):
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)


def test_headers_may_be_mixed_and_a_file_may_be_empty(file):
    one = np.ones((1, 2), np.float32)
    assert read_params(file(listed([v2(one), before_v1(one), v1(one)], ["a", "b", "c"]))).keys() == {"a", "b", "c"}
    assert read_params(file(listed([], []))) == {}


def test_an_array_without_values_is_empty_but_a_scalar_of_v3_is_not(file):
    none = [struct.pack("<I", 0), struct.pack("<II", 0xF993FAC8, 0), struct.pack("<Iii", 0xF993FAC9, 0, 0)]
    none_v3 = struct.pack("<Iii", 0xF993FACA, 0, -1)
    scalar = v3(np.array(2.5, np.float32))
    arrays = read_params(file(listed([*none, none_v3, scalar], list("abcde"))))
    assert [arrays[name].shape for name in "abcd"] == [(0,)] * 4
    assert arrays["e"] == 2.5


def test_a_file_cut_anywhere_is_refused_by_name(file):
    whole = listed([v2(np.arange(3, dtype=np.float32)), before_v1(np.ones(2))], ["arg:w", "arg:b"])
    for end in range(len(whole)):
        with pytest.raises(ValueError, match=r"net\.params is not a readable .params file of MXNet: it is cut off"):
            read_params(file(whole[:end]))


ONE = np.ones(2, np.float32)
WRONG = {
    "another file": (b"PK\x03\x04" + bytes(60), "starts with another number"),
    "a huge count": (struct.pack("<QQQ", 0x112, 0, 2**60), "cut off"),
    "a huge shape": (listed([struct.pack("<II2q", 0xF993FAC8, 2, 2**40, 2**40) + tail(ONE)], ["a"]), "cut off"),
    "a negative shape": (listed([struct.pack("<IIq", 0xF993FAC8, 1, -2) + tail(ONE)], ["a"]), r"shape \(-2,\)"),
    "too many dimensions": (listed([struct.pack("<I", 99) + tail(ONE)], ["a"]), "99 dimensions"),
    "a sparse array": (listed([struct.pack("<Ii", 0xF993FAC9, 1)], ["a"]), r"storage 1, only dense ones \(0\)"),
    "an unknown type": (listed([struct.pack("<IIiii", 1, 2, 1, 0, 12) + bytes(4)], ["a"]), "type 12"),
    "no names": (listed([v2(ONE)], []), "1 arrays have 0 names"),
    "a name twice": (listed([v2(ONE), v2(ONE)], ["a", "a"]), "2 arrays have 1 names"),
    "more than it says": (listed([v2(ONE)], ["a"]) + b"rest", "4 bytes follow its end"),
}


@pytest.mark.parametrize("case", WRONG)
def test_other_files_are_refused_with_the_reason(file, case):
    content, reason = WRONG[case]
    with pytest.raises(ValueError, match=rf"net\.params is not a readable .params file of MXNet: .*{reason}"):
        read_params(file(content))


def test_weights_are_read_by_the_suffix(file):
    state = read_state(file(listed([v2(ONE)], ["arg:conv1a_weight"])))
    assert state["arg:conv1a_weight"].tolist() == [1, 1]
