"""Several runs on a data set side by side: one page, with all that it shows inside it."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup

from wsss_core.base.files import whole
from wsss_core.base.jobs import provenance
from wsss_core.data.classes import Classes
from wsss_core.data.manifest import Manifest
from wsss_core.instances.store import InstanceStore
from wsss_core.maps.shards import StoreError
from wsss_core.reports import charts, gallery
from wsss_core.reports.analysis import ClassProperties
from wsss_core.reports.contents import INSTANCES, STAGES
from wsss_core.reports.labels import AP, headline
from wsss_core.reports.page import class_rows, environment, group_rows, jobs, made, read_json
from wsss_core.scores.images import ImageScore, read_image_scores

# by result: what its column is called; a run has one method that makes instances of training images
COLUMNS = {
    "priors_miou": "CAMs",
    "saliency_miou": "Saliency",
    "pseudo_miou": "Pseudo masks",
    "seg_miou": "Predicted",
    "irn_ap": "Instances",
    "components_ap": "Instances",
    "cim_ap": "CIM's instances",
    "detections_ap": "Detections",
}
STRONGEST = 0.2  # difference from the first run that has the full colour
TABLE = 4  # runs up to which tables stay tables on a phone

Json = dict[str, Any]


class Measured(NamedTuple):
    """A score of a run: its file and what is in it, and the values of the recipe's seeds, this one's first."""

    result: str
    found: Json
    values: list[float]


def make_comparison(*, resolved: Json, output: Path, images: int = 6) -> None:
    """Write a page about several runs as one HTML file that needs nothing beside it.

    Args:
        resolved: what ``comparable.resolve_comparison`` made of the runs.
        images: how many of the images that changed most there are in a gallery.

    Raises:
        ResultError: a result file that is damaged.
        DataError: a table or a picture that cannot be read.
    """
    classes = Classes.read(resolved["classes"])
    properties = ClassProperties.read(resolved["properties"]) if resolved["properties"] else None
    runs = [run | {"measured": _measured(run["scores"])} for run in resolved["runs"]]
    columns = [name for name in dict.fromkeys(COLUMNS.values()) if any(name in run["measured"] for run in runs)]
    # a score that runs share is there once
    results = {score["result"]: {"result": score["result"], "found": read_json(score["result"])}
               for run in runs for score in run["scores"]}  # fmt: skip
    text = environment().get_template("compare.html").render(
        dataset=resolved["dataset"],
        command=resolved["command"],
        runs=[run | {"colour": charts.colour_of(place)} for place, run in enumerate(runs)],
        few=len(runs) <= TABLE,
        first=runs[0]["run"],
        scores=score_tables(columns, runs),
        others=unlike(columns, runs),
        by_class=[table for name in columns if (table := class_table(name, runs, classes, properties))],
        curves=curves(columns, runs),
        times=times(runs),
        differences=differences(runs),
        galleries=[_gallery(one, [run["run"] for run in runs], classes, images) for one in resolved["galleries"]],
        made=made(list(results.values()), None, None),
        page=provenance(),
    )  # fmt: skip
    with whole(output) as partial:
        partial.write_text(text, encoding="utf-8")


def _measured(scores: Sequence[Json]) -> dict[str, Measured]:
    """By column, what a run scores there; other seeds count if scored on as many images of the same split."""
    measured = {}
    for score in scores:
        found = read_json(score["result"])
        seeds = [found, *map(read_json, score["seeds"])]
        alike = [one for one in seeds if scored_on(one) == scored_on(found)]
        values = [value for one in alike if (value := headline(one)[1]) is not None]
        measured[COLUMNS[score["name"]]] = Measured(score["result"], found, values)
    return measured


def scored_on(found: Json) -> tuple[str, int]:
    """The split of a result, and how many images it had."""
    return found["split"], found["images"]


# --- scores ---


def score_tables(columns: Sequence[str], runs: Sequence[Json]) -> list[Json]:
    """A table a measure: its columns, and a row a run of value, change from the first run, and spread over seeds."""
    tables = []
    for measure in ("mIoU", "AP50"):
        own = [name for name in columns if headline(_any(name, runs).found)[0] == measure]
        rows = []
        for run in runs:
            rows.append({"run": run["run"], "cells": [_cell(run, name, runs) for name in own]})
        for place in range(len(own)):
            values = [row["cells"][place]["value"] for row in rows if row["cells"][place]["value"] is not None]
            for row in rows:
                row["cells"][place]["best"] = len(values) > 1 and row["cells"][place]["value"] == max(values)
        about = [
            dict.fromkeys(f"{split}, {images} images" for split, images in _all_scored_on(name, runs)) for name in own
        ]
        if own:
            tables.append({"measure": measure, "columns": list(zip(own, map(" or ".join, about), strict=True)),
                           "rows": rows})  # fmt: skip
    return tables


def _cell(run: Json, column: str, runs: Sequence[Json]) -> Json:
    measured, first = (one["measured"].get(column) for one in (run, runs[0]))
    if measured is None:
        return {"value": None, "change": None, "of": None, "seeds": None}
    base, value, seeds = headline(first.found)[1] if first else None, headline(measured.found)[1], measured.values
    owner = next(one["run"] for one in _with_own(column, runs) if one["measured"][column].result == measured.result)
    return {
        "value": value,
        "change": None if value is None or base is None or measured is first else value - base,
        "of": owner if owner != run["run"] else None,
        "seeds": {"mean": mean(seeds), "deviation": stdev(seeds), "count": len(seeds)} if len(seeds) > 1 else None,
    }


def _with_own(column: str, runs: Sequence[Json]) -> list[Json]:
    """The runs with a score in this column; of those that share one, the first."""
    found: dict[str, Json] = {}
    for run in runs:
        if measured := run["measured"].get(column):
            found.setdefault(measured.result, run)
    return list(found.values())


def _any(column: str, runs: Sequence[Json]) -> Measured:
    found: Measured = next(run["measured"][column] for run in runs if column in run["measured"])
    return found


def _all_scored_on(column: str, runs: Sequence[Json]) -> list[tuple[str, int]]:
    return [scored_on(run["measured"][column].found) for run in runs if column in run["measured"]]


def unlike(columns: Sequence[str], runs: Sequence[Json]) -> list[str]:
    """What makes scores of a column no comparison: other images, or another revision of the scoring."""
    found = []
    for name in columns:
        own = {run["run"]: run["measured"][name].found for run in runs if name in run["measured"]}
        if len({scored_on(one) for one in own.values()}) > 1:
            told = (f"{run}: {one['split']}, {one['images']} images" for run, one in own.items())
            found.append(f"{name}: scored on other images ({'; '.join(told)}).")
        if len({one["revision"] for one in own.values()}) > 1:
            told = (f"{run}: {one['revision']}" for run, one in own.items())
            found.append(f"{name}: scored by other revisions of the code ({'; '.join(told)}).")
    return found


def class_table(column: str, runs: Sequence[Json], classes: Classes, properties: ClassProperties | None) -> Json | None:
    """Scores by class of the runs that have their own in this column, each with its difference from the first."""
    own = _with_own(column, runs)
    found = [run["measured"][column].found for run in own]
    if len(own) < 2:
        return None
    if "iou" in found[0]:
        tables = [{"short": run["run"], "iou": one["iou"]} for run, one in zip(own, found, strict=True)]
        rows = class_rows(tables, classes, properties)
        groups = group_rows(tables, [{"found": one} for one in found], properties)
    else:
        values = [{name: of["coco"].get(AP) for name, of in one["by_class"].items()} for one in found]
        tables = [{"short": run["run"], "iou": of} for run, of in zip(own, values, strict=True)]
        rows = [row for row in class_rows(tables, classes, properties) if row["name"] in values[0]]
        groups = []
    return {
        "name": column,
        "measure": "IoU" if "iou" in found[0] else headline(found[0])[0],
        "runs": [run["run"] for run in own],
        "rows": [row | {"cells": _against_first(row["iou"])} for row in rows],
        "groups": [row | {"cells": _against_first(row["iou"])} for row in groups],
    }


def _against_first(values: Sequence[float | None]) -> list[Json]:
    """Each value with its difference from the first, and how strongly that is to be coloured, -1 to 1."""
    first, cells = values[0], []
    for place, value in enumerate(values):
        change = None if place == 0 or value is None or first is None else value - first
        cells.append({"value": value, "change": change, "strength": max(-1.0, min(1.0, (change or 0.0) / STRONGEST))})
    return cells


def curves(columns: Sequence[str], runs: Sequence[Json]) -> list[Markup]:
    """mIoU by background threshold, the runs over one another, a chart a stage; a run has the same colour in all."""
    found = []
    for name in columns:
        lines = {
            run["run"]: [(point["threshold"], 100 * point["miou"]) for point in points]
            for run in _with_own(name, runs)
            if (points := run["measured"][name].found.get("curve"))
        }
        if len(lines) > 1:
            places = [place for place, run in enumerate(runs) if run["run"] in lines]
            title = f"{name} by background threshold"
            found.append(charts.lines(title, lines, across="threshold", up="mIoU in %", places=places))
    return found


# --- what they took, and how they were made ---


def times(runs: Sequence[Json]) -> Json:
    """Seconds of each stage by run as far as they were measured, and of which run where it shares it; their sums."""
    measured = [
        {stop["artefact"]: (sum(job["seconds"] for job in found), stop["run"])
         for stop in run["road"] if (found := jobs(stop["benchmark"]))}
        for run in runs
    ]  # fmt: skip
    names = {stop["artefact"]: stop["name"] for run in runs for stop in run["road"]}
    rows = [
        {"name": names[artefact], "cells": [
            {"seconds": seconds, "of": source if source != run["run"] else None}
            for run, own in zip(runs, measured, strict=True)
            for seconds, source in [own.get(artefact, (None, run["run"]))]
        ]}
        for artefact in sorted(names, key=[*STAGES, *names].index)
        if any(artefact in own for own in measured)
    ]  # fmt: skip
    return {"rows": rows, "sums": [sum(seconds for seconds, _ in own.values()) for own in measured]}


def differences(runs: Sequence[Json]) -> list[Json]:
    """Stages and settings in which runs differ, as they were when the scores were made.

    A stage, or a section of it, that only some have is a row; settings within it are rows where those that have them
    differ. A run whose results do not say what they were made with has a ``?`` everywhere.
    """
    said = [_behind(run) for run in runs]
    behind = [one for one in said if one]
    rows: list[Json] = []

    def add(stage: str, key: str, values: Sequence[str], whole: bool) -> None:
        """One more row; a stage without a key joins the one before it if the values are the same."""
        told = iter(values)
        row = {"stage": stage, "key": key, "values": [next(told) if one else "?" for one in said], "whole": whole}
        if rows and not key and not rows[-1]["key"] and rows[-1]["values"] == row["values"]:
            rows[-1]["stage"] += f", {stage}"
        else:
            rows.append(row)

    for artefact in dict.fromkeys(name for one in behind for name in one):
        stage, whose = STAGES.get(artefact, (artefact, None))[0], [one.get(artefact) for one in behind]
        if None in whose:
            add(stage, "", ["" if own is None else "yes" for own in whose], True)
        for section in dict.fromkeys(name for own in whose for name in own or {}):
            parts = [None if own is None else own.get(section) for own in whose]
            there = [part for own, part in zip(whose, parts, strict=True) if own is not None]
            if None in there and any(isinstance(part, Mapping) for part in there):
                add(stage, section, ["" if part is None else "yes" for part in parts], True)
            for key, values in _unequal(section, parts):
                add(stage, key, values, False)
    return rows


def _behind(run: Json) -> dict[str, Json]:
    """All that is behind the scores of a run, by artefact: what it starts from, whatever its seed, and its sections."""
    found: dict[str, Json] = {}
    for measured in run["measured"].values():
        for artefact, own in (measured.found.get("made_with") or {}).items():
            found[artefact] = {key: value for key, value in own.items() if key != "run"}
            if "weights" in own:
                found[artefact]["weights"] = own["weights"].partition("@")[0]
    return {name: found[name] for name in sorted(found, key=[*STAGES, *found].index)}


def _unequal(name: str, parts: Sequence[Any]) -> Iterator[tuple[str, list[str]]]:
    """Keys below a section in which those that have them differ; None is a run that has not."""
    flat = [dict(_leaves(name, part)) if part is not None else None for part in parts]
    for key in dict.fromkeys(key for own in flat for key in own or {}):
        # what is null is left out of what a job is told
        values = ["" if own is None else json.dumps(own.get(key), ensure_ascii=False).strip('"') for own in flat]
        if len({value for own, value in zip(flat, values, strict=True) if own is not None}) > 1:
            yield key, values


def _leaves(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _leaves(f"{name}.{key}", inner)
    else:
        yield name, value


# --- images ---


def _gallery(about: Json, order: Sequence[str], classes: Classes, count: int) -> Json:
    """The images of a subset that changed most, each as every run that can be shown has it."""
    manifest, objects = Manifest.read(about["manifest"]), about["view"][0] in INSTANCES
    paths, faults = {}, []
    for run, artefact, path in sorted(about["panels"], key=lambda panel: order.index(panel[0])):
        try:
            if store := gallery.store_of(artefact, Path(path)):
                len(store)  # opens it
            paths[run] = artefact, Path(path)
        except StoreError as error:  # of an earlier version, whose scores can be read nevertheless
            faults.append(f"{run} ({error})")
    layers = {run: gallery.layer_of(artefact, path, classes) for run, (artefact, path) in paths.items()}
    truth = gallery.truth_of(classes, about["objects"])
    if objects and len(truth) > 1:
        del truth["Truth"]
    by, spread = None, dict.fromkeys(manifest.ids[:: max(1, len(manifest) // count)], 0.0)
    told: dict[str, dict[str, str]] = {}
    if tables := {run: read_image_scores(Path(about["images"][run])) for run in paths if run in about["images"]}:
        by, (spread, told) = "mIoU", _by_score(tables)
    elif objects:
        counts = {run: _objects(InstanceStore(path), len(classes)) for run, (_, path) in paths.items()}
        by, (spread, told) = "objects", _by_objects(counts)
    ids = sorted(spread.keys() & set(manifest.ids), key=lambda id: (-spread[id], id))[:count]
    captions = {id: {run: " ".join([run, told.get(run, {}).get(id, "")]).strip() for run in layers} for id in ids}
    return {
        **about,
        "name": "Objects" if objects else STAGES[about["view"][0]][0],
        "by": by,
        "faults": faults,
        "images": [
            gallery.shown(manifest.row(id), {captions[id][run]: layer for run, layer in layers.items()}, truth, classes)
            for id in ids
            if len(layers) > 1
        ],
    }


Spread = tuple[dict[str, float], dict[str, dict[str, str]]]  # by image; and by run and image, what is told


def _by_score(tables: Mapping[str, Sequence[ImageScore]]) -> Spread:
    """How far the mIoUs of an image are apart, of those with two or more."""
    scores = {run: {one.image_id: one.miou for one in table if one.miou is not None} for run, table in tables.items()}
    own = {id: [of_run[id] for of_run in scores.values() if id in of_run] for table in scores.values() for id in table}
    spread = {id: max(values) - min(values) for id, values in own.items() if len(values) > 1}
    return spread, {run: {id: f"{100 * one:.1f}" for id, one in of_run.items()} for run, of_run in scores.items()}


def _by_objects(counts: Mapping[str, Mapping[str, np.ndarray]]) -> Spread:
    """How far numbers of objects of an image are apart, added over the classes."""
    common = set.intersection(*(set(of_run) for of_run in counts.values())) if counts else set()
    spread = {id: float(np.ptp([of_run[id] for of_run in counts.values()], axis=0).sum()) for id in common}
    return spread, {run: {id: f"{one.sum()}" for id, one in of_run.items()} for run, of_run in counts.items()}


def _objects(store: InstanceStore, classes: int) -> dict[str, np.ndarray]:
    """By image, how many of its instances of each class are sure enough to be shown."""
    found = {}
    for id in store:
        own = store[id]
        labels = own.labels[own.scores >= gallery.SURE].astype(int)
        found[id] = np.bincount(labels[labels >= 0], minlength=classes)
    return found
