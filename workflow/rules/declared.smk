"""Tables and figures of papers as they are declared in workflow/tables and workflow/figures."""

import re
from functools import cache

import yaml

from wsss_core.reports.paper_tables import files_of, resolve

DECLARED = Path(workflow.basedir, "workflow")


def declared_in(folder):
    """The names of the tables or figures in this folder, as a pattern."""
    names = sorted(path.stem for path in (DECLARED / folder).glob("*.yaml"))
    return "|".join(map(re.escape, names))


@cache
def declaration(folder, name):
    """A checked table or figure; read when it is asked for, since most calls of Snakemake make none."""
    path = DECLARED / folder / f"{name}.yaml"
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    validate(content, str(DECLARED / "schemas/table.schema.yaml"))
    return content


def resolved_table(wildcards):
    """Params function: the table, with the file of each number."""
    return resolve(declaration("tables", wildcards.table), wildcards.dataset, RECIPES)


def curves_of_figure(wildcards):
    """The files with the curves of a figure, in the order of its lines."""
    lines = declaration("figures", wildcards.figure)["lines"]
    return [
        f"results/{wildcards.dataset}/{line['run']}/priors_miou.json" for line in lines
    ]
