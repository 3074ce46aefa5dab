"""The documentation holds together: every link between its pages leads to a page and to a heading that are there."""

import re
from collections import Counter
from functools import cache
from importlib import import_module

import pytest
import yaml
from snakemake_cli import ROOT

from wsss_core.recipes.methods import METHODS

DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]


def name_of(page):
    return page.relative_to(DOCS if page.is_relative_to(DOCS) else ROOT).as_posix()


LINK = re.compile(r"\]\(([^)\s]+)\)")


def prose(path):
    """A page without what its blocks and spans of code show."""
    text = re.sub(r"^ *```.*?^ *```", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"`[^`\n]*`", lambda code: re.sub(r"[^\w -]", "", code[0]), text)


@cache
def anchors(path):
    """The anchors of a page's headings, as GitHub and the site make them."""
    seen, found = Counter(), set()
    for heading in re.findall(r"^#+ (.*)", prose(path), re.MULTILINE):
        slug = re.sub(r"[^\w\- ]", "", LINK.sub("", heading.lower())).strip().replace(" ", "-")
        if not seen[slug]:  # of headings of one name the first alone: the others are numbered in two ways
            found.add(slug)
        seen[slug] += 1
    return found


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_to_a_page_or_a_heading_leads_there(page):
    dead = []
    for link in LINK.findall(prose(page)):
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        if ":" not in link and not (target.exists() and (not anchor or anchor in anchors(target))):
            dead.append(link)
    assert not dead


def test_every_page_is_in_the_menu_of_the_site():
    # the tags of Python objects are the generator's own
    text = re.sub(r"!!python/\S+", "", (ROOT / "mkdocs.yml").read_text())
    listed = re.findall(r"[\w/-]+\.md", str(yaml.safe_load(text)["nav"]))
    assert sorted(listed) == sorted(map(name_of, PAGES[1:]))


def test_every_room_has_a_page_of_its_docstrings():
    rooms = {path.parent.name for path in (ROOT / "wsss_core").glob("*/__init__.py")}
    pages = {page.stem: page.read_text() for page in (DOCS / "api").glob("*.md")}
    assert pages == {room: f"# wsss_core.{room}\n\n::: wsss_core.{room}\n" for room in rooms}


def test_links_of_docs_stay_in_docs():  # the site has nothing beside it
    links = [(page, link) for page in PAGES[1:] for link in LINK.findall(prose(page)) if ":" not in link]
    inside = [(page.parent / link).resolve().is_relative_to(DOCS) for page, link in links]
    outside = [f"{name_of(page)}: {link}" for (page, link), fine in zip(links, inside, strict=True) if not fine]
    assert not outside


def test_every_method_is_told_with_code_and_runs_that_are_there():
    lines = [line for line in (DOCS / "methods.md").read_text().splitlines() if line.startswith("| ")]
    methods, _, code, runs = zip(*(line.strip("| ").split(" | ") for line in lines[1:-1]), strict=True)
    there = {f"{slot}: `{method}`" for slot, offered in METHODS.items() for method in offered}
    assert there <= set(methods)
    paths = re.findall(r"`([\w/.]+)`", " ".join(code))
    assert paths
    assert all((ROOT / "wsss_core" / path).exists() for path in paths)
    files = [*(ROOT / "config/papers").glob("*.yaml"), ROOT / "config/own-data.yaml"]
    declared = {run for file in files for run in yaml.safe_load(file.read_text())["runs"]}
    assert set(re.findall(r"`(\w+)`", " ".join(runs))) <= declared


def test_the_pictures_of_runs_can_be_drawn_again(monkeypatch):
    monkeypatch.chdir(ROOT)
    folder = DOCS / "pictures"
    monkeypatch.syspath_prepend(folder)
    draw = import_module("draw")
    wanted = yaml.safe_load((folder / "gallery.yaml").read_text())
    project = draw.open_project([folder / "wrong.yaml"])
    paths = {path for about in wanted["sheets"].values() for path in draw.targets(project, about)}
    made = {path.split("/")[2] for path in paths}
    wrong = yaml.safe_load((folder / "wrong.yaml").read_text())["runs"]
    assert set(wrong) <= made  # no run is declared that is not drawn
    assert all((folder / f"{name}.webp").exists() for name in [*wanted["sheets"], *wanted["shows"]])
    assert sum(path.stat().st_size for path in folder.iterdir()) < 1_000_000


def test_a_heading_has_githubs_anchor(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# One's own, `with_code` & [a link](x.md)\n\n## Same\n\n```\n# none\n```\n")
    assert anchors(page) == {"ones-own-with_code--a-link", "same"}
