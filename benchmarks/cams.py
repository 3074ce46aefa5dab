"""CAMs of a split: the usual loop over images against ``dump_cams``."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from benchmarks.harness import Comparison, Growth, Options, compare, growth
from wsss_core.classifiers.cams import dump_cams
from wsss_core.classifiers.network import Classifier, build_classifier
from wsss_core.data import Manifest, Row
from wsss_core.maps.sizes import enlarge
from wsss_core.maps.store import MapStore
from wsss_core.recipes.settings import CamSettings

SCALES = (0.5, 1.0, 1.5, 2.0)
LANDSCAPE, PORTRAIT = (375, 500), (500, 375)
# backbone and images by device: a CPU takes a second for an image
SIZES = {"cpu": (("mobilenetv2_100", 4),), "cuda": (("resnet50", 96), ("resnest50", 96))}
SMALL = "test_resnet"  # of the growth on a CPU


def run(options: Options) -> Iterator[Comparison | Growth]:
    with TemporaryDirectory() as folder:
        for backbone, images in SIZES[options.device]:
            yield _against_the_loop(backbone, pictures(Path(folder) / backbone, images), options)
        yield from _growths(Path(folder), options)


def pictures(folder: Path, images: int, sizes: Sequence[tuple[int, int]] = (LANDSCAPE, PORTRAIT)) -> Manifest:
    """JPEGs of smooth noise, of the sizes in turns, with one to three of 20 labels."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    rows = []
    for index in range(images):
        height, width = sizes[index % len(sizes)]
        blobs = Image.fromarray(rng.integers(0, 256, (height // 16, width // 16, 3), np.uint8))
        path = folder / f"{index:05d}.jpg"
        blobs.resize((width, height), Image.Resampling.BICUBIC).save(path, quality=90)
        labels = sorted(rng.choice(20, 1 + index % 3, replace=False).tolist())
        rows.append(Row(path.stem, str(path), "", height, width, tuple(labels)))
    return Manifest.of(rows)


def network(backbone: str) -> Classifier:
    torch.manual_seed(0)
    return build_classifier(backbone, 20, output_stride=16, weights=None)


@torch.no_grad()
def usual_loop(model: Classifier, manifest: Manifest, scales: Sequence[float], options: Options, folder: Path) -> dict:
    """One image at a time with its mirror image, float32 in NCHW, decoded in line, a file of full-size maps each.

    Maps at stride 4 are made beside them, as in public code.

    Returns:
        The full-size maps by image.
    """
    device = torch.device(options.device)
    model = model.to(device, memory_format=torch.contiguous_format).eval()
    mean, deviation = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
    kept = {}
    for row in manifest.rows:
        picture = Image.open(row.image).convert("RGB")
        small_size = (row.height - 1) // 4 + 1, (row.width - 1) // 4 + 1
        large_size = (row.height - 1) // 16 * 16 + 16, (row.width - 1) // 16 * 16 + 16
        small, large = [], []
        for scale in scales:
            size = round(row.width * scale), round(row.height * scale)
            pixels = (np.asarray(picture.resize(size, Image.Resampling.BICUBIC), np.float32) / 255 - mean) / deviation
            image = torch.from_numpy(pixels.transpose(2, 0, 1).copy())
            maps = model.maps(torch.stack([image, image.flip(2)]).to(device)).relu()
            maps = (maps[0] + maps[1].flip(2))[None]
            small.append(F.interpolate(maps, small_size, mode="bilinear")[0])
            large.append(F.interpolate(maps, large_size, mode="bilinear")[0, :, : row.height, : row.width])
        small, large = (torch.stack(maps).sum(0)[list(row.labels)] for maps in (small, large))
        small, large = (maps / (maps.amax((1, 2), keepdim=True) + 1e-5) for maps in (small, large))
        small.cpu()
        kept[row.id] = large.cpu().numpy()
        np.save(folder / f"{row.id}.npy", kept[row.id])
    return kept


def this_way(
    model: Classifier, manifest: Manifest, scales: Sequence[float], options: Options, folder: Path
) -> MapStore:
    dump_cams(
        model=model,
        manifest=manifest,
        store=folder / "cams.zarr",
        settings=CamSettings(scales=tuple(scales)),
        about={},
        device=torch.device(options.device),
        workers=options.threads - 1,  # as the rule does
    )
    return MapStore(folder / "cams.zarr")


def _against_the_loop(backbone: str, manifest: Manifest, options: Options) -> Comparison:
    ours, theirs = network(backbone), network(backbone)

    def loop() -> dict:
        with TemporaryDirectory() as folder:
            return usual_loop(theirs, manifest, SCALES, options, Path(folder))

    def dump() -> dict:
        with TemporaryDirectory() as folder:
            store = this_way(ours, manifest, SCALES, options, Path(folder))
            return {image_id: store[image_id][1] for image_id in store}

    return compare(
        "dump_cams",
        f"{len(manifest)} images, {len(SCALES)} scales and mirror images, {backbone}",
        usual="one image at a time, float32, full-size .npy files",
        usual_way=loop,
        our_way=dump,
        agreement=differences,
        pairs=3,
    )


def differences(theirs: dict[str, np.ndarray], ours: dict[str, np.ndarray]) -> str:
    """How far maps that were kept at stride 4 are from full-size ones in [0, 1], as text."""
    found = [np.abs(maps - enlarge(ours[name], 4, *maps.shape[1:])) for name, maps in theirs.items()]
    worst, mean = max(maps.max() for maps in found), np.mean([maps.mean() for maps in found])
    return f"maps differ by {worst:.0e} at most, {mean:.0e} on average"


def _growths(folder: Path, options: Options) -> Iterator[Growth]:
    on_card = options.device == "cuda"
    model = network("resnet50" if on_card else SMALL)
    few = 64 if on_card else 4

    def dump(manifest: Manifest, scales: Sequence[float]) -> Callable[[], None]:
        def call() -> None:
            with TemporaryDirectory() as target:
                this_way(model, manifest, scales, options, Path(target))

        return call

    def of_images(images: float) -> Callable[[], None]:
        return dump(pictures(folder / f"images{images}", int(images)), (1.0,))

    def of_pixels(pixels: float) -> Callable[[], None]:
        height = round((pixels * 3 / 4) ** 0.5)
        return dump(pictures(folder / f"pixels{pixels}", few, [(height, round(pixels / height))]), (1.0,))

    def of_scales(scales: float) -> Callable[[], None]:
        return dump(pictures(folder / f"scales{scales}", few), (1.0,) * int(scales))

    yield growth("dump_cams", "images", [few, 2 * few, 4 * few], of_images)
    yield growth("dump_cams", "pixels of an image", [93_750, 187_500, 375_000, 750_000], of_pixels)
    yield growth("dump_cams", "scales, all 1.0", [1, 2, 4, 8], of_scales)
