"""Contact sheets for people who would rather look than read."""


rule draw_pictures:
    input:
        cams=part_from("priors", "results/{dataset}/{run}/cams/{subset}.zarr", "scored"),
        coarse=part_from(
            "saliency",
            "results/{dataset}/{run}/saliency_masks/{subset}",
            "scored",
            optional=True,
        ),
        saliency=part_from(
            "saliency",
            "results/{dataset}/{run}/saliency/{subset}",
            "scored",
            optional=True,
        ),
        affinity_labels=part_from(
            "pseudo_masks",
            "results/{dataset}/{run}/affinity_labels/{subset}",
            "scored",
        ),
        pseudo_masks=part_from(
            "pseudo_masks",
            "results/{dataset}/{run}/pseudo_masks/{subset}",
            "scored",
        ),
        manifest=manifest_for("scored"),
        truth=truth_for("scored"),
        classes="results/{dataset}/classes.csv",
    output:
        report(
            "results/{dataset}/{run}/pictures.png",
            caption="../report/pictures.rst",
            category="Pictures",
        ),
    log:
        "logs/{dataset}/{run}/draw_pictures.log",
    conda:
        "../../environment.yml"
    resources:
        mem_mb=4000,
        runtime="30m",
    params:
        images=12,
        revision=REVISION["draw_pictures"],
    message:
        "Pictures of {wildcards.dataset} {wildcards.run}"
    script:
        "../scripts/draw_pictures.py"


rule draw_predictions:
    input:
        masks=part_for("val", "results/{dataset}/{run}/masks/{subset}"),
        manifest=manifest_for("val"),
        truth=truth_for("val"),
        classes="results/{dataset}/classes.csv",
    output:
        report(
            "results/{dataset}/{run}/predictions.png",
            caption="../report/predictions.rst",
            category="Pictures",
        ),
    log:
        "logs/{dataset}/{run}/draw_predictions.log",
    conda:
        "../../environment.yml"
    resources:
        mem_mb=4000,
        runtime="30m",
    params:
        images=12,
        revision=REVISION["draw_predictions"],
    message:
        "Predictions of {wildcards.dataset} {wildcards.run}"
    script:
        "../scripts/draw_predictions.py"
