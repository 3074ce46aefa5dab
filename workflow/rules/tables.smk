"""Tables and figures of papers: a target each, which makes every run that it needs."""


localrules:
    make_table,
    make_figure,


rule class_properties:
    input:
        manifest=manifest_for("scored"),
        truth=truth_to_score("scored"),
        classes=TREE.path("classes"),
    output:
        table=report(
            TREE.path("class_properties"),
            caption="../report/classes.rst",
            category="Classes",
            labels=labelled("Properties of the classes"),
        ),
    log:
        TREE.log("class_properties", "dataset"),
    conda:
        "../../environment.yml"
    threads: 8
    resources:
        mem_mb=by_attempt(4000),
        runtime=hours(1),
    params:
        kind=lambda wildcards: declared(wildcards)["kind"],
        revision=REVISION["class_properties"],
    message:
        "Properties of the classes of {wildcards.dataset}"
    script:
        "../scripts/class_properties.py"


rule make_table:
    input:
        lambda wildcards: files_of(resolved_table(wildcards)),
    output:
        output=TREE.path("table") + ".csv",
        table=report(
            TREE.path("table") + ".md",
            caption="../report/tables.rst",
            category="Tables",
            labels=labelled("Table {table}"),
        ),
    log:
        TREE.log("make_table", "dataset", "table"),
    wildcard_constraints:
        table=NAME,
    conda:
        "../../environment.yml"
    resources:
        mem_mb=by_attempt(1000),
        runtime="10m",
    params:
        resolved=resolved_table,
        kind=lambda wildcards: declared(wildcards)["kind"],
        revision=REVISION["make_table"],
    message:
        "Table {wildcards.table} on {wildcards.dataset}"
    script:
        "../scripts/make_table.py"


rule make_figure:
    input:
        lambda wildcards: files_of_figure(resolved_figure(wildcards)),
    output:
        picture=report(
            TREE.path("figure") + ".png",
            caption="../report/figures.rst",
            category="Figures",
            labels=labelled("Figure {figure}"),
        ),
        table=TREE.path("figure") + ".csv",
    log:
        TREE.log("make_figure", "dataset", "figure"),
    wildcard_constraints:
        figure=NAME,
    conda:
        "../../environment.yml"
    resources:
        mem_mb=by_attempt(1000),
        runtime="10m",
    params:
        resolved=resolved_figure,
        revision=REVISION["make_figure"],
    message:
        "Figure {wildcards.figure} on {wildcards.dataset}"
    script:
        "../scripts/make_figure.py"
