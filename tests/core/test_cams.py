"""CAM inference against a loop that spells it out."""

import dataclasses
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from wsss_core.affinity.walk import walk_start
from wsss_core.classifiers.cams import dump_cams
from wsss_core.data import DataError, Manifest, Row
from wsss_core.maps import inference
from wsss_core.maps.inference import (
    Batching,
    batching,
    equal_sizes,
    image_by_image,
    in_order,
    mirrored,
    normalize_cam,
    normalized_sum,
    scaled_batches,
    sum_of_scales,
)
from wsss_core.maps.sizes import enlarge, full_size
from wsss_core.maps.store import MapStore
from wsss_core.recipes.settings import CamSettings

CPU = torch.device("cpu")
SETTINGS = CamSettings(scales=(0.5, 1.0, 1.5), stride=4, dtype="float16", precision="float32")


class FakeModel(nn.Module):
    """Three class maps at stride 16; BatchNorm and dropout show whether it is in eval mode."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(2)
        self.net = nn.Sequential(
            nn.Conv2d(3, 3, kernel_size=5, stride=16, padding=2), nn.BatchNorm2d(3), nn.Dropout(0.5)
        )

    def forward(self, x):
        return self.net(x)

    def cams(self, x):
        return self(x).relu()


def dump(manifest, path, settings=SETTINGS, model=None, workers=0, device=CPU):
    dump_cams(
        model=model or FakeModel(),
        manifest=manifest,
        store=path,
        settings=settings,
        about={"run": "test"},
        device=device,
        workers=workers,
    )
    return MapStore(path)


def padded(side: int) -> int:
    return 16 * math.ceil(side / 16)


@torch.no_grad()
def by_hand(row: Row, settings: CamSettings) -> np.ndarray:
    """One image after another, one scale after another, one direction after another, one class after another."""
    model = FakeModel().eval()
    picture = Image.open(row.image).convert("RGB")
    total, full = {label: 0.0 for label in row.labels}, {label: 0.0 for label in row.labels}
    large = padded(row.height), padded(row.width)
    for scale in settings.scales:
        size = (round(row.width * scale), round(row.height * scale))
        pixels = np.asarray(picture.resize(size, Image.Resampling.BICUBIC), np.float32) / 255
        pixels = (pixels - np.float32([0.485, 0.456, 0.406])) / np.float32([0.229, 0.224, 0.225])
        x = torch.from_numpy(pixels.transpose(2, 0, 1))[None]
        ahead, back = model(x)[0], model(x.flip(3))[0].flip(2)
        for label in row.labels:
            both = (F.relu(ahead[label]) + F.relu(back[label]))[None, None]
            target = large[0] // settings.stride, large[1] // settings.stride
            total[label] = total[label] + F.interpolate(both, target, mode="bilinear")[0, 0]
            full[label] = full[label] + F.interpolate(both, large, mode="bilinear")[0, 0, : row.height, : row.width]
    return torch.stack([total[label] / (full[label].max() + 1e-5) for label in row.labels]).numpy()


def test_each_map_is_divided_by_its_own_maximum():
    maps = torch.tensor([[[[4.0, -2.0], [1.0, 0.0]], [[-1.0, -3.0], [-2.0, -5.0]]]])
    expected = torch.tensor([[[[4.0, 0.0], [1.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]]]) / torch.tensor(4 + 1e-5)
    torch.testing.assert_close(normalize_cam(maps), expected)
    torch.testing.assert_close(normalize_cam(maps[0, 0]), expected[0, 0])
    assert normalize_cam(torch.full((2, 2), 1.0), eps=1.0).max() == 0.5


def test_the_mirror_image_is_mirrored_back():
    images = torch.randn(2, 3, 4, 6)
    ahead, back = mirrored(lambda x: x * torch.arange(6.0), images)  # left and right are weighted differently
    torch.testing.assert_close(ahead, images * torch.arange(6.0))
    torch.testing.assert_close(back, images * torch.arange(6.0).flip(0))


@pytest.mark.parametrize(("stride", "size"), [(1, (48, 80)), (2, (24, 40)), (4, (12, 20)), (8, (6, 10))])
def test_scales_are_resized_to_the_grid_of_the_next_multiples_of_sixteen(stride, size):
    maps = [torch.rand(2, 3, 5), torch.rand(2, 6, 9)]
    expected = sum(F.interpolate(m[None], size, mode="bilinear")[0] for m in maps)
    torch.testing.assert_close(sum_of_scales(maps, 45, 66, stride), expected)
    assert sum_of_scales([m[:0] for m in maps], 45, 66, stride).shape == (0, *size)


@pytest.mark.parametrize("stride", [4, 1])
def test_dumped_cams_are_those_of_a_straightforward_loop(tiny, tmp_path, stride):
    settings = dataclasses.replace(SETTINGS, stride=stride)
    store = dump(tiny.manifest, tmp_path / "cams.zarr", settings)
    for row in tiny.manifest:
        labels, maps = store[row.id]
        assert tuple(labels) == row.labels  # no other class is kept
        np.testing.assert_allclose(maps, by_hand(row, settings), atol=1e-3)


def test_odd_sizes_are_rounded_like_the_published_code(tiny, tmp_path):
    Image.open(tiny.manifest.rows[0].image).resize((37, 27)).save(tmp_path / "odd.png")
    manifest = Manifest.of([Row("odd", str(tmp_path / "odd.png"), "", 27, 37, (0, 2))])
    _, maps = dump(manifest, tmp_path / "cams.zarr")["odd"]
    assert maps.shape == (2, 8, 12)
    np.testing.assert_allclose(maps, by_hand(manifest.rows[0], SETTINGS), atol=1e-3)


# --- against the two maps of the published code --------------------------------------------------------------------

SIDES = [(212, 333), (375, 500), (500, 375), (333, 212)]


def outputs_of(height: int, width: int) -> list[torch.Tensor]:
    """What a network of stride 16 gives at four scales of an image of smooth blobs, two classes."""
    noise = torch.rand(1, 2, 6, 8, generator=torch.Generator().manual_seed(0)) - 0.4
    grids = [[math.ceil(round(side * scale) / 16) for side in (height, width)] for scale in (0.5, 1.0, 1.5, 2.0)]
    return [F.interpolate(noise, grid, mode="bicubic")[0].relu() for grid in grids]


def published(maps: list[torch.Tensor], height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The map of scores, hints and labels at full size, and the one of the walk at stride 4."""
    large = sum(F.interpolate(m[None], (padded(height), padded(width)), mode="bilinear")[0] for m in maps)
    size = math.ceil(height / 4), math.ceil(width / 4)
    return (
        normalize_cam(large[:, :height, :width]),
        normalize_cam(sum(F.interpolate(m[None], size, mode="bilinear")[0] for m in maps)),
    )


@pytest.mark.parametrize(("height", "width"), SIDES)
def test_full_size_maps_are_the_published_ones(height, width):
    maps = outputs_of(height, width)
    expected, _ = published(maps, height, width)
    whole = normalized_sum(maps, height, width, 1)
    assert torch.equal(whole[:, :height, :width], expected)
    kept = normalized_sum(maps, height, width, 4).numpy()
    error = np.abs(enlarge(kept, 4, height, width) - expected.numpy())
    assert error.mean() < 0.002  # on a grid that spans the image itself: 0.02 to 0.04
    assert error.max() < 0.035


def test_a_grid_as_fine_as_the_networks_loses_nothing():
    maps = [torch.rand(2, 56, 84, generator=torch.Generator().manual_seed(0))]  # stride 4 of 212 x 333 pixels
    expected, _ = published(maps, 212, 333)
    found = enlarge(normalized_sum(maps, 212, 333, 4).numpy(), 4, 212, 333)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_cells_beyond_the_image_are_kept_for_the_walk():
    maps = torch.full((1, 14, 21), 0.5)
    maps[:, -1] = 1  # of these rows, 208 to 223, the picture has four
    kept = normalized_sum([maps], 212, 333, 4)
    assert kept.max() > 1.15
    full, start = published([maps], 212, 333)
    np.testing.assert_allclose(enlarge(kept.numpy(), 4, 212, 333), full, atol=0.05)
    torch.testing.assert_close(walk_start(kept.numpy(), 212, 333), start, rtol=0, atol=0.05)


@pytest.mark.parametrize(("stride", "mean", "most"), [(4, 0.0015, 0.02), (1, 0.001, 0.01)])
@pytest.mark.parametrize(("height", "width"), SIDES)
def test_the_walk_starts_at_the_published_maps(height, width, stride, mean, most):
    maps = outputs_of(height, width)
    _, expected = published(maps, height, width)
    error = (walk_start(normalized_sum(maps, height, width, stride).numpy(), height, width) - expected).abs()
    assert error.mean() < mean
    assert error.max() < most


def test_the_walk_starts_exactly_at_the_published_maps_where_sides_are_multiples_of_sixteen():
    maps = outputs_of(240, 320)
    _, expected = published(maps, 240, 320)
    found = walk_start(normalized_sum(maps, 240, 320, 4).numpy(), 240, 320)
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-5)


def test_workers_change_nothing(tiny, tmp_path):
    one, two = dump(tiny.manifest, tmp_path / "a.zarr"), dump(tiny.manifest, tmp_path / "b.zarr", workers=2)
    for image_id in one:
        np.testing.assert_array_equal(one[image_id][1], two[image_id][1])


# --- batches -------------------------------------------------------------------------------------------------------


class Counting(FakeModel):
    """Keeps the shapes of what it is called with."""

    def __init__(self):
        super().__init__()
        self.shapes = []

    def forward(self, x):
        self.shapes.append(tuple(x.shape))
        return super().forward(x)


@pytest.fixture
def batches_of(monkeypatch):
    """A function that lets images share calls as they do on a GPU."""
    return lambda window, pixels: monkeypatch.setattr(inference, "batching", lambda device: Batching(window, pixels))


def test_rows_of_equal_size_go_together_within_a_window():
    sizes = [(4, 6), (6, 4), (4, 6), (6, 4), (4, 6), (4, 6), (4, 6)]
    rows = [Row(str(index), "", "", *size, ()) for index, size in enumerate(sizes)]
    assert list(equal_sizes(rows, Batching(window=5, pixels=100))) == [[0, 2], [4], [1, 3], [5, 6]]
    assert list(equal_sizes(rows, Batching(window=9, pixels=48))) == [[0], [2], [4], [5], [6], [1], [3]]
    assert list(equal_sizes(rows, batching(CPU))) == [[index] for index in range(7)]


def test_results_are_put_in_order_as_soon_as_they_can_be():
    seen = []

    def found():
        for index in (1, 0, 3, 4, 2):
            seen.append(index)
            yield index, str(index)

    assert [(index, value, len(seen)) for index, value in in_order(found())] == [
        (0, "0", 2), (1, "1", 2), (2, "2", 5), (3, "3", 5), (4, "4", 5),
    ]  # fmt: skip


@pytest.mark.parametrize("workers", [0, 2])
def test_images_that_share_calls_get_the_same_outputs_in_the_same_order(tiny, batches_of, workers):
    def outputs():
        batches = scaled_batches(FakeModel(), tiny.manifest, (0.5, 1.0, 1.5), torch.add, CPU, workers)
        return list(image_by_image(batches, tiny.manifest))

    single = outputs()
    batches_of(window=6, pixels=10_000)
    for row, (expected_row, expected), (found_row, found) in zip(tiny.manifest, single, outputs(), strict=True):
        assert row == expected_row == found_row
        torch.testing.assert_close(found, expected)


def test_stored_maps_do_not_depend_on_batches(tiny, tmp_path, batches_of):
    rows = list(tiny.manifest)
    rows[2] = dataclasses.replace(rows[2], labels=())  # within a batch that has labels
    manifest = Manifest.of(rows)
    one = dump(manifest, tmp_path / "a.zarr")
    batches_of(window=6, pixels=10_000)
    many = dump(manifest, tmp_path / "b.zarr")
    assert list(one) == list(many)
    for image_id in one:
        np.testing.assert_array_equal(one[image_id][0], many[image_id][0])
        np.testing.assert_allclose(one[image_id][1], many[image_id][1], atol=1e-3)


def test_calls_have_no_more_pixels_than_they_may(tiny, tmp_path, batches_of):
    batches_of(window=8, pixels=4 * 32 * 48)  # two images and their mirror images at scale 1
    model = Counting()
    dump(tiny.manifest, tmp_path / "cams.zarr", model=model)
    images = {(16, 24): 2, (32, 48): 2, (48, 72): 1}  # a group is what scale 1 takes; a large image goes alone
    images |= {(width, height): count for (height, width), count in images.items()}
    assert {shape[2:]: shape[0] // 2 for shape in model.shapes} == images
    assert len(model.shapes) == 4 * (1 + 1 + 2)


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["float32", "float16", "bfloat16"])
def test_a_gpu_makes_the_same_maps(tiny, tmp_path, precision):
    expected = dump(tiny.manifest, tmp_path / "cpu.zarr")
    settings = dataclasses.replace(SETTINGS, precision=precision)
    found = dump(tiny.manifest, tmp_path / "gpu.zarr", settings, workers=2, device=torch.device("cuda"))
    for image_id in expected:
        np.testing.assert_allclose(found[image_id][1], expected[image_id][1], atol=0.03)


def test_an_image_without_labels_gets_no_maps(tiny, tmp_path):
    rows = [dataclasses.replace(row, labels=()) for row in tiny.manifest.rows[:2]]
    store = dump(Manifest.of([*rows, tiny.manifest.rows[2]]), tmp_path / "cams.zarr")
    labels, maps = full_size(store, "image0")
    assert labels.shape == (0,)
    assert maps.shape == (0, 32, 48)
    assert full_size(store, "image2")[1].max() > 0.99


def test_bytes_keep_maps_to_half_a_step(tiny, tmp_path):
    fine = dump(tiny.manifest, tmp_path / "fine.zarr")
    coarse = dump(tiny.manifest, tmp_path / "coarse.zarr", dataclasses.replace(SETTINGS, dtype="uint8"))
    for image_id in fine:
        np.testing.assert_allclose(coarse[image_id][1], fine[image_id][1], atol=0.5 / 254 + 2**-11)


def test_bytes_cut_what_is_higher_beyond_the_image(tiny, tmp_path):
    rows = [
        dataclasses.replace(row, image=str(tmp_path / f"{row.id}.png"), height=20, width=20) for row in tiny.manifest
    ]
    for row, small in zip(tiny.manifest, rows, strict=True):
        Image.open(row.image).crop((0, 0, 20, 20)).save(small.image)
    fine = dump(Manifest.of(rows), tmp_path / "fine.zarr")
    coarse = dump(Manifest.of(rows), tmp_path / "coarse.zarr", dataclasses.replace(SETTINGS, dtype="uint8"))
    assert max(fine[image_id][1].max() for image_id in fine) > 1.1
    for image_id in fine:
        cut = fine[image_id][1].clip(max=1)
        np.testing.assert_allclose(coarse[image_id][1], cut, atol=0.5 / 254 + 2**-11)


def test_the_store_says_how_its_maps_were_made(tiny, tmp_path):
    about = dump(tiny.manifest, tmp_path / "cams.zarr").about
    assert about["settings"] == {
        "scales": [0.5, 1.0, 1.5], "stride": 4, "dtype": "float16", "precision": "float32",
    }  # fmt: skip
    assert (about["stride"], about["run"]) == (4, "test")


@pytest.mark.parametrize("fault", ["network", "image"])
def test_an_error_on_the_way_leaves_no_store(tiny, tmp_path, fault):
    model, rows = FakeModel(), list(tiny.manifest)
    if fault == "network":
        nn.init.constant_(model.net[0].bias, torch.nan)
    else:
        (tmp_path / "broken.png").write_bytes(b"no picture")
        rows[3] = dataclasses.replace(rows[3], image=str(tmp_path / "broken.png"))
    error, text = {"network": (FloatingPointError, "image0"), "image": (DataError, r"broken\.png")}[fault]
    with pytest.raises(error, match=text):
        dump(Manifest.of(rows), tmp_path / "cams.zarr", model=model)
    assert not list(tmp_path.glob("*.zarr*"))
    assert not list(tmp_path.glob(".*"))


def test_stored_maps_are_enlarged_and_cropped(tmp_path, tiny, write_store, random_maps):
    odd = Manifest.of([dataclasses.replace(row, height=row.height - 5) for row in tiny.manifest])
    store = write_store(tmp_path / "cams.zarr", odd, random_maps(odd))
    _, maps = full_size(store, "image4")
    enlarged = F.interpolate(torch.from_numpy(store["image4"][1])[None], scale_factor=4, mode="bilinear")[0]
    torch.testing.assert_close(torch.from_numpy(maps), enlarged[:, :27, :48])
    assert maps.dtype == np.float32


def test_maps_kept_at_full_size_come_back_as_they_are(tmp_path, tiny, write_store, random_maps):
    store = write_store(tmp_path / "cams.zarr", tiny.manifest, random_maps(tiny.manifest, stride=1), stride=1)
    np.testing.assert_array_equal(full_size(store, "image4")[1], store["image4"][1])
