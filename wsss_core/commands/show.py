"""``wsss show``: images through all stages of a run, in one picture."""

import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from wsss_core.commands.printing import CommandError
from wsss_core.commands.run import LAST_FIRST, STAGES, RunOnDisk
from wsss_core.data.classes import VOID
from wsss_core.data.manifest import Row
from wsss_core.data.mask_folder import png_of
from wsss_core.data.masks import read_mask
from wsss_core.instances.store import InstanceStore
from wsss_core.maps.shards import layout_of
from wsss_core.maps.store import MapStore
from wsss_core.recipes.names import unknown
from wsss_core.reports.pictures import (
    Panel,
    cam_panel,
    grey_panel,
    instance_panel,
    mask_panel,
    picture_panel,
    truth_panel,
)
from wsss_core.reports.road import Block, Colour, draw_blocks, heat_panel
from wsss_core.scores.images import ImageScore, by_score

UNCERTAIN: Colour = (200, 200, 200)  # of void and uncertain pixels in masks, see ``pictures``
CAPTIONS = {
    "hints": "hints",
    "c2am_maps": "C2AM",  # the font has no raised 2
    "saliency_masks": "C2AM after CRF",
    "saliency": "saliency (PoolNet)",
    "affinity_labels": "affinity labels",
    "random_walk": "random walk",
    "pseudo_masks": "pseudo mask",
    "masks": "prediction",
    "irn_instances": "instances (IRNet)",
    "components": "instances (components)",
    "detections": "detections",
}
MAPS, GREY, MASKS = ("hints", "c2am_maps"), ("saliency_masks", "saliency"), ("affinity_labels", "pseudo_masks", "masks")


def block_of(run: RunOnDisk, image_id: str) -> Block:
    """An image through all stages that are made of it: its panels, and a legend with its IoUs.

    Raises:
        CommandError: there is no such image.
    """
    subset, row = run.find(image_id)
    scores = {STAGES[stage].caption: table[row.id] for stage, table in run.tables.items() if row.id in table}
    panels = [("photo", picture_panel(row))]
    for artefact, caption, panel in _panels(run, subset, row):
        own = scores.get("CAM" if artefact == "cams" else CAPTIONS.get(artefact, artefact))
        told = f"  mIoU {100 * own.miou:.1f}" if own and own.miou is not None and artefact != "cams" else ""
        panels.append((caption + told, panel(row)))
    if row.mask:
        panels.append(("truth", truth_panel(run.classes)(row)))
    labels = ", ".join(run.classes.names[label] for label in row.labels) or "no class"
    title = f"{row.id}  ({subset}: {labels})"
    means = [f"{name} {100 * one.miou:.1f}" for name, one in scores.items() if one.miou is not None]
    return Block(
        title + (f"  mIoU of the image: {', '.join(means)}" if means else ""), panels, _legend(run, row, scores)
    )


def _panels(run: RunOnDisk, subset: str, row: Row) -> Iterator[tuple[str, str, Panel]]:
    """Artefact, caption and panel of what stages made of an image, in their order."""
    recipes = run.project.recipes
    subsets = dict.fromkeys((subset, recipes.train_subset(run.dataset, subset)))
    for stage in recipes.artefacts(run.dataset, run.run):
        found = (run.path(stage, part) for part in subsets)
        path = next((path for path in found if path is not None and path.is_dir()), None)
        if path is not None:
            drawn = _of_store if path.suffix == ".zarr" else _of_folder
            yield from ((stage, caption, panel) for caption, panel in drawn(run, stage, path, row))


def _of_store(run: RunOnDisk, stage: str, path: Path, row: Row) -> Iterator[tuple[str, Panel]]:
    layout, caption = layout_of(path), CAPTIONS.get(stage, stage.replace("_", " "))
    if layout.startswith("wsss-maps/"):
        store = MapStore(path)
        if row.id in store and stage == "cams":
            for label in store[row.id][0].tolist():
                yield f"CAM {run.classes.names[label]}", heat_panel(store, label)
        elif row.id in store:
            yield caption, heat_panel(store) if stage in MAPS else cam_panel(store, run.classes)
    elif layout.startswith("wsss-instances/") and stage != "instance_labels":  # which are some of those before
        objects = InstanceStore(path)
        if row.id in objects:
            yield caption, instance_panel(objects, run.classes, run.sure)


def _of_folder(run: RunOnDisk, stage: str, path: Path, row: Row) -> Iterator[tuple[str, Panel]]:
    if png_of(path, row.id).is_file() and stage in GREY + MASKS:
        yield CAPTIONS[stage], grey_panel(path) if stage in GREY else mask_panel(path, run.classes)


def _legend(run: RunOnDisk, row: Row, scores: dict[str, ImageScore]) -> list[tuple[Colour, str]]:
    """Classes that the image is labelled with, shows, or has a score of, each with its IoUs."""
    names, colours = ["background", *run.classes.names], run.classes.colours.tolist()
    there = {0} | {label + 1 for label in row.labels}
    if row.mask:
        there |= set(np.unique(read_mask(row.mask, run.classes)).tolist()) - {VOID}
    there |= {names.index(name) for one in scores.values() for name in one.iou if name in names}
    legend: list[tuple[Colour, str]] = []
    for value in sorted(there):
        own = [f"{what} {100 * one.iou[names[value]]:.1f}" for what, one in scores.items() if names[value] in one.iou]
        legend.append((tuple(colours[value]), names[value] + (f" (IoU {', '.join(own)})" if own else "")))
    return [*legend, (UNCERTAIN, "void or uncertain")]


def chosen(
    run: RunOnDisk,
    images: Sequence[str],
    *,
    worst: int = 0,
    best: int = 0,
    anyhow: int = 0,
    of_class: str | None = None,
    stage: str | None = None,
    seed: int = 0,
) -> list[str]:
    """The ids of the images to show: those that are named, then the worst, the best, and some at random.

    Args:
        of_class: worst and best by the IoU of this class; those at random have it among their labels.
        stage: whose scores to go by, one of ``STAGES``; None takes the last one that is scored.
        seed: of those at random.

    Raises:
        CommandError: no image is asked for; no scores to choose by; an unknown class or stage.
    """
    if not (images or worst or best or anyhow):
        raise CommandError("name images, or choose some: --worst 3, --best 3 or --random 3")
    if of_class is not None and of_class not in (known := ["background", *run.classes.names]):
        raise CommandError(unknown("class", of_class, known, "the data set has"))
    found = list(images)
    if worst or best:
        ranked = _ranked(run, of_class, stage)
        found += ranked[:worst] + ranked[max(0, len(ranked) - best) :][::-1]
    if anyhow:
        found += _drawn(run, of_class, anyhow, seed)
    if not found:
        raise CommandError(f"no image shows the class {of_class}")
    return list(dict.fromkeys(found))


def _ranked(run: RunOnDisk, of_class: str | None, stage: str | None) -> list[str]:
    """Ids by their score, the worst first."""
    found = next((name for name in LAST_FIRST if name in run.tables), None) if stage is None else stage
    if found is not None and found not in STAGES:
        raise CommandError(unknown("stage of --scores", found, STAGES, "there are"))
    if found not in run.tables:
        wanted = run.project.tree.path("seg_miou", dataset=run.dataset, run=run.run)
        raise CommandError(
            f"{run.run} has no scores by image{f' of {stage}' if stage else ''} yet: make them, such as by "
            f"snakemake --cores all -- {wanted}, or choose by --random"
        )
    scores = list(run.tables[found].values())
    if of_class is None:
        return [one.image_id for one in by_score(scores)]
    own = [one._replace(miou=one.iou[of_class]) for one in scores if of_class in one.iou]
    return [one.image_id for one in by_score(own)]


def _drawn(run: RunOnDisk, of_class: str | None, count: int, seed: int) -> list[str]:
    splits = run.project.recipes.data_set(run.dataset)["splits"]
    subset = next(name for name in (splits["scored"], splits["val"], *run.manifests) if name in run.manifests)
    rows = run.manifests[subset].rows
    if of_class not in (None, "background"):
        label = run.classes.names.index(of_class)
        rows = [row for row in rows if label in row.labels]
    return [row.id for row in random.Random(seed).sample(rows, min(count, len(rows)))]


def show(run: RunOnDisk, images: Sequence[str], output: Path) -> None:
    """Write a PNG with a block for each of the images.

    Raises:
        CommandError: an image that is in no subset.
    """
    draw_blocks([block_of(run, image_id) for image_id in images], output)
