"""Tables of a paper, filled in with what was measured here.

A table is declared in ``workflow/papers``, see docs/tables.md. ``resolve`` finds the files that it needs, and
``make_table`` fills it in. Neither torch nor numpy is imported: the Snakefile asks ``resolve`` for a rule's inputs.
"""

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from wsss_core.base.files import whole
from wsss_core.recipes.recipes import Recipes
from wsss_core.recipes.tree import Tree
from wsss_core.reports.tables import ResultError, markdown

PROPERTY_COLUMNS = ("O", "%S", "%C", "L")
ABREAST = 5  # columns of scores beside each other, each with the paper's and the difference
PUBLISHED_IMAGES = {"voc": {"train": 1464, "val": 1449}}

ByClass = Mapping[str, float | None]  # None of a class that has no such value


@dataclass(frozen=True)
class Cell:
    """A number of a table: what was measured, a value a seed, and what the paper says.

    ``values`` is None where nothing is measured here, and empty where there is nothing to measure: the IoU of a class
    that neither masks nor predictions hold.
    """

    values: tuple[float, ...] | None
    paper: float | None

    @property
    def mean(self) -> float | None:
        return mean(self.values) if self.values else None

    @property
    def deviation(self) -> float | None:
        """Sample standard deviation over seeds, n - 1 below; None of a single one."""
        return stdev(self.values) if self.values and len(self.values) > 1 else None

    @property
    def difference(self) -> float | None:
        """Measured minus published."""
        return None if self.mean is None or self.paper is None else self.mean - self.paper

    def measured(self) -> str:
        """The measured number as a reader sees it."""
        if self.values is None:
            return "not measured here"
        if not self.values:
            return "-"
        return f"{self.mean:.2f}" + ("" if self.deviation is None else f" ± {self.deviation:.2f}")


@dataclass(frozen=True)
class Filled:
    """A table with its numbers: names of the columns of labels and of numbers; each row's labels and cells."""

    labels: list[str]
    columns: list[str]
    rows: list[tuple[list[str], list[Cell]]]

    def column(self, index: int) -> list[Cell]:
        return [cells[index] for _, cells in self.rows]

    def without_empty(self) -> "Filled":
        """Without the rows and columns that have neither a run nor a number of the paper, on this data set."""

        def says(cells: list[Cell]) -> bool:
            return any(cell.values is not None or cell.paper is not None for cell in cells)

        kept = [index for index in range(len(self.columns)) if says(self.column(index))]
        rows = [(labels, [cells[index] for index in kept]) for labels, cells in self.rows if says(cells)]
        return Filled(self.labels, [self.columns[index] for index in kept], rows)

    @property
    def compared(self) -> bool:
        """Whether the paper has numbers for this data set."""
        return any(cell.paper is not None for _, cells in self.rows for cell in cells)


def resolve(table: dict, dataset: str, recipes: Recipes, tree: Tree) -> dict:
    """A declared table with the files of its cells on a data set, as plain values for a rule's params.

    Args:
        table: what a file in ``workflow/papers`` declares, checked by its schema.
        tree: where the files of runs and data sets lie.

    Raises:
        ResultError: a row with more or fewer numbers of the paper than there are columns.
        RecipeError: a run that config.yaml does not have, or one without what its score is ``of``.
    """
    notes = table.get("notes", {})
    own = (_resolve_runs if table["kind"] == "runs" else _resolve_classes)(table, dataset, recipes, tree)
    return {"title": table["title"], "notes": [*notes.get("any", []), *notes.get(dataset, [])], **own}


def _resolve_runs(table: dict, dataset: str, recipes: Recipes, tree: Tree) -> dict:
    columns, rows = [score["name"] for score in table["scores"]], []
    for declared in table["rows"]:
        row = {"seeds": table.get("seeds", False), **declared}
        made = "run" in row and dataset not in row.get("except", [])
        scores = [row.get("scores", {}).get(score["name"], score) for score in table["scores"]]
        cells = [
            {"files": result_files(row, score["score"], dataset, recipes, tree, score.get("of")), "key": score["key"]}
            if made and "score" in score
            else None
            for score in scores
        ]
        labels, paper = [*row["label"], row.get("run", "")], row.get("paper", {}).get(dataset)
        rows.append({"labels": labels, "cells": cells, "paper": _published(paper, table, " ".join(labels), columns)})
    return {"labels": [*table["labels"], "run"], "columns": columns, "rows": rows}


def _resolve_classes(table: dict, dataset: str, recipes: Recipes, tree: Tree) -> dict:
    columns = [*PROPERTY_COLUMNS] if table["properties"] else []
    columns += [column["name"] for column in table["columns"]]
    paper = table.get("paper", {}).get(dataset, {})
    return {
        "columns": columns,
        "properties": tree.path("class_properties", dataset=dataset) if table["properties"] else None,
        "runs": [
            result_files({"seeds": table.get("seeds", False), **column}, table["score"], dataset, recipes, tree)
            if "run" in column
            else None
            for column in table["columns"]
        ],
        "sections": table["sections"],
        "paper": {row: _published(numbers, table, row, columns) for row, numbers in paper.items()},
    }


def _published(numbers: list | None, table: dict, row: str, columns: list[str]) -> list:
    """The paper's numbers of a row, None where it has none."""
    if numbers is not None and len(numbers) != len(columns):
        raise ResultError(
            f"{table['title']!r}: the row {row!r} has {len(numbers)} numbers of the paper for {len(columns)} columns; "
            "correct the table in workflow/papers"
        )
    return numbers or [None] * len(columns)


def result_files(
    entry: dict, score: str, dataset: str, recipes: Recipes, tree: Tree, of: str | None = None
) -> list[str]:
    """The file with a score of the entry's run, or of each seed.

    Args:
        of: score the run where this artefact of the entry's run lies; ``ordinary`` is its ordinary classifier.
    """
    recipes.parse(entry["run"])
    averaged = entry.get("seeds", False)  # true, false, or the data sets on which they are
    seeded = dataset in averaged if isinstance(averaged, list) else averaged
    runs = recipes.seeded(entry["run"]) if seeded else [entry["run"]]
    if of == "ordinary":
        runs = [recipes.ordinary(dataset, run) for run in runs]
    elif of:
        runs = [recipes.source(dataset, run, of) for run in runs]
    return [tree.path(score, dataset=dataset, run=run) for run in runs]


def files_of(resolved: dict) -> list[str]:
    """Every file that a resolved table is made from, once."""
    lists = [cell["files"] for row in resolved.get("rows", []) for cell in row["cells"] if cell]
    lists += [files for files in resolved.get("runs", []) if files]
    lists.append([resolved["properties"]] if resolved.get("properties") else [])
    return list(dict.fromkeys(file for files in lists for file in files))


class Results:
    """Result files, each read once."""

    def __init__(self) -> None:
        self.read: dict[str, dict] = {}

    def file(self, path: str) -> dict:
        """The content of a result file.

        Raises:
            ResultError: it cannot be read as one.
        """
        if path not in self.read:
            try:
                self.read[path] = dict(json.loads(Path(path).read_text(encoding="utf-8")))
            except (OSError, ValueError, TypeError) as error:
                raise ResultError(f"{path} is not a whole result file ({error}): run its rule again") from error
        return self.read[path]

    def score(self, path: str, key: str) -> float:
        """The score at a dotted key, in per cent."""
        value: Any = self.file(path)
        rest = key
        while rest and isinstance(value, dict):  # a name may hold a dot itself, as that of a threshold does
            part, rest = (rest, "") if rest in value else rest.partition(".")[::2]
            value = value.get(part)
        if not isinstance(value, int | float):
            raise ResultError(f"{path} has no score {key!r}: run its rule again, or correct the key in workflow/papers")
        return 100 * value

    def by_class(self, path: str) -> dict[str, float | None]:
        """IoU by class, the background first, in per cent; None for a class that is nowhere."""
        scores = self.file(path).get("iou")
        if not isinstance(scores, dict):
            raise ResultError(f"{path} has no IoU by class: run its rule again")
        return {name: None if value is None else 100 * value for name, value in scores.items()}


def fill(resolved: dict, results: Results) -> Filled:
    """Read the numbers of a resolved table."""
    return (_fill_runs if "rows" in resolved else _fill_classes)(resolved, results)


def _fill_runs(resolved: dict, results: Results) -> Filled:
    rows = []
    for row in resolved["rows"]:
        cells = [
            Cell(cell and tuple(results.score(path, cell["key"]) for path in cell["files"]), published)
            for cell, published in zip(row["cells"], row["paper"], strict=True)
        ]
        rows.append((row["labels"], cells))
    return Filled(resolved["labels"], resolved["columns"], rows)


def _fill_classes(resolved: dict, results: Results) -> Filled:
    # Here, because it needs numpy and the Snakefile does without.
    from wsss_core.reports.analysis import BACKGROUND, ClassProperties, summary

    path = resolved["properties"]
    properties = ClassProperties.read(path) if path else ClassProperties({}, {})
    scores: list[list[ByClass] | None] = [
        None if files is None else [results.by_class(file) for file in files] for files in resolved["runs"]
    ]
    names = _same_classes(resolved["runs"], scores)
    columns: list[list[ByClass] | None] = [[properties.values[key]] for key in PROPERTY_COLUMNS if path]
    columns += scores
    filled = [None if seeds is None else [{**seed, **summary(seed, properties)} for seed in seeds] for seeds in columns]
    groups = {f"{kind} {group}": of for kind, named in properties.groups.items() for group, of in named.items()}
    sections = {
        "background": [BACKGROUND],
        "classes": [name for name in names if name != BACKGROUND],
        "overall": ["overall"],
        "deviation": ["deviation"],
        "groups": list(groups),
        "correlations": [f"correlation {key}" for key in properties.values],
    }
    rows = []
    for name in [name for section in resolved["sections"] for name in sections[section]]:
        published = resolved["paper"].get(name, [None] * len(filled))
        values = [
            None if seeds is None else tuple(value for seed in seeds if (value := seed.get(name)) is not None)
            for seeds in filled
        ]
        labels = [name, " ".join(groups.get(name, ()))] if path else [name]
        rows.append((labels, [Cell(*cell) for cell in zip(values, published, strict=True)]))
    return Filled(["row", "classes"] if path else ["row"], resolved["columns"], rows)


def _same_classes(files: list[list[str] | None], columns: list[list[ByClass] | None]) -> list[str]:
    """The classes of all columns; columns that differ in them are a ResultError."""
    found = {
        path: list(scores)
        for paths, seeds in zip(files, columns, strict=True)
        for path, scores in zip(paths or [], seeds or [], strict=True)
    }
    (first, names), *others = found.items()
    for path, classes in others:
        if classes != names:
            raise ResultError(f"{path} and {first} are scores of other classes: run the rule of the older one again")
    return names


def make_table(*, resolved: dict, dataset: str, kind: str, output: Path, table: Path) -> None:
    """Fill in a table of a paper.

    Args:
        resolved: what ``resolve`` made of its declaration.
        kind: kind of the data set; what is said of a demo's scores depends on it.
        output: CSV with a row a number: labels, column, value (the mean over seeds), standard_deviation, seeds (how
            many), paper, difference.
        table: Markdown: what the table is, then each number with the paper's and the difference beside it.

    Raises:
        ResultError: a result file that is damaged, or has not the score that the table asks for.
    """
    results = Results()
    filled = fill(resolved, results).without_empty()
    about = [*_about(results, dataset, kind, filled.compared), f"Made by `snakemake --cores all -- {table}`."]
    lines = [f"# {resolved['title']}", "", *(f"- {line}" for line in [*about, *resolved["notes"]])]
    with whole(table) as partial:
        partial.write_text("\n".join([*lines, "", *_blocks(filled)]), encoding="utf-8")
    _write_csv(output, filled)


def _about(results: Results, dataset: str, kind: str, compared: bool) -> list[str]:
    """What the numbers are, in sentences."""
    files = list(results.read.items())
    scored = {(Path(path).name, r["split"], r["images"]) for path, r in files if "split" in r and "images" in r}
    seeds = sorted({r["seed"] for _, r in files if "seed" in r})
    lines = [f"Data set `{dataset}`."]
    if kind == "demo":
        lines.append("Demo scores: of pictures that the project draws itself; they say nothing about photographs.")
    lines += [f"`{file}`: {images} images of `{split}`." for file, split, images in sorted(scored)]
    lines.append(
        f"Seed {seeds[0]}." if len(seeds) == 1 else f"Seeds {', '.join(map(str, seeds))}: mean ± standard deviation."
    )
    if not compared:
        return [*lines, "Scores are in per cent. The paper has no numbers for this data set."]
    lines.append("Scores are in per cent. Differences are measured minus paper, in percentage points.")
    published = PUBLISHED_IMAGES.get(dataset, {})
    others = {split: images for _, split, images in scored if published.get(split, images) != images}
    lines += [
        f"The paper scored {published[s]} images of `{s}`, here it is {n}: no fair comparison."
        for s, n in others.items()
    ]
    return lines


def _blocks(filled: Filled) -> list[str]:
    """Markdown tables, the properties of classes first, and no more than ABREAST columns in each."""
    properties = [index for index, name in enumerate(filled.columns) if name in PROPERTY_COLUMNS]
    scores = [index for index in range(len(filled.columns)) if index not in properties]
    blocks = [properties, *(scores[start : start + ABREAST] for start in range(0, len(scores), ABREAST))]
    return [f"{_block(filled, block)}\n" for block in blocks if block]


def _block(filled: Filled, block: Sequence[int]) -> str:
    head, columns = list(filled.labels), []
    for index in block:
        name, cells = filled.columns[index], filled.column(index)
        measured = any(cell.values is not None for cell in cells)
        if measured:
            head.append(name)
            columns.append([cell.measured() for cell in cells])
        if any(cell.paper is not None for cell in cells):
            head.append(f"{name}, paper")
            columns.append(["" if cell.paper is None else str(cell.paper) for cell in cells])
            if measured:
                head.append("difference")
                columns.append(["" if cell.difference is None else f"{cell.difference:+.2f}" for cell in cells])
    return markdown(head, [(*labels, *cells) for (labels, _), *cells in zip(filled.rows, *columns, strict=True)])


def _write_csv(path: Path, filled: Filled) -> None:
    with whole(path) as partial, open(partial, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow((*filled.labels, "column", "value", "standard_deviation", "seeds", "paper", "difference"))
        for labels, cells in filled.rows:
            for name, cell in zip(filled.columns, cells, strict=True):
                numbers = (cell.mean, cell.deviation, len(cell.values or ()), cell.paper, cell.difference)
                writer.writerow((*labels, name, *(round(n, 4) if isinstance(n, float) else n for n in numbers)))
