"""Outputs that appear whole or not at all; full disks and unreadable files by name."""

import errno
import fcntl
import os
import shutil
import socket
import subprocess
import sys
import zipfile
from types import SimpleNamespace

import pytest

from wsss_core.base import files
from wsss_core.base.files import alone, check_zip, reading, whole


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


# --- second writers ------------------------------------------------------------------------------------------------

WRITER = """
import sys, time
from pathlib import Path
from wsss_core.base.files import whole
with whole(sys.argv[1]) as partial:
    partial.mkdir()
    (partial / "one").touch()
    print("at work", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def writer(tmp_path):
    """A process that is writing ``folder`` until its input is closed."""
    command = [sys.executable, "-c", WRITER, str(tmp_path / "folder")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        yield process
        process.kill()


def test_a_second_writer_stops_with_a_line_that_names_the_first(tmp_path, writer, monkeypatch):
    monkeypatch.setattr(files, "PATIENCE", 0)
    with pytest.raises(RuntimeError) as found, whole(tmp_path / "folder"):
        pass
    assert str(found.value) == (
        f"{tmp_path / 'folder'} is being written by process {writer.pid} on {socket.gethostname()}: let that end, or "
        f"end it, and run the rule again; if there is no such process, remove {tmp_path / '.folder.lock'}"
    )
    writer.communicate()
    assert writer.returncode == 0
    assert os.listdir(tmp_path) == ["folder"]  # whole, and no lock is left
    assert os.listdir(tmp_path / "folder") == ["one"]


def write_two(folder):
    with whole(folder) as partial:
        partial.mkdir()
        (partial / "two").touch()


def test_the_lock_of_a_killed_writer_holds_nobody_up(tmp_path, writer, monkeypatch):
    monkeypatch.setattr(files, "PATIENCE", 0)
    writer.kill()
    writer.wait()
    assert (tmp_path / ".folder.lock").exists()
    write_two(tmp_path / "folder")
    assert os.listdir(tmp_path) == ["folder"]
    assert os.listdir(tmp_path / "folder") == ["two"]


@pytest.mark.parametrize("end", ["killed", "done"])
def test_a_second_writer_waits_for_one_that_ends_soon(tmp_path, writer, monkeypatch, caplog, end):
    naps = []

    def sleep(seconds):
        naps.append(seconds)
        if len(naps) == 2:
            if end == "killed":
                writer.kill()
            writer.communicate()

    monkeypatch.setattr(files.time, "sleep", sleep)
    with caplog.at_level("INFO"):
        write_two(tmp_path / "folder")
    assert len(naps) == 2
    assert caplog.records[0].getMessage().startswith(f"waiting up to 120 s: {tmp_path / 'folder'} is being written by")
    assert os.listdir(tmp_path / "folder") == ["two"]


def test_a_lock_that_went_with_its_writer_is_not_taken(tmp_path, monkeypatch):
    """Between opening the file and locking it, its writer ended and a third one began with a file of its own."""
    monkeypatch.setattr(files.time, "sleep", lambda seconds: None)
    lock, take, calls = tmp_path / ".file.lock", fcntl.lockf, []

    def lockf(file, how):
        calls.append(os.fstat(file).st_ino)
        if len(calls) == 1:
            lock.rename(tmp_path / "gone")
            lock.touch()
        take(file, how)

    monkeypatch.setattr(files.fcntl, "lockf", lockf)
    with alone(tmp_path / "file"):
        assert len(calls) == 2
        assert lock.stat().st_ino == calls[1] != calls[0]


def test_a_disk_without_locks_is_written_with_a_warning(tmp_path, monkeypatch, caplog):
    def lockf(file, how):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(files.fcntl, "lockf", lockf)
    for name in ("one", "two"):
        with whole(tmp_path / name) as partial:
            partial.touch()
    assert [record.getMessage() for record in caplog.records] == [
        f"no locks in {tmp_path} (No locks available): a second process that writes there is not noticed"
    ]
    assert {"one", "two"} <= set(os.listdir(tmp_path))


def test_files_of_a_folder_that_is_being_written_need_no_lock(tmp_path, monkeypatch):
    with whole(tmp_path / "folder") as folder:
        monkeypatch.setattr(files, "alone", lambda path: pytest.fail("a lock a file"))
        with whole(folder / "deep" / "file") as partial:
            partial.touch()
    assert os.listdir(tmp_path / "folder" / "deep") == ["file"]


# --- full disks ----------------------------------------------------------------------------------------------------


def write(path, error):
    with whole(path) as partial:
        partial.mkdir()
        (partial / "one").write_bytes(bytes(2**21))
        raise error


@pytest.fixture
def free(monkeypatch):
    """A function that sets what is free on any disk, in bytes."""
    return lambda size: monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=size))


TORCH = RuntimeError("[enforce fail at inline_container.cc:671] . unexpected pos 704 vs 598")  # torch.save to /dev/full


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space"), OSError(errno.EDQUOT, "Disk quota exceeded"), TORCH], ids=str
)
def test_a_full_disk_is_named_with_what_is_free(tmp_path, monkeypatch, free, error):
    free(2**19)
    monkeypatch.setattr(os.path, "ismount", lambda path: path == tmp_path.resolve())
    with pytest.raises(OSError, match=r"the disk at .* is full .*: 0\.5 MiB are free, and the 2\.0 MiB") as found:
        write(tmp_path / "new" / "folder", error)
    assert f"at {tmp_path.resolve()} is" in str(found.value)
    assert str(found.value).endswith(f"'{tmp_path / 'new' / 'folder'}'")
    assert os.listdir(tmp_path / "new") == []


@pytest.mark.parametrize(
    "error",
    [TORCH, RuntimeError("no space"), OSError(errno.EIO, "I/O"), OSError(errno.ENOSPC, "No space", "/elsewhere/file")],
    ids=str,
)
def test_other_errors_are_not_called_a_full_disk(tmp_path, free, error):
    free(2**30)
    with pytest.raises(type(error)) as found:
        write(tmp_path / "folder", error)
    assert found.value is error


# --- unreadable files ----------------------------------------------------------------------------------------------


def read(error):
    with reading("a/file", "is damaged", "delete it"):
        raise error


def test_what_is_wrong_with_the_content_is_called_damage():
    with pytest.raises(ValueError, match=r"^a/file is damaged \(cut off\): delete it$"):
        read(EOFError("cut off"))
    with pytest.raises(ValueError, match=r"^a/file is damaged"):
        read(OSError(errno.EINVAL, "Invalid argument"))


def test_a_failure_to_read_keeps_its_message_and_gets_the_path():
    with pytest.raises(OSError, match=r"^\[Errno 116\] Stale file handle: 'a/file'$"):
        read(OSError(errno.ESTALE, "Stale file handle"))
    with pytest.raises(PermissionError, match=r"denied: 'own/place'$"):
        read(PermissionError(errno.EACCES, "denied", "own/place"))


def test_checksums_of_zip_files_alone_are_looked_at(tmp_path):
    path = tmp_path / "file.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("one", b"content")
    check_zip(path)
    path.write_bytes(path.read_bytes().replace(b"content", b"contend"))
    with pytest.raises(zipfile.BadZipFile, match="member one does not have its checksum"):
        check_zip(path)
    path.write_bytes(b"another format" + path.read_bytes())  # as an old .pth that happens to hold a zip's end
    check_zip(path)


@pytest.mark.parametrize("error", [MemoryError("no room"), OSError("the disk is away")])
def test_what_says_nothing_about_a_files_content_keeps_its_message(error):
    with pytest.raises(type(error), match=str(error)), reading("a.pt", "is damaged", "delete it"):
        raise error
