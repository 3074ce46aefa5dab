"""Contact sheets: a row an image, a column a panel."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from wsss_core.data import Manifest
from wsss_core.instances.store import InstanceStore, InstanceWriter, instances_of
from wsss_core.reports.pictures import (
    CAPTION,
    MARGIN,
    TRUTH,
    draw_sheet,
    instance_panel,
    mask_panel,
    object_panel,
    picture_panel,
    truth_panel,
)


@pytest.mark.parametrize(("masks", "columns"), [(True, 3), (False, 2)])
def test_a_sheet_has_a_column_of_the_truth_where_there_is_any(tiny, tmp_path, masks, columns):
    rows = [row if masks else replace(row, mask="") for row in tiny.manifest.rows]
    panels = {"picture": picture_panel, "mask": mask_panel(tiny.masks, tiny.classes), TRUTH: truth_panel(tiny.classes)}
    draw_sheet(manifest=Manifest.of(rows), panels=panels, output=tmp_path / "sheet.png", count=4)
    shown = rows[:: len(rows) // 4][:4]
    wide, high = max(row.width for row in shown), sum(row.height + MARGIN for row in shown)
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == (columns * (wide + MARGIN), CAPTION + high)
        assert sheet.crop((0, CAPTION, 48, CAPTION + 32)).tobytes() == Image.open(rows[0].image).tobytes()


def test_instances_are_outlines_in_the_colour_of_their_class(tiny, tmp_path):
    """A square of the first class, a sure one; one of the second below the score that is shown."""
    row = tiny.manifest.rows[0]
    masks = np.zeros((2, row.height, row.width), bool)
    masks[0, 16:28, 10:30], masks[1, 2:6, 2:6] = True, True
    with InstanceWriter(tmp_path / "found.zarr", Manifest.of([row]), about={}) as out:
        out.write(row.id, instances_of(masks, [0, 1], [0.9, 0.2]))
    drawn = instance_panel(InstanceStore(tmp_path / "found.zarr"), tiny.classes, 0.3)(row)
    plain = instance_panel(InstanceStore(tmp_path / "found.zarr"), tiny.classes, 1.0)(row)
    assert (plain[..., 0] == plain[..., 1]).all()
    assert (plain[..., 0] == plain[..., 2]).all()
    changed = (drawn != plain).any(axis=2)
    assert changed[27, 10:30].all()
    assert changed[16:28, 29].all()
    assert drawn[27, 20].tolist() == [255, 0, 0]  # the palette's (128, 0, 0)
    assert not changed[:12].any()


def test_small_pictures_are_enlarged_for_the_sake_of_the_letters(tiny, tmp_path):
    row = tiny.manifest.rows[0]  # of 32 x 48 pixels
    masks = np.zeros((1, row.height, row.width), bool)
    masks[0, 16:28, 10:30] = True
    with InstanceWriter(tmp_path / "found.zarr", Manifest.of([row]), about={}) as out:
        out.write(row.id, instances_of(masks, [0], [0.9]))
    drawn = instance_panel(InstanceStore(tmp_path / "found.zarr"), tiny.classes, side=320)(row)
    assert drawn.shape == (7 * 32, 7 * 48, 3)
    assert (drawn[7 * 28 - 1, 7 * 15 : 7 * 30] == (255, 0, 0)).all()
    half = np.asarray(Image.open(row.image).convert("L")) // 2
    assert (drawn[7 * 28 :] == half[28:, :, None].repeat(7, axis=0).repeat(7, axis=1)).all()


def test_true_objects_of_a_class_are_filled_in_shades_of_its_colour(tiny, tmp_path):
    row = tiny.manifest.rows[0]
    masks = np.zeros((3, row.height, row.width), bool)
    masks[0, 4:10, 4:20], masks[1, 10:16, 4:20], masks[2, 20:26, 30:40] = True, True, True  # the first two touch
    with InstanceWriter(tmp_path / "true.zarr", Manifest.of([row]), about={}) as out:
        out.write(row.id, instances_of(masks, [0, 0, 1], crowd=[False, False, True]))
    drawn = object_panel(InstanceStore(tmp_path / "true.zarr"), tiny.classes)(row).astype(int)
    half = np.asarray(Image.open(row.image).convert("L"), float) / 2
    assert (drawn[~masks.any(0)] == half.astype(int)[~masks.any(0)][:, None]).all()
    assert (drawn[[4, 9, 10, 15], 12] == 255).all()  # white edges
    for line, shade in ((7, (255, 0, 0)), (13, (255, 102, 102))):
        np.testing.assert_allclose(drawn[line, 12], 0.3 * half[line, 12] + 0.7 * np.array(shade), atol=1)
    np.testing.assert_allclose(drawn[23, 35], 0.3 * half[23, 35] + 0.7 * 255, atol=1)  # a crowd
