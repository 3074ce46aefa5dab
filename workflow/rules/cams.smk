"""Class activation maps."""


rule dump_cams:
    input:
        model="results/{dataset}/{run}/classifier.pt",
        manifest="results/{dataset}/manifest/{subset}.csv",
    output:
        store=directory("results/{dataset}/{run}/cams/{subset}.zarr"),
    log:
        "logs/{dataset}/{run}/dump_cams.{subset}.log",
    benchmark:
        "benchmarks/{dataset}/{run}/dump_cams.{subset}.tsv"
    conda:
        "../../environment.yml"
    threads: 8
    resources:
        gpu=1,
        mem_mb=by_attempt(16000),
        runtime="12h",
    params:
        settings=of_run("cams"),
        revision=REVISION["dump_cams"],
    message:
        "CAMs of {wildcards.dataset} {wildcards.subset} from run {wildcards.run}"
    script:
        "../scripts/dump_cams.py"
