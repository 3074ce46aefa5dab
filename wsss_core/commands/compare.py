"""``wsss compare``: two runs on a data set, class by class and image by image."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wsss_core.base.files import whole
from wsss_core.commands.printing import CommandError
from wsss_core.commands.run import LAST_FIRST, STAGES, RunOnDisk
from wsss_core.recipes.names import unknown
from wsss_core.reports.figures import COLOURS

Row = tuple[str, ...]
ALL = "mIoU"


@dataclass(frozen=True)
class Comparison:
    """Two runs at one stage.

    Attributes:
        runs: their names.
        stage: one of ``STAGES``.
        means: by stage that both have scores of, the mIoU of both.
        classes: by class, the IoU of both; None where a class is nowhere.
        images: ids with the mIoU of both, those that lost most first; none without the scores by image of both.
    """

    runs: tuple[str, str]
    stage: str
    means: dict[str, tuple[float, float]]
    classes: dict[str, tuple[float | None, float | None]]
    images: list[tuple[str, float, float]]


def compare(one: RunOnDisk, other: RunOnDisk, stage: str | None = None) -> Comparison:
    """Put the scores of two runs side by side.

    Args:
        stage: whose classes and images are compared, one of ``STAGES``; None takes the last one that both have.

    Raises:
        CommandError: an unknown stage; nothing that both have scores of; scores of other images.
        ResultError: a result file that is damaged.
    """
    if stage is not None and stage not in STAGES:
        raise CommandError(unknown("stage of --scores", stage, STAGES, "there are"))
    common = [name for name in LAST_FIRST if name in one.results and name in other.results]
    chosen = stage or next(iter(common), None)
    if chosen is None or chosen not in common:
        wanted = [
            run.project.tree.path(STAGES[stage or "seg"].result, dataset=run.dataset, run=run.run)
            for run in (one, other)
            if (stage or "seg") not in run.results
        ]
        raise CommandError(f"there are no scores of both runs: make {' and '.join(wanted)} first, by snakemake")
    results = one.results[chosen], other.results[chosen]
    for key in ("split", "images"):
        first, second = (result.get(key) for result in results)
        if first != second:
            raise CommandError(f"the runs are scored on other images: {key} {first} of {one.run}, {second} of "
                               f"{other.run}; make the older scores again")  # fmt: skip
    first, second = (result.get("iou") or {} for result in results)
    if first.keys() != second.keys():
        raise CommandError(f"the runs are scored on other classes: {', '.join(first.keys() ^ second.keys())}")
    return Comparison(
        (one.run, other.run),
        chosen,
        {name: (one.results[name]["miou"], other.results[name]["miou"]) for name in reversed(common)},
        {name: (first[name], second[name]) for name in first},
        _changed(one, other, chosen),
    )


def _changed(one: RunOnDisk, other: RunOnDisk, stage: str) -> list[tuple[str, float, float]]:
    first, second = one.tables.get(stage, {}), other.tables.get(stage, {})
    found = [
        (id, score.miou, again.miou)
        for id, score in first.items()
        if score.miou is not None and (again := second.get(id)) is not None and again.miou is not None
    ]
    return sorted(found, key=lambda image: (image[2] - image[1], image[0]))


def tables(found: Comparison, most: int) -> tuple[list[Row], list[Row], list[Row]]:
    """What to print: by stage, by class, and the images that changed most, ``most`` of each kind."""
    stages = [(STAGES[name].caption + (" (val)" if name.endswith("_val") else ""), *_told(*values))
              for name, values in found.means.items()]  # fmt: skip
    classes = [(name, *_told(*values)) for name, values in found.classes.items()]
    lost = [image for image in found.images if image[2] < image[1]][:most]
    won = [image for image in reversed(found.images) if image[2] > image[1]][:most]
    images = [(id, *_told(before, after)) for id, before, after in [*won, *lost]]
    head = (*found.runs, "change")
    return [("stage", *head), *stages], [("class", *head), *classes], [("image", *head), *images]


def _told(before: float | None, after: float | None) -> Row:
    change = "" if before is None or after is None else f"{100 * (after - before):+.1f}"
    return (*("-" if value is None else f"{100 * value:.1f}" for value in (before, after)), change)


def draw_comparison(found: Comparison, title: str, output: Path) -> None:
    """Write a PNG with two bars a class, and one of the mean, in the order of the classes."""
    from matplotlib.figure import Figure

    names = [name for name, values in found.classes.items() if None not in values]
    bars: dict[str, Sequence[float]] = {}
    for place, run in enumerate(found.runs):
        own = [found.classes[name][place] or 0.0 for name in names]
        bars[run if run not in bars else f"{run} again"] = [
            100 * value for value in (*own, found.means[found.stage][place])
        ]
    names.append(ALL)
    sheet = Figure(figsize=(max(5.0, 0.45 * len(names) + 2), 4.0), layout="constrained")
    plot = sheet.subplots()
    for place, (run, heights) in enumerate(bars.items()):
        middles = [x + (place - 0.5) * 0.4 for x in range(len(names))]
        drawn = plot.bar(middles, heights, 0.4, color=COLOURS[(2, 5)[place]], label=run)
        if len(names) <= 25:
            plot.bar_label(drawn, fmt="%.0f", fontsize="x-small")
    plot.set_xticks(range(len(names)), names, rotation=60 if len(names) > 8 else 0,
                    ha="right" if len(names) > 8 else "center")  # fmt: skip
    plot.set(title=title, ylabel="IoU in %", ylim=(0, 105))
    plot.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
    with whole(output) as partial:
        sheet.savefig(partial, format="png", dpi=150)
