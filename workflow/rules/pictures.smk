"""Contact sheets for people who would rather look than read."""


rule draw_pictures:
    input:
        cams=of("cams", "scored"),
        coarse=if_any("saliency_masks", "scored"),
        saliency=if_any("saliency", "scored"),
        affinity_labels=if_any("affinity_labels", "scored"),
        pseudo_masks=of("pseudo_masks", "scored"),
        manifest=manifest_for("scored"),
        truth=truth_for("scored"),
        classes=TREE.path("classes"),
    output:
        report(
            TREE.path("pictures"),
            caption="../report/pictures.rst",
            category="Pictures",
        ),
    log:
        TREE.log("draw_pictures", "dataset", "run"),
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
        masks=of("masks", "val"),
        manifest=manifest_for("val"),
        truth=truth_for("val"),
        classes=TREE.path("classes"),
    output:
        report(
            TREE.path("predictions"),
            caption="../report/predictions.rst",
            category="Pictures",
        ),
    log:
        TREE.log("draw_predictions", "dataset", "run"),
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
