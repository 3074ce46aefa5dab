"""Contact sheets: what every stage made of some images side by side."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw

from wsss_core.base.files import whole
from wsss_core.data.classes import Classes
from wsss_core.data.manifest import Manifest, Row
from wsss_core.data.mask_folder import png_of
from wsss_core.data.masks import read_grey, read_mask
from wsss_core.data.pictures import read_picture
from wsss_core.instances.store import InstanceStore
from wsss_core.maps.sizes import full_size
from wsss_core.maps.store import MapStore

MARGIN, CAPTION = 4, 16
CELL = 640  # pixels of a panel's longer side at most: larger pictures are shown reduced
TRUTH = "truth"  # name of the panel of true masks
Panel = Callable[[Row], np.ndarray]


def cam_panel(store: MapStore, classes: Classes) -> Panel:
    """The image's CAMs, each in its class's colour, on the darkened picture."""

    def draw(row: Row) -> np.ndarray:
        labels, maps = full_size(store, row.id)
        tint = np.einsum("nhw,nc->hwc", maps, classes.colours[labels + 1].astype(np.float32))
        grey = np.asarray(read_picture(row).convert("L"), np.float32)[..., None]
        return np.clip(0.4 * grey + tint, 0, 255).astype(np.uint8)

    return draw


def mask_panel(folder: Path, classes: Classes) -> Panel:
    """A folder's masks in the classes' colours; void and uncertain pixels are light grey."""
    return lambda row: _colours(read_mask(png_of(folder, row.id), classes), classes)


def truth_panel(classes: Classes) -> Panel:
    """The ground truth, black where an image has none."""
    return lambda row: _colours(read_mask(row.mask, classes) if row.mask else np.zeros(row.own_size, np.uint8), classes)


def instance_panel(store: InstanceStore, classes: Classes, score: float = 0.0) -> Panel:
    """A store's instances as outlines with class and score on the darkened picture, those of the highest scores on top.

    An outline has the colour of its class, as bright as it can be; the second, third, ... of a class are paler, so that
    neighbours differ.

    Args:
        score: those below it are not shown.
    """

    def draw(row: Row) -> np.ndarray:
        found = store[row.id]
        picture = np.repeat(np.asarray(read_picture(row).convert("L"))[..., None] // 2, 3, axis=2)
        shown = np.flatnonzero(found.scores >= score)
        shown = shown[np.argsort(found.scores[shown], kind="stable")]
        captions = []
        for mask, place in zip(found.kept(shown).dense(picture.shape[:2]), shown.tolist(), strict=True):
            label = int(found.labels[place])
            colour = _bright(classes.colours[label + 1], int((found.labels[:place] == label).sum()))
            edge = mask & ~cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8), borderValue=0).astype(bool)
            picture[edge] = colour
            text = "crowd" if found.crowd[place] else classes.names[label] if label >= 0 else ""
            captions.append((found.boxes[place, :2].tolist(), f"{text} {found.scores[place]:.2f}", colour))
        drawn = Image.fromarray(picture)
        pen = ImageDraw.Draw(drawn)
        for corner, text, colour in captions:
            pen.text(corner, text, fill=colour)
        return np.asarray(drawn)

    return draw


def _bright(colour: np.ndarray, before: int) -> tuple[int, ...]:
    """A colour at full brightness, paler the more of it there were before."""
    full = 255 * colour.astype(float) / max(1, int(colour.max()))
    return tuple((255 - (255 - full) * 0.6 ** min(before, 3)).astype(int).tolist())


def grey_panel(folder: Path) -> Panel:
    """A folder's grey maps."""
    return lambda row: np.repeat(read_grey(png_of(folder, row.id))[..., None], 3, axis=2)


def picture_panel(row: Row) -> np.ndarray:
    """The picture itself."""
    return np.asarray(read_picture(row))


def _colours(mask: np.ndarray, classes: Classes) -> np.ndarray:
    palette = np.full((256, 3), 200, np.uint8)
    palette[: len(classes) + 1] = classes.colours
    return palette[mask.astype(np.uint8)]


def _shown(row: Row) -> tuple[int, int]:
    """Width and height of a picture in a sheet."""
    share = min(1, CELL / max(row.height, row.width))
    return max(1, round(share * row.width)), max(1, round(share * row.height))


def draw_sheet(*, manifest: Manifest, panels: dict[str, Panel], output: Path, count: int) -> None:
    """Write a PNG with a row for each of ``count`` images, evenly spread over the manifest, and a column a panel.

    Panels are shown at the size of the picture, of at most ``CELL`` pixels. Where none of the images has a true mask,
    there is no column ``truth``.
    """
    step = max(1, len(manifest) // count)
    rows = manifest.rows[::step][:count]
    if not any(row.mask for row in rows):
        panels = {name: panel for name, panel in panels.items() if name != TRUTH}
    sizes = [_shown(row) for row in rows]
    cell = max(map(max, sizes)) + MARGIN
    sheet = Image.new("RGB", (cell * len(panels), CAPTION + cell * len(rows)), "white")
    pen = ImageDraw.Draw(sheet)
    for column, (name, panel) in enumerate(panels.items()):
        pen.text((column * cell + 2, 2), name, fill="black")
        for line, (row, size) in enumerate(zip(rows, sizes, strict=True)):
            drawn = Image.fromarray(panel(row))
            shown = drawn if drawn.size == size else drawn.resize(size, Image.Resampling.BOX)
            sheet.paste(shown, (column * cell, CAPTION + line * cell))
    with whole(output) as partial:
        sheet.save(partial, format="PNG")
