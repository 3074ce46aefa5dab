"""Training samples: the pipeline of one image, and an epoch of the loader with pictures kept and decoded anew."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset
from torchvision.transforms import functional as TF

from benchmarks.harness import Comparison, Options, compare
from wsss_core.data import Manifest, Row, make_classes, read_mask, write_mask
from wsss_core.data.classes import VOID
from wsss_core.data.pictures import Pictures
from wsss_core.data.samples import LabelledCrops, MaskedCrops
from wsss_core.data.transforms import AUGMENTATIONS, MEAN, STD, crop_window, resize_longer_side
from wsss_core.fitting.loader import EpochLoader

IMAGES, BATCH, CLASSES = 32, 8, make_classes(["circle", "square", "star"])


@dataclass(frozen=True)
class Recipe:
    """Sizes of pictures and crops, and the augmentation."""

    height: int
    width: int
    resize: Sequence[int]
    crop: int
    augmentation: str

    def __str__(self) -> str:
        resize = f"longer side {self.resize[0]} to {self.resize[1]}, crop {self.crop}"
        return f"{IMAGES} JPEGs of {self.height} x {self.width}, {resize}, augmentation {self.augmentation}"


VOC = Recipe(375, 500, (320, 640), 512, "randaug")
SMALL = Recipe(240, 320, (204, 410), 256, "randaug")


class UsualCrops(Dataset):
    """Decode, resize, mirror, augment, then torchvision's to_tensor and normalize of all, then the crop."""

    def __init__(self, manifest: Manifest, recipe: Recipe, read_mask: Callable[[Row], np.ndarray] | None):
        self.manifest, self.recipe, self.read_mask = manifest, recipe, read_mask
        self.labels = manifest.multi_hot(CLASSES)

    def __len__(self) -> int:
        return len(self.manifest)

    def sample(self, index: int, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        row, recipe = self.manifest.rows[index], self.recipe
        length = int(rng.integers(recipe.resize[0], recipe.resize[1] + 1))
        image = resize_longer_side(Image.open(row.image).convert("RGB"), length)
        if self.read_mask is not None:
            mask = resize_longer_side(Image.fromarray(self.read_mask(row)), length, Image.Resampling.NEAREST)
        mirrored = rng.random() < 0.5
        if mirrored:
            image = TF.hflip(image)
        pixels = TF.normalize(TF.to_tensor(AUGMENTATIONS[recipe.augmentation](image, rng)), MEAN.tolist(), STD.tolist())
        rows, columns, to_rows, to_columns = crop_window(*pixels.shape[1:], recipe.crop, rng)
        canvas = torch.zeros(3, recipe.crop, recipe.crop)
        canvas[:, to_rows, to_columns] = pixels[:, rows, columns]
        if self.read_mask is None:
            return {"image": canvas, "labels": torch.from_numpy(self.labels[index])}
        values = torch.full((recipe.crop, recipe.crop), VOID, dtype=torch.uint8)
        turned = TF.hflip(mask) if mirrored else mask
        values[to_rows, to_columns] = torch.from_numpy(np.array(turned)[rows, columns])
        return {"image": canvas, "mask": values}


def run(options: Options) -> Iterator[Comparison]:
    """Samples in one process, then epochs of the loader with worker processes."""
    with tempfile.TemporaryDirectory() as folder:
        for name, recipe in (("voc", VOC), ("small", SMALL)):
            manifest = write_pictures(Path(folder, name), recipe)
            yield from _samples(manifest, recipe)
            yield _kept(manifest, recipe, options.threads)


def write_pictures(folder: Path, recipe: Recipe) -> Manifest:
    """Pictures with the detail of photographs, drawn from a seed (JPEGs as large as those of VOC), and masks."""
    folder.mkdir()
    rng, size = np.random.default_rng(0), (recipe.width, recipe.height)
    rows = []
    for index in range(IMAGES):
        coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8)).resize(size, Image.Resampling.BICUBIC)
        noise = rng.normal(0, 12, (recipe.height, recipe.width, 1))
        pixels = (np.asarray(coarse) + noise).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.jpg", quality=85)
        blocks = Image.fromarray(rng.integers(0, 4, (6, 8), np.uint8)).resize(size, Image.Resampling.NEAREST)
        write_mask(folder / f"{index}.png", np.asarray(blocks), CLASSES)
        files = str(folder / f"{index}.jpg"), str(folder / f"{index}.png")
        rows.append(Row(str(index), *files, recipe.height, recipe.width, (index % 3,)))
    return Manifest.of(rows)


def _samples(manifest: Manifest, recipe: Recipe) -> Iterator[Comparison]:
    how = {"resize": recipe.resize, "size": recipe.crop, "augmentation": recipe.augmentation}
    jittered = Recipe(**vars(recipe) | {"augmentation": "jitter"})
    plain = Recipe(**vars(recipe) | {"augmentation": "none"})
    for case, read, ours in (
        (recipe, None, LabelledCrops(manifest, 3, **how)),
        (jittered, None, LabelledCrops(manifest, 3, **how | {"augmentation": "jitter"})),
        (plain, read_truth, MaskedCrops(manifest, read_truth, **how | {"augmentation": "none"})),
    ):
        usual = UsualCrops(manifest, case, read)
        yield _epochs(
            "training samples" if read is None else "training samples with masks",
            str(case),
            "each picture decoded in each epoch; PIL and torchvision, all of it normalised before the crop",
            usual,
            ours,
            workers=0,
        )


def _kept(manifest: Manifest, recipe: Recipe, workers: int) -> Comparison:
    how = {"resize": recipe.resize, "size": recipe.crop, "augmentation": recipe.augmentation}
    anew, kept = (LabelledCrops(manifest, 3, **how) for _ in range(2))
    anew.pictures = Pictures(manifest.rows, limit=0)
    usual = "the same code, each picture decoded in each epoch"
    return _epochs(f"kept pictures, {workers} workers, second epoch on", str(recipe), usual, anew, kept, workers)


def _epochs(stage: str, case: str, usual: str, theirs: Dataset, ours: Dataset, workers: int) -> Comparison:
    loaders = [EpochLoader(samples, batch_size=BATCH, seed=0, workers=workers) for samples in (theirs, ours)]
    usual_way, our_way = (partial(epoch_of, loader) for loader in loaders)
    return compare(
        stage, case, usual=usual, usual_way=usual_way, our_way=our_way, agreement=lambda *_: _same(*loaders), pairs=7
    )


def epoch_of(loader: EpochLoader) -> int:
    """Number of batches of an epoch, all of which are made."""
    return sum(1 for _ in loader.epoch(0))


def read_truth(row: Row) -> np.ndarray:
    """The mask of a row."""
    return read_mask(row.mask, CLASSES)


def _same(theirs: EpochLoader, ours: EpochLoader) -> str:
    pairs = zip(theirs.epoch(0), ours.epoch(0), strict=True)
    differ = sum(not torch.equal(a[key], b[key]) for a, b in pairs for key in a)
    return f"{differ} batches differ" if differ else "equal to the last bit"
