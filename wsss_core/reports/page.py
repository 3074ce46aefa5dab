"""The report of a run: one page, with all that it shows inside it."""

import csv
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from wsss_core.base.files import whole
from wsss_core.base.jobs import provenance
from wsss_core.data.classes import Classes
from wsss_core.data.manifest import Manifest
from wsss_core.reports import charts, gallery
from wsss_core.reports.analysis import BACKGROUND, ClassProperties, summary
from wsss_core.reports.citations import PAPERS
from wsss_core.reports.contents import STAGES
from wsss_core.reports.labels import AP, headline
from wsss_core.reports.tables import ResultError
from wsss_core.scores.images import read_image_scores

NO_LOSS = ("epoch", "lr", "seconds", "gpu_memory_mb")  # columns of a history
SHORT = {
    "cams": "CAMs",
    "saliency_masks": "Saliency",
    "saliency": "Saliency",
    "pseudo_masks": "Pseudo masks",
    "masks": "Predicted",
}  # heads of columns, which a phone has room for
CONFUSED = 12  # pairs of classes that are told
RATES = {"miou": "mIoU", "false_positives": "false positives", "false_negatives": "false negatives"}

Json = dict[str, Any]


def make_report(*, resolved: Json, output: Path, images: int = 3) -> None:
    """Write the report of a run as one HTML file that needs nothing beside it.

    Args:
        resolved: what ``contents.resolve_report`` made of the run.
        images: how many of the best, of the typical and of the worst there are in a gallery.

    Raises:
        ResultError: a result file that is damaged.
        DataError: a table or a picture that cannot be read.
    """
    classes = Classes.read(resolved["classes"])
    scores = [{**score, "found": read_json(score["result"])} for score in resolved["scores"]]
    health = read_json(resolved["health"]) if resolved["health"] else None
    properties = ClassProperties.read(resolved["properties"]) if resolved["properties"] else None
    text = (
        environment()
        .get_template("report.html")
        .render(
            **{key: resolved[key] for key in ("dataset", "run", "seed", "target", "methods", "settings")},
            stages={name: told for name, (told, _) in STAGES.items()},
            headlines=headlines(scores),
            road=road(resolved["road"], scores),
            columns=(columns := class_columns(scores)),
            rows=class_rows(columns, classes, properties),
            groups=group_rows(columns, scores, properties),
            precisions=precisions(scores),
            curves=curves(scores),
            trainings=trainings(resolved["road"]),
            confusion=confusion(scores),
            health=health,
            looked_at=looked_at(health),
            galleries=[_gallery(one, classes, health, images) for one in resolved["galleries"]],
            made=made(scores, health, resolved["health"]),
            page=provenance(),
            papers=[PAPERS[key] for key in resolved["cited"]],
        )
    )
    with whole(output) as partial:
        partial.write_text(text, encoding="utf-8")


def environment() -> Environment:
    """What pages are made in: everything is escaped, and what a page does not know is an error."""
    made = Environment(
        loader=PackageLoader("wsss_core.reports"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    made.filters |= {"percent": percent, "duration": duration, "points": points, "breakable": breakable}
    return made


def read_json(path: str) -> Json:
    """A result file; one that is none is a ResultError with its path."""
    try:
        found: Json = json.loads(Path(path).read_text(encoding="utf-8"))
        [found[key] for key in ("stage", "split", "images", "seed", "revision", "scoring")]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ResultError(f"{path} is not a whole result file ({error}): run its rule again") from error
    return found


# --- scores ---


def headlines(scores: Sequence[Json]) -> list[Json]:
    """The scores of a run, as they stand at the top of the page."""
    told = []
    for score in scores:
        found = score["found"]
        measure, value = headline(found)
        about = {key: found.get(key) for key in ("split", "images", "fixed", "threshold")}
        told.append({"name": STAGES[score["artefact"]][0], "measure": measure, "value": value, **about})
    return told


def road(stops: Sequence[Json], scores: Sequence[Json]) -> list[Json]:
    """The stages of a run, each with its jobs' seconds and memory as far as they were measured, and its scores."""
    by_artefact = {score["artefact"]: headline(score["found"]) for score in scores}
    return [{**stop, "jobs": jobs(stop["benchmark"]), "score": by_artefact.get(stop["artefact"])} for stop in stops]


def jobs(benchmark: str | None) -> list[Json]:
    """What Snakemake measured of a rule's jobs: the subset if there is one, seconds, MB of memory at most.

    Args:
        benchmark: path of its files, without the subset and the suffix; None of a rule that measures nothing.
    """
    if not benchmark:
        return []
    path = Path(benchmark)
    found = []
    for file in sorted([*path.parent.glob(f"{path.name}.tsv"), *path.parent.glob(f"{path.name}.*.tsv")]):
        with open(file, newline="", encoding="utf-8") as opened:
            rows = list(csv.DictReader(opened, delimiter="\t"))
        if rows and (seconds := _number(rows[-1].get("s"))) is not None:
            subset = file.name.removeprefix(path.name).removesuffix("tsv").strip(".")
            found.append({"subset": subset, "seconds": seconds, "memory": _number(rows[-1].get("max_rss"))})
    return found


def _number(text: str | None) -> float | None:
    """A number of a benchmark file, which has ``NA`` and ``-`` for what it does not know."""
    try:
        return float(text or "")
    except ValueError:
        return None


def class_columns(scores: Sequence[Json]) -> list[Json]:
    """The stages with an IoU by class: a name of few letters, and IoU (or None) by class."""
    return [
        {"short": SHORT[score["artefact"]], "iou": score["found"]["iou"]} for score in scores if "iou" in score["found"]
    ]


def class_rows(columns: Sequence[Json], classes: Classes, properties: ClassProperties | None) -> list[Json]:
    """A row a class, the background first: its colour, its images, its IoU by stage."""
    counts = properties.values["O"] if properties else {}
    return [
        {
            "name": name,
            "colour": "rgb({}, {}, {})".format(*colour),
            "images": counts.get(name),
            "iou": [column["iou"].get(name) for column in columns],
        }
        for name, colour in zip((BACKGROUND, *classes.names), classes.colours.tolist(), strict=True)
        if columns
    ]


def group_rows(columns: Sequence[Json], scores: Sequence[Json], properties: ClassProperties | None) -> list[Json]:
    """Mean IoU of groups of classes by stage, and the mIoU of images with one class and with several."""
    found: list[Json] = []
    if properties and columns:
        sums = [summary(column["iou"], properties) for column in columns]
        for grouping, groups in properties.groups.items():
            for group, names in groups.items():
                values = [own[f"{grouping} {group}"] for own in sums]
                found.append({"of": f"classes by {grouping}", "name": group, "about": ", ".join(names), "iou": values})
    scored = [score["found"] for score in scores if "iou" in score["found"]]
    for key, name in (("single", "one class"), ("multi", "several classes")):
        own = [result.get("by_labels", {}).get(key) for result in scored]
        if count := next((one["images"] for one in own if one), None):
            values = [one["miou"] if one else None for one in own]
            found.append({"of": "images", "name": name, "about": f"{count} images", "iou": values})
    return found


def precisions(scores: Sequence[Json]) -> list[Json]:
    """Average precision of instances: by overlap and protocol, and by class."""
    return [
        {
            "name": STAGES[score["artefact"]][0],
            "overlaps": list(score["found"]["ap"]["coco"]),
            "ap": score["found"]["ap"],
            "mean": score["found"].get("coco_ap"),
            "classes": {
                name: {protocol: own[protocol].get(AP) for protocol in ("coco", "voc")} | {"objects": own["objects"]}
                for name, own in score["found"]["by_class"].items()
            },
        }
        for score in scores
        if "ap" in score["found"]
    ]


# --- charts ---


def curves(scores: Sequence[Json]) -> list[Markup]:
    """mIoU and false rates of each stage by its background threshold."""
    found = []
    for score in scores:
        if points := score["found"].get("curve"):
            values = {told: [(p["threshold"], 100 * p[key]) for p in points] for key, told in RATES.items()}
            marks = {"best": score["found"]["threshold"], "fixed": score["found"]["fixed"]["threshold"]}
            title = f"{STAGES[score['artefact']][0]} by background threshold"
            found.append(charts.lines(title, values, across="threshold", up="%", marks=marks))
    return found


def trainings(stops: Sequence[Json]) -> list[Json]:
    """The losses of each network by epoch, as far as their histories are there."""
    found = []
    for stop in stops:
        if stop["history"] and (rows := _history(Path(stop["history"]))):
            losses = {
                name: [(float(row["epoch"]), float(row[name])) for row in rows if row[name]]
                for name in rows[0]
                if name not in NO_LOSS
            }
            title = f"{stop['name']}, run {stop['run']}"
            found.append({
                "chart": charts.lines(title, {name: points for name, points in losses.items() if points},
                                      across="epoch", up="loss", whole_numbers=True),
                "epochs": len(rows),
                "seconds": sum(float(row["seconds"]) for row in rows),
                "memory": max(float(row["gpu_memory_mb"]) for row in rows),
            })  # fmt: skip
    return found


def _history(path: Path) -> list[dict[str, str]]:
    """The rows of a history; none where there is none, as of networks from elsewhere."""
    if not path.exists():
        return []
    try:
        with open(path, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        [float(row[name]) for row in rows for name in (*NO_LOSS, *rows[0]) if row[name]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ResultError(f"{path} cannot be read as losses by epoch ({error})") from error
    return rows


def confusion(scores: Sequence[Json]) -> Json | None:
    """The confusion matrix of the last stage that has one, and the pairs of classes that are taken for one another."""
    own = [score for score in scores if score["found"].get("confusion")]
    if not own:
        return None
    result, names = own[-1]["found"], list(own[-1]["found"]["iou"])
    counts = np.array(result["confusion"])
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    wrong = np.where(np.eye(len(counts), dtype=bool), 0, shares)
    worst = np.argsort(-wrong, axis=None, kind="stable")[:CONFUSED]
    pairs = [divmod(int(place), len(names)) for place in worst]
    name = STAGES[own[-1]["artefact"]][0]
    told = [(names[row], names[column], float(wrong[row, column])) for row, column in pairs]
    return {
        "name": name,
        "split": result["split"],
        "chart": charts.matrix(f"{name}: what the pixels of each class were found as", counts, names),
        "pairs": [pair for pair in told if pair[2]],
    }


# --- health, galleries, where it comes from ---


def looked_at(health: Json | None) -> list[Json]:
    """A row a stage of what ``check_health`` found."""
    if not health:
        return []
    return [{"name": STAGES[name][0], **numbers} for name, numbers in health["stages"].items()]


def _gallery(about: Json, classes: Classes, health: Json | None, count: int) -> Json:
    manifest = Manifest.read(about["manifest"])
    scores = {one.image_id: one for one in read_image_scores(Path(about["images"]))} if about["images"] else {}
    layers = {STAGES[name][0]: gallery.layer_of(name, Path(path), classes) for name, path in about["panels"]}
    truth = gallery.truth_of(classes, about["objects"])
    if scores:
        groups = gallery.groups_by_score(list(scores.values()), count)
    else:
        stage = next((name for name in ("pseudo_masks", "cams") if name in (health or {}).get("stages", {})), None)
        foreground = health["stages"][stage] if health and stage else None
        groups = gallery.groups_by_foreground(foreground, manifest.ids, count)
    return {
        **about,
        "ranked_by": STAGES[about["ranked_by"]][0] if about["ranked_by"] else None,
        "groups": [
            {"title": title, "images": [gallery.shown(manifest.row(id), layers, truth, classes, scores.get(id))
                                        for id in ids]}
            for title, ids in groups
        ],
    }  # fmt: skip


def made(scores: Sequence[Json], health: Json | None, health_path: str | None) -> Json:
    """Where each number comes from: files with their revision, device and commit; versions of what computed them."""
    files = [(score["result"], score["found"]) for score in scores]
    files += [(str(health_path), health)] if health else []
    versions: dict[str, list[str]] = {}
    for _, found in files:
        for name, version in found["scoring"]["versions"].items():
            if version not in versions.setdefault(name, []):
                versions[name].append(version)
    return {
        "files": [
            {"path": path, **{key: found[key] for key in ("split", "seed", "revision")}, **_of(found["scoring"])}
            for path, found in files
        ],
        "versions": versions,
    }


def _of(scoring: Mapping[str, Any]) -> Json:
    commit = scoring.get("commit")
    changed = ", with changes" if scoring.get("clean") is False else ""
    return {
        "commit": f"{commit[:10]}{changed}" if commit else "unknown",
        "device": scoring["device"],
        "seconds": scoring["seconds"],
    }


# --- how numbers are told ---


def percent(share: float | None, digits: int = 1) -> str:
    """A share in per cent; a dash where there is none."""
    return "–" if share is None else f"{100 * share:.{digits}f}"


def points(difference: float) -> str:
    """A difference of shares, in points of per cent, with its sign."""
    told = f"{100 * difference:+.1f}"
    return "0.0" if float(told) == 0 else told.replace("-", "\N{MINUS SIGN}")


def breakable(name: str) -> Markup:
    """A name that lines may break in, behind ``_``, ``@`` and those dots that are in no number."""
    return Markup(re.sub(r"([_@]|\.(?=[^\W\d]))", r"\1<wbr>", str(escape(name))))


def duration(seconds: float | None) -> str:
    """Seconds as people say them."""
    if seconds is None:
        return "–"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
