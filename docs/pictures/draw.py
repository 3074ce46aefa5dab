"""Draws the pictures of these pages from what runs left; ``gallery.yaml`` beside it says which.

python docs/pictures/draw.py [NAME...]         those of these names, else all of the demo's pictures
python docs/pictures/draw.py targets [NAME...] what Snakemake has to make before that, with wrong.yaml
"""

import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml
from PIL import Image, ImageDraw, ImageFont

from wsss_core.commands.project import Project, open_project
from wsss_core.commands.run import RunOnDisk
from wsss_core.commands.show import show
from wsss_core.data.manifest import Row
from wsss_core.instances.store import InstanceStore
from wsss_core.maps.store import MapStore
from wsss_core.reports.pictures import grey_panel, instance_panel, mask_panel, picture_panel, truth_panel
from wsss_core.reports.road import heat_panel

HERE = Path(__file__).parent
PANEL, GAP, LINE = 256, 8, 32  # pixels: a panel's width, between panels, of a caption
GREY = (128, 128, 128)  # readable on light and on dark pages
WIDTH = 1048  # of what ``wsss show`` draws
OF_CLASS, OF_ALL, GREYS = ("cams", "random_walk"), ("hints", "c2am_maps"), ("saliency_masks", "saliency")


def main() -> None:
    project = open_project([HERE / "wrong.yaml"])
    wanted = yaml.safe_load((HERE / "gallery.yaml").read_text())
    names = [name for name in sys.argv[1:] if name != "targets"]
    chosen = {
        name: about
        for name, about in (wanted["sheets"] | wanted["shows"]).items()
        if (name in names if names else about.get("dataset", "demo").startswith("demo"))
    }
    if "targets" in sys.argv[1:]:
        sheets = [about for about in chosen.values() if "columns" in about]
        print(*sorted({path for about in sheets for path in targets(project, about)}))
        return
    for name, about in chosen.items():
        picture = sheet(project, about) if "columns" in about else shown(project, about)
        picture.save(HERE / f"{name}.webp", quality=70, method=6)


def run_of(project: Project, about: dict[str, Any], run: str) -> RunOnDisk:
    return RunOnDisk(project, *project.checked(about.get("dataset", "demo"), run))


def targets(project: Project, about: dict[str, Any]) -> list[str]:
    """Paths of all artefacts of a sheet."""
    subset = about.get("subset") or about["images"][0].split("_")[0]  # the demo's ids begin with it
    runs = [(run_of(project, about, run), artefact) for _, run, artefact in about["columns"]]
    sources = [(left.dataset, project.recipes.source(left.dataset, left.run, what), what) for left, what in runs]
    return [project.tree.path(what, dataset=dataset, run=run, subset=subset) for dataset, run, what in sources]


def sheet(project: Project, about: dict[str, Any]) -> Image.Image:
    """A line an image; a column a run, between photo and truth."""
    columns = [("photo", about["columns"][0][1], "photo"), *about["columns"]]
    columns.append(("truth", about["columns"][0][1], "truth"))
    runs = [run_of(project, about, run) for _, run, _ in columns]
    lines = []
    for image_id in about["images"]:
        subset, row = runs[0].find(image_id)
        lines.append([panel(left, what, subset, row) for left, (_, _, what) in zip(runs, columns, strict=True)])
    heights = [line[0].height + GAP for line in lines]
    made = Image.new("RGBA", (len(columns) * (PANEL + GAP) - GAP, LINE + sum(heights) - GAP))
    pen, font = ImageDraw.Draw(made), ImageFont.load_default(24)
    for place, (caption, *_) in enumerate(columns):
        left = place * (PANEL + GAP)
        pen.text((left, 0), caption, fill=GREY, font=font)
        for number, line in enumerate(lines):
            made.paste(line[place], (left, LINE + sum(heights[:number])))
    return made


def panel(left: RunOnDisk, artefact: str, subset: str, row: Row) -> Image.Image:
    """What a run made of an image at one stage; of its classes' maps, that of the first class."""
    if artefact in ("photo", "truth"):
        drawn = picture_panel(row) if artefact == "photo" else truth_panel(left.classes)(row)
    elif (path := left.path(artefact, subset)) is None:
        sys.exit(f"{left.dataset}/{left.run} has no {artefact} of {subset} yet: make the targets first")
    elif artefact in OF_CLASS + OF_ALL:
        drawn = heat_panel(MapStore(path), row.labels[0] if artefact in OF_CLASS else None)(row)
    elif artefact in GREYS:
        drawn = grey_panel(path)(row)
    elif path.suffix == ".zarr":
        drawn = instance_panel(InstanceStore(path), left.classes, left.sure)(row)
    else:
        drawn = mask_panel(path, left.classes)(row)
    image = Image.fromarray(drawn)
    return image.resize((PANEL, round(PANEL * row.height / row.width)), Image.Resampling.NEAREST)


def shown(project: Project, about: dict[str, Any]) -> Image.Image:
    """What ``wsss show`` draws, reduced."""
    with tempfile.TemporaryDirectory() as folder:
        show(run_of(project, about, about["run"]), about["images"], Path(folder) / "shown.png")
        whole = Image.open(Path(folder) / "shown.png").convert("RGB")
    return whole.resize((WIDTH, round(WIDTH * whole.height / whole.width)), Image.Resampling.LANCZOS)


if __name__ == "__main__":
    main()
