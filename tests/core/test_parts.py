"""Finished parts of a long job beside its output."""

import numpy as np
import pytest

from wsss_core.base.parts import Parts


@pytest.fixture
def parts(tmp_path):
    found = Parts(tmp_path / "scores.zarr", "digest")
    for number in range(3):
        found.write(number, np.full((2, 3), number, np.float32))
    return found


def test_parts_come_back_and_can_be_forgotten(parts, tmp_path):
    assert len(Parts(tmp_path / "scores.zarr", "digest")) == 3
    assert parts[2].tolist() == [[2.0] * 3] * 2
    assert parts[2].dtype == np.float32
    parts.forget()
    assert len(parts) == 0
    assert list(tmp_path.iterdir()) == []


def test_parts_of_something_else_do_not_count_and_are_overwritten(parts, tmp_path):
    other = Parts(tmp_path / "scores.zarr", "another")
    assert len(other) == 0
    other.write(0, np.zeros(1))
    assert (len(other), len(parts)) == (1, 0)
    assert len(Parts(tmp_path / "elsewhere.zarr", "digest")) == 0


@pytest.mark.parametrize("fault", ["flipped", "cut", "gone"])
def test_what_stands_behind_a_damaged_part_is_made_again(parts, tmp_path, fault, caplog):
    path = tmp_path / ".scores.zarr.parts" / "000001.npz"
    content = bytearray(path.read_bytes())
    if fault == "flipped":
        place = content.index(np.float32(1).tobytes())
        content[place + 3] ^= 1
        path.write_bytes(content)
    elif fault == "cut":
        path.write_bytes(content[: len(content) // 2])
    else:
        path.unlink()
    assert len(parts) == 1
    assert ("000001.npz is damaged" in caplog.text) == (fault != "gone")
    with pytest.raises(FileNotFoundError, match="run its rule again"):
        parts[1]
