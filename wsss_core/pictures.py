"""Contact sheets: what every stage made of some images, side by side."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from wsss_core.cam_store import CamStore
from wsss_core.cams import full_size
from wsss_core.data.classes import Classes
from wsss_core.data.images import read_image
from wsss_core.data.manifest import Manifest, Row
from wsss_core.data.masks import read_grey, read_mask
from wsss_core.files import whole

MARGIN, CAPTION = 4, 16
Panel = Callable[[Row], np.ndarray]


def cam_panel(store: CamStore, classes: Classes) -> Panel:
    """The image's CAMs, each in its class's colour, on the darkened picture."""

    def draw(row: Row) -> np.ndarray:
        labels, maps = full_size(store, row.id)
        tint = np.einsum("nhw,nc->hwc", maps, classes.colours[labels + 1].astype(np.float32))
        grey = np.asarray(read_image(row.image).convert("L"), np.float32)[..., None]
        return np.clip(0.4 * grey + tint, 0, 255).astype(np.uint8)

    return draw


def mask_panel(folder: Path, classes: Classes) -> Panel:
    """A folder's masks in the classes' colours; void and uncertain pixels are light grey."""
    return lambda row: _colours(read_mask(folder / f"{row.id}.png", classes), classes)


def truth_panel(classes: Classes) -> Panel:
    """The ground truth, black where an image has none."""
    return lambda row: _colours(
        read_mask(row.mask, classes) if row.mask else np.zeros((row.height, row.width)), classes
    )


def grey_panel(folder: Path) -> Panel:
    """A folder's grey maps."""
    return lambda row: np.repeat(read_grey(folder / f"{row.id}.png")[..., None], 3, axis=2)


def picture_panel(row: Row) -> np.ndarray:
    """The picture itself."""
    return np.asarray(read_image(row.image))


def _colours(mask: np.ndarray, classes: Classes) -> np.ndarray:
    palette = np.full((256, 3), 200, np.uint8)
    palette[: len(classes) + 1] = classes.colours
    return palette[mask.astype(np.uint8)]


def draw_sheet(*, manifest: Manifest, panels: dict[str, Panel], output: Path, count: int) -> None:
    """Write a PNG with a row for each of ``count`` images, evenly spread over the manifest, and a column a panel."""
    step = max(1, len(manifest) // count)
    rows = manifest.rows[::step][:count]
    side = max(max(row.height, row.width) for row in rows)
    cell = side + MARGIN
    sheet = Image.new("RGB", (cell * len(panels), CAPTION + cell * len(rows)), "white")
    pen = ImageDraw.Draw(sheet)
    for column, (name, panel) in enumerate(panels.items()):
        pen.text((column * cell + 2, 2), name, fill="black")
        for line, row in enumerate(rows):
            sheet.paste(Image.fromarray(panel(row)), (column * cell, CAPTION + line * cell))
    with whole(output) as partial:
        sheet.save(partial, format="PNG")
