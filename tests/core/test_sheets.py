"""Contact sheets: a row an image, a column a panel."""

from dataclasses import replace

import pytest
from PIL import Image

from wsss_core.data import Manifest
from wsss_core.reports.pictures import CAPTION, MARGIN, TRUTH, draw_sheet, mask_panel, picture_panel, truth_panel


@pytest.mark.parametrize(("masks", "columns"), [(True, 3), (False, 2)])
def test_a_sheet_has_a_column_of_the_truth_where_there_is_any(tiny, tmp_path, masks, columns):
    rows = [row if masks else replace(row, mask="") for row in tiny.manifest.rows]
    panels = {"picture": picture_panel, "mask": mask_panel(tiny.masks, tiny.classes), TRUTH: truth_panel(tiny.classes)}
    draw_sheet(manifest=Manifest.of(rows), panels=panels, output=tmp_path / "sheet.png", count=4)
    cell = 48 + MARGIN  # the longer side of all pictures
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == (columns * cell, CAPTION + 4 * cell)
        assert sheet.crop((0, CAPTION, 48, CAPTION + 32)).tobytes() == Image.open(rows[0].image).tobytes()
