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
            labels=labelled("Training images by stage"),
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
            labels=labelled("Predictions"),
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


use rule draw_predictions as draw_predictions_of_subset with:
    input:
        masks=of("masks"),
        manifest=TREE.path("manifest"),
        truth=[],
        classes=TREE.path("classes"),
    output:
        report(
            TREE.path("predictions_of"),
            caption="../report/predictions.rst",
            category="Pictures",
            labels=labelled("Predictions"),
        ),
    log:
        TREE.log("draw_predictions_of_subset", "dataset", "run", "subset"),
    message:
        "Predictions of {wildcards.dataset} {wildcards.run} on {wildcards.subset}"


rule draw_instances:
    input:
        instances=lambda wildcards: of(instances_by(wildcards), "scored")(wildcards),
        manifest=manifest_for("scored"),
        truth=objects_to_show("scored"),
        classes=TREE.path("classes"),
    output:
        report(
            TREE.path("instance_pictures"),
            caption="../report/instances.rst",
            category="Pictures",
            labels=labelled("Instances"),
        ),
    log:
        TREE.log("draw_instances", "dataset", "run"),
    conda:
        "../../environment.yml"
    resources:
        mem_mb=4000,
        runtime="30m",
    params:
        images=12,
        caption="instances",
        score=least_score_to_learn_from,
        revision=REVISION["draw_instances"],
    message:
        "Instances of training pictures of {wildcards.dataset} {wildcards.run}"
    script:
        "../scripts/draw_instances.py"


use rule draw_instances as draw_instances_of_subset with:
    input:
        instances=lambda wildcards: of(instances_by(wildcards))(wildcards),
        manifest=TREE.path("manifest"),
        truth=objects_to_show(),
        classes=TREE.path("classes"),
    output:
        report(
            TREE.path("instances_of"),
            caption="../report/instances.rst",
            category="Pictures",
            labels=labelled("Instances"),
        ),
    log:
        TREE.log("draw_instances_of_subset", "dataset", "run", "subset"),
    params:
        images=24,
        caption="instances",
        score=least_score_to_learn_from,
        revision=REVISION["draw_instances"],
    message:
        "Instances of {wildcards.dataset} {wildcards.run} in pictures of {wildcards.subset}"


use rule draw_instances as draw_detections with:
    input:
        instances=of("detections", "val"),
        manifest=manifest_for("val"),
        truth=objects_to_show("val"),
        classes=TREE.path("classes"),
    output:
        report(
            TREE.path("detection_pictures"),
            caption="../report/instances.rst",
            category="Pictures",
            labels=labelled("Detections"),
        ),
    log:
        TREE.log("draw_detections", "dataset", "run"),
    params:
        images=12,
        caption="detections",
        score=0.3,
        revision=REVISION["draw_instances"],
    message:
        "Detections of {wildcards.dataset} {wildcards.run}"
