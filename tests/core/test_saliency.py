"""Hints, C²AM's maps, binary masks and PoolNet's maps, against loops that spell them out."""

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from wsss_core.data import DataError, Manifest, read_grey
from wsss_core.data.samples import ScaledImages, network_input
from wsss_core.maps.store import MapStore
from wsss_core.recipes.settings import C2amMapSettings, LabelCrf, SaliencyMaskSettings
from wsss_core.saliency import masks
from wsss_core.saliency.c2am import C2AM
from wsss_core.saliency.c2am_maps import dump_c2am_maps
from wsss_core.saliency.hints import make_hints
from wsss_core.saliency.masks import make_saliency_masks
from wsss_core.saliency.poolnet_maps import predict_saliency

CPU = torch.device("cpu")
NO_CRF = SaliencyMaskSettings(threshold=0.6, crf=None)
CRF = SaliencyMaskSettings(threshold=0.6, crf=LabelCrf(5, 0.7))


@pytest.fixture(autouse=True)
def pickled_work(monkeypatch, through_pickles):
    monkeypatch.setattr(masks, "in_processes", through_pickles)


@pytest.fixture
def cams(tiny, tmp_path, random_maps, write_store):
    return write_store(tmp_path / "cams.zarr", tiny.manifest, random_maps(tiny.manifest))


@pytest.fixture
def maps(tiny, tmp_path, random_maps, write_store):
    drawn = random_maps(tiny.manifest, classwise=False)
    return write_store(tmp_path / "maps.zarr", tiny.manifest, drawn, classwise=False)


def without_labels(manifest: Manifest, index: int) -> Manifest:
    rows = list(manifest)
    rows[index] = dataclasses.replace(rows[index], labels=())
    return Manifest.of(rows)


def test_a_hint_is_the_strongest_class_of_each_pixel(tiny, cams, tmp_path):
    make_hints(manifest=tiny.manifest, cams=cams, store=tmp_path / "hints.zarr")
    hints = MapStore(tmp_path / "hints.zarr")
    for image_id in tiny.manifest.ids:
        labels, found = hints[image_id]
        assert labels.tolist() == [-1]
        np.testing.assert_array_equal(found[0], cams[image_id][1].max(axis=0))
    assert hints.about["source"] == str(cams.path)
    assert hints.about["classwise"] is False


def test_hints_stay_on_the_grid_of_their_cams(tiny, tmp_path, write_store):
    row = dataclasses.replace(tiny.manifest.rows[1], height=21, width=30)
    cams = write_store(
        tmp_path / "odd.zarr", Manifest.of([row]), {row.id: np.full((1, 3, 4), 0.5)}, stride=8, multiple=8
    )
    make_hints(manifest=Manifest.of([row]), cams=cams, store=tmp_path / "hints.zarr")
    assert MapStore(tmp_path / "hints.zarr")[row.id][1].shape == (1, 3, 4)


def test_an_image_without_labels_hints_at_nothing(tiny, tmp_path, random_maps, write_store):
    manifest = without_labels(tiny.manifest, 1)
    cams = write_store(tmp_path / "some.zarr", manifest, random_maps(manifest))
    make_hints(manifest=manifest, cams=cams, store=tmp_path / "hints.zarr")
    found = MapStore(tmp_path / "hints.zarr")["image1"][1]
    assert found.shape == (1, 12, 8)
    assert not found.any()


class FakeC2am(C2AM):
    """Logits at stride 16, as the third of three results."""

    def __init__(self, direction=1):
        nn.Module.__init__(self)
        self.direction = direction
        torch.manual_seed(1)
        self.conv = nn.Conv2d(3, 1, kernel_size=5, stride=16, padding=2)

    def forward(self, x):
        return None, None, self.conv(x)


@pytest.mark.parametrize("direction", [1, -1])
@pytest.mark.parametrize(("activation", "function"), [("relu", F.relu), ("sigmoid", torch.sigmoid)])
@torch.no_grad()
def test_c2am_maps_are_those_of_a_straightforward_loop(tiny, tmp_path, activation, function, direction):
    settings, model = C2amMapSettings(scales=(0.5, 1.0), stride=4, activation=activation), FakeC2am(direction)
    dump_c2am_maps(
        model=model, manifest=tiny.manifest, store=tmp_path / "s.zarr", settings=settings, about={}, device=CPU
    )
    store, images = MapStore(tmp_path / "s.zarr"), ScaledImages(tiny.manifest, settings.scales)
    for index, row in enumerate(tiny.manifest):
        total, full = 0, 0
        for view in images[index][1]:
            image = network_input(view[None])
            ahead, back = (direction * model(v)[2] for v in (image, image.flip(3)))
            both = function(ahead) + function(back).flip(3)
            total = total + F.interpolate(both, (row.height // 4, row.width // 4), mode="bilinear")[0, 0] / 2
            full = full + F.interpolate(both, (row.height, row.width), mode="bilinear")[0, 0] / 2
        expected = total / (full.max() + 1e-5)
        np.testing.assert_allclose(store[row.id][1][0], expected, atol=2e-3)


def test_an_unknown_activation_is_refused(tiny, tmp_path):
    settings = C2amMapSettings(scales=(1.0,), stride=4, activation="tanh")
    with pytest.raises(KeyError, match="tanh"):
        dump_c2am_maps(model=FakeC2am(), manifest=tiny.manifest, store=tmp_path / "s.zarr", settings=settings, about={},
                      device=CPU)  # fmt: skip


def test_masks_are_maps_above_the_threshold(tiny, maps, tmp_path):
    make_saliency_masks(manifest=tiny.manifest, maps=maps, folder=tmp_path / "masks", settings=NO_CRF)
    for row in tiny.manifest:
        stored = torch.from_numpy(maps[row.id][1])[None]
        full = F.interpolate(stored, (row.height, row.width), mode="bilinear")[0, 0].numpy()
        expected = np.where(full > 0.6, 255, 0)
        np.testing.assert_array_equal(read_grey(tmp_path / "masks" / f"{row.id}.png"), expected)


def test_the_crf_joins_masks_to_the_colours_of_the_image(tiny, maps, tmp_path):
    make_saliency_masks(manifest=tiny.manifest, maps=maps, folder=tmp_path / "masks", settings=CRF)
    make_saliency_masks(manifest=tiny.manifest, maps=maps, folder=tmp_path / "raw", settings=NO_CRF)
    masks, raw = ([read_grey(tmp_path / kind / f"{name}.png") for name in maps] for kind in ("masks", "raw"))
    assert {value for mask in masks for value in np.unique(mask)} <= {0, 255}
    assert any(not np.array_equal(a, b) for a, b in zip(masks, raw, strict=True))


def test_without_a_crf_the_images_are_not_opened(tiny, maps, tmp_path):
    gone = Manifest.of([dataclasses.replace(row, image="gone.png") for row in tiny.manifest])
    make_saliency_masks(manifest=gone, maps=maps, folder=tmp_path / "masks", settings=NO_CRF)
    make_saliency_masks(manifest=tiny.manifest, maps=maps, folder=tmp_path / "again", settings=NO_CRF)
    for name in maps:
        found, again = (read_grey(tmp_path / folder / f"{name}.png") for folder in ("masks", "again"))
        np.testing.assert_array_equal(found, again)


def test_an_image_without_labels_has_an_empty_mask(tiny, maps, tmp_path):
    manifest = without_labels(tiny.manifest, 4)
    make_saliency_masks(manifest=manifest, maps=maps, folder=tmp_path / "masks", settings=NO_CRF)
    assert read_grey(tmp_path / "masks" / "image4.png").shape == (32, 48)
    assert not read_grey(tmp_path / "masks" / "image4.png").any()
    assert read_grey(tmp_path / "masks" / "image5.png").any()


def test_an_error_on_the_way_leaves_no_folder(tiny, maps, tmp_path):
    rows = list(tiny.manifest)
    rows[5] = dataclasses.replace(rows[5], image=str(tmp_path / "gone.png"))
    with pytest.raises(DataError, match=r"gone\.png"):
        make_saliency_masks(manifest=Manifest.of(rows), maps=maps, folder=tmp_path / "masks", settings=CRF)
    with pytest.raises(DataError, match=r"gone\.png"):
        predict_saliency(model=FakePoolNet(), manifest=Manifest.of(rows), folder=tmp_path / "final", device=CPU)
    assert [path.name for path in tmp_path.iterdir()] == ["maps.zarr"]


class FakePoolNet(nn.Module):
    """Its saliency is the red channel as a probability."""

    longest_side = None

    def saliency(self, images):
        assert images.dtype == torch.float32
        return images[:, :1] / 255


def test_predicted_saliency_is_the_rounded_probability_at_the_images_size(tiny, tmp_path):
    predict_saliency(model=FakePoolNet(), manifest=tiny.manifest, folder=tmp_path / "final", device=CPU)
    for row in tiny.manifest:
        red = np.asarray(Image.open(row.image))[..., 0]
        np.testing.assert_array_equal(read_grey(tmp_path / "final" / f"{row.id}.png"), red)
