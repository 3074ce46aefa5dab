"""Instances in the form of COCO's files, for pycocotools, evaluation servers and viewers."""

import json
from pathlib import Path
from typing import Any

from wsss_core.base.files import whole
from wsss_core.data.classes import Classes
from wsss_core.data.kinds.coco import CATEGORY_IDS, COCO_CLASSES
from wsss_core.data.manifest import Manifest
from wsss_core.instances.store import InstanceStore


def to_coco(store: InstanceStore, manifest: Manifest, classes: Classes) -> dict[str, Any]:
    """A data set of COCO's form: ``images``, ``categories`` and ``annotations``, whose ``score`` is that of the store.

    Categories have COCO's own numbers if the classes are COCO's, else the values in mask files. An image has the number
    that its name is (``000000000042``, ``2007_000032``), or, where a name of the split is none, its place from 1.

    Raises:
        StoreError: the store is damaged, or an image is not in it.
    """
    ids = _image_ids(manifest)
    categories = dict(zip(classes.names, _category_ids(classes), strict=True))
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for row, number in zip(manifest, ids, strict=True):
        images.append({"id": number, "file_name": Path(row.image).name, "height": row.height, "width": row.width})
        found = store[row.id]
        for place, mask in enumerate(found.masks):
            x0, y0, x1, y1 = found.boxes[place].tolist()
            label = int(found.labels[place])
            annotations.append(
                {
                    "id": len(annotations) + 1,  # pycocotools takes 0 for none
                    "image_id": number,
                    "category_id": categories[classes.names[label]] if label >= 0 else 0,
                    "segmentation": {"size": mask["size"], "counts": mask["counts"].decode()},
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "area": int(found.areas[place]),
                    "iscrowd": int(found.crowd[place]),
                    "score": round(float(found.scores[place]), 6),
                }
            )
    return {
        "info": {"description": "made from image-level labels", **{"store": store.about}},
        "images": images,
        "categories": [{"id": number, "name": name} for name, number in categories.items()],
        "annotations": annotations,
    }


def write_coco(path: Path, store: InstanceStore, manifest: Manifest, classes: Classes, *, results: bool) -> None:
    """Write ``to_coco`` as JSON; with ``results`` the list of detections, as COCO's ``loadRes`` and server take."""
    content: Any = to_coco(store, manifest, classes)
    if results:
        keys = "image_id", "category_id", "segmentation", "score"
        content = [{key: one[key] for key in keys} for one in content["annotations"]]
    with whole(path) as partial:
        partial.write_text(json.dumps(content) + "\n", encoding="utf-8")


def _image_ids(manifest: Manifest) -> list[int]:
    names = [id.replace("_", "") for id in manifest.ids]
    numbers = [int(name) for name in names] if all(name.isascii() and name.isdecimal() for name in names) else []
    return numbers if len(set(numbers)) == len(manifest) else list(range(1, len(manifest) + 1))


def _category_ids(classes: Classes) -> list[int]:
    values = classes.file_values()[1:].tolist()
    if classes.without_subset().names == COCO_CLASSES:
        return [CATEGORY_IDS[value - 1] for value in values]
    return values
