"""A page a run, with all that is known of it."""


rule make_report:
    input:
        lambda wildcards: files_of_report(resolved_report(wildcards)),
    output:
        page=TREE.path("report"),
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
