"""Scores."""


rule evaluate_cams:
    input:
        cams=part_from("priors", "results/{dataset}/{run}/cams/{subset}.zarr", "scored"),
        manifest=manifest_for("scored"),
        truth=truth_for("scored"),
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
        settings=of_scored_cams,
        seed=seed_of,
        subset=subset_for("scored"),
        revision=REVISION["evaluate_cams"],
    message:
        "Score of the priors of {wildcards.dataset} {wildcards.run}"
    script:
        "../scripts/evaluate_cams.py"


use rule evaluate_cams as evaluate_cams_on_val with:
    input:
        cams=part_from("priors", "results/{dataset}/{run}/cams/{subset}.zarr", "val"),
        manifest=manifest_for("val"),
        truth=truth_for("val"),
        classes="results/{dataset}/classes.csv",
    output:
        result="results/{dataset}/{run}/priors_miou_val.json",
    log:
        "logs/{dataset}/{run}/evaluate_cams_on_val.log",
    benchmark:
        "benchmarks/{dataset}/{run}/evaluate_cams_on_val.tsv"
    params:
        settings=of_scored_cams,
        seed=seed_of,
        subset=subset_for("val"),
        revision=REVISION["evaluate_cams"],
    message:
        "Score of the priors of {wildcards.dataset} {wildcards.run} on the val split"


rule evaluate_epochs:
    input:
        epochs=part_from("priors", "results/{dataset}/{run}/classifier.epochs"),
        model=part_from("priors", "results/{dataset}/{run}/classifier.pt"),
        manifest=manifest_for("scored"),
        truth=truth_for("scored"),
        classes="results/{dataset}/classes.csv",
    output:
        result="results/{dataset}/{run}/priors_by_epoch.json",
    log:
        "logs/{dataset}/{run}/evaluate_epochs.log",
    benchmark:
        "benchmarks/{dataset}/{run}/evaluate_epochs.tsv"
    conda:
        "../../environment.yml"
    threads: 8
    resources:
        gpu=1,
        mem_mb=by_attempt(16000),
        runtime="8h",
    params:
        settings=of_monitoring,
        seed=seed_of,
        subset=subset_for("scored"),
        revision=REVISION["evaluate_epochs"],
    message:
        "Priors of {wildcards.dataset} {wildcards.run} by epoch"
    script:
        "../scripts/evaluate_epochs.py"


rule evaluate_saliency:
    input:
        cams=part_from("priors", "results/{dataset}/{run}/cams/{subset}.zarr", "scored"),
        coarse=part_from("saliency", "results/{dataset}/{run}/saliency_masks/{subset}"),
        refined=part_from("saliency", "results/{dataset}/{run}/saliency/{subset}"),
        manifest=manifest_for("scored"),
        truth=truth_for("scored"),
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
        settings=of_scored_saliency,
        seed=seed_of,
        subset=subset_for("scored"),
        revision=REVISION["evaluate_saliency"],
    message:
        "Score of the saliency of {wildcards.dataset} {wildcards.run}"
    script:
        "../scripts/evaluate_saliency.py"


rule evaluate_saliency_gt:
    input:
        coarse=part_from("saliency", "results/{dataset}/{run}/saliency_masks/{subset}"),
        refined=part_from("saliency", "results/{dataset}/{run}/saliency/{subset}"),
        manifest=manifest_for("scored"),
        truth=truth_for("scored"),
        classes="results/{dataset}/classes.csv",
    output:
        result="results/{dataset}/{run}/saliency_gt_miou.json",
    log:
        "logs/{dataset}/{run}/evaluate_saliency_gt.log",
    benchmark:
        "benchmarks/{dataset}/{run}/evaluate_saliency_gt.tsv"
    conda:
        "../../environment.yml"
    threads: 8
    resources:
        mem_mb=by_attempt(8000),
        runtime="4h",
    params:
        settings=of_scored_saliency_gt,
        seed=seed_of,
        subset=subset_for("scored"),
        revision=REVISION["evaluate_saliency_gt"],
    message:
        "Score of the saliency of {wildcards.dataset} {wildcards.run} with known classes"
    script:
        "../scripts/evaluate_saliency_gt.py"


rule evaluate_pseudo_masks:
    input:
        walked=part_from(
            "pseudo_masks",
            "results/{dataset}/{run}/random_walk/{subset}.zarr",
            "scored",
        ),
        manifest=manifest_for("scored"),
        truth=truth_for("scored"),
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


use rule evaluate_pseudo_masks as evaluate_pseudo_masks_on_val with:
    input:
        walked=part_from(
            "pseudo_masks", "results/{dataset}/{run}/random_walk/{subset}.zarr", "val"
        ),
        manifest=manifest_for("val"),
        truth=truth_for("val"),
        classes="results/{dataset}/classes.csv",
    output:
        result="results/{dataset}/{run}/pseudo_miou_val.json",
    log:
        "logs/{dataset}/{run}/evaluate_pseudo_masks_on_val.log",
    benchmark:
        "benchmarks/{dataset}/{run}/evaluate_pseudo_masks_on_val.tsv"
    params:
        settings=of_run("pseudo_scores", "pseudo_masks"),
        seed=seed_of,
        subset=subset_for("val"),
        revision=REVISION["evaluate_pseudo_masks"],
    message:
        "Score of the pseudo masks of {wildcards.dataset} {wildcards.run} on the val split"


rule evaluate_segmentation:
    input:
        masks=part_for("val", "results/{dataset}/{run}/masks/{subset}"),
        manifest=manifest_for("val"),
        truth=truth_for("val"),
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
        network=network_of,
        trained_on=lambda wildcards: RECIPES.source(wildcards.run, "pseudo_masks"),
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
