"""Charts for pages: SVG that stands in the page itself, in its colours of text, light or dark."""

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

INK = "#010203"  # stands for the colour of the page's text
COLOURS = ("#d55e00", "#3a8fd0", "#009e73", "#e69f00", "#cc79a7", INK)  # after Okabe and Ito, on light and on dark
STYLES = ("-", "--", ":", "-.")
STYLE: Any = {
    "svg.fonttype": "none",
    "font.family": ["DejaVu Sans", "sans-serif"],
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "axes.titlecolor", "xtick.color", "ytick.color",
                     "grid.color"), INK),
    "axes.grid": True,
    "grid.alpha": 0.15,
}  # fmt: skip
LINE = 0.16  # of a legend, in inches; three are within a chart's height
WIDE, HIGH = 5.0, 3.1  # of a chart, in inches: letters are readable where it is as wide as a phone
TOLD, NAMED = 10, 30  # classes of a matrix whose shares are written into it, and whose names stand beside it
HIT, MISS = (0.0, 0.62, 0.45), (0.84, 0.37, 0.0)  # of a matrix: what is right, and what is wrong


def lines(
    title: str,
    values: Mapping[str, Sequence[tuple[float, float]]],
    *,
    across: str,
    up: str,
    marks: Mapping[str, float] | None = None,
    whole_numbers: bool = False,
    places: Sequence[int] | None = None,
) -> Markup:
    """Lines by name, each of points (x, y).

    Args:
        across, up: what the axes are.
        marks: places on the x-axis by name, as thin vertical lines.
        whole_numbers: on the x-axis.
        places: of the lines among all that a page has, by which they have their colours; in their order if left out.
    """
    with mpl.rc_context(STYLE):
        named = len(values) + len(marks or {})
        across_legend = 2 if len(values) < 7 else 3
        sheet, plot = _sheet(title, high=HIGH + LINE * max(0, -(-named // across_legend) - 3))
        for index, (name, points) in zip(places or range(len(values)), values.items(), strict=True):
            x, y = zip(*points, strict=True)
            style, colour = STYLES[index // len(COLOURS) % len(STYLES)], COLOURS[index % len(COLOURS)]
            plot.plot(x, y, style, color=colour, label=name, marker="o" if len(x) == 1 else None)
        for (name, place), style in zip((marks or {}).items(), STYLES[1:], strict=False):
            plot.axvline(place, color=INK, linewidth=0.8, linestyle=style, label=f"{name} {place:g}")
        plot.set(xlabel=across, ylabel=up)
        if whole_numbers:
            plot.xaxis.set_major_locator(MaxNLocator(integer=True))
        if named > 1:
            sheet.legend(loc="outside lower center", ncols=across_legend, fontsize="small")
        return svg(sheet, title)


def matrix(title: str, counts: np.ndarray, names: Sequence[str]) -> Markup:
    """A confusion matrix: of the pixels of each true class, the share that was found as each class.

    Args:
        counts: (K, K) integers, rows are the truth.
        names: K names.
    """
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    with mpl.rc_context({**STYLE, "axes.grid": False}):
        side = WIDE + 1
        sheet, plot = _sheet(title, high=side, wide=side)
        picture = np.empty((*shares.shape, 4))
        picture[..., :3] = np.where(np.eye(len(shares), dtype=bool)[..., None], HIT, MISS)
        picture[..., 3] = np.sqrt(shares)  # a share of 1 % is to be seen
        plot.imshow(picture, interpolation="nearest")
        if len(names) <= TOLD:
            for row, column in np.argwhere(shares >= 0.005):
                plot.text(column, row, f"{100 * shares[row, column]:.0f}", ha="center", va="center", fontsize=8)
        if len(names) <= NAMED:
            plot.set_xticks(range(len(names)), list(names), rotation=90)
            plot.set_yticks(range(len(names)), list(names))
        plot.set(xlabel="found", ylabel="truth")
        return svg(sheet, title)


def colour_of(place: int) -> str:
    """The colour of a line by its place, as a page's styles say it."""
    return COLOURS[place % len(COLOURS)].replace(INK, "currentColor")


def _sheet(title: str, wide: float = WIDE, high: float = HIGH) -> tuple[Figure, Axes]:
    sheet = Figure(figsize=(wide, high), layout="constrained")
    plot = sheet.subplots()
    plot.set_title(title, fontsize="medium")
    return sheet, plot


def svg(sheet: Figure, title: str) -> Markup:
    """A figure as an element of a page: as wide as its place, its text as text in the page's colour.

    Args:
        title: what it shows, for those who cannot see it.
    """
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with mpl.rc_context({"svg.hashsalt": title}):  # ids that do not meet those of another chart, nor change
        sheet.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    text = buffer.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    used = set(re.findall(r'(?:url\(#|href="#)([^")]+)', text))
    text = re.sub(r'\sid="([^"]*)"', lambda found: found[0] if found[1] in used else "", text)
    box = re.search(r'viewBox="[^"]*"', text)
    head = f'<svg {box[0] if box else ""} role="img" aria-label="{escape(title)}" xmlns:xlink="http://www.w3.org/1999/xlink">'
    return Markup(head + text[text.index(">") + 1 :])  # in which matplotlib has escaped all text
