"""Pages of reports: their text and links, and how a phone shows them."""

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PHONE = 390  # pixels across


class Page(HTMLParser):
    """The text of a page, and all that it loads or links to."""

    def __init__(self, text):
        super().__init__()
        self.links, self.tags, self.pieces = [], [], [""]
        self.feed(text)
        self.text = " ".join(" ".join(self.pieces).split())

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.links += [(tag, value) for name, value in attributes if name in ("src", "href", "xlink:href", "srcset")]

    def handle_endtag(self, tag):
        if self.tags[-1:] == ["wbr"]:
            self.tags[-1] = tag

    def handle_data(self, data):
        if self.tags[-1:] == ["wbr"]:  # a place where a word may break
            self.pieces[-1] += data
        elif self.tags[-1:] != ["style"]:
            self.pieces.append(data)


def on_a_phone(text: str, folder: Path) -> tuple[int, int, int, int]:
    """How wide a page is in headless Chromium on a phone, its pictures, those that do not load, and errors."""
    script = """
      const frame = document.querySelector("iframe"), faults = [];
      frame.contentWindow.addEventListener("error", (event) => faults.push(String(event.message)));
      frame.onload = () => {
        const inside = frame.contentDocument, broken = [...inside.images].filter((image) => !image.naturalWidth);
        document.title = JSON.stringify([inside.documentElement.scrollWidth, inside.images.length, broken.length,
                                         faults.length]);
      };
      frame.srcdoc = TEXT;
    """
    wrapper = folder / "phone.html"
    quoted = json.dumps(text).replace("</", "<\\/").replace("<!--", "<\\!--")
    wrapper.write_text(
        f"<!doctype html><iframe style='width: {PHONE}px; height: 800px; border: 0'></iframe>"
        f"<script>{script.replace('TEXT', quoted)}</script>", encoding="utf-8",
    )  # fmt: skip
    words = [str(BROWSER), "--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}",
             "--virtual-time-budget=3000", "--dump-dom", wrapper.as_uri()]  # fmt: skip
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    found = re.search(r"<title>\[(.*?)\]</title>", done.stdout)
    assert found, done.stderr[-2000:]
    width, pictures, broken, faults = map(int, found[1].split(","))
    return width, pictures, broken, faults
