"""Outputs that appear whole or not at all."""

import os

import pytest

from wsss_core.base.files import whole


def test_a_file_appears_at_the_end(tmp_path):
    path = tmp_path / "new" / "file.txt"
    with whole(path) as partial:
        partial.write_text("text")
        assert not path.exists()
        assert partial.parent == path.parent  # the same file system, or a rename would be a copy
    assert path.read_text() == "text"
    assert os.listdir(path.parent) == ["file.txt"]


def test_a_folder_appears_at_the_end_in_place_of_the_old_one(tmp_path):
    path = tmp_path / "folder"
    path.mkdir()
    (path / "old").touch()
    with whole(str(path)) as partial:
        partial.mkdir()
        (partial / "new").touch()
        assert os.listdir(path) == ["old"]
    assert os.listdir(path) == ["new"]
    assert os.listdir(tmp_path) == ["folder"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_leaves_what_was_there(tmp_path, error):
    path = tmp_path / "file.txt"
    path.write_text("old")

    def write():
        with whole(path) as partial:
            partial.write_text("half")
            raise error

    with pytest.raises(error):
        write()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file.txt"]


def test_an_error_in_a_folder_leaves_nothing(tmp_path):
    def write():
        with whole(tmp_path / "folder") as partial:
            partial.mkdir()
            (partial / "one").touch()
            raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        write()
    assert os.listdir(tmp_path) == []


def test_what_a_killed_writer_left_is_not_mixed_in(tmp_path):
    path = tmp_path / "folder"
    killed = whole(path)
    leftover = killed.__enter__()  # and no exit
    leftover.mkdir()
    (leftover / "stale").touch()
    with whole(path) as partial:
        partial.mkdir()
        (partial / "fresh").touch()
    assert os.listdir(path) == ["fresh"]


def test_nothing_written_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError), whole(tmp_path / "file.txt"):
        pass
