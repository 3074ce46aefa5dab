"""Contact sheets: what every stage made of some images side by side."""

from collections.abc import Callable
from itertools import accumulate
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

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
WHITE, FILLED = (255, 255, 255), 0.7  # how much of an object's filling is its colour
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


def instance_panel(store: InstanceStore, classes: Classes, score: float = 0.0, side: int = 0) -> Panel:
    """A store's instances as outlines with class and score on the darkened picture, those of the highest scores on top.

    An outline has the colour of its class, as bright as it can be; the second, third, ... of a class are paler, so that
    neighbours differ.

    Args:
        score: those below it are not shown.
        side: pictures whose longer side is smaller are enlarged to about that, for the sake of the letters.
    """

    def draw(row: Row) -> np.ndarray:
        """The image's outlines, (H, W, 3) uint8."""
        found, grey = store[row.id], np.asarray(read_picture(row).convert("L")) // 2
        times = max(1, round(side / max(grey.shape)))
        picture = np.repeat(_times(grey, times)[..., None], 3, axis=2)
        width, letters = (max(least, max(picture.shape) // part) for least, part in ((1, 200), (10, 32)))
        shown = np.flatnonzero(found.scores >= score)
        shown = shown[np.argsort(found.scores[shown], kind="stable")]
        captions = []
        for mask, place in zip(found.kept(shown).dense(grey.shape), shown.tolist(), strict=True):
            label = int(found.labels[place])
            colour = _bright(classes.colours[label + 1], int((found.labels[:place] == label).sum()))
            picture[_edge(_times(mask, times), width)] = colour
            text = "crowd" if found.crowd[place] else classes.names[label] if label >= 0 else ""
            left, top = (times * found.boxes[place, :2]).tolist()
            captions.append(((left, top), f"{text} {found.scores[place]:.2f}", colour))
        drawn = Image.fromarray(picture)
        pen = ImageDraw.Draw(drawn)
        for corner, text, colour in captions:
            pen.text(corner, text, fill=colour, font=ImageFont.load_default(letters))
        return np.asarray(drawn)

    return draw


def object_panel(store: InstanceStore, classes: Classes) -> Panel:
    """A store's instances on the darkened picture, filled with the colour of their class, and with a white edge.

    Of a class, the second, third and fourth are paler, then it begins anew; a crowd is white.
    """

    def draw(row: Row) -> np.ndarray:
        """The image's filled objects, (H, W, 3) uint8."""
        found, grey = store[row.id], np.asarray(read_picture(row).convert("L"), np.float32) / 2
        picture = np.repeat(grey[..., None], 3, axis=2)
        labels = found.labels.tolist()
        for place, mask in enumerate(found.dense(grey.shape)):
            colour = classes.colours[labels[place] + 1]
            shade = WHITE if found.crowd[place] else _bright(colour, labels[:place].count(labels[place]) % 4)
            picture[mask] = (1 - FILLED) * picture[mask] + FILLED * np.asarray(shade, np.float32)
            picture[_edge(mask)] = WHITE
        return picture.astype(np.uint8)

    return draw


def _times(picture: np.ndarray, times: int) -> np.ndarray:
    """An (H, W) picture with every pixel that often, across and down."""
    return picture.repeat(times, axis=0).repeat(times, axis=1)


def _edge(mask: np.ndarray, width: int = 1) -> np.ndarray:
    """The outermost pixels of an (H, W) bool mask, those at the border of the picture too."""
    window = np.ones((2 * width + 1, 2 * width + 1), np.uint8)
    inside = cv2.erode(mask.astype(np.uint8), window, borderValue=0).astype(bool)
    edge: np.ndarray = mask & ~inside
    return edge


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
    cell = max(width for width, _ in sizes) + MARGIN
    *tops, end = accumulate((height + MARGIN for _, height in sizes), initial=CAPTION)
    sheet = Image.new("RGB", (cell * len(panels), end), "white")
    pen = ImageDraw.Draw(sheet)
    for column, (name, panel) in enumerate(panels.items()):
        pen.text((column * cell + 2, 2), name, fill="black")
        for top, row, size in zip(tops, rows, sizes, strict=True):
            drawn = Image.fromarray(panel(row))
            shown = drawn if drawn.size == size else drawn.resize(size, Image.Resampling.BOX)
            sheet.paste(shown, (column * cell, top))
    with whole(output) as partial:
        sheet.save(partial, format="PNG")
