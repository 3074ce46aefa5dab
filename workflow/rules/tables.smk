"""Tables and figures of papers: a target each, which makes every run that it needs."""


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
