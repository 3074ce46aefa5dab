"""Fixtures that several test modules share: a tiny data set on disk, stores of maps, settings."""

import os
import pickle
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wsss_core.data import Classes, Manifest, Row, make_classes, write_mask

TINY_BACKBONE = "test_resnet"  # 0.37 million parameters


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Processes of ``-n auto``: the whole of the fast tests is spread, a selection or a marker has no use for it."""
    whole = config.args_source is config.ArgsSource.TESTPATHS and not config.option.keyword
    fast = config.option.markexpr == "not e2e and not gpu"
    return min(4, os.cpu_count()) if whole and fast else 0


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Networks this small only get slower by threads, and sums keep their order."""
    if torch := sys.modules.get("torch"):  # tests of the workflow do without
        torch.set_num_threads(1)


@dataclass(frozen=True)
class TinyData:
    """Eight noisy pictures of rectangles, all of whose pixels are known."""

    folder: Path
    manifest: Manifest
    classes: Classes

    @property
    def masks(self) -> Path:
        return self.folder / "masks"

    def mask(self, row: Row) -> np.ndarray:
        return np.load(self.folder / f"{row.id}.npy")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> TinyData:
    """Eight images of 32 x 48 and 48 x 32 pixels with one or two of three classes, and their masks; read only."""
    folder = tmp_path_factory.mktemp("tiny")
    (folder / "masks").mkdir()
    classes = make_classes(["circle", "square", "star"])
    rng = np.random.default_rng(7)
    rows = [_picture(folder, classes, index, rng) for index in range(8)]
    return TinyData(folder, Manifest.of(rows), classes)


def _picture(folder: Path, classes: Classes, index: int, rng: np.random.Generator) -> Row:
    height, width = ((32, 48), (48, 32))[index % 2]
    labels = sorted({index % 3, (index + index // 4) % 3})
    mask = np.zeros((height, width), np.uint8)
    for place, label in enumerate(labels):
        top, left = 4 + 14 * place, 3 + 13 * place
        mask[top - 1 : top + 13, left - 1 : left + 12] = 255  # void around an object, as in VOC
        mask[top : top + 12, left : left + 11] = label + 1
    colours = np.array([[90, 90, 90], [200, 60, 60], [60, 200, 60], [60, 60, 200]])
    pixels = colours[np.where(mask == 255, 0, mask)] + rng.integers(-40, 41, (height, width, 3))
    name = f"image{index}"
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{name}.png")
    write_mask(folder / "masks" / f"{name}.png", mask, classes)
    np.save(folder / f"{name}.npy", mask)
    return Row(name, str(folder / f"{name}.png"), str(folder / "masks" / f"{name}.png"), height, width, tuple(labels))


@pytest.fixture
def write_store() -> Callable:
    """A function that writes a store of given maps."""
    from wsss_core.maps.store import MapStore, MapWriter

    def write(path: Path, manifest: Manifest, maps: Mapping[str, np.ndarray], **grid) -> MapStore:
        with MapWriter(path, manifest, **{"stride": 4, "classwise": True, "about": {"run": "test"}, **grid}) as out:
            for row in manifest:
                out.append(row.id, maps[row.id])
        return MapStore(path)

    return write


@pytest.fixture
def random_maps() -> Callable:
    """A function that draws maps in [0, 1] of the rows and sizes that a store of the manifest needs."""
    from wsss_core.maps.sizes import cells

    def draw(manifest: Manifest, *, stride: int = 4, classwise: bool = True, seed: int = 0) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(seed)
        sizes = {row.id: (cells(row.height, stride), cells(row.width, stride)) for row in manifest}
        counts = {row.id: len(row.labels) if classwise else 1 for row in manifest}
        return {name: rng.random((counts[name], *size), np.float32) for name, size in sizes.items()}

    return draw


@pytest.fixture
def through_pickles() -> Callable:
    """Stands in for ``in_processes``: work, items and results go through pickles, without the price of a process."""

    def copied(value):
        return pickle.loads(pickle.dumps(value))

    def run(function, items, workers):
        for item in items:
            yield copied(copied(function)(copied(item)))

    return run


@pytest.fixture
def classifier_settings() -> Callable:
    """A function that makes settings of a classifier on the tiny data set; changes are given by name."""
    from wsss_core.recipes.settings import ClassifierSettings, made

    def make(**changes) -> ClassifierSettings:
        values = {
            "backbone": TINY_BACKBONE,
            "output_stride": 16,
            "resize": (32, 56),
            "crop": 32,
            "augmentation": "none",
            "batch_size": 4,
            "epochs": 2,
            "learning_rate": 0.01,
            "precision": "float32",
        }
        return made(ClassifierSettings, values | changes)

    return make


@pytest.fixture
def terms_of() -> Callable:
    """A function that makes the settings of a method's terms, their defaults but for changes by section."""
    from wsss_core.classifiers.terms import TERMS, read_terms
    from wsss_core.recipes.methods import METHODS, SECTIONS
    from wsss_core.recipes.settings import plain

    def make(method: str, **changes: dict) -> dict:
        names = [name for name in METHODS["prior"][method].sections if name in TERMS]
        assert set(changes) <= set(names)
        defaults = {name: plain(SECTIONS["prior"][name]()) for name in names}
        return read_terms({name: values | changes.get(name, {}) for name, values in defaults.items()})

    return make
