"""Tables and figures of papers: a target each, which makes every run that it needs."""

import re
from functools import cache

import yaml

from wsss_core.paper_tables import files_of, resolve

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


rule class_properties:
    input:
        manifest=manifest_for("scored"),
        truth=truth_for("scored"),
        classes="results/{dataset}/classes.csv",
    output:
        table="results/{dataset}/class_properties.csv",
    log:
        "logs/{dataset}/class_properties.log",
    conda:
        "../../environment.yml"
    threads: 8
    resources:
        mem_mb=by_attempt(4000),
        runtime="1h",
    params:
        kind=lambda wildcards: config["datasets"][wildcards.dataset]["kind"],
        revision=REVISION["class_properties"],
    message:
        "Properties of the classes of {wildcards.dataset}"
    script:
        "../scripts/class_properties.py"


rule make_table:
    input:
        lambda wildcards: files_of(resolved_table(wildcards)),
    output:
        output="results/{dataset}/tables/{table}.csv",
        table=report(
            "results/{dataset}/tables/{table}.md",
            caption="../report/tables.rst",
            category="Tables",
        ),
    log:
        "logs/{dataset}/make_table.{table}.log",
    wildcard_constraints:
        table=declared_in("tables"),
    conda:
        "../../environment.yml"
    resources:
        mem_mb=by_attempt(1000),
        runtime="10m",
    params:
        resolved=resolved_table,
        kind=lambda wildcards: config["datasets"][wildcards.dataset]["kind"],
        revision=REVISION["make_table"],
    message:
        "Table {wildcards.table} on {wildcards.dataset}"
    script:
        "../scripts/make_table.py"


rule plot_curves:
    input:
        curves_of_figure,
    output:
        picture=report(
            "results/{dataset}/figures/{figure}.png",
            caption="../report/curves.rst",
            category="Figures",
        ),
        table="results/{dataset}/figures/{figure}.csv",
    log:
        "logs/{dataset}/plot_curves.{figure}.log",
    wildcard_constraints:
        figure=declared_in("figures"),
    conda:
        "../../environment.yml"
    resources:
        mem_mb=by_attempt(1000),
        runtime="10m",
    params:
        names=lambda wildcards: [
            line["name"] for line in declaration("figures", wildcards.figure)["lines"]
        ],
        revision=REVISION["plot_curves"],
    message:
        "Figure {wildcards.figure} on {wildcards.dataset}"
    script:
        "../scripts/plot_curves.py"
