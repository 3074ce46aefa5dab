"""Figures of a paper, drawn from what was measured here.

A figure is declared in ``workflow/papers``, see docs/tables.md: threshold curves (``lines``), a score by a setting
(``points``), bars by groups of images (``bars``), or the gradients of two losses (``formula``). ``resolve_figure``
finds the files that it needs, and ``make_figure`` draws it.
"""

import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any

from wsss_core.base.files import whole
from wsss_core.recipes.recipes import Recipes
from wsss_core.recipes.tree import Tree
from wsss_core.reports.paper_tables import Results, result_files
from wsss_core.reports.tables import read_curve

if TYPE_CHECKING:  # the Snakefile reads this module, and these take a second to load
    import numpy as np
    from matplotlib.axes import Axes

# Okabe and Ito's colours, which colour-blind readers can tell apart
COLOURS = ("#000000", "#e69f00", "#56b4e9", "#009e73", "#0072b2", "#d55e00", "#cc79a7")
RATES = {"miou": "mIoU", "false_positives": "false positives", "false_negatives": "false negatives"}
SIDE = 4.0  # of a plot, in inches
LOGITS = 10.0  # the gradients' axes go from minus this to this
Rows = list[tuple[Any, ...]]


def resolve_figure(figure: dict, dataset: str, recipes: Recipes, tree: Tree) -> dict:
    """A declared figure with the files of its numbers on a data set, as plain values for a rule's params.

    Args:
        figure: what a file in ``workflow/papers`` declares, checked by its schema.

    Raises:
        RecipeError: a run that config.yaml does not have.
    """
    found = dict(figure)
    for part in ("lines", "points", "levels", "bars"):
        if part in figure:
            seeds = figure.get("seeds", False)
            found[part] = [
                {**entry, "files": result_files({"seeds": seeds, **entry}, entry.get("score", "priors_miou"),
                                                dataset, recipes, tree)}
                for entry in figure[part]
            ]  # fmt: skip
    return found


def files_of_figure(resolved: dict) -> list[str]:
    """Every file that a resolved figure is drawn from, once."""
    entries = [entry for part in ("lines", "points", "levels", "bars") for entry in resolved.get(part, [])]
    return list(dict.fromkeys(file for entry in entries for file in entry["files"]))


def make_figure(*, resolved: dict, picture: Path, table: Path) -> None:
    """Draw a figure of a paper.

    Args:
        resolved: what ``resolve_figure`` made of its declaration.
        picture: PNG. Scores and rates are in per cent; bars and points of several seeds have their standard deviation.
        table: CSV of what is drawn.

    Raises:
        ResultError: a result file that is damaged, or has not the number that the figure asks for.
    """
    from matplotlib.figure import Figure

    kinds: dict[str, tuple[int, int, Callable[[Sequence[Axes], dict], Rows]]] = {
        "lines": (1, len(RATES), _curves),
        "points": (1, 1, _sweep),
        "bars": (1, 1, _bars),
        "formula": (2, 2, _gradients),
    }
    down, across, draw = next(kind for part, kind in kinds.items() if part in resolved)
    sheet = Figure(figsize=(SIDE * across, SIDE * down), layout="constrained")
    rows = draw(list(sheet.subplots(down, across, squeeze=False).flat), resolved)
    sheet.suptitle(resolved["title"], fontsize="medium")
    with whole(picture) as partial:
        sheet.savefig(partial, format="png", dpi=150)
    with whole(table) as partial, open(partial, "w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(
            tuple(round(value, 4) if isinstance(value, float) else value for value in row) for row in rows
        )


def _curves(plots: Sequence["Axes"], figure: dict) -> Rows:
    """mIoU and false rates by background threshold, as in figure 6 of P-NOC's paper."""
    rows: Rows = [("run", "threshold", *RATES)]
    for line, colour in zip(figure["lines"], _colours(), strict=False):
        points = read_curve(line["files"][0])
        for plot, key in zip(plots, RATES, strict=True):
            plot.plot([p["threshold"] for p in points], [p[key] for p in points], color=colour, label=line["name"])
        rows += [(line["name"], p["threshold"], *(p[key] for key in RATES)) for p in points]
    for plot, title in zip(plots, RATES.values(), strict=True):
        plot.set(title=title, xlabel="threshold")
    plots[0].set_ylabel("%")
    plots[-1].legend()
    return rows


def _sweep(plots: Sequence["Axes"], figure: dict) -> Rows:
    """A score by a setting, and levels of other runs to compare with."""
    (plot,), results = plots, Results()
    rows: Rows = [(figure["x"], *SPREAD)]
    points = sorted((point["x"], *_spread(results, point["files"], figure["key"])) for point in figure["points"])
    at, means, deviations, _ = zip(*points, strict=True)
    plot.errorbar(range(len(at)), means, deviations, color=COLOURS[0], marker="o", capsize=3)
    plot.set_xticks(range(len(at)), [f"{x:g}" for x in at])
    for level, colour in zip(figure.get("levels", []), COLOURS[1:], strict=False):
        height, *others = _spread(results, level["files"], figure["key"])
        plot.axhline(height, color=colour, linestyle="--", label=level["name"])
        rows.append((level["name"], height, *others))
    plot.set(xlabel=figure["x"], ylabel=figure["y"])
    if figure.get("levels"):
        plot.legend()
    return rows[:1] + points + rows[1:]


def _bars(plots: Sequence["Axes"], figure: dict) -> Rows:
    """Bars by groups, such as the images with one class and those with several."""
    (plot,), results, groups = plots, Results(), figure["groups"]
    rows: Rows = [("run", "group", *SPREAD)]
    width = 0.8 / len(figure["bars"])
    for index, (bar, colour) in enumerate(zip(figure["bars"], _colours()[1:], strict=False)):
        found = [_spread(results, bar["files"], group["key"]) for group in groups]
        heights, deviations = [height for height, *_ in found], [deviation for _, deviation, _ in found]
        places = [place + (index - (len(figure["bars"]) - 1) / 2) * width for place in range(len(groups))]
        drawn = plot.bar(places, heights, width, yerr=deviations, capsize=3, color=colour, label=bar["name"])
        plot.bar_label(drawn, fmt="%.1f", fontsize="small")
        rows += [(bar["name"], group["name"], *own) for group, own in zip(groups, found, strict=True)]
    plot.set_xticks(range(len(groups)), [group["name"] for group in groups])
    plot.set_ylabel(figure["y"])
    plot.margins(y=0.25)  # room for the names
    plot.legend(ncols=2, fontsize="small")
    return rows


def _gradients(plots: Sequence["Axes"], figure: dict) -> Rows:
    """How hard both losses pull at the logits of a positive and of a negative class, by these logits."""
    import numpy as np

    rows: Rows = [("loss", "positive_logit", "negative_logit", "on_positive", "on_negative")]
    axis = np.linspace(-LOGITS, LOGITS, 81)
    grid = np.stack(np.meshgrid(axis, axis, indexing="ij"), -1)  # positive, negative
    named = {"binary cross-entropy": binary_gradient, "softmax cross-entropy": softmax_gradient}
    for line, (name, gradient) in enumerate(named.items()):
        pulls = np.abs(gradient(grid, np.array([1.0, 0.0])))
        for column, logit in enumerate(("positive", "negative")):
            plot = plots[2 * line + column]
            shown = plot.pcolormesh(axis, axis, pulls[..., column].T, vmin=0, vmax=1, cmap="viridis")
            plot.set(title=f"{name}, on the {logit} logit", xlabel="positive logit", ylabel="negative logit")
            plot.title.set_fontsize("small")
        for p, q in ((-LOGITS, LOGITS), (LOGITS, -LOGITS), (LOGITS, LOGITS), (-LOGITS, -LOGITS)):
            rows.append((name, p, q, *map(float, np.abs(gradient(np.array([p, q]), np.array([1.0, 0.0]))))))
    plots[0].figure.colorbar(shown, ax=list(plots), label="size of the gradient")
    return rows


def binary_gradient(logits: "np.ndarray", labels: "np.ndarray") -> "np.ndarray":
    """Gradient of the binary cross-entropy, a mean over classes: ``(sigmoid(z) - y) / K`` (ReCAM, equation 12).

    Args:
        logits, labels: arrays (..., K).
    """
    import numpy as np

    return (1 / (1 + np.exp(-logits)) - labels) / logits.shape[-1]


def softmax_gradient(logits: "np.ndarray", labels: "np.ndarray") -> "np.ndarray":
    """Gradient of the softmax cross-entropy: ``softmax(z) - y`` (ReCAM, equation 13); arguments as above."""
    import numpy as np

    raised = np.exp(logits - logits.max(-1, keepdims=True))
    return raised / raised.sum(-1, keepdims=True) - labels


SPREAD = ("mean", "standard_deviation", "seeds")


def _spread(results: Results, files: list[str], key: str) -> tuple[float, float, int]:
    """Mean, sample standard deviation (0 of a single one) and number of a score's values, in per cent."""
    values = [results.score(file, key) for file in files]
    return mean(values), stdev(values) if len(values) > 1 else 0.0, len(values)


def _colours() -> list[str]:
    return list(COLOURS) * 4
