"""Random damage to files, and a look at what reading them does to the disk."""

import os
import random
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CASES = int(os.environ.get("FUZZ_CASES", "250"))  # of each file
STRANGE = ("", "0", "-1", "1e999", "NaN", "../x", "é", "\x00", "9" * 400, "null", "[]", "{}", '"', ",", ";", "\n", "\r")
# What changes the disk: the places, among its arguments, of a path and of the open folder that it may start from.
WRITES = {
    "os.mkdir": [(0, 2)],
    "os.rename": [(0, 2), (1, 3)],
    "os.remove": [(0, 1)],
    "os.rmdir": [(0, 1)],
    "os.link": [(1, 3)],
    "os.symlink": [(1, 2)],
}
PROGRAMS = {"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork"}


def damaged(content: bytes, rng: random.Random) -> bytes:
    """One to three changes of bytes: some go, some are doubled, some become others, or something strange comes in."""
    for _ in range(rng.randint(1, 3)):
        start = rng.randrange(len(content) + 1)
        end = min(len(content), start + rng.choice((1, 1, 2, 5, 40, len(content))))
        middle = {
            "cut": b"",
            "double": 2 * content[start:end],
            "flip": bytes(byte ^ 1 << rng.randrange(8) for byte in content[start:end]),
            "strange": rng.choice(STRANGE).encode() + content[start:end],
            "random": rng.randbytes(end - start),
            "number": struct.pack(">I", rng.choice((0, 2**31, 2**32 - 1))),
        }[rng.choice(("cut", "double", "flip", "strange", "random", "number"))]
        content = content[:start] + middle + content[end:]
    return content


class _Watch:
    """An audit hook, which stays for the life of the process: it looks while it has a folder."""

    def __init__(self) -> None:
        self.folder: Path | None = None
        self.found: list[str] = []
        self.hooked = False

    def __call__(self, event: str, arguments: tuple) -> None:
        if self.folder is None:
            return
        if event in PROGRAMS:
            self.found.append(f"{event} {arguments}")
        elif event == "open":
            path, _, flags = arguments
            if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC):
                self.note(event, path, -1)
        else:
            for path, start in WRITES.get(event, ()):
                self.note(event, arguments[path], arguments[start])

    def note(self, event: str, path: object, start: int) -> None:
        if isinstance(path, int):  # an open file was looked at when it was opened
            return
        where = Path(os.readlink(f"/proc/self/fd/{start}") if start >= 0 else "", os.fsdecode(path))
        within = Path(os.path.abspath(where)).is_relative_to(self.folder)
        if not within and "__pycache__" not in where.parts and where != Path(os.devnull):
            self.found.append(f"{event} {where}")


_watch = _Watch()


@contextmanager
def kept_within(folder: Path) -> Iterator[None]:
    """Fail if Python writes, makes, moves or removes anything outside a folder, or starts a program."""
    if not _watch.hooked:
        sys.addaudithook(_watch)
        _watch.hooked = True
    _watch.folder, _watch.found = folder.resolve(), []
    try:
        yield
    finally:
        _watch.folder = None
    assert not _watch.found, _watch.found[:10]
