"""Single images of a report: which ones are shown, and what stages made of them, as pictures within the page."""

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from wsss_core.data.classes import Classes
from wsss_core.data.manifest import Manifest, Row
from wsss_core.instances.store import InstanceStore
from wsss_core.maps.store import MapStore
from wsss_core.reports.pictures import (
    TRUTH,
    Panel,
    cam_panel,
    grey_panel,
    instance_panel,
    mask_panel,
    picture_panel,
    truth_panel,
)
from wsss_core.scores.images import ImageScore, by_score

SIDE = 320  # pixels of a panel's longer side at most
GREY = ("saliency_masks", "saliency")
INSTANCES = ("irn_instances", "components", "cim_instances", "detections")
SURE = 0.3  # score from which an instance is shown


class Group(NamedTuple):
    """Images with something in common: what, and their ids."""

    title: str
    ids: list[str]


def groups_by_score(scores: Sequence[ImageScore], count: int) -> list[Group]:
    """The images with the best mIoU, those around the median, and the worst, ``count`` each and no image twice."""
    ranked = [one.image_id for one in by_score(scores)][::-1]
    count = min(count, -(-len(ranked) // 3))
    best, middle, worst = ranked[:count], ranked[count:-count], ranked[count:][-count:][::-1]
    first = max(0, (len(middle) - count) // 2)
    return _filled(Group("Best", best), Group("Typical", middle[first : first + count]), Group("Worst", worst))


def groups_by_foreground(stage: Mapping[str, Any] | None, ids: Sequence[str], count: int) -> list[Group]:
    """Without scores: the images with most and least foreground as ``check_health`` found them, and some others.

    Args:
        stage: what ``health`` says of a stage (``least``, ``most``), or None.
        ids: of all images that may be shown.
    """
    known, shown = set(ids), set()
    found = []
    for key, title in (("most", "Most foreground"), ("least", "Least foreground")):
        own = [id for id in (stage or {}).get(key, {}) if id in known and id not in shown][:count]
        shown |= set(own)
        found.append(Group(title, own))
    rest = [id for id in ids if id not in shown]
    found.insert(1, Group("Evenly spread", rest[:: max(1, len(rest) // count)][:count]))
    return _filled(*found)


def _filled(*groups: Group) -> list[Group]:
    return [group for group in groups if group.ids]


def panels_of(paths: Sequence[Sequence[str]], classes: Classes) -> dict[str, Panel]:
    """By artefact, what draws it; ``paths`` are pairs of an artefact and its store or folder."""
    return {name: _panel(name, Path(path), classes) for name, path in paths}


def _panel(name: str, path: Path, classes: Classes) -> Panel:
    if name == "cams":
        return cam_panel(MapStore(path), classes)
    if name in GREY:
        return grey_panel(path)
    if name in INSTANCES:
        return instance_panel(InstanceStore(path), classes, SURE)
    return mask_panel(path, classes)


def shown(
    manifest: Manifest,
    groups: Sequence[Group],
    panels: dict[str, Panel],
    classes: Classes,
    scores: Mapping[str, ImageScore],
    captions: Mapping[str, str],
) -> list[dict[str, Any]]:
    """The groups as a page shows them: each image with its panels as data URIs, its labels, its score, its legend."""
    return [
        {
            "title": group.title,
            "images": [_image(manifest.row(id), panels, classes, scores.get(id), captions) for id in group.ids],
        }
        for group in groups
    ]


def _image(
    row: Row, panels: dict[str, Panel], classes: Classes, score: ImageScore | None, captions: Mapping[str, str]
) -> dict[str, Any]:
    pictures = [{"caption": "Photo", "data": data_uri(picture_panel(row), photo=True)}]
    truth = {TRUTH: truth_panel(classes)} if row.mask else {}
    seen: set[tuple[int, ...]] = set()  # colours of masks
    for name, panel in (panels | truth).items():
        drawn, photo = panel(row), name == "cams" or name in INSTANCES
        pictures.append({"caption": captions.get(name, "Truth"), "data": data_uri(drawn, photo=photo)})
        if not photo and name not in GREY:
            seen |= set(map(tuple, np.unique(drawn.reshape(-1, 3), axis=0).tolist()))
    names = ["background", *classes.names]
    there = {classes.names[label] for label in row.labels} | set(score.iou if score else ())
    there |= {name for name, colour in zip(names, classes.colours.tolist(), strict=True) if tuple(colour) in seen}
    return {
        "id": row.id,
        "labels": [classes.names[label] for label in row.labels],
        "miou": score.miou if score else None,
        "panels": pictures,
        "legend": [
            {"name": name, "colour": "rgb({}, {}, {})".format(*classes.colours[value].tolist()),
             "iou": score.iou.get(name) if score else None}
            for value, name in enumerate(names) if name in there
        ],
    }  # fmt: skip


def data_uri(pixels: np.ndarray, *, photo: bool = False) -> str:
    """An (H, W, 3) uint8 picture of at most ``SIDE`` pixels as a data URI: JPEG of a photo, PNG of a mask."""
    image = Image.fromarray(pixels)
    share = SIDE / max(image.size)
    if share < 1:
        size = max(1, round(share * image.width)), max(1, round(share * image.height))
        # a mask has no colours between its classes' own
        image = image.resize(size, Image.Resampling.BOX if photo else Image.Resampling.NEAREST)
    buffer, kind = io.BytesIO(), "jpeg" if photo else "png"
    image.save(buffer, format=kind, **({"quality": 85} if photo else {"optimize": True}))
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
