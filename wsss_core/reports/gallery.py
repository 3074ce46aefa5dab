"""Single images of a report: which ones are shown, and what stages made of them, as pictures within the page."""

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from wsss_core.data.classes import Classes
from wsss_core.data.manifest import Row
from wsss_core.instances.store import InstanceStore
from wsss_core.maps.store import MapStore
from wsss_core.reports.contents import INSTANCES
from wsss_core.reports.pictures import (
    Panel,
    cam_panel,
    grey_panel,
    instance_panel,
    mask_panel,
    object_panel,
    picture_panel,
    truth_panel,
)
from wsss_core.scores.images import ImageScore, by_score

SIDE = 320  # pixels of a panel's longer side at most
GREY = ("saliency_masks", "saliency")
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


class Layer(NamedTuple):
    """What a stage made of images: what draws it, and what that is: a ``photo``, ``grey``, or a ``mask`` of classes."""

    panel: Panel
    kind: str


def store_of(name: str, path: Path) -> MapStore | InstanceStore | None:
    """The store that an artefact is; None of a folder of pictures."""
    return MapStore(path) if name == "cams" else InstanceStore(path) if name in INSTANCES else None


def layer_of(name: str, path: Path, classes: Classes) -> Layer:
    """The layer of an artefact, by its name and its store or folder."""
    if name == "cams":
        return Layer(cam_panel(MapStore(path), classes), "photo")
    if name in GREY:
        return Layer(grey_panel(path), "grey")
    if name in INSTANCES:
        return Layer(instance_panel(InstanceStore(path), classes, SURE, SIDE), "photo")
    return Layer(mask_panel(path, classes), "mask")


def truth_of(classes: Classes, objects: str | None) -> dict[str, Layer]:
    """The true masks, and the true objects where there is a store of them, by caption."""
    found = {"Truth": Layer(truth_panel(classes), "mask")}
    if objects:
        found["True objects"] = Layer(object_panel(InstanceStore(Path(objects)), classes), "photo")
    return found


def shown(
    row: Row,
    layers: Mapping[str, Layer],
    truth: Mapping[str, Layer],
    classes: Classes,
    score: ImageScore | None = None,
) -> dict[str, Any]:
    """An image as a page shows it: its panels as data URIs, its labels, its score, its legend.

    Args:
        layers: by caption.
        truth: the same, left out of an image without a mask.
    """
    pictures = [{"caption": "Photo", "data": data_uri(picture_panel(row), photo=True)}]
    seen: set[tuple[int, ...]] = set()  # colours of masks
    for caption, (panel, kind) in [*layers.items(), *(truth.items() if row.mask else ())]:
        drawn = panel(row)
        pictures.append({"caption": caption, "data": data_uri(drawn, photo=kind == "photo")})
        if kind == "mask":
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
