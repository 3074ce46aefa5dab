"""A page a run, with all that is known of it, and a page with several runs side by side."""


rule make_report:
    input:
        lambda wildcards: files_of_report(resolved_report(wildcards)),
    output:
        page=report(
            TREE.path("report"),
            caption="../report/run.rst",
            category="Runs",
            labels=labelled("Everything about the run"),
        ),
    log:
        TREE.log("make_report", "dataset", "run"),
    conda:
        "../../environment.yml"
    resources:
        mem_mb=by_attempt(4000),
        runtime="30m",
    params:
        resolved=resolved_report,
        images=3,
        revision=REVISION["make_report"],
    message:
        "Report of {wildcards.dataset} {wildcards.run}"
    script:
        "../scripts/make_report.py"


# Without inputs: it shows what is there and makes nothing (wsss_core/reports/comparable.py).
rule make_comparison:
    output:
        page=report(
            TREE.path("comparison"),
            caption="../report/comparison.rst",
            category="Runs",
            labels=labelled("Comparison of the runs"),
        ),
    log:
        TREE.log("make_comparison", "dataset"),
    conda:
        "../../environment.yml"
    resources:
        mem_mb=by_attempt(4000),
        runtime="30m",
    params:
        resolved=resolved_comparison,
        images=6,
        revision=REVISION["make_comparison"],
    message:
        "Comparison of the runs on {wildcards.dataset}"
    script:
        "../scripts/make_comparison.py"
