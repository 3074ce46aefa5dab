"""Outputs that appear whole or not at all, and what is wrong with files that cannot be read or written."""

import errno
import fcntl
import logging
import os
import shutil
import socket
import textwrap
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path

logger = logging.getLogger(__name__)

# Seconds that a writer waits for another one. One that is being ended may go on for 30 (SLURM's KillWait), and a
# server of network disks keeps the locks of a machine that died for 90.
PATIENCE = 120

PARTIAL = ".partial"


@contextmanager
def whole(path: str | Path) -> Iterator[Path]:
    """Yield a path beside ``path`` to write a file or a folder to; rename it into place at the end.

    If the block raises or the process dies, ``path`` is left as it was; what an earlier, killed writer left
    at the temporary place is removed first. A second writer is held off, see ``alone``.

    Raises:
        OSError: the disk is full, with its name and what is free; or what the block raises.
        RuntimeError: another process is writing it.
    """
    path = Path(path)
    if any(part.startswith(".") and part.endswith(PARTIAL) for part in path.parts):  # its folder is locked already
        with _replaced(path) as partial:
            yield partial
    else:
        with alone(path), _replaced(path) as partial:
            yield partial


@contextmanager
def alone(path: str | Path) -> Iterator[None]:
    """Be the only process, on all machines, that makes an output; wait a while for another one to end.

    The lock is one of POSIX on ``.<name>.lock`` beside the output: the system lets go of it when its process ends,
    however that ends, and forked workers do not inherit it. Where a disk knows no locks, a warning says so once.

    Raises:
        RuntimeError: another process is still at it, with its number and machine.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = path.with_name(f".{path.name}.lock")
    file = _locked(path, lock)
    try:
        yield
    finally:
        if file is not None:
            with suppress(OSError):  # some disks keep what is open
                lock.unlink()  # while it is locked: who waits for it will open a new one
            os.close(file)


def _locked(path: Path, lock: Path) -> int | None:
    """The open file, which is locked if its disk knows locks; None where not even a file can be made."""
    begin, waits = time.monotonic(), False
    while True:
        file = None
        try:
            file = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
            holder = _try_lock(file)
        except OSError as error:  # of a folder that cannot be written, the writing tells
            _warn_of_no_locks(path.parent, error.strerror)
            return file
        if not holder and _is(file, lock):
            return file
        os.close(file)
        if not holder:  # its writer ended, and removed it after it was opened here
            continue
        if time.monotonic() - begin >= PATIENCE:
            raise RuntimeError(
                f"{path} is being written by {holder}: let that end, or end it, and run the rule again; if there is no "
                f"such process, remove {lock}"
            )
        if not waits:
            logger.info("waiting up to %d s: %s is being written by %s", PATIENCE, path, holder)
            waits = True
        time.sleep(5)


def _try_lock(file: int) -> str:
    """Lock a file and say in it who did; or who has it."""
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # either, by POSIX
        return os.pread(file, 300, 0).decode(errors="replace").strip() or "another process"
    os.truncate(file, 0)
    os.pwrite(file, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
    return ""


def _is(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False


@lru_cache
def _warn_of_no_locks(folder: Path, why: str) -> None:
    logger.warning("no locks in %s (%s): a second process that writes there is not noticed", folder, why)


@contextmanager
def _replaced(path: Path) -> Iterator[Path]:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}{PARTIAL}")
    _remove(partial)
    try:
        yield partial
    except BaseException as error:
        full = _full_disk(path, partial) if _is_full(error, partial) else None
        _remove(partial)
        if full:
            raise full from error
        raise
    if path.is_dir():
        shutil.rmtree(path)  # a rename replaces a file, but not a folder that holds something
    os.replace(partial, path)


@contextmanager
def reading(path: str | Path, fault: str, way_out: str) -> Iterator[None]:
    """Call what the block raises a fault of the file's content, but for a failure to read it (``OSError``).

    A disk that is away or a file that is someone else's says nothing about what is in it, and nothing is to be
    deleted then. Such an error keeps its message and gets the path, if it has none.

    Args:
        fault, way_out: the message is "<path> <fault> (<error>): <way_out>".
    """
    try:
        yield
    except MemoryError:  # says nothing about the file either
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno != errno.EINVAL:  # a damaged offset asks for a wrong place
            if error.errno is not None:  # without a number, the name would take the message's place
                error.filename = error.filename or str(path)  # reads, unlike opening, do not name the file
            raise
        raise ValueError(f"{path} {fault} ({textwrap.shorten(str(error), 400)}): {way_out}") from error


def check_zip(path: str | Path) -> None:
    """Hold what PyTorch reads as a zip file against its checksums, which it skips; other files pass.

    Raises:
        zipfile.BadZipFile: a flipped bit, which would otherwise be another weight.
    """
    with open(path, "rb") as file:
        if file.read(4) != b"PK\x03\x04":  # PyTorch looks no further either
            return
        with zipfile.ZipFile(file) as archive:
            if member := archive.testzip():
                raise zipfile.BadZipFile(f"member {member} does not have its checksum")


def _is_full(error: BaseException, partial: Path) -> bool:
    """Whether an output could not be written for want of room; to be asked while what is half-written is there."""
    if isinstance(error, OSError):
        place = error.filename if isinstance(error.filename, (str, os.PathLike)) else partial  # writes name none
        return error.errno in (errno.ENOSPC, errno.EDQUOT) and Path(place).is_relative_to(partial)
    # torch.save does not say why its writer failed
    return "inline_container.cc" in str(error) and shutil.disk_usage(partial.parent).free < 2**20


def _full_disk(path: Path, partial: Path) -> OSError:
    folder = path.parent.resolve()
    disk = next(place for place in (folder, *folder.parents) if os.path.ismount(place))
    free = shutil.disk_usage(folder).free / 2**20
    half = sum(file.lstat().st_size for file in (partial, *partial.rglob("*")) if file.is_file()) / 2**20
    return OSError(
        errno.ENOSPC,
        f"the disk at {disk} is full or a quota is used up: {free:.1f} MiB are free, and the {half:.1f} MiB that were "
        "half-written are removed; make room and run the rule again",
        str(path),
    )


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
