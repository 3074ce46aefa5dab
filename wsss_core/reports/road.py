"""What every stage made of single images: for each a block of captioned panels and a legend, all in one picture."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from wsss_core.base.files import whole
from wsss_core.data.manifest import Row
from wsss_core.data.pictures import read_picture
from wsss_core.maps.sizes import full_size
from wsss_core.maps.store import MapStore
from wsss_core.reports.pictures import Panel

CELL, GAP, LINE, TEXT = 300, 12, 20, 14  # pixels: a panel's longer side, between panels, of a line, of its letters
ACROSS = 5  # panels side by side
HEAT = 0.6  # how much of an overlay is its map where that is 1

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Block:
    """An image: a title, panels with their captions, (H, W, 3) uint8 of any size, and colours with what they mean."""

    title: str
    panels: Sequence[tuple[str, np.ndarray]]
    legend: Sequence[tuple[Colour, str]] = ()


def heat_panel(store: MapStore, label: int | None = None) -> Panel:
    """A map of an image as heat over its greyed picture, from blue at 0 to red at 1.

    Args:
        label: the class from 0 whose map it is; None for a store with one map an image.
    """

    def draw(row: Row) -> np.ndarray:
        labels, maps = full_size(store, row.id)
        (place,) = (0,) if label is None else np.flatnonzero(labels == label)[:1]
        value = np.clip(maps[place], 0, 1)
        heat = cv2.applyColorMap(np.rint(255 * value).astype(np.uint8), cv2.COLORMAP_JET)[..., ::-1].astype(np.float32)
        grey = np.asarray(read_picture(row).convert("L"), np.float32)[..., None]
        share = HEAT * value[..., None]
        return np.clip((1 - share) * 0.8 * grey + share * heat, 0, 255).astype(np.uint8)

    return draw


def draw_blocks(blocks: Sequence[Block], output: Path) -> None:
    """Write a PNG with the blocks below one another; panels have the aspect that they come with.

    Raises:
        ValueError: a block without panels.
    """
    drawn = [_drawn(block) for block in blocks]
    width = max(block.width for block in drawn)
    sheet = Image.new("RGB", (width, sum(block.height for block in drawn)), "white")
    top = 0
    for block in drawn:
        sheet.paste(block, (0, top))
        top += block.height
    with whole(output) as partial:
        sheet.save(partial, format="PNG")


def _drawn(block: Block) -> Image.Image:
    if not block.panels:
        raise ValueError(f"nothing to show of {block.title}")
    font = ImageFont.load_default(TEXT)
    panels = [(caption, _fitted(pixels)) for caption, pixels in block.panels]
    across = min(ACROSS, len(panels))
    high = max(panel.height for _, panel in panels) + LINE + GAP
    wide = max(CELL, *(int(font.getlength(caption)) for caption, _ in panels)) + GAP
    rows = -(-len(panels) // across)
    legend = _in_lines(block.legend, across * wide - GAP, font)
    size = GAP + across * wide, GAP + LINE + rows * high + LINE * len(legend) + GAP
    sheet = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(sheet)
    pen.line([(0, 0), (size[0], 0)], fill=(200, 200, 200))
    pen.text((GAP, GAP // 2), block.title, fill="black", font=ImageFont.load_default(TEXT + 2))
    for place, (caption, panel) in enumerate(panels):
        left, top = GAP + place % across * wide, GAP + LINE + place // across * high
        pen.text((left, top), caption, fill="black", font=font)
        sheet.paste(panel, (left, top + LINE))
    top = GAP + LINE + rows * high
    for line in legend:
        left = GAP
        for colour, text in line:
            pen.rectangle([left, top + 3, left + TEXT, top + 3 + TEXT], fill=colour, outline=(90, 90, 90))
            pen.text((left + TEXT + 6, top + 2), text, fill="black", font=font)
            left += _length(text, font)
        top += LINE
    return sheet


def _fitted(pixels: np.ndarray) -> Image.Image:
    """A panel with a longer side of ``CELL``; small ones are enlarged without smoothing."""
    image = Image.fromarray(pixels)
    share = CELL / max(image.size)
    size = max(1, round(share * image.width)), max(1, round(share * image.height))
    return image.resize(size, Image.Resampling.BOX if share < 1 else Image.Resampling.NEAREST)


def _length(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> int:
    return 2 * TEXT + 6 + int(font.getlength(text))


def _in_lines(
    entries: Sequence[tuple[Colour, str]], width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont
) -> list[list[tuple[Colour, str]]]:
    """Entries of a legend, as many a line as there is room for."""
    lines: list[list[tuple[Colour, str]]] = []
    used = width + 1
    for colour, text in entries:
        length = _length(text, font)
        if used + length > width:
            lines.append([])
            used = 0
        lines[-1].append((colour, text))
        used += length
    return lines
