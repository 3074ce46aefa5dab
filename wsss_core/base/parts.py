"""What a long job has finished, kept beside its output part by part, so that a job that was killed goes on."""

import logging
import shutil
from itertools import count
from pathlib import Path

import numpy as np

from wsss_core.base.files import reading, whole

logger = logging.getLogger(__name__)


class Parts:
    """The finished parts of an output, arrays in files of ``.<name>.parts`` beside it, numbered from 0.

    Args:
        output: path of the output; only who holds it ``files.alone`` may write parts.
        digest: of all that decides about the values; parts with another one are left to be overwritten.
    """

    def __init__(self, output: str | Path, digest: str):
        output = Path(output)
        self.folder, self.digest = output.with_name(f".{output.name}.parts"), digest

    def __len__(self) -> int:
        """Parts in a row from the first on that are there, sound and of this digest."""
        return next(number for number in count() if self._read(number) is None)

    def __getitem__(self, number: int) -> np.ndarray:
        values = self._read(number)
        if values is None:
            raise FileNotFoundError(f"{self._path(number)} was removed while its job read it: run its rule again")
        return values

    def write(self, number: int, values: np.ndarray) -> None:
        """Keep a part, whole or not at all."""
        with whole(self._path(number)) as partial, open(partial, "wb") as file:  # a name would get a suffix
            np.savez(file, digest=self.digest, values=values)

    def forget(self) -> None:
        """Remove them all: the output is there."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:06d}.npz"

    def _read(self, number: int) -> np.ndarray | None:
        path = self._path(number)
        if not path.exists():
            return None
        try:
            with (
                reading(path, "is damaged", "it is made again"),
                open(path, "rb") as file,
                np.load(file, allow_pickle=False) as content,  # each member has a checksum, which reading it compares
            ):
                return content["values"] if str(content["digest"]) == self.digest else None
        except ValueError as error:
            logger.warning("%s", error)
            return None
