"""The table of peaks of class maps, between the network that finds them and the labels of proposals."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from wsss_core.base.files import reading, whole

COLUMNS = ("image_id", "label", "row", "column", "grid", "score")


def write_peaks(path: str | Path, rows: Sequence[tuple[str, int, int, int, int, float]]) -> None:
    """Write peaks, with the values of ``COLUMNS`` each, as CSV."""
    with whole(path) as partial:
        pd.DataFrame(list(rows), columns=list(COLUMNS)).to_csv(partial, index=False, lineterminator="\n")


def read_peaks(path: str | Path) -> dict[str, tuple[np.ndarray, np.ndarray, int]]:
    """What ``dump_peaks`` wrote, by image: peaks (P, 3) int64 of class, row and column, their values (P,), the grid.

    Raises:
        ValueError: not such a table.
    """
    with reading(path, "cannot be read as peaks", "delete it and run its rule again"):
        table = pd.read_csv(path, dtype={"image_id": str}, keep_default_na=False)
        if tuple(table.columns) != COLUMNS:
            raise ValueError(f"its columns are {', '.join(table.columns)}")
        numbers = table[["label", "row", "column", "grid"]].to_numpy(np.int64)
        scores = table["score"].to_numpy(np.float64)
    return {
        str(image_id): (numbers[places, :3], scores[places], int(numbers[places[0], 3]))
        for image_id, places in table.groupby("image_id", sort=False).indices.items()
    }
