"""``wsss compare``: runs on a data set, class by class and image by image."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wsss_core.base.files import whole
from wsss_core.commands.printing import CommandError
from wsss_core.commands.project import Project
from wsss_core.commands.run import LAST_FIRST, STAGES, RunOnDisk
from wsss_core.recipes.names import unknown
from wsss_core.reports.charts import COLOURS
from wsss_core.reports.comparable import resolve_comparison

Row = tuple[str, ...]
Scores = tuple[float | None, ...]  # one a run
ALL = "mIoU"
LETTER, CLASS = 0.1, 0.45  # inches of a letter, and of a class at least
LABELLED = 25  # classes up to which bars have numbers


@dataclass(frozen=True)
class Comparison:
    """Runs at one stage.

    Attributes:
        runs: their names, the one that others are held against first.
        stage: one of ``STAGES``.
        means: by stage that all have scores of, the mIoU of each.
        classes: by class, the IoU of each; None where a class is nowhere.
        images: ids with the mIoU of each, by change; none without the scores by image of all.
    """

    runs: tuple[str, ...]
    stage: str
    means: dict[str, Scores]
    classes: dict[str, Scores]
    images: list[tuple[str, Scores]]


def compare(runs: Sequence[RunOnDisk], stage: str | None = None) -> Comparison:
    """Put the scores of two or more runs side by side.

    Args:
        stage: whose classes and images are compared, one of ``STAGES``; None takes the last one that all have.

    Raises:
        CommandError: one run alone; an unknown stage; nothing that all have scores of; scores of other images.
        ResultError: a result file that is damaged.
    """
    if len(runs) < 2:
        raise CommandError(f"name two runs or more, such as wsss compare {runs[0].dataset} {runs[0].run} OTHER")
    if stage is not None and stage not in STAGES:
        raise CommandError(unknown("stage of --scores", stage, STAGES, "there are"))
    common = [name for name in LAST_FIRST if all(name in run.results for run in runs)]
    chosen = stage or next(iter(common), None)
    if chosen is None or chosen not in common:
        wanted = [
            run.project.tree.path(STAGES[stage or "seg"].result, dataset=run.dataset, run=run.run)
            for run in runs
            if (stage or "seg") not in run.results
        ]
        raise CommandError(f"there are no scores that all have: make {' and '.join(wanted)} first, by snakemake")
    results = [run.results[chosen] for run in runs]
    for other, result in zip(runs[1:], results[1:], strict=True):
        for key in ("split", "images"):
            if results[0].get(key) != result.get(key):
                raise CommandError(
                    f"the runs are scored on other images: {key} {results[0].get(key)} of {runs[0].run}, "
                    f"{result.get(key)} of {other.run}; make the older scores again"
                )
    by_class = [result.get("iou") or {} for result in results]
    for other, found in zip(runs[1:], by_class[1:], strict=True):
        if apart := by_class[0].keys() ^ found.keys():
            raise CommandError(f"{runs[0].run} and {other.run} are scored on other classes: {', '.join(sorted(apart))}")
    return Comparison(
        tuple(run.run for run in runs),
        chosen,
        {name: tuple(run.results[name]["miou"] for run in runs) for name in reversed(common)},
        {name: tuple(found[name] for found in by_class) for name in by_class[0]},
        _changed(runs, chosen),
    )


def _changed(runs: Sequence[RunOnDisk], stage: str) -> list[tuple[str, Scores]]:
    """Images with a score of each run: by the change between two runs, lowest first, or by the spread over more."""
    tables = [run.tables.get(stage, {}) for run in runs]
    ids = [id for id in tables[0] if all(id in table and table[id].miou is not None for table in tables)]
    found = [(id, tuple(table[id].miou for table in tables)) for id in ids]
    return sorted(found, key=lambda image: (change(image[1]) or 0.0, image[0]))


def change(scores: Scores) -> float | None:
    """From the first to the other of two runs; over more, the highest less the lowest. None where one has none."""
    known = [score for score in scores if score is not None]
    if len(known) < len(scores):
        return None
    return known[1] - known[0] if len(known) == 2 else max(known) - min(known)


def tables(found: Comparison, most: int) -> tuple[list[Row], list[Row], list[Row]]:
    """What to print: by stage, by class, and the images that changed most, ``most`` of each kind."""
    stages = [(STAGES[name].caption + (" (val)" if name.endswith("_val") else ""), *_told(values))
              for name, values in found.means.items()]  # fmt: skip
    classes = [(name, *_told(values)) for name, values in found.classes.items()]
    lost = [image for image in found.images if (change(image[1]) or 0.0) < 0][:most]
    won = [image for image in reversed(found.images) if (change(image[1]) or 0.0) > 0][:most]
    images = [(id, *_told(scores)) for id, scores in [*won, *lost]]
    head = (*found.runs, "change" if len(found.runs) == 2 else "spread")
    return [("stage", *head), *stages], [("class", *head), *classes], [("image", *head), *images]


def _told(scores: Scores) -> Row:
    between = change(scores)
    sign = "+" if len(scores) == 2 else ""
    told = "" if between is None else f"{100 * between:{sign}.1f}"
    return (*("-" if value is None else f"{100 * value:.1f}" for value in scores), told)


def draw_comparison(found: Comparison, title: str, output: Path) -> None:
    """Write a PNG with a bar a run for each class, and for the mean, in the order of the classes."""
    from matplotlib.figure import Figure

    names = [name for name, values in found.classes.items() if None not in values]
    heights = [(*(100 * (value or 0.0) for value in found.classes[name]),) for name in names]
    heights.append((*(100 * (value or 0.0) for value in found.means[found.stage]),))
    names.append(ALL)
    count = len(found.runs)
    wide = max(CLASS, 0.2 * count + 0.15)  # of a class, in inches: there is room for a bar's number
    beside = 1.2 + LETTER * max(map(len, found.runs))  # axis and legend
    sheet = Figure(figsize=(max(5.0, wide * len(names) + beside), 4.0), layout="constrained")
    plot = sheet.subplots()
    width = 0.8 / count
    for place, run in enumerate(found.runs):
        middles = [x + (place - (count - 1) / 2) * width for x in range(len(names))]
        colour = COLOURS[place % len(COLOURS)]  # that of the run on the page
        label = run if run not in found.runs[:place] else f"{run} again"
        drawn = plot.bar(middles, [of_class[place] for of_class in heights], width, color=colour, label=label)
        if len(names) <= LABELLED:
            plot.bar_label(drawn, fmt="%.0f", fontsize="x-small")
    room = max(wide, (sheet.get_figwidth() - beside) / len(names))
    slanted = LETTER * max(map(len, names)) > room
    plot.set_xticks(range(len(names)), names, rotation=60 if slanted else 0, ha="right" if slanted else "center",
                    rotation_mode="anchor" if slanted else "default")  # fmt: skip
    plot.set(title=title, ylabel="IoU in %", ylim=(0, 105))
    plot.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
    with whole(output) as partial:
        sheet.savefig(partial, format="png", dpi=150)


def write_page(project: Project, dataset: str, runs: Sequence[str], output: Path) -> None:
    """Write the page that ``results/{dataset}/compare.html`` is, of these runs.

    Raises:
        RecipeError: fewer than two runs, or one without any score.
        ResultError: a result file that is damaged.
    """
    from wsss_core.reports.comparison import make_comparison

    resolved = resolve_comparison(dataset, runs, project.recipes, project.tree)
    command = f"wsss compare {dataset} {' '.join(runs)} --html {output}"
    make_comparison(resolved=resolved | {"command": command}, output=output)
