"""Contact sheets, what every stage made of some images side by side; and plots of threshold curves."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from wsss_core.base.files import whole
from wsss_core.data.classes import Classes
from wsss_core.data.manifest import Manifest, Row
from wsss_core.data.mask_folder import png_of
from wsss_core.data.masks import read_grey, read_mask
from wsss_core.data.pictures import read_image
from wsss_core.maps.sizes import full_size
from wsss_core.maps.store import MapStore
from wsss_core.reports.tables import read_curve, write_curves

MARGIN, CAPTION = 4, 16
TRUTH = "truth"  # name of the panel of true masks
Panel = Callable[[Row], np.ndarray]
Points = Sequence[tuple[float, float]]

# Okabe and Ito's colours, which colour-blind readers can tell apart
LINES = ("#000000", "#e69f00", "#56b4e9", "#009e73", "#0072b2", "#d55e00", "#cc79a7")
PLOT, BORDER, SMOOTH = 400, 48, 3  # side of a plot and its border in pixels; drawn larger, then shrunk


def cam_panel(store: MapStore, classes: Classes) -> Panel:
    """The image's CAMs, each in its class's colour, on the darkened picture."""

    def draw(row: Row) -> np.ndarray:
        labels, maps = full_size(store, row.id)
        tint = np.einsum("nhw,nc->hwc", maps, classes.colours[labels + 1].astype(np.float32))
        grey = np.asarray(read_image(row.image).convert("L"), np.float32)[..., None]
        return np.clip(0.4 * grey + tint, 0, 255).astype(np.uint8)

    return draw


def mask_panel(folder: Path, classes: Classes) -> Panel:
    """A folder's masks in the classes' colours; void and uncertain pixels are light grey."""
    return lambda row: _colours(read_mask(png_of(folder, row.id), classes), classes)


def truth_panel(classes: Classes) -> Panel:
    """The ground truth, black where an image has none."""
    return lambda row: _colours(
        read_mask(row.mask, classes) if row.mask else np.zeros((row.height, row.width)), classes
    )


def grey_panel(folder: Path) -> Panel:
    """A folder's grey maps."""
    return lambda row: np.repeat(read_grey(png_of(folder, row.id))[..., None], 3, axis=2)


def picture_panel(row: Row) -> np.ndarray:
    """The picture itself."""
    return np.asarray(read_image(row.image))


def _colours(mask: np.ndarray, classes: Classes) -> np.ndarray:
    palette = np.full((256, 3), 200, np.uint8)
    palette[: len(classes) + 1] = classes.colours
    return palette[mask.astype(np.uint8)]


def draw_sheet(*, manifest: Manifest, panels: dict[str, Panel], output: Path, count: int) -> None:
    """Write a PNG with a row for each of ``count`` images, evenly spread over the manifest, and a column a panel.

    Where none of the images has a true mask, there is no column ``truth``.
    """
    step = max(1, len(manifest) // count)
    rows = manifest.rows[::step][:count]
    if not any(row.mask for row in rows):
        panels = {name: panel for name, panel in panels.items() if name != TRUTH}
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


def plot_curves(*, curves: Mapping[str, Path], picture: Path, table: Path) -> None:
    """Plot the threshold curves of result files, Figure 6 of P-NOC's paper: mIoU and false rates in per cent.

    Args:
        curves: name of a line -> a result file with a ``curve``.
        picture: PNG with a plot for each of mIoU, false positives and false negatives.
        table: CSV of the points.
    """
    points = {name: read_curve(path) for name, path in curves.items()}
    titles = {"miou": "mIoU", "false_positives": "false positives", "false_negatives": "false negatives"}
    sheet = Image.new("RGB", (PLOT * len(titles), PLOT), "white")
    for index, (key, title) in enumerate(titles.items()):
        lines = {name: [(point["threshold"], point[key]) for point in curve] for name, curve in points.items()}
        # false positives fall as the threshold rises, and leave room for names in the upper right corner
        sheet.paste(draw_lines(title, lines, named=key == "false_positives"), (index * PLOT, 0))
    with whole(picture) as partial:
        sheet.save(partial, format="PNG")
    write_curves(table, points)


def draw_lines(title: str, lines: Mapping[str, Points], *, named: bool) -> Image.Image:
    """A plot of lines, (PLOT, PLOT) RGB, with their names in their colours in the upper right corner if ``named``."""
    side, border = PLOT * SMOOTH, BORDER * SMOOTH
    points = np.array([point for line in lines.values() for point in line])
    low, high = points.min(axis=0), points.max(axis=0)
    low[1], high[1] = 10 * np.floor(low[1] / 10), 10 * np.ceil(high[1] / 10)
    span = np.where(high > low, high - low, 1)

    def place(point: tuple[float, float]) -> tuple[float, float]:
        x, y = (np.asarray(point) - low) / span * (side - 2 * border)
        return border + x, side - border - y

    plot = Image.new("RGB", (side, side), "white")
    pen, font = ImageDraw.Draw(plot), ImageFont.load_default(12 * SMOOTH)
    pen.rectangle([border, border, side - border, side - border], outline="grey")
    pen.text((side / 2, border / 2), title, "black", font, "mm")
    for x, y in low + np.linspace(0, 1, 6)[:, None] * span:
        pen.text((place((x, y))[0], side - border * 2 / 3), f"{x:.2f}", "black", font, "mm")
        pen.text((border * 0.9, place((x, y))[1]), f"{y:.0f}", "black", font, "rm")
    pen.text((side / 2, side - border / 4), "threshold", "black", font, "mm")
    for index, (name, line) in enumerate(lines.items()):
        colour = LINES[index % len(LINES)]
        pen.line([place(point) for point in line], colour, 2 * SMOOTH, "curve")
        if named:
            pen.text((side - border - 6 * SMOOTH, border + (12 + 15 * index) * SMOOTH), name, colour, font, "rm")
    return plot.resize((PLOT, PLOT), Image.Resampling.LANCZOS)
