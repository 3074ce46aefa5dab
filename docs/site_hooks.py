"""What the site has beyond the pages of this folder: a page of docstrings for each room, and lists as on GitHub."""

import re
from pathlib import Path

from mkdocs.structure.files import File

PACKAGE = Path(__file__).parents[1] / "wsss_core"
ROOMS = [path.parent for path in sorted(PACKAGE.glob("*/__init__.py"))]


def on_config(config):
    next(entry for entry in config.nav if "API" in entry)["API"] = [
        {room.name: f"api/{room.name}.md"} for room in ROOMS
    ]


def on_files(files, config):
    for room in ROOMS:
        text = f"# wsss_core.{room.name}\n\n::: wsss_core.{room.name}\n"
        files.append(File.generated(config, f"api/{room.name}.md", content=text))


def on_page_markdown(markdown, page, **_):
    if page.file.src_path == "settings.md":  # its slots are headings beside the title; the table of contents wants one
        head, *rest = re.split(r"^(?=# )", markdown.removeprefix("# Settings"), flags=re.MULTILINE)
        return "# Settings" + head + re.sub(r"^(?=#)", "#", "".join(rest), flags=re.MULTILINE)
    # In a list GitHub takes two spaces for its depth, Python-Markdown four.
    lines, inside = [], False
    for line in markdown.splitlines():
        if re.match(r"(-|\d+\.) ", line):
            inside = True
        elif line and not line.startswith(" "):
            inside = inside and bool(lines and lines[-1])  # a lazy line of the same paragraph
        lines.append(re.sub(r"^ +", lambda indent: indent[0] * 2, line) if inside else line)
    return "\n".join(lines)
