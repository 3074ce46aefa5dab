"""Classifiers: plain ones, which are also the ordinary classifiers of other runs, Puzzle-CAM, OC-CSE, P-OC, P-NOC."""


rule train_classifier:
    input:
        manifest=manifest_for("train"),
        classes="results/{dataset}/classes.csv",
        weights=weights_for("classifier"),
        ordinary=ordinary_classifier,
    output:
        model="results/{dataset}/{run}/classifier.pt",
        epochs=directory("results/{dataset}/{run}/classifier.epochs"),
        history="results/{dataset}/{run}/classifier.history.csv",
    log:
        "logs/{dataset}/{run}/train_classifier.log",
    benchmark:
        "benchmarks/{dataset}/{run}/train_classifier.tsv"
    wildcard_constraints:
        run=f"({'|'.join(RECIPES.with_classifier())})(@seed[0-9]+)?",
    conda:
        "../../environment.yml"
    threads: 8
    resources:
        gpu=1,
        mem_mb=by_attempt(48000),
        runtime="48h",
    params:
        settings=of_classifier,
        seed=seed_of,
        revision=REVISION["train_classifier"],
    message:
        "Classifier of {wildcards.dataset} {wildcards.run}"
    script:
        "../scripts/train_classifier.py"
