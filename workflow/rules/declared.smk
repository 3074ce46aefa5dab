"""Tables and figures of papers as they are declared in workflow/papers, a folder a paper."""

import re
from functools import cache

import yaml

from wsss_core.reports.paper_tables import files_of, resolve

DECLARED = {
    f"{path.parent.name}_{path.stem}": path
    for path in sorted(Path(workflow.basedir, "workflow/papers").glob("*/*.yaml"))
}


def declared_in(kind):
    """The names of all tables or figures, as a pattern; a file is called after its number, such as figure6."""
    names = [
        name
        for name, path in DECLARED.items()
        if path.stem.startswith("figure") == (kind == "figure")
    ]
    return "|".join(map(re.escape, names))


@cache
def declaration(name):
    """A checked table or figure; read when it is asked for, since most calls of Snakemake make none."""
    content = yaml.safe_load(DECLARED[name].read_text(encoding="utf-8"))
    validate(content, str(Path(workflow.basedir, "workflow/schemas/table.schema.yaml")))
    return content


def resolved_table(wildcards):
    """Params function: the table, with the file of each number."""
    return resolve(declaration(wildcards.table), wildcards.dataset, RECIPES, TREE)


def curves_of_figure(wildcards):
    """The files with the curves of a figure, in the order of its lines."""
    return [
        TREE.path("priors_miou", dataset=wildcards.dataset, run=line["run"])
        for line in declaration(wildcards.figure)["lines"]
    ]
