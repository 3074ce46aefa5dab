"""Affinity labels, random walks and pseudo masks of a split, against loops over its images."""

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from wsss_core.affinity import labels, pseudo_masks
from wsss_core.affinity import walk as walk_module
from wsss_core.affinity.labels import affinity_labels, make_affinity_labels
from wsss_core.affinity.pseudo_masks import finish_maps, make_pseudo_masks
from wsss_core.affinity.random_walk import random_walk
from wsss_core.affinity.walk import walk_cams
from wsss_core.data import DataError, Manifest, make_classes, read_mask, write_grey
from wsss_core.data.mask_folder import read_saliency
from wsss_core.data.pictures import read_image
from wsss_core.data.samples import ScaledImages, network_input
from wsss_core.maps.crf import crf_labels
from wsss_core.maps.store import MapStore
from wsss_core.recipes.settings import (
    AffinityLabelSettings,
    CamLabelSettings,
    LabelCrf,
    PseudoMaskSettings,
    WalkSettings,
)

CPU = torch.device("cpu")
LABELS = AffinityLabelSettings(foreground=0.6, background=0.3, crf=None)
WALK = WalkSettings(radius=3, beta=4, squarings=3, padding=64)


@pytest.fixture(autouse=True)
def pickled_work(monkeypatch, through_pickles):
    for module in (labels, pseudo_masks):
        monkeypatch.setattr(module, "in_processes", through_pickles)


@pytest.fixture
def cams(tiny, tmp_path, random_maps, write_store):
    return write_store(tmp_path / "cams.zarr", tiny.manifest, random_maps(tiny.manifest))


@pytest.fixture
def saliency(tiny, tmp_path):
    rng = np.random.default_rng(2)
    for row in tiny.manifest:
        write_grey(tmp_path / "saliency" / f"{row.id}.png", rng.integers(0, 256, (row.height, row.width), np.uint8))
    return tmp_path / "saliency"


def without_labels(manifest: Manifest, index: int) -> Manifest:
    rows = list(manifest)
    rows[index] = dataclasses.replace(rows[index], labels=())
    return Manifest.of(rows)


def without_image(manifest: Manifest, index: int) -> Manifest:
    rows = list(manifest)
    rows[index] = dataclasses.replace(rows[index], image="gone.png")
    return Manifest.of(rows)


def full(store, row) -> np.ndarray:
    return F.interpolate(torch.from_numpy(store[row.id][1])[None], (row.height, row.width), mode="bilinear")[0].numpy()


def masks_in(folder, tiny, manifest=None) -> dict[str, np.ndarray]:
    return {row.id: read_mask(folder / f"{row.id}.png", tiny.classes) for row in manifest or tiny.manifest}


# --- affinity labels -----------------------------------------------------------------------------------------------


def test_affinity_labels_follow_their_truth_table(tiny, cams, saliency, tmp_path):
    make_affinity_labels(manifest=tiny.manifest, classes=tiny.classes, cams=cams, saliency=saliency,
                         folder=tmp_path / "labels", settings=LABELS)  # fmt: skip
    masks, seen = masks_in(tmp_path / "labels", tiny), set()
    for row in tiny.manifest:
        maps = full(cams, row)
        salient = read_saliency(saliency, row) > 0.3
        confident = maps.max(0) > 0.6
        values = np.array(row.labels)[maps.argmax(0)] + 1
        expected = np.where(salient, np.where(confident, values, 255), 0)
        np.testing.assert_array_equal(masks[row.id], expected)
        seen |= set(np.unique(expected).tolist())
    assert seen == {0, 1, 2, 3, 255}


def test_affinity_labels_without_saliency(tiny, cams, tmp_path):
    make_affinity_labels(manifest=tiny.manifest, classes=tiny.classes, cams=cams, saliency=None,
                         folder=tmp_path / "labels", settings=CamLabelSettings(0.6, 0.3, None))  # fmt: skip
    masks = masks_in(tmp_path / "labels", tiny)
    for row in tiny.manifest:
        maps = full(cams, row)
        values = np.array(row.labels)[maps.argmax(0)] + 1
        expected = np.where(maps.max(0) > 0.6, values, np.where(maps.max(0) > 0.3, 255, 0))
        np.testing.assert_array_equal(masks[row.id], expected)


def test_every_setting_reaches_the_function(tiny, cams, saliency, tmp_path):
    settings = AffinityLabelSettings(foreground=0.5, background=0.2, crf=LabelCrf(2, 0.8))
    make_affinity_labels(manifest=tiny.manifest, classes=tiny.classes, cams=cams, saliency=saliency,
                         folder=tmp_path / "labels", settings=settings)  # fmt: skip
    masks = masks_in(tmp_path / "labels", tiny)
    for row in tiny.manifest:
        expected = affinity_labels(
            np.asarray(read_image(row.image)), full(cams, row), [label + 1 for label in row.labels],
            read_saliency(saliency, row), 0.5, 0.2, 2, 0.8,
        )  # fmt: skip
        assert (masks[row.id] == expected).mean() > 0.999


def test_a_missing_saliency_map_leaves_no_folder(tiny, cams, saliency, tmp_path):
    (saliency / "image6.png").unlink()
    with pytest.raises(DataError, match=r"saliency/image6\.png"):
        make_affinity_labels(manifest=tiny.manifest, classes=tiny.classes, cams=cams, saliency=saliency,
                             folder=tmp_path / "labels", settings=LABELS)  # fmt: skip
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cams.zarr", "saliency"]


# --- the walk ------------------------------------------------------------------------------------------------------


class FakeEdges(nn.Module):
    """Edge logits at stride 4; asserts that what it gets was padded, by what the other side lacks."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(4)
        self.conv = nn.Conv2d(3, 1, kernel_size=7, stride=4, padding=3)

    def forward(self, x):
        assert tuple(x.shape[2:]) in {(32 + 16, 48 + 32), (48 + 32, 32 + 16)}
        return self.conv(x)


@torch.no_grad()
def edge_by_hand(manifest: Manifest, index: int) -> torch.Tensor:
    row, model = manifest.rows[index], FakeEdges().eval()
    view = network_input(ScaledImages(manifest, (1.0,))[index][1][0][None])[0]
    h, w = -(-row.height // 4), -(-row.width // 4)
    logits = []
    for image in (view, view.flip(2)):
        canvas = torch.zeros(1, 3, row.height + 64 - row.width, row.width + 64 - row.height)
        canvas[0, :, : row.height, : row.width] = image
        logits.append(model(canvas)[0, 0, :h, :w])
    return torch.sigmoid((logits[0] + logits[1].flip(1)) / 2)


def walk(manifest, cams, path, **changes) -> MapStore:
    settings = dataclasses.replace(WALK, **changes)
    walk_cams(model=FakeEdges(), manifest=manifest, cams=cams, store=path, settings=settings, about={"run": "test"},
              device=CPU)  # fmt: skip
    return MapStore(path)


@pytest.mark.parametrize("stride", [4, 1])
def test_walked_maps_are_those_of_a_loop_over_images(tiny, tmp_path, random_maps, write_store, monkeypatch, stride):
    monkeypatch.setattr(walk_module, "WALKS_AT_ONCE", 3)  # eight images: two whole calls and a smaller one
    drawn = random_maps(tiny.manifest, stride=stride)
    cams = write_store(tmp_path / "drawn.zarr", tiny.manifest, drawn, stride=stride)
    walked = walk(tiny.manifest, cams, tmp_path / "walked.zarr")
    for index, row in enumerate(tiny.manifest):
        maps = F.interpolate(
            torch.from_numpy(cams[row.id][1])[None], (row.height // 4, row.width // 4), mode="bilinear"
        )[0]
        maps /= maps.amax((1, 2), keepdim=True) + 1e-5
        expected = random_walk(maps, edge_by_hand(tiny.manifest, index), 3, 4, 3)
        labels, found = walked[row.id]
        assert tuple(labels) == row.labels
        # one scale for all classes of an image: a weak class stays weak beside a strong one
        np.testing.assert_allclose(found, expected / (expected.max() + 1e-5), atol=1e-3)
    assert (walked.about["stride"], walked.about["multiple"]) == (4, 4)
    assert walked.about["source"] == str(cams.path)


def test_a_power_sharpens_the_maps_before_they_walk(tiny, tmp_path, random_maps, write_store):
    row, cams = tiny.manifest.rows[0], write_store(tmp_path / "drawn.zarr", tiny.manifest, random_maps(tiny.manifest))
    start = walk_module.walk_start(cams[row.id][1], row.height, row.width)
    expected = random_walk(start**1.5, edge_by_hand(tiny.manifest, 0), 3, 4, 3)
    found = walk(tiny.manifest, cams, tmp_path / "walked.zarr", power=1.5)[row.id][1]
    np.testing.assert_allclose(found, expected / (expected.max() + 1e-5), atol=1e-3)
    assert np.abs(found - walk(tiny.manifest, cams, tmp_path / "plain.zarr")[row.id][1]).max() > 0.01


@pytest.mark.parametrize("stride", [4, 1])
def test_images_without_labels_walk_and_become_background(tiny, tmp_path, random_maps, write_store, stride):
    manifest = without_labels(tiny.manifest, 2)
    cams = write_store(tmp_path / "some.zarr", manifest, random_maps(manifest, stride=stride), stride=stride)
    walked = walk(manifest, cams, tmp_path / "walked.zarr")
    assert walked["image2"][1].shape == (0, 8, 12)
    make_pseudo_masks(manifest=manifest, classes=tiny.classes, maps=walked, folder=tmp_path / "masks",
                      settings=PseudoMaskSettings(0.3, LabelCrf(1, 0.9)))  # fmt: skip
    assert not masks_in(tmp_path / "masks", tiny)["image2"].any()


class Sizes(nn.Module):
    """Logits at stride 4 that are all 1; keeps the sizes of what it is called with."""

    def __init__(self):
        super().__init__()
        self.sizes = []

    def forward(self, x):
        assert not x[:, :, 20:].any()
        assert not x[:, :, :, 30:].any()
        self.sizes.append(tuple(x.shape[2:]))
        return torch.ones(1, 1, -(-x.shape[2] // 4), -(-x.shape[3] // 4))


@pytest.mark.parametrize(
    ("side", "swapped", "size"),
    [
        (64, False, (64, 64)),
        (64, True, (20 + 34, 30 + 44)),  # the height grows by what the width lacks
        (25, False, (25, 30)),
        (25, True, (20, 30 + 5)),
        (16, False, (20, 30)),  # neither crops
        (16, True, (20, 30)),
    ],
)
def test_padding_before_the_edge_network(side, swapped, size):
    model = Sizes()
    padded = walk_module._Padded(model, side, swapped=swapped)
    assert padded(torch.ones(1, 3, 20, 30)).shape == (1, 1, 5, 8)
    assert model.sizes == [size]


def test_an_error_on_the_walk_leaves_no_store(tiny, cams, tmp_path):
    with pytest.raises(DataError, match=r"gone\.png"):
        walk(without_image(tiny.manifest, 5), cams, tmp_path / "walked.zarr")
    assert [path.name for path in tmp_path.iterdir()] == ["cams.zarr"]


# --- pseudo masks --------------------------------------------------------------------------------------------------


def test_finish_resizes_crops_and_divides_by_one_maximum():
    maps = np.random.default_rng(5).random((2, 6, 8), np.float32)
    maps[1] *= 0.1
    finished = finish_maps(maps, 22, 29)
    wide = F.interpolate(torch.from_numpy(maps).double()[None], size=(24, 32), mode="bilinear")[0, :, :22, :29]
    assert finished.dtype == np.float32
    np.testing.assert_allclose(finished, wide / wide.max(), rtol=1e-7)
    assert finished.max() == 1
    assert finished[1].max() < 0.2


def test_maps_on_the_grid_of_priors_are_finished_too():
    maps = np.random.default_rng(5).random((2, 8, 8), np.float32)
    wide = F.interpolate(torch.from_numpy(maps)[None], scale_factor=4, mode="bilinear")[0, :, :22, :29]
    np.testing.assert_allclose(finish_maps(maps, 22, 29), wide / wide.max(), rtol=1e-5)


def test_finish_of_nothing_is_zero_not_nan():
    assert (finish_maps(np.zeros((2, 3, 4), np.float32), 12, 13) == 0).all()
    assert finish_maps(np.zeros((0, 3, 4), np.float32), 12, 13).shape == (0, 12, 13)
    with pytest.raises(ValueError, match="not at stride 4"):
        finish_maps(np.zeros((2, 3, 4), np.float32), 13, 13)
    with pytest.raises(ValueError, match="not at stride 4"):
        finish_maps(np.zeros((2, 4, 5), np.float32), 13, 13)


@pytest.mark.parametrize("crf", [None, LabelCrf(1, 0.9)])
def test_pseudo_masks_are_argmax_and_label_crf(tiny, cams, tmp_path, crf):
    settings = PseudoMaskSettings(threshold=0.5, crf=crf)
    make_pseudo_masks(manifest=tiny.manifest, classes=tiny.classes, maps=cams, folder=tmp_path / "masks",
                      settings=settings)  # fmt: skip
    masks = masks_in(tmp_path / "masks", tiny)
    for row in tiny.manifest:
        maps = F.interpolate(torch.from_numpy(cams[row.id][1])[None], scale_factor=4, mode="bilinear")[0].numpy()
        planes = np.concatenate([np.full((1, *maps.shape[1:]), 0.5), maps / maps.max()])  # of all classes
        rows = planes.argmax(0).astype(np.uint8)
        if crf:
            rows = crf_labels(np.asarray(read_image(row.image)), rows, len(planes), 1, 0.9)
        values = np.array([0, *(label + 1 for label in row.labels)])
        assert (masks[row.id] == values[rows]).mean() > 0.999


def test_an_error_on_the_way_leaves_no_masks(tiny, cams, tmp_path):
    with pytest.raises(DataError, match=r"gone\.png"):
        make_pseudo_masks(manifest=without_image(tiny.manifest, 5), classes=tiny.classes, maps=cams,
                          folder=tmp_path / "masks", settings=PseudoMaskSettings(0.3, LabelCrf(1, 0.9)))  # fmt: skip
    assert [path.name for path in tmp_path.iterdir()] == ["cams.zarr"]


def test_masks_keep_the_values_of_the_data_set(tiny, cams, tmp_path):
    """A run on a subset of the classes writes the values of all of them."""
    subset = make_classes(["other", "circle", "square", "star"], keep=["circle", "square", "star"])
    settings = PseudoMaskSettings(threshold=0.5, crf=None)
    for name, classes in (("plain", tiny.classes), ("subset", subset)):
        make_pseudo_masks(manifest=tiny.manifest, classes=classes, maps=cams, folder=tmp_path / name,
                          settings=settings)  # fmt: skip
    plain, moved = (np.asarray(Image.open(tmp_path / name / "image4.png")) for name in ("plain", "subset"))
    np.testing.assert_array_equal(moved, np.where(plain > 0, plain + 1, 0))
