"""Draw the rules behind a target, a column a file of workflow/rules, from what Snakemake says of them:

snakemake --rulegraph mermaid-js -- results/demo/pnoc/seg_miou.json | python docs/pictures/rules.py
"""

import re
import sys
from html import escape
from pathlib import Path

ROOT = Path(__file__).parents[2]
OUTPUT = Path(__file__).with_suffix(".svg")
COLUMNS = ("data", "prior", "saliency", "refinement", "segmentation", "instances", "cim", "scores")
COLOURS = ("#dddddd", "#f6d58a", "#b9d8f2", "#bfe3b4", "#f2bdb9", "#d9c7ec", "#d9c7ec", "#eeeeee")
WIDE, HIGH, ACROSS, DOWN, TOP = 164, 28, 200, 46, 36  # pixels: of a box, from one to the next, of the headings
ENTRY = (
    "make_manifest",
    "train_classifier",
)  # of the arrows from the data, which lead to all rules, the one that is drawn


def graph(text: str) -> tuple[list[str], set[tuple[str, str]]]:
    """Rules in the order in which they may run, and which makes something for which, of Snakemake's mermaid text."""
    names = dict(re.findall(r"(id\d+)\[(\w+)\]", text))
    arrows = {(names[a], names[b]) for a, b in re.findall(r"(id\d+) --> (id\d+)", text)}
    ordered: list[str] = []
    while left := sorted(set(names.values()) - set(ordered)):
        ordered += [rule for rule in left if all(a in ordered or a == b for a, b in arrows if b == rule)]
    return ordered, {(a, b) for a, b in arrows if a != b}


def files() -> dict[str, str]:
    """The file of each rule."""
    paths = (ROOT / "workflow/rules").glob("*.smk")
    return {rule: path.stem for path in paths for rule in re.findall(r"^(?:use )?rule (\w+)", path.read_text(), re.M)}


def drawn(text: str) -> str:
    """The picture, as SVG. What leads from the data to every other rule is left out."""
    rules, arrows = graph(text)
    file = files()
    columns = {name: [rule for rule in rules if file[rule] == name] for name in COLUMNS}
    columns = {name: found for name, found in columns.items() if found}
    arrows = {(a, b) for a, b in arrows if file[a] != "data" or file[b] == "data" or (a, b) == ENTRY}
    rows = _rows(list(columns.values()), arrows)
    column = {rule: x for x, found in enumerate(columns.values()) for rule in found}
    place = {rule: (10 + ACROSS * column[rule], TOP + DOWN * row) for rule, row in rows.items()}
    assert set(place) == set(rules), "a file of rules has no column"
    width, height = 20 + ACROSS * (len(columns) - 1) + WIDE, TOP + DOWN * (1 + max(rows.values()))
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'font-family="sans-serif" font-size="13">',
        '<defs><marker id="head" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0L8 4L0 8z" fill="#777"/></marker></defs>',
        f'<rect width="{width}" height="{height}" fill="white"/>',  # dark pages too
    ]
    for x, name in enumerate(columns):
        lines.append(f'<text x="{10 + ACROSS * x}" y="22" font-weight="bold">{name}</text>')
    for a, b in sorted(arrows):
        lines.append(f'<path d="{_arrow(place[a], place[b])}" fill="none" stroke="#777" marker-end="url(#head)"/>')
    for rule, (x, y) in place.items():
        fill = COLOURS[COLUMNS.index(file[rule])]
        lines.append(f'<rect x="{x}" y="{y}" width="{WIDE}" height="{HIGH}" rx="6" fill="{fill}" stroke="#777"/>')
        words = escape(rule.replace("_", " "))
        lines.append(f'<text x="{x + WIDE // 2}" y="{y + 18}" text-anchor="middle">{words}</text>')
    return "\n".join([*lines, "</svg>", ""])


def _rows(columns: list[list[str]], arrows: set[tuple[str, str]]) -> dict[str, int]:
    """The row of each rule; a column begins below the arrows that pass it by."""
    column = {rule: x for x, found in enumerate(columns) for rule in found}
    rows: dict[str, int] = {}
    for x, found in reversed(list(enumerate(columns))):  # so the rows of what lies to the right are known
        passing = [rows[b] for a, b in arrows if column[a] < x < column[b]]
        first = 1 + max(passing, default=-1)
        rows |= {rule: first + y for y, rule in enumerate(found)}
    return rows


def _arrow(start: tuple[int, int], end: tuple[int, int]) -> str:
    (x, y), (u, v) = start, end
    if x == u and v == y + DOWN:  # to the next one below
        return f"M{x + WIDE // 2} {y + HIGH}V{v}"
    if x == u:  # past those between, on the left
        return f"M{x} {y + HIGH // 2}C{x - 16} {y + HIGH // 2} {x - 16} {v + HIGH // 2} {x} {v + HIGH // 2}"
    x, y, v = x + WIDE, y + HIGH // 2, v + HIGH // 2
    bend = max(30, (u - x) // 2)
    return f"M{x} {y}C{x + bend} {y} {u - bend} {v} {u} {v}"


if __name__ == "__main__":
    OUTPUT.write_text(drawn(sys.stdin.read()), encoding="utf-8")
