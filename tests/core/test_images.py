"""Training samples: image, mask and hint stay aligned; faulty files are named."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from wsss_core.data import DataError, Manifest, Row
from wsss_core.data.images import LabelledCrops, MaskedCrops, ScaledImages, read_image
from wsss_core.data.transforms import MEAN, STD


@pytest.fixture
def gradient(tmp_path) -> Manifest:
    """One image whose red channel tells the column and whose green channel tells the row, 30 x 50."""
    rows, columns = np.mgrid[:30, :50].astype(np.uint8)
    Image.fromarray(np.dstack([4 * columns, 8 * rows, 0 * rows])).save(tmp_path / "g.png")
    return Manifest.of([Row("g", str(tmp_path / "g.png"), "", 30, 50, (1,))])


def mask_of(row: Row) -> np.ndarray:
    """A mask of the gradient that says the same as its colours: 5 rows and 5 columns of values."""
    rows, columns = np.mgrid[: row.height, : row.width]
    return (rows // 6 * 5 + columns // 10).astype(np.uint8)


def colours(image: torch.Tensor) -> np.ndarray:
    return image.permute(1, 2, 0).numpy() * STD + MEAN


@pytest.mark.parametrize("size", [16, 40, 64])
def test_masks_follow_their_images_through_mirror_and_crop(gradient, size):
    samples = MaskedCrops(gradient, mask_of, resize=(50, 50), size=size)
    mirrored = set()
    for seed in range(12):
        sample = samples.sample(0, np.random.default_rng(seed))
        image, mask = colours(sample["image"]), sample["mask"].numpy()
        inside = mask != 255
        columns, rows = (image * 255 / [4, 8, 1]).round()[..., :2].transpose(2, 0, 1)
        np.testing.assert_array_equal((rows // 6 * 5 + columns // 10)[inside], mask[inside])
        np.testing.assert_allclose(sample["image"].numpy()[:, ~inside], 0)  # padding: mean colour, and void
        assert inside.sum() == min(size, 30) * min(size, 50)
        first, *_, last = columns[inside.any(1)][0][inside.any(0)]
        mirrored.add(first > last)
    assert mirrored == {True, False}
    assert sample["mask"].dtype == torch.uint8


def test_masks_are_resized_with_their_images(gradient):
    sample = MaskedCrops(gradient, mask_of, resize=(100, 100), size=100).sample(0, np.random.default_rng(0))
    mask = sample["mask"].numpy()
    assert (mask != 255).sum() == 60 * 100
    assert set(np.unique(mask)) == {*range(25), 255}


def test_the_longer_side_is_drawn_from_the_whole_range(gradient):
    samples, rng = MaskedCrops(gradient, mask_of, resize=(20, 22), size=22), np.random.default_rng(0)
    widths = {int((samples.sample(0, rng)["mask"] != 255).any(0).sum()) for _ in range(40)}
    assert widths == {20, 21, 22}


def test_labelled_crops_have_labels_and_mean_colour_around_them(tiny):
    samples = LabelledCrops(tiny.manifest, 3, resize=(32, 32), size=64, augmentation="randaug")
    for index, row in enumerate(tiny.manifest):
        sample = samples.sample(index, np.random.default_rng(index))
        assert sample["image"].shape == (3, 64, 64)
        assert sample["image"].dtype == torch.float32
        assert torch.nonzero(sample["labels"]).flatten().tolist() == list(row.labels)
        empty = (sample["image"] == 0).all(0)
        assert empty.sum() == 64 * 64 - 32 * round(32 * 32 / 48)


def test_the_same_generator_gives_the_same_sample(tiny):
    samples = LabelledCrops(tiny.manifest, 3, resize=(24, 64), size=32, augmentation="jitter")
    first, again, other = (samples.sample(2, np.random.default_rng(seed))["image"] for seed in (8, 8, 9))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_scaled_images_have_rounded_sizes_and_keep_the_original(gradient):
    index, views = ScaledImages(gradient, (0.5, 1.0, 1.55))[0]
    assert index == 0
    assert [tuple(view.shape) for view in views] == [(3, 15, 25), (3, 30, 50), (3, round(30 * 1.55), round(50 * 1.55))]
    np.testing.assert_allclose(colours(views[1]) * 255, np.asarray(Image.open(gradient.rows[0].image)), atol=1e-3)


@pytest.mark.parametrize("fault", ["missing", "empty", "text", "cut", "header", "chunk"])
def test_a_missing_or_broken_image_is_named(tiny, tmp_path, fault):
    path, content = tmp_path / "broken.png", bytearray(Path(tiny.manifest.rows[0].image).read_bytes())
    if fault == "header":
        content[11] = 1  # its length
    if fault == "chunk":
        content[36] = 1  # the length of the pixels
    faulty = {"empty": b"", "text": b"no picture", "cut": content[:500]}.get(fault, content)
    if fault != "missing":
        path.write_bytes(faulty)
    with pytest.raises(DataError, match=r"cannot read the image .*broken\.png"):
        read_image(path)


def test_grey_and_transparent_pictures_become_rgb(tmp_path):
    for mode in ("L", "RGBA", "P"):
        Image.new(mode, (4, 3)).save(tmp_path / f"{mode}.png")
        assert read_image(tmp_path / f"{mode}.png").mode == "RGB"


def test_a_label_beyond_the_classes_is_refused(tiny):
    row = dataclasses.replace(tiny.manifest.rows[0], labels=(3,))
    with pytest.raises(DataError, match="image0 has the label 3, but there are 3 classes"):
        LabelledCrops(Manifest.of([row]), 3, resize=(32, 32), size=32, augmentation="none")
