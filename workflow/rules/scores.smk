"""Scores."""


rule evaluate_cams:
    input:
        cams=part_for("scored", "results/{dataset}/{run}/cams/{subset}.zarr"),
        manifest=manifest_for("scored"),
        classes="results/{dataset}/classes.csv",
    output:
        result="results/{dataset}/{run}/priors_miou.json",
    log:
        "logs/{dataset}/{run}/evaluate_cams.log",
    benchmark:
        "benchmarks/{dataset}/{run}/evaluate_cams.tsv"
    conda:
        "../../environment.yml"
    threads: 8
    resources:
        mem_mb=by_attempt(8000),
        runtime="4h",
    params:
        settings=of_run("priors", "cams"),
        seed=seed_of,
        subset=subset_for("scored"),
        revision=REVISION["evaluate_cams"],
    message:
        "Score of the priors of {wildcards.dataset} {wildcards.run}"
    script:
        "../scripts/evaluate_cams.py"


rule evaluate_saliency:
    input:
        cams=part_for("scored", "results/{dataset}/{run}/cams/{subset}.zarr"),
        coarse=part_from("saliency", "results/{dataset}/{run}/saliency_masks/{subset}"),
        refined=part_from("saliency", "results/{dataset}/{run}/saliency/{subset}"),
        manifest=manifest_for("scored"),
        classes="results/{dataset}/classes.csv",
    output:
        result="results/{dataset}/{run}/saliency_miou.json",
    log:
        "logs/{dataset}/{run}/evaluate_saliency.log",
    benchmark:
        "benchmarks/{dataset}/{run}/evaluate_saliency.tsv"
    conda:
        "../../environment.yml"
    threads: 8
    resources:
        mem_mb=by_attempt(8000),
        runtime="4h",
    params:
        settings=of_run("priors", "cams", "saliency_masks"),
        seed=seed_of,
        subset=subset_for("scored"),
        revision=REVISION["evaluate_saliency"],
    message:
        "Score of the saliency of {wildcards.dataset} {wildcards.run}"
    script:
        "../scripts/evaluate_saliency.py"


rule evaluate_pseudo_masks:
    input:
        walked=part_for("scored", "results/{dataset}/{run}/random_walk/{subset}.zarr"),
        manifest=manifest_for("scored"),
        classes="results/{dataset}/classes.csv",
    output:
        result="results/{dataset}/{run}/pseudo_miou.json",
    log:
        "logs/{dataset}/{run}/evaluate_pseudo_masks.log",
    benchmark:
        "benchmarks/{dataset}/{run}/evaluate_pseudo_masks.tsv"
    conda:
        "../../environment.yml"
    threads: 8
    resources:
        mem_mb=by_attempt(8000),
        runtime="8h",
    params:
        settings=of_run("pseudo_scores", "pseudo_masks"),
        seed=seed_of,
        subset=subset_for("scored"),
        revision=REVISION["evaluate_pseudo_masks"],
    message:
        "Score of the pseudo masks of {wildcards.dataset} {wildcards.run}"
    script:
        "../scripts/evaluate_pseudo_masks.py"


rule evaluate_segmentation:
    input:
        masks=part_for("val", "results/{dataset}/{run}/masks/{subset}"),
        manifest=manifest_for("val"),
        classes="results/{dataset}/classes.csv",
    output:
        result="results/{dataset}/{run}/seg_miou.json",
    log:
        "logs/{dataset}/{run}/evaluate_segmentation.log",
    benchmark:
        "benchmarks/{dataset}/{run}/evaluate_segmentation.tsv"
    conda:
        "../../environment.yml"
    threads: 8
    resources:
        mem_mb=by_attempt(4000),
        runtime="2h",
    params:
        settings=of_run("prediction"),
        seed=seed_of,
        subset=subset_for("val"),
        revision=REVISION["evaluate_segmentation"],
    message:
        "Score of the segmentation network of {wildcards.dataset} {wildcards.run}"
    script:
        "../scripts/evaluate_segmentation.py"


rule mean_over_seeds:
    input:
        priors=over_seeds("priors_miou.json"),
        saliency=over_seeds("saliency_miou.json"),
        pseudo_masks=over_seeds("pseudo_miou.json"),
        segmentation=over_seeds("seg_miou.json"),
    output:
        result="results/{dataset}/{run}/over_seeds.json",
        table="results/{dataset}/{run}/over_seeds.md",
    log:
        "logs/{dataset}/{run}/mean_over_seeds.log",
    wildcard_constraints:
        run="|".join(config["runs"]),
    conda:
        "../../environment.yml"
    resources:
        mem_mb=by_attempt(1000),
        runtime="10m",
    params:
        revision=REVISION["mean_over_seeds"],
    message:
        "Means over seeds of {wildcards.dataset} {wildcards.run}"
    script:
        "../scripts/mean_over_seeds.py"
