"""Outputs that appear whole or not at all, and what is wrong with files that cannot be read or written."""

import errno
import os
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole(path: str | Path) -> Iterator[Path]:
    """Yield a path beside ``path`` to write a file or a folder to; rename it into place at the end.

    If the block raises or the process dies, ``path`` is left as it was; what an earlier, killed writer left
    at the temporary place is removed first.

    Raises:
        OSError: the disk is full, with its name and what is free; or what the block raises.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
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
        raise ValueError(f"{path} {fault} ({error}): {way_out}") from error


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
