"""Result files as tables: the scores of some runs side by side, and means over seeds.

``python -m wsss_core.reports.tables FILE ...`` prints the scores of result files as a Markdown table.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev

from wsss_core.base.files import whole


class ResultError(ValueError):
    """A result file that is missing, damaged, or does not belong with the others."""


def read_result(path: str | Path) -> dict:
    """Read a result file; one that is missing or is no result is a ResultError with its path."""
    try:
        result = json.loads(Path(path).read_text(encoding="utf-8"))
        {result[key] for key in ("dataset", "run", "stage", "split", "images", "seed", "miou")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ResultError(f"{path} is not a whole result file ({error}): run its rule again") from error
    return result


def score_table(results: Sequence[dict]) -> str:
    """The scores of result files as a Markdown table, a row a file; thresholds as far as there are."""
    rows = [
        (
            f"{r['dataset']} {r['run']}",
            r["stage"],
            f"{r['split']}, {r['images']} images",
            f"{100 * r['miou']:.2f} %",
            f"at {r['threshold']}, {r['threshold_choice']}" if "threshold" in r else "",
        )
        for r in results
    ]
    return markdown(("run", "stage", "scored on", "mIoU", "threshold"), rows)


def mean_over_seeds(*, results: Sequence[Path], output: Path, table: Path, revision: int) -> None:
    """Write the mean and the sample standard deviation of each stage's mIoU over the seeds of a run.

    Args:
        results: result files of one recipe on one data set, every stage with the same seeds.
        output: JSON file: per stage ``mean``, ``standard_deviation`` (n - 1 below; null of a single seed) and the
            ``values``, one a seed.
        table: the same as a Markdown table.

    Raises:
        ResultError: a file is no whole result, or they differ in recipe, data set, split, images or seeds.
    """
    stages = over_seeds([read_result(path) for path in results])
    rows = [
        (
            stage,
            f"{scores['split']}, {scores['images']} images",
            _percent(scores["mean"]),
            _percent(scores["standard_deviation"]),
            *map(_percent, scores["values"].values()),
        )
        for stage, scores in stages["stages"].items()
    ]
    head = ("stage", "scored on", "mean mIoU", "standard deviation", *(f"seed {seed}" for seed in stages["seeds"]))
    with whole(table) as partial:
        partial.write_text(f"# {stages['dataset']} {stages['run']}\n\n{markdown(head, rows)}\n", encoding="utf-8")
    with whole(output) as partial:
        partial.write_text(json.dumps({**stages, "revision": revision}, indent=2) + "\n", encoding="utf-8")


def over_seeds(results: Sequence[dict]) -> dict:
    """Mean, sample standard deviation and values of each stage's mIoU over seeds; see ``mean_over_seeds``."""
    recipes = {(r["dataset"], r["run"].partition("@")[0]) for r in results}
    if len(recipes) != 1:
        raise ResultError(f"means over seeds are those of one run on one data set, not of {sorted(recipes)}")
    (dataset, run), seeds = recipes.pop(), sorted({r["seed"] for r in results})
    stages = {}
    for stage in dict.fromkeys(r["stage"] for r in results):
        own = sorted((r for r in results if r["stage"] == stage), key=lambda r: r["seed"])
        scored = {(r["split"], r["images"]) for r in own}
        if [r["seed"] for r in own] != seeds or len(scored) != 1:
            raise ResultError(
                f"the results of {stage} have the seeds {[r['seed'] for r in own]} of {seeds} and are scored on "
                f"{sorted(scored)}: every seed is needed once, scored on the same images"
            )
        values = [r["miou"] for r in own]
        stages[stage] = {
            "split": own[0]["split"],
            "images": own[0]["images"],
            "mean": mean(values),
            "standard_deviation": stdev(values) if len(values) > 1 else None,
            "values": {str(r["seed"]): r["miou"] for r in own},
        }
    return {"dataset": dataset, "run": run, "seeds": seeds, "stages": stages}


def read_curve(path: str | Path) -> list[dict[str, float]]:
    """The threshold curve of a result file: threshold, and in per cent miou, false_positives, false_negatives.

    The rates are shares of the union, means over the foreground classes; see ``metrics.false_rates``.
    """
    points = read_result(path).get("curve")
    if not points:
        raise ResultError(f"{path} has no threshold curve: run its rule again")
    return [{key: value if key == "threshold" else 100 * value for key, value in point.items()} for point in points]


def _percent(score: float | None) -> str:
    return "" if score is None else f"{100 * score:.2f} %"


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table with aligned columns."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in (head, *rows)]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    try:
        print(score_table([read_result(path) for path in sys.argv[1:]]))
    except ResultError as error:
        sys.exit(str(error))
