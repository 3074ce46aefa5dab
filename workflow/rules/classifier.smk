"""Classifiers: the plain one, which is also the ordinary classifier of other runs, and P-NOC."""


rule train_vanilla:
    input:
        manifest=manifest_for("train"),
        classes="results/{dataset}/classes.csv",
        weights=weights_for("classifier"),
    output:
        model="results/{dataset}/{run}/classifier.pt",
        history="results/{dataset}/{run}/classifier.history.csv",
    log:
        "logs/{dataset}/{run}/train_vanilla.log",
    benchmark:
        "benchmarks/{dataset}/{run}/train_vanilla.tsv"
    wildcard_constraints:
        run=f"({'|'.join(RECIPES.with_method('vanilla'))})(@seed[0-9]+)?",
    conda:
        "../../environment.yml"
    threads: 8
    resources:
        gpu=1,
        mem_mb=by_attempt(32000),
        runtime="24h",
    params:
        settings=of_run("classifier"),
        seed=seed_of,
        revision=REVISION["train_vanilla"],
    message:
        "Plain classifier of {wildcards.dataset} {wildcards.run}"
    script:
        "../scripts/train_vanilla.py"


rule train_pnoc:
    input:
        manifest=manifest_for("train"),
        classes="results/{dataset}/classes.csv",
        weights=weights_for("classifier"),
        ordinary=part_from("ordinary", "results/{dataset}/{run}/classifier.pt"),
    output:
        model="results/{dataset}/{run}/classifier.pt",
        history="results/{dataset}/{run}/classifier.history.csv",
    log:
        "logs/{dataset}/{run}/train_pnoc.log",
    benchmark:
        "benchmarks/{dataset}/{run}/train_pnoc.tsv"
    wildcard_constraints:
        run=f"({'|'.join(RECIPES.with_method('pnoc'))})(@seed[0-9]+)?",
    conda:
        "../../environment.yml"
    threads: 8
    resources:
        gpu=1,
        mem_mb=by_attempt(48000),
        runtime="48h",
    params:
        settings=of_run("classifier", "pnoc"),
        seed=seed_of,
        revision=REVISION["train_pnoc"],
    message:
        "P-NOC of {wildcards.dataset} {wildcards.run}"
    script:
        "../scripts/train_pnoc.py"
