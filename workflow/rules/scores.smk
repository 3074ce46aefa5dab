"""Scores."""


localrules:
    mean_over_seeds,


rule evaluate_cams:
    input:
        cams=of("cams", "scored"),
        manifest=manifest_for("scored"),
        truth=truth_to_score("scored"),
        classes=TREE.path("classes"),
    output:
        result=as_score(TREE.path("priors_miou"), "CAMs"),
        images=as_images(TREE.path("priors_images"), "CAMs"),
    log:
        TREE.log("evaluate_cams", "dataset", "run"),
    benchmark:
        TREE.benchmark("evaluate_cams", "dataset", "run")
    conda:
        "../../environment.yml"
    threads: 8
    resources:
        mem_mb=by_attempt(8000),
        runtime=hours(4),
    params:
        settings=section_of("prior.scores"),
        made_with=made_with("cams"),
        seed=seed_of,
        subset=subset_for("scored"),
        revision=REVISION["evaluate_cams"],
    message:
        "Score of the priors of {wildcards.dataset} {wildcards.run}"
    script:
        "../scripts/evaluate_cams.py"


use rule evaluate_cams as evaluate_cams_on_val with:
    input:
        cams=of("cams", "val"),
        manifest=manifest_for("val"),
        truth=truth_to_score("val"),
        classes=TREE.path("classes"),
    output:
        result=as_score(TREE.path("priors_miou_val"), "CAMs"),
        images=as_images(TREE.path("priors_images_val"), "CAMs"),
    log:
        TREE.log("evaluate_cams_on_val", "dataset", "run"),
    benchmark:
        TREE.benchmark("evaluate_cams_on_val", "dataset", "run")
    params:
        settings=section_of("prior.scores"),
        made_with=made_with("cams"),
        seed=seed_of,
        subset=subset_for("val"),
        revision=REVISION["evaluate_cams"],
    message:
        "Score of the priors of {wildcards.dataset} {wildcards.run} on the val split"


rule evaluate_epochs:
    input:
        epochs=of("epochs"),
        model=of("classifier"),
        manifest=manifest_for("scored"),
        truth=truth_to_score("scored"),
        classes=TREE.path("classes"),
    output:
        result=report(
            TREE.path("priors_by_epoch"),
            caption="../report/epochs.rst",
            category="Scores",
            labels=with_score("CAMs by epoch"),
        ),
    log:
        TREE.log("evaluate_epochs", "dataset", "run"),
    benchmark:
        TREE.benchmark("evaluate_epochs", "dataset", "run")
    conda:
        "../../environment.yml"
    threads: 8
    resources:
        gpu=1,
        mem_mb=by_attempt(16000),
        runtime=hours(8),
    params:
        settings=section_of("prior.monitoring"),
        made_with=made_with("classifier"),
        crop=lambda wildcards: RECIPES.section(
            wildcards.dataset, wildcards.run, "prior.classifier"
        ).crop,
        seed=seed_of,
        subset=subset_for("scored"),
        revision=REVISION["evaluate_epochs"],
    message:
        "Priors of {wildcards.dataset} {wildcards.run} by epoch"
    script:
        "../scripts/evaluate_epochs.py"


rule evaluate_saliency:
    input:
        cams=of("cams", "scored"),
        coarse=of("saliency_masks", "scored"),
        refined=if_any("saliency", "scored"),
        manifest=manifest_for("scored"),
        truth=truth_to_score("scored"),
        classes=TREE.path("classes"),
    output:
        result=as_score(TREE.path("saliency_miou"), "Saliency"),
    log:
        TREE.log("evaluate_saliency", "dataset", "run"),
    benchmark:
        TREE.benchmark("evaluate_saliency", "dataset", "run")
    conda:
        "../../environment.yml"
    threads: 8
    resources:
        mem_mb=by_attempt(8000),
        runtime=hours(4),
    params:
        settings=section_of("prior.scores"),
        made_with=made_with("cams", "saliency_masks", "saliency"),
        seed=seed_of,
        subset=subset_for("scored"),
        revision=REVISION["evaluate_saliency"],
    message:
        "Score of the saliency of {wildcards.dataset} {wildcards.run}"
    script:
        "../scripts/evaluate_saliency.py"


rule evaluate_saliency_gt:
    input:
        coarse=of("c2am_maps", "scored"),
        refined=if_any("saliency", "scored"),
        manifest=manifest_for("scored"),
        truth=truth_to_score("scored"),
        classes=TREE.path("classes"),
    output:
        result=as_score(TREE.path("saliency_gt_miou"), "Saliency with known classes"),
    log:
        TREE.log("evaluate_saliency_gt", "dataset", "run"),
    benchmark:
        TREE.benchmark("evaluate_saliency_gt", "dataset", "run")
    conda:
        "../../environment.yml"
    threads: 8
    resources:
        mem_mb=by_attempt(8000),
        runtime=hours(4),
    params:
        settings=section_of("saliency.scores", "saliency.masks"),
        made_with=made_with("c2am_maps", "saliency"),
        seed=seed_of,
        subset=subset_for("scored"),
        revision=REVISION["evaluate_saliency_gt"],
    message:
        "Score of the saliency of {wildcards.dataset} {wildcards.run} with known classes"
    script:
        "../scripts/evaluate_saliency_gt.py"


rule evaluate_pseudo_masks:
    input:
        maps=refined_maps("scored"),
        manifest=manifest_for("scored"),
        truth=truth_to_score("scored"),
        classes=TREE.path("classes"),
    output:
        result=as_score(TREE.path("pseudo_miou"), "Pseudo masks"),
        images=as_images(TREE.path("pseudo_images"), "Pseudo masks"),
    log:
        TREE.log("evaluate_pseudo_masks", "dataset", "run"),
    benchmark:
        TREE.benchmark("evaluate_pseudo_masks", "dataset", "run")
    conda:
        "../../environment.yml"
    threads: 8
    resources:
        mem_mb=by_attempt(8000),
        runtime=hours(8),
    params:
        settings=section_of("refinement.scores", "refinement.masks"),
        made_with=lambda wildcards: made_with(maps_behind_masks(wildcards))(wildcards),
        seed=seed_of,
        subset=subset_for("scored"),
        revision=REVISION["evaluate_pseudo_masks"],
    message:
        "Score of the pseudo masks of {wildcards.dataset} {wildcards.run}"
    script:
        "../scripts/evaluate_pseudo_masks.py"


use rule evaluate_pseudo_masks as evaluate_pseudo_masks_on_val with:
    input:
        maps=refined_maps("val"),
        manifest=manifest_for("val"),
        truth=truth_to_score("val"),
        classes=TREE.path("classes"),
    output:
        result=as_score(TREE.path("pseudo_miou_val"), "Pseudo masks"),
        images=as_images(TREE.path("pseudo_images_val"), "Pseudo masks"),
    log:
        TREE.log("evaluate_pseudo_masks_on_val", "dataset", "run"),
    benchmark:
        TREE.benchmark("evaluate_pseudo_masks_on_val", "dataset", "run")
    params:
        settings=section_of("refinement.scores", "refinement.masks"),
        made_with=lambda wildcards: made_with(maps_behind_masks(wildcards))(wildcards),
        seed=seed_of,
        subset=subset_for("val"),
        revision=REVISION["evaluate_pseudo_masks"],
    message:
        "Score of the pseudo masks of {wildcards.dataset} {wildcards.run} on the val split"


rule evaluate_segmentation:
    input:
        masks=of("masks", "val"),
        manifest=manifest_for("val"),
        truth=truth_to_score("val"),
        classes=TREE.path("classes"),
    output:
        result=as_score(TREE.path("seg_miou"), "Segmentation network"),
        images=as_images(TREE.path("seg_images"), "Segmentation network"),
    log:
        TREE.log("evaluate_segmentation", "dataset", "run"),
    benchmark:
        TREE.benchmark("evaluate_segmentation", "dataset", "run")
    conda:
        "../../environment.yml"
    threads: 8
    resources:
        mem_mb=by_attempt(4000),
        runtime=hours(2),
    params:
        settings=section_of("segmentation.prediction"),
        made_with=made_with("masks"),
        network=method_of("segmentation"),
        trained_on=training_masks_of,
        seed=seed_of,
        subset=subset_for("val"),
        revision=REVISION["evaluate_segmentation"],
    message:
        "Score of the segmentation network of {wildcards.dataset} {wildcards.run}"
    script:
        "../scripts/evaluate_segmentation.py"


rule check_health:
    input:
        cams=lambda wildcards: (
            []
            if RECIPES.trains_on_truth(wildcards.dataset, wildcards.run)
            else if_any("cams", "train")(wildcards)
        ),
        saliency_masks=if_any("saliency_masks", "train"),
        saliency=if_any("saliency", "train"),
        affinity_labels=if_any("affinity_labels", "train"),
        pseudo_masks=if_any("pseudo_masks", "train"),
        masks=if_any("masks", "train"),
        manifest=manifest_for("train"),
        classes=TREE.path("classes"),
    output:
        result=report(
            TREE.path("health"),
            caption="../report/health.rst",
            category="Health",
            labels=labelled("Health without masks"),
        ),
    log:
        TREE.log("check_health", "dataset", "run"),
    benchmark:
        TREE.benchmark("check_health", "dataset", "run")
    conda:
        "../../environment.yml"
    threads: 8
    resources:
        mem_mb=by_attempt(8000),
        runtime=hours(2),
    params:
        threshold=lambda wildcards: RECIPES.section(
            wildcards.dataset, wildcards.run, "prior.scores"
        ).fixed,
        made_with=made_with(
            "cams", "saliency_masks", "saliency", "pseudo_masks", "masks"
        ),
        seed=seed_of,
        subset=subset_for("train"),
        revision=REVISION["check_health"],
    message:
        "Health of {wildcards.dataset} {wildcards.run}, without masks"
    script:
        "../scripts/check_health.py"


rule mean_over_seeds:
    input:
        priors=over_seeds("priors_miou", "cams"),
        saliency=over_seeds("saliency_miou", "saliency_masks"),
        pseudo_masks=over_seeds("pseudo_miou", "pseudo_masks"),
        segmentation=over_seeds("seg_miou", "masks"),
    output:
        result=TREE.path("over_seeds") + ".json",
        table=report(
            TREE.path("over_seeds") + ".md",
            caption="../report/seeds.rst",
            category="Scores",
            labels=labelled("Means over seeds"),
        ),
    log:
        TREE.log("mean_over_seeds", "dataset", "run"),
    wildcard_constraints:
        run=NAME,
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
