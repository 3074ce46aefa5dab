"""Whether a run went well, as far as it can be told without any true mask.

Every stage of a run says where objects are. On the images that were trained on, the shares of foreground, how stages
agree, and predicted classes that no label names tell a run that failed from one that may have worked. They are no
score: a run whose numbers are all healthy may still be wrong.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from wsss_core.base.jobs import Share
from wsss_core.base.parallel import in_processes
from wsss_core.data.classes import VOID, Classes, DataError
from wsss_core.data.manifest import Manifest, Row
from wsss_core.data.mask_folder import read_folder_mask, read_saliency
from wsss_core.maps.memory import processes_for
from wsss_core.maps.sizes import full_size
from wsss_core.maps.store import MapStore

logger = logging.getLogger(__name__)

# From where on a number is unhealthy. Photos of objects have 10 to 60 % foreground (VOC: 27 %).
FLOODED, BARE = 0.9, 0.01  # share of foreground, of a stage and of an image
MANY = 0.25  # share of images that are flooded or bare
GROWN, MOST = 2.0, 0.5  # pseudo masks with this many times the foreground of the CAMs, and more than this share
FLAT = 0.1  # largest less smallest value of a saliency map
UNCERTAIN = 0.9  # share of uncertain pixels of affinity labels
AGREEMENT = 0.15  # IoU of the foreground of CAMs and saliency
OUTSIDE = 0.2  # share of the predicted foreground whose class is none of the image's labels
SALIENT = 0.5
NAMED = 5  # images that are named

GREY = ("saliency_masks", "saliency")
MASKS = ("affinity_labels", "pseudo_masks", "masks")
CALLED = {
    "cams": "CAMs",
    "saliency_masks": "C²AM's masks",
    "saliency": "PoolNet's saliency",
    "affinity_labels": "affinity labels",
    "pseudo_masks": "pseudo masks",
    "masks": "predictions",
}
# what to try, where a stage has too little foreground and where it has too much
WAYS = {
    "cams": (
        "train the classifier for longer (prior.classifier.epochs), from ImageNet weights",
        "train the classifier for longer (prior.classifier.epochs), from ImageNet weights",
    ),
    "saliency_masks": ("lower saliency.masks.threshold", "raise saliency.masks.threshold"),
    "saliency": ("set saliency.poolnet to null, which takes C²AM's masks",) * 2,
    "affinity_labels": ("lower refinement.labels.foreground", "raise refinement.labels.foreground"),
    "pseudo_masks": (
        "lower refinement.masks.threshold",
        "let refinement.walk spread less (fewer squarings, a larger beta), raise refinement.masks.threshold, or take "
        "the refinement threshold, which does not walk",
    ),
    "masks": ("look at the pseudo masks first, then train for longer",) * 2,
}


@dataclass
class Look:
    """What the stages show of one image.

    Attributes:
        foreground: share of foreground pixels, of those that are not uncertain, by stage.
        empty: stages in which no pixel is foreground.
        uncertain: share of uncertain pixels of the affinity labels, or None.
        span: largest less smallest value of the saliency that the run uses, or None.
        agreement: IoU of the foreground of CAMs and saliency; None without the two, or where neither has any.
        outside, predicted: predicted foreground pixels of classes that are no label of the image, and all of them.
        strangers: these classes, by index, the largest first.
    """

    id: str
    labelled: bool
    foreground: dict[str, float] = field(default_factory=dict)
    empty: list[str] = field(default_factory=list)
    uncertain: float | None = None
    span: float | None = None
    agreement: float | None = None
    outside: int = 0
    predicted: int = 0
    strangers: list[int] = field(default_factory=list)


def health(
    *,
    manifest: Manifest,
    classes: Classes,
    cams: MapStore | None,
    threshold: float,
    folders: Mapping[str, Path | None],
    workers: int | Share = 1,
) -> dict:
    """Look at what every stage of a run made of some images.

    Args:
        manifest: the images; those without any class count for ``predictions`` alone.
        cams: the run's CAMs, or None.
        threshold: background threshold of the CAMs, a number that was not chosen by any mask.
        folders: by artefact (``GREY``, ``MASKS``), the folder of its PNGs; None where the run has no such stage.

    Returns:
        ``stages`` with numbers by artefact, ``agreement``, ``warnings`` in plain words and whether there are none,
        ``healthy``. Images are named where a number is at its worst.

    Raises:
        DataError: there is no image, or nothing to look at; or a file of a stage that cannot be read.
    """
    given = {name: folder for name, folder in folders.items() if folder}
    if not len(manifest) or not (given or cams):
        raise DataError("nothing to look at: the subset has no images, or the run no stage that shows objects")
    workers = processes_for("check_health", manifest, workers)
    task = partial(look_at, classes=classes, cams=cams, threshold=threshold, folders=given)
    looks = list(in_processes(task, manifest.rows, workers))
    labelled = [look for look in looks if look.labelled]
    stages = {name: _stage(name, labelled) for name in CALLED if (name == "cams" and cams) or name in given}
    found = {
        "images": len(looks),
        "images_without_class": len(looks) - len(labelled),
        "stages": {name: numbers for name, numbers in stages.items() if numbers},
        "agreement": _agreement(labelled),
    }
    if "masks" in given:
        found["outside_labels"] = _outside(looks, classes)
    warnings = _warnings(found)
    for warning in warnings:
        logger.warning("%s", warning)
    return {**found, "warnings": warnings, "healthy": not warnings}


def look_at(
    row: Row, *, classes: Classes, cams: MapStore | None, threshold: float, folders: Mapping[str, Path]
) -> Look:
    """What the stages show of an image."""
    look = Look(row.id, bool(row.labels))
    seen: dict[str, np.ndarray] = {}
    if cams is not None:
        _, maps = full_size(cams, row.id)
        seen["cams"] = maps.max(axis=0, initial=0) > threshold
    for name in GREY:
        if name in folders:
            values = read_saliency(folders[name], row)
            seen[name], look.span = values > SALIENT, float(np.ptp(values))
    for name in MASKS:
        if name in folders:
            mask = read_folder_mask(row, folder=folders[name], classes=classes)
            certain = mask != VOID
            if name == "affinity_labels":
                look.uncertain = float(1 - certain.mean())
            if name == "masks":
                _compare(look, mask[certain], row)
            seen[name] = (mask > 0)[certain]
    look.foreground = {name: float(shown.mean()) if shown.size else 0.0 for name, shown in seen.items()}
    look.empty = [name for name, shown in seen.items() if not shown.any()]
    salient = next((seen[name] for name in reversed(GREY) if name in seen), None)
    if cams is not None and salient is not None and (union := (seen["cams"] | salient).sum()):
        look.agreement = float((seen["cams"] & salient).sum() / union)
    return look


def _compare(look: Look, mask: np.ndarray, row: Row) -> None:
    """Count predicted classes that the image is not labelled with."""
    counts = np.bincount(mask.ravel())[1:]
    strange = counts.copy()
    strange[[label for label in row.labels if label < len(strange)]] = 0
    look.predicted, look.outside = int(counts.sum()), int(strange.sum())
    look.strangers = [int(label) for label in np.argsort(-strange) if strange[label]]


def _stage(name: str, looks: Sequence[Look]) -> dict:
    shares = {look.id: look.foreground[name] for look in looks}
    if not shares:
        return {}
    found = {
        "foreground": _mean(shares.values()),
        "least": _named(shares, lambda id: shares[id]),
        "most": _named(shares, lambda id: -shares[id]),
        "empty_images": sum(name in look.empty for look in looks),
        "bare_images": sum(share < BARE for share in shares.values()),
        "flooded_images": sum(share > FLOODED for share in shares.values()),
    }
    if name == "affinity_labels":
        found["uncertain"] = _mean(look.uncertain or 0.0 for look in looks)
    if name == "saliency":
        spans = [look.span for look in looks if look.span is not None]
        found["span"], found["flat_images"] = _mean(spans), sum(span < FLAT for span in spans)
    return found


def _agreement(looks: Sequence[Look]) -> dict | None:
    known = {look.id: look.agreement for look in looks if look.agreement is not None}
    if not known:
        return None
    return {"iou_of_cams_and_saliency": _mean(known.values()), "least": _named(known, lambda id: known[id])}


def _outside(looks: Sequence[Look], classes: Classes) -> dict:
    pixels, outside = sum(look.predicted for look in looks), sum(look.outside for look in looks)
    worst = sorted((look for look in looks if look.outside), key=lambda look: -look.outside)
    return {
        "share_of_predicted_foreground": round(outside / max(pixels, 1), 4),
        "images": len(worst),
        "worst": {look.id: [classes.names[label] for label in look.strangers] for look in worst[:NAMED]},
    }


def _warnings(found: dict) -> list[str]:
    count = found["images"] - found["images_without_class"]
    said = []
    for name, stage in found["stages"].items():
        share, less, more = stage["foreground"], *WAYS[name]
        if share < BARE:
            said.append(f"{CALLED[name]} have next to no foreground ({_percent(share)}): {less}")
        elif stage["bare_images"] > MANY * count:
            ids = ", ".join(stage["least"])
            said.append(f"{CALLED[name]} show nothing in {stage['bare_images']} of {count} images ({ids}): {less}")
        if share > FLOODED:
            said.append(f"{CALLED[name]} are nearly all foreground ({_percent(share)}): {more}")
        elif stage["flooded_images"] > MANY * count:
            ids = ", ".join(stage["most"])
            said.append(f"{CALLED[name]} fill {stage['flooded_images']} of {count} images ({ids}): {more}")
        if stage.get("uncertain", 0) > UNCERTAIN:
            said.append(f"{CALLED[name]} leave {_percent(stage['uncertain'])} of the pixels uncertain: {less}")
        if stage.get("flat_images", 0) > MANY * count:
            said.append(f"{CALLED[name]} is the same grey all over in {stage['flat_images']} of {count} images: {less}")
    cams, cut = (found["stages"].get(name, {}).get("foreground") for name in ("cams", "pseudo_masks"))
    if cams and cut and FLOODED >= cut > max(GROWN * cams, MOST):
        said.append(
            f"{CALLED['pseudo_masks']} have {_percent(cut)} foreground where the CAMs had {_percent(cams)}: "
            f"{WAYS['pseudo_masks'][1]}"
        )
    agreement = found["agreement"]
    if agreement and agreement["iou_of_cams_and_saliency"] < AGREEMENT:
        said.append(
            f"CAMs and saliency are about different places (IoU {_percent(agreement['iou_of_cams_and_saliency'])}): "
            "look at pictures.png, and take the run without saliency if it is the saliency that is wrong"
        )
    outside = found.get("outside_labels", {})
    if outside.get("share_of_predicted_foreground", 0) > OUTSIDE:
        said.append(
            f"{_percent(outside['share_of_predicted_foreground'])} of the predicted foreground is of classes that the "
            f"images are not labelled with ({', '.join(outside['worst'])}): check these labels, then train for longer"
        )
    return said


def _named(values: Mapping[str, float], key: Callable[[str], float]) -> dict[str, float]:
    return {id: round(values[id], 4) for id in sorted(values, key=key)[:NAMED]}


def _mean(values: Iterable[float]) -> float:
    return round(float(np.mean(list(values))), 4)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
