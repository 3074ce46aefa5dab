"""Photos that are worked on at less than their size: what is decoded, what is written, what is compared."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from wsss_core.affinity import pseudo_masks
from wsss_core.affinity.pseudo_masks import make_pseudo_masks
from wsss_core.classifiers.epochs import Corners
from wsss_core.data import DataError, Manifest, Row, read_mask
from wsss_core.data.decoding import ORIENTATION
from wsss_core.data.kinds import declared_manifest
from wsss_core.data.mask_folder import read_folder_mask, write_folder_mask
from wsss_core.data.masks import nearest
from wsss_core.data.pictures import Pictures, read_picture
from wsss_core.data.samples import ScaledImages
from wsss_core.maps.store import MapStore
from wsss_core.recipes import kinds as planned
from wsss_core.recipes.settings import PredictionSettings, PseudoMaskSettings
from wsss_core.reports.pictures import CAPTION, CELL, MARGIN, TRUTH, draw_sheet, picture_panel, truth_panel
from wsss_core.scores import totals
from wsss_core.scores.masks import evaluate_masks
from wsss_core.segmentation import prediction
from wsss_core.segmentation.prediction import predict_masks

LONGEST = 24  # half of the longer side of the tiny pictures


@pytest.fixture(autouse=True)
def pickled_work(monkeypatch, through_pickles):
    for module in (prediction, pseudo_masks, totals):
        monkeypatch.setattr(module, "in_processes", through_pickles)


@pytest.fixture
def limited(tiny) -> Manifest:
    return tiny.manifest.limited(LONGEST)


def test_sizes_to_work_at_keep_the_aspect_and_smaller_photos_their_size(tmp_path):
    sizes = {"large": (3000, 4000), "upright": (4000, 3000), "thin": (4000, 2), "small": (400, 600)}
    manifest = Manifest.of([Row(name, f"{name}.jpg", "", *size, (0,)) for name, size in sizes.items()]).limited(600)
    found = {row.id: (row.height, row.width, row.full) for row in manifest}
    assert found == {
        "large": (450, 600, (3000, 4000)), "upright": (600, 450, (4000, 3000)), "thin": (600, 1, (4000, 2)),
        "small": (400, 600, None),
    }  # fmt: skip
    assert {row.id: row.own_size for row in manifest} == sizes
    manifest.write(tmp_path / "manifest.csv")
    assert Manifest.read(tmp_path / "manifest.csv").rows == manifest.rows
    assert manifest.limited(300).row("large").own_size == (3000, 4000)


def test_a_manifest_without_the_key_is_what_it_was(tiny, tmp_path):
    declared = {
        "kind": "folders", "images": str(tiny.folder), "masks": str(tiny.masks), "labels": "masks", "colours": None,
        "names": list(tiny.classes.names), "classes": None, "lists": {"train": str(tmp_path / "train.txt")},
        "splits": {"train": "train", "scored": "train", "val": "train"}, "longest_side": None,
    }  # fmt: skip
    (tmp_path / "train.txt").write_text("image0\nimage1\n")
    assert "longest_side" not in planned.deciding(declared, "train")
    assert planned.deciding(declared | {"longest_side": LONGEST}, "train")["longest_side"] == LONGEST

    def written(longest_side):
        manifest = declared_manifest(declared | {"longest_side": longest_side}, subset="train", root=None, workers=1)
        manifest.write(tmp_path / "manifest.csv")
        return (tmp_path / "manifest.csv").read_text().splitlines()

    assert written(None)[0] == "id,image,mask,height,width,labels"
    assert written(48) == written(None)  # none is larger
    assert written(LONGEST)[0] == "id,image,mask,height,width,labels,full_height,full_width"
    assert written(LONGEST)[1].endswith("16,24,0,32,48")


def test_pictures_are_reduced_where_they_are_decoded(limited, tiny):
    pictures = Pictures(limited.rows)
    for index, (row, full) in enumerate(zip(limited, tiny.manifest, strict=True)):
        expected = read_picture(full).resize((row.width, row.height), Image.Resampling.BICUBIC)
        np.testing.assert_array_equal(read_picture(row), expected)
        np.testing.assert_array_equal(pictures[index], expected)
        np.testing.assert_array_equal(pictures[index], expected)  # the one that is kept
        np.testing.assert_array_equal(ScaledImages(limited, (1.0,))[index][1][0], expected)
    wrong = replace(limited.rows[0], full=(33, 48))
    with pytest.raises(DataError, match="has 48 x 32 pixels, its manifest says 48 x 33: delete the manifest"):
        read_picture(wrong)


def test_a_large_jpeg_is_decoded_reduced_and_turned(tmp_path):
    ramp = np.broadcast_to(np.linspace(0, 255, 400, dtype=np.uint8)[:, None], (100, 400, 1)).repeat(3, 2)
    tags = Image.Exif()
    tags[ORIENTATION] = 6  # to be turned clockwise by a quarter
    Image.fromarray(ramp).save(tmp_path / "a.jpg", exif=tags, quality=100)
    (row,) = Manifest.of([Row("a", str(tmp_path / "a.jpg"), "", 400, 100, (0,))]).limited(50)
    found = np.asarray(read_picture(row)).astype(int)
    assert found.shape == (50, 12, 3)
    expected = np.rot90(ramp, -1).reshape(50, 8, 100, 3).mean(axis=(1, 2))
    assert np.abs(found - expected[:, None]).max() <= 3


def test_nearest_takes_the_pixel_under_the_middle():
    values = np.array([[0, 1, 2], [3, 4, 5]])
    assert nearest(values, (2, 3)) is values
    assert nearest(values, (4, 3)).tolist() == [[0, 1, 2], [0, 1, 2], [3, 4, 5], [3, 4, 5]]
    assert nearest(values, (1, 1)).tolist() == [[4]]
    assert nearest(np.stack([values, values + 6]), (1, 2)).tolist() == [[[3, 5]], [[9, 11]]]


@pytest.mark.parametrize("size", [(7, 9), (8, 9), (13, 10), (700, 901)])
def test_what_was_enlarged_is_reduced_to_what_it_was(size):
    values = np.random.default_rng(0).integers(0, 256, (7, 9), np.uint8)
    large = nearest(values, size)
    assert large.shape == size
    np.testing.assert_array_equal(large, Image.fromarray(values).resize(size[::-1], Image.Resampling.NEAREST))
    np.testing.assert_array_equal(nearest(large, (7, 9)), values)


def test_masks_are_written_at_the_photo_s_size_and_read_at_the_one_to_work_at(limited, tiny, tmp_path):
    row = limited.rows[0]
    mask = np.random.default_rng(1).integers(0, 4, (row.height, row.width), np.uint8)
    write_folder_mask(row, mask, folder=tmp_path, classes=tiny.classes)
    assert read_mask(tmp_path / "image0.png", tiny.classes).shape == (32, 48)
    np.testing.assert_array_equal(read_folder_mask(row, folder=tmp_path, classes=tiny.classes), mask)


class FakeNet(nn.Module):
    """Logits of four classes: the mean colours of cells of 4 x 4 pixels, and 0."""

    def forward(self, x):
        means = nn.functional.avg_pool2d(x, 4, ceil_mode=True)
        return torch.cat([means, torch.zeros_like(means[:, :1])], 1)


def test_predicted_and_pseudo_masks_have_the_photo_s_own_size(limited, tiny, tmp_path, random_maps, write_store):
    predict_masks(
        model=FakeNet(),
        manifest=limited,
        classes=tiny.classes,
        folder=tmp_path / "masks",
        settings=PredictionSettings(scales=(1.0,), crf_iterations=1),
        device=torch.device("cpu"),
    )
    maps = random_maps(limited)
    write_store(tmp_path / "maps.zarr", limited, maps)
    make_pseudo_masks(
        manifest=limited,
        classes=tiny.classes,
        maps=MapStore(tmp_path / "maps.zarr"),
        folder=tmp_path / "pseudo",
        settings=PseudoMaskSettings(crf=None),
    )
    for row in limited:
        for kind in ("masks", "pseudo"):
            mask = read_mask(tmp_path / kind / f"{row.id}.png", tiny.classes, row.own_size)
            np.testing.assert_array_equal(mask, nearest(nearest(mask, (row.height, row.width)), row.own_size))
    scores = evaluate_masks(manifest=limited, classes=tiny.classes, folder=tmp_path / "masks")
    assert scores == evaluate_masks(manifest=tiny.manifest, classes=tiny.classes, folder=tmp_path / "masks")


def test_the_truth_keeps_its_own_size_but_where_a_network_looks_on(limited, tiny):
    truth = totals.ground_truth(limited.rows[0], tiny.classes)
    np.testing.assert_array_equal(truth, tiny.mask(limited.rows[0]))
    pixels, mask, _ = Corners(limited, tiny.classes, size=LONGEST)[0]
    assert pixels.shape == (3, LONGEST, LONGEST)
    np.testing.assert_array_equal(mask[0, :16], nearest(truth, (16, 24)))


def test_sheets_show_large_pictures_reduced(tmp_path, tiny):
    Image.new("RGB", (2000, 1000), "red").save(tmp_path / "a.png")
    manifest = Manifest.of([Row("a", str(tmp_path / "a.png"), "", 1000, 2000, (0,))])
    panels = {"picture": picture_panel, "also": picture_panel, TRUTH: truth_panel(tiny.classes)}
    draw_sheet(manifest=manifest, panels=panels, output=tmp_path / "sheet.png", count=1)
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == (2 * (CELL + MARGIN), CAPTION + CELL // 2 + MARGIN)
        assert sheet.getpixel((CELL - 1, CAPTION + CELL // 2 - 1)) == (255, 0, 0)
        assert sheet.getpixel((CELL - 1, CAPTION + CELL // 2)) == (255, 255, 255)
