"""What commands print: aligned lines, numbers that people read, and mistakes of their callers."""

import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

WIDEST = 48  # of all columns but the last


class CommandError(ValueError):
    """A command that cannot be carried out; the message is one line that says why, and the way out."""


def print_rows(rows: Iterable[Sequence[str]], indent: str = "") -> None:
    """Print rows with their columns aligned, all but the last one at most ``WIDEST`` wide."""
    table = [tuple(row) for row in rows]
    across = max(map(len, table), default=1) - 1
    widths = [max((min(len(row[c]), WIDEST) for row in table if c < len(row)), default=0) for c in range(across)]
    try:
        for row in table:
            cells = [f"{cell:{widths[c]}}" if c < across else cell for c, cell in enumerate(row)]
            print((indent + "  ".join(cells)).rstrip())
        sys.stdout.flush()
    except BrokenPipeError:  # whoever reads, such as head, has seen enough; nothing is left to be flushed at the end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def told(value: object) -> str:
    """A setting as config.yaml writes it; ``-`` for none."""
    return "-" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)


def megabytes(size: float) -> str:
    """``12.3 MB``, or in GB or kB where that reads better."""
    for unit, bytes_of in (("GB", 1e9), ("MB", 1e6)):
        if size >= bytes_of:
            return f"{size / bytes_of:.1f} {unit}"
    return f"{size / 1e3:.1f} kB"


def per_cent(value: float | None) -> str:
    """A share as ``12.3 %``; ``-`` for none."""
    return "-" if value is None else f"{100 * value:.1f} %"
