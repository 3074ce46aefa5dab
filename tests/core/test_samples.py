"""Training samples: image, mask and hint stay aligned; faulty files are named."""

import dataclasses
import mmap
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from wsss_core.data import DataError, Manifest, Row, write_grey
from wsss_core.data.pictures import Pictures, read_image
from wsss_core.data.samples import LabelledCrops, MaskedCrops, ScaledImages, network_input
from wsss_core.data.transforms import (
    AUGMENTATIONS,
    MEAN,
    STD,
    crop,
    crop_window,
    normalize,
    resize_longer_side,
    to_tensor,
)
from wsss_core.fitting.loader import EpochLoader
from wsss_core.saliency.poolnet_training import SaliencyPairs


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


def test_a_factor_of_the_own_size_goes_before_the_longer_side(gradient):
    samples = MaskedCrops(gradient, mask_of, resize=(5, 5), rescale=(0.5, 1.5), size=80)
    rng, (width, height) = np.random.default_rng(0), samples.pictures[0].size
    for _ in range(40):
        inside = samples.sample(0, rng)["mask"] != 255
        factors = inside.any(0).sum().item() / width, inside.any(1).sum().item() / height
        assert factors[0] == pytest.approx(factors[1], abs=1 / min(width, height))
        assert 0.5 - 1 / width <= factors[0] <= 1.5 + 1 / width
    exact = MaskedCrops(gradient, mask_of, resize=(5, 5), rescale=(0.5, 0.5), size=80)
    assert (exact.sample(0, rng)["mask"] != 255).any(0).sum() == round(width / 2)


def test_crops_of_classifiers_may_have_a_factor_of_the_own_size(gradient):
    samples = LabelledCrops(gradient, 3, resize=(5, 5), rescale=(0.5, 2.0), size=120, augmentation="none")
    rng, width = np.random.default_rng(0), samples.pictures[0].size[0]
    widths = [(samples.sample(0, rng)["image"] != 0).any(0).any(0).sum().item() for _ in range(40)]
    assert min(widths) < 0.75 * width
    assert max(widths) > 1.5 * width
    assert all(0.5 * width - 1 <= found <= 2 * width + 1 for found in widths)


def test_labelled_crops_have_labels_and_mean_colour_around_them(tiny):
    samples = LabelledCrops(tiny.manifest, 3, resize=(32, 32), size=64, augmentation="randaug")
    for index, row in enumerate(tiny.manifest):
        sample = samples.sample(index, np.random.default_rng(index))
        assert sample["image"].shape == (3, 64, 64)
        assert sample["image"].dtype == torch.float32
        assert torch.nonzero(sample["labels"]).flatten().tolist() == list(row.labels)
        empty = (sample["image"] == 0).all(0)
        assert empty.sum() == 64 * 64 - 32 * round(32 * 32 / 48)


def test_squashed_pictures_are_there_as_a_whole(gradient):
    samples = LabelledCrops(gradient, 3, resize=(9, 9), size=16, augmentation="none", squash=True)
    image = np.asarray(Image.open(gradient.rows[0].image).resize((16, 16), Image.Resampling.BILINEAR))
    found = [255 * colours(samples.sample(0, np.random.default_rng(seed))["image"]) for seed in range(6)]
    expected = [image, image[:, ::-1].copy()]
    same = np.array([[np.abs(one - other).max() < 1 for other in expected] for one in found])
    assert same.any(1).all()
    assert same.any(0).all()


def test_the_same_generator_gives_the_same_sample(tiny):
    samples = LabelledCrops(tiny.manifest, 3, resize=(24, 64), size=32, augmentation="jitter")
    first, again, other = (samples.sample(2, np.random.default_rng(seed))["image"] for seed in (8, 8, 9))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_scaled_images_have_rounded_sizes_and_keep_the_original(gradient):
    index, views = ScaledImages(gradient, (0.5, 1.0, 1.55))[0]
    assert index == 0
    assert [tuple(view.shape) for view in views] == [(15, 25, 3), (30, 50, 3), (round(30 * 1.55), round(50 * 1.55), 3)]
    np.testing.assert_array_equal(views[1], np.asarray(Image.open(gradient.rows[0].image)))


def test_inputs_of_networks_are_normalised_to_the_bit_and_channels_last(gradient):
    images = ScaledImages(gradient, (1.0,))
    batch = network_input(torch.stack([images[index][1][0] for index in (0, 0)]))
    expected = to_tensor(normalize(read_image(gradient.rows[0].image)))
    assert torch.equal(batch, torch.stack([expected, expected]))
    assert batch.is_contiguous(memory_format=torch.channels_last)


def test_an_image_of_another_size_than_its_manifest_says_is_named(gradient):
    row = gradient.rows[0]
    swapped = Manifest.of([dataclasses.replace(row, height=row.width, width=row.height)])
    with pytest.raises(DataError, match=rf"{row.image} has 50 x 30 pixels, its manifest says 30 x 50"):
        ScaledImages(swapped, (1.0,))[0]


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
    with pytest.raises(DataError, match=r"broken\.png: the image (cannot be read|does not exist)"):
        read_image(path)


def test_grey_and_transparent_pictures_become_rgb(tmp_path):
    for mode in ("L", "RGBA", "P"):
        Image.new(mode, (4, 3)).save(tmp_path / f"{mode}.png")
        assert read_image(tmp_path / f"{mode}.png").mode == "RGB"


def test_a_label_beyond_the_classes_is_refused(tiny):
    row = dataclasses.replace(tiny.manifest.rows[0], labels=(3,))
    with pytest.raises(DataError, match="image0 has the label 3, but there are 3 classes"):
        LabelledCrops(Manifest.of([row]), 3, resize=(32, 32), size=32, augmentation="none")


def straightforward(row: Row, mask: np.ndarray, rng, *, resize, size, augmentation) -> tuple[torch.Tensor, np.ndarray]:
    """A sample as the recipe tells it: all of the image is normalised, then cropped, then turned."""
    length = int(rng.integers(resize[0], resize[1] + 1))
    image = resize_longer_side(Image.open(row.image).convert("RGB"), length)
    mask = resize_longer_side(Image.fromarray(mask), length, Image.Resampling.NEAREST)
    if rng.random() < 0.5:
        image, mask = (picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for picture in (image, mask))
    pixels = normalize(AUGMENTATIONS[augmentation](image, rng))
    window = crop_window(*pixels.shape[:2], size, rng)
    return to_tensor(crop(pixels, window, size, 0.0)), crop(np.asarray(mask), window, size, 255)


@pytest.mark.parametrize("augmentation", ["none", "jitter", "randaug"])
@pytest.mark.parametrize(("resize", "size"), [((20, 60), 33), ((48, 80), 40), ((16, 30), 64)])
def test_samples_are_those_of_the_straightforward_way_to_the_last_bit(tiny, augmentation, resize, size):
    how = {"resize": resize, "size": size, "augmentation": augmentation}
    labelled = LabelledCrops(tiny.manifest, 3, **how)
    masked = MaskedCrops(tiny.manifest, tiny.mask, **how)
    for seed in range(10):
        index = seed % len(tiny.manifest)
        row = tiny.manifest.rows[index]
        image, mask = straightforward(row, tiny.mask(row), np.random.default_rng(seed), **how)
        assert torch.equal(labelled.sample(index, np.random.default_rng(seed))["image"], image)
        sample = masked.sample(index, np.random.default_rng(seed))
        assert torch.equal(sample["image"], image)
        np.testing.assert_array_equal(sample["mask"], mask)


@pytest.fixture
def copies(tiny, tmp_path) -> Manifest:
    """The tiny images, free to be deleted, with saliency beside them."""
    rows = []
    for row in tiny.manifest:
        path = tmp_path / Path(row.image).name
        path.write_bytes(Path(row.image).read_bytes())
        write_grey(tmp_path / "saliency" / path.name, np.where(tiny.mask(row) > 0, 255, 0).astype(np.uint8))
        rows.append(dataclasses.replace(row, image=str(path)))
    return Manifest.of(rows)


def every_kind_of_sample(manifest: Manifest, tiny) -> list:
    how = {"resize": (24, 64), "size": 40, "augmentation": "jitter"}
    saliency = Path(manifest.rows[0].image).parent / "saliency"
    return [
        LabelledCrops(manifest, 3, **how),
        MaskedCrops(manifest, tiny.mask, **how),
        SaliencyPairs(manifest, saliency, smallest_side=0),
    ]


@pytest.mark.parametrize("workers", [0, 2])
def test_images_are_decoded_once_and_samples_are_those_of_images_decoded_anew(tiny, copies, workers):
    kinds = every_kind_of_sample(copies, tiny)
    epochs = range(2)
    anew = []
    for samples in every_kind_of_sample(copies, tiny):
        samples.pictures = Pictures(copies.rows, limit=0)
        anew.append([list(EpochLoader(samples, batch_size=1, seed=5, workers=0).epoch(epoch)) for epoch in epochs])
    loaders = [EpochLoader(samples, batch_size=1, seed=5, workers=workers) for samples in kinds]
    found = [[list(loader.epoch(0))] for loader in loaders]
    for row in copies:
        Path(row.image).unlink()  # whichever worker needs it next has it from the one that read it
    for batches, loader in zip(found, loaders, strict=True):
        batches.append(list(loader.epoch(1)))
    for ours, theirs in zip(found, anew, strict=True):
        for batch, expected in zip(ours[0] + ours[1], theirs[0] + theirs[1], strict=True):
            assert batch.keys() == expected.keys()
            assert all(torch.equal(batch[key], expected[key]) for key in batch)


def test_a_picture_can_be_changed_without_harm_to_the_next_epoch(tiny):
    pictures = Pictures(tiny.manifest.rows)
    for _ in range(3):
        np.testing.assert_array_equal(pictures[3], read_image(tiny.manifest.rows[3].image))
        pictures[3].paste((0, 0, 0), (0, 0, 9, 9))


def test_a_data_set_beyond_the_limit_is_not_kept(copies):
    size = sum(3 * row.height * row.width for row in copies)
    assert Pictures(copies.rows, limit=size).kept[0].nbytes == size
    assert Pictures(copies.rows, limit=size - 1).kept is None
    assert len(Pictures([])) == 0


def test_without_memory_images_are_decoded_anew(tiny, monkeypatch, caplog):
    def refused(*_):
        raise OSError("Cannot allocate memory")

    monkeypatch.setattr(mmap, "mmap", refused)
    with caplog.at_level("INFO"):
        pictures = Pictures(tiny.manifest.rows)
    assert "each epoch decodes them: Cannot allocate memory" in caplog.text
    assert [pictures[0].size for _ in range(2)] == [(48, 32)] * 2


def test_a_pickled_copy_has_the_same_pictures(tiny):
    pictures = Pictures(tiny.manifest.rows)
    read = [np.asarray(picture) for picture in pictures]
    pickled = pickle.dumps(pictures)
    assert len(pickled) < pictures.kept[0].nbytes / 2  # without the pixels, for workers that are spawned
    for picture, expected in zip(pickle.loads(pickled), read, strict=True):
        np.testing.assert_array_equal(picture, expected)


@pytest.mark.parametrize("limit", [0, 2**30])
def test_a_picture_of_another_size_than_the_manifest_s_is_named(tiny, limit):
    rows = [dataclasses.replace(row, height=row.height + 1) for row in tiny.manifest]
    with pytest.raises(DataError, match=r"image1\.png has 32 x 48 pixels, its manifest says 32 x 49"):
        Pictures(rows, limit)[1]
