"""Maps on disk: a full-size file an image against the sharded stores, in space and in time.

Public code pickles a dict of maps into each ``.npy`` file; the plain arrays written here take as much space and are
read a little faster.
"""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
import torch.nn.functional as F

from benchmarks.harness import Comparison, Growth, Options, compare, growth
from wsss_core.data import Manifest, Row
from wsss_core.maps.inference import normalized_sum
from wsss_core.maps.sizes import full_size, strided
from wsss_core.maps.store import MapStore, MapWriter

IMAGES = 256
Maps = dict[str, np.ndarray]


def run(options: Options) -> Iterator[Comparison | Growth]:
    manifest = split(IMAGES)
    large, small = (smooth_maps(manifest, stride) for stride in (1, 4))
    with TemporaryDirectory() as folder:
        files = Path(folder) / "files"
        write_files(manifest, large, files)
        for dtype in ("float16", "uint8"):
            store = Path(folder) / f"{dtype}.zarr"
            write_store(manifest, small, dtype, store)
            yield _writing(manifest, large, small, dtype, files, store)
            yield from _reading(manifest, dtype, files, store)
        yield _growth(Path(folder))


def split(images: int) -> Manifest:
    """Images of VOC's sizes with one to three labels."""
    sizes = (375, 500), (500, 375), (333, 500)
    rows = [Row(f"{index:05d}", "", "", *sizes[index % 3], tuple(range(1 + index // 3 % 3))) for index in range(images)]
    return Manifest.of(rows)


def smooth_maps(manifest: Manifest, stride: int) -> Maps:
    """Maps in [0, 1] of blobs some 60 pixels wide, as of a network of stride 16."""
    generator = torch.Generator().manual_seed(0)
    maps = {}
    for row in manifest.rows:
        noise = torch.rand(1, len(row.labels), strided(row.height, 64), strided(row.width, 64), generator=generator)
        cells = F.interpolate(noise - 0.4, (strided(row.height, 16), strided(row.width, 16)), mode="bicubic")
        # for uint8 there is nothing above 1
        maps[row.id] = normalized_sum([cells[0].relu()], row.height, row.width, stride).clamp(max=1).numpy()
    return maps


def write_files(manifest: Manifest, maps: Maps, folder: Path) -> None:
    folder.mkdir()
    for row in manifest.rows:
        np.save(folder / f"{row.id}.npy", maps[row.id][:, : row.height, : row.width])


def write_store(manifest: Manifest, maps: Maps, dtype: str, path: Path) -> None:
    with MapWriter(path, manifest, stride=4, classwise=True, about={}, dtype=dtype) as out:
        for row in manifest.rows:
            out.append(row.id, maps[row.id])


def space(path: Path) -> str:
    """Megabytes and number of the files in a folder."""
    sizes = [file.stat().st_size for file in path.rglob("*") if file.is_file()]
    return f"{sum(sizes) / 2**20:.1f} MB in {len(sizes)} files"


def _writing(manifest: Manifest, large: Maps, small: Maps, dtype: str, files: Path, store: Path) -> Comparison:
    def into_new(write: Callable[[Path], None]) -> None:
        with TemporaryDirectory(dir=files.parent) as folder:
            write(Path(folder) / "maps")

    return compare(
        "stores",
        f"writing CAMs of {len(manifest)} images, {dtype}",
        usual="a full-size float32 .npy file an image",
        usual_way=partial(into_new, partial(write_files, manifest, large)),
        our_way=partial(into_new, partial(write_store, manifest, small, dtype)),
        agreement=lambda *_: f"{space(store)} against {space(files)}",
    )


def _reading(manifest: Manifest, dtype: str, files: Path, store: Path) -> Iterator[Comparison]:
    def usual(ids: list[str]) -> None:
        for image_id in ids:
            np.load(files / f"{image_id}.npy")

    def stored(ids: list[str]) -> None:
        opened = MapStore(store)
        for image_id in ids:
            opened[image_id]

    def resized(ids: list[str]) -> None:
        opened = MapStore(store)
        for image_id in ids:
            full_size(opened, image_id)

    shuffled = np.random.default_rng(0).permutation(manifest.ids).tolist()
    ways = (
        ("in order", stored, manifest.ids),
        ("in random order", stored, shuffled),
        ("in order, resized to full size", resized, manifest.ids),
    )
    for how, ours, ids in ways:
        yield compare(
            "stores",
            f"reading {len(ids)} images {how}, {dtype}",
            usual="a full-size float32 .npy file an image",
            usual_way=partial(usual, ids),
            our_way=partial(ours, ids),
            agreement=lambda *_, ours=ours: difference(files, store) if ours is resized else "maps at stride 4",
        )


def difference(files: Path, store: Path) -> str:
    """How far maps that were kept at stride 4 and resized are from those kept at full size, as text."""
    opened = MapStore(store)
    found = [np.abs(np.load(files / f"{image_id}.npy") - full_size(opened, image_id)[1]) for image_id in opened]
    worst, mean = max(maps.max() for maps in found), np.mean([maps.mean() for maps in found])
    return f"maps differ by {worst:.0e} at most, {mean:.0e} on average"


def _growth(folder: Path) -> Growth:
    def reading(images: float) -> Callable[[], None]:
        manifest = split(int(images))
        path = folder / f"{images}.zarr"
        write_store(manifest, smooth_maps(manifest, 4), "float16", path)

        def call() -> None:
            store = MapStore(path)
            for image_id in store:
                store[image_id]

        return call

    return growth("stores", "images read", [IMAGES, 2 * IMAGES, 4 * IMAGES], reading)
