"""Tables and figures of papers as they are declared in workflow/papers, a folder a paper; and reports of runs."""

from functools import cache

import yaml
from snakemake.utils import validate

from wsss_core.reports.comparable import resolve_comparison
from wsss_core.reports.contents import files_of_report, resolve_report
from wsss_core.reports.figures import files_of_figure, resolve_figure
from wsss_core.reports.paper_tables import files_of, resolve

DECLARED = {
    f"{path.parent.name}_{path.stem}": path
    for path in sorted(Path(workflow.basedir, "workflow/papers").glob("*/*.yaml"))
}


@cache
def declaration(kind, name):
    """A checked table or figure; read when it is asked for, since most calls of Snakemake make none."""
    # a file is called after its number, such as figure6
    known = [n for n in DECLARED if ("_figure" in n) == (kind == "figure")]
    if name not in known:
        raise RecipeError(unknown(kind, name, known, "workflow/papers has"))
    content = yaml.safe_load(DECLARED[name].read_text(encoding="utf-8"))
    validate(content, str(Path(workflow.basedir, "workflow/schemas/table.schema.yaml")))
    return content


def resolved_table(wildcards):
    """Params function: the table, with the file of each number."""
    return resolve(
        declaration("table", wildcards.table), wildcards.dataset, RECIPES, TREE
    )


def resolved_figure(wildcards):
    """Params function: the figure, with the files of its numbers."""
    return resolve_figure(
        declaration("figure", wildcards.figure), wildcards.dataset, RECIPES, TREE
    )


def resolved_report(wildcards):
    """Params function: what a run's report says and is made from, with the file of each part."""
    return ordered(resolve_report(wildcards.dataset, wildcards.run, RECIPES, TREE))


def resolved_comparison(wildcards):
    """Params function: what a comparison of runs says and is made from: what is on disk when it is planned."""
    return ordered(
        resolve_comparison(wildcards.dataset, config.get("compare"), RECIPES, TREE)
    )
