"""Instances: true objects, those of the training images, the detector and what it finds, their scores."""


rule make_instance_truth:
    input:
        unpack(object_files),
        manifest=TREE.path("manifest"),
        classes=TREE.path("classes"),
    output:
        store=directory(TREE.path("instance_truth")),
    log:
        TREE.log("make_instance_truth", "dataset", "subset"),
    benchmark:
        TREE.benchmark("make_instance_truth", "dataset", "subset")
    conda:
        "../../environment.yml"
    threads: 8
    resources:
        mem_mb=by_attempt(8000),
        runtime=hours(4),
    params:
        declared=objects_declared,
        revision=REVISION["make_instance_truth"],
    message:
        "True objects of {wildcards.dataset} {wildcards.subset}"
    script:
        "../scripts/make_instance_truth.py"


rule make_irn_instances:
    input:
        model=of("affinity"),
        cams=of("cams"),
        manifest=TREE.path("manifest"),
    output:
        store=directory(TREE.path("irn_instances")),
    log:
        TREE.log("make_irn_instances", "dataset", "run", "subset"),
    benchmark:
        TREE.benchmark("make_irn_instances", "dataset", "run", "subset")
    conda:
        "../../environment.yml"
    threads: 8
    resources:
        gpu=1,
        mem_mb=by_attempt(16000),
        runtime=hours(24),
    params:
        settings=settings_of("irn_instances"),
        revision=REVISION["make_irn_instances"],
    message:
        "Instances of {wildcards.dataset} {wildcards.subset} by IRNet's displacements, run {wildcards.run}"
    script:
        "../scripts/make_irn_instances.py"


rule make_instance_maps:
    input:
        model=of("affinity"),
        manifest=TREE.path("manifest"),
    output:
        folder=directory(TREE.path("instance_maps")),
    log:
        TREE.log("make_instance_maps", "dataset", "run", "subset"),
    benchmark:
        TREE.benchmark("make_instance_maps", "dataset", "run", "subset")
    conda:
        "../../environment.yml"
    threads: 8
    resources:
        gpu=1,
        mem_mb=by_attempt(16000),
        runtime=hours(12),
    params:
        settings=lambda wildcards: RECIPES.stage_settings(
            wildcards.dataset, wildcards.run, "irn_instances"
        ),
        revision=REVISION["make_instance_maps"],
    message:
        "Instances of no class of {wildcards.dataset} {wildcards.subset}, run {wildcards.run}"
    script:
        "../scripts/make_instance_maps.py"


rule make_components:
    input:
        masks=of("pseudo_masks"),
        maps=refined_maps(),
        manifest=TREE.path("manifest"),
        classes=TREE.path("classes"),
    output:
        store=directory(TREE.path("components")),
    log:
        TREE.log("make_components", "dataset", "run", "subset"),
    benchmark:
        TREE.benchmark("make_components", "dataset", "run", "subset")
    conda:
        "../../environment.yml"
    threads: 8
    resources:
        mem_mb=by_attempt(8000),
        runtime=hours(4),
    params:
        settings=settings_of("components"),
        revision=REVISION["make_components"],
    message:
        "Components of the pseudo masks of {wildcards.dataset} {wildcards.run}"
    script:
        "../scripts/make_components.py"


rule make_instance_labels:
    input:
        instances=lambda wildcards: of(instances_by(wildcards))(wildcards),
        manifest=TREE.path("manifest"),
    output:
        store=directory(TREE.path("instance_labels")),
    log:
        TREE.log("make_instance_labels", "dataset", "run", "subset"),
    benchmark:
        TREE.benchmark("make_instance_labels", "dataset", "run", "subset")
    conda:
        "../../environment.yml"
    resources:
        mem_mb=by_attempt(8000),
        runtime=hours(4),
    params:
        settings=settings_of("instance_labels"),
        revision=REVISION["make_instance_labels"],
    message:
        "Instances of {wildcards.dataset} {wildcards.run} to learn from"
    script:
        "../scripts/make_instance_labels.py"


rule train_maskrcnn:
    input:
        instances=objects_of_training,
        manifest=manifest_for("train"),
        classes=TREE.path("classes"),
        weights=weights_for("detection.maskrcnn"),
    output:
        model=TREE.path("maskrcnn"),
        history=as_curve(TREE.history("maskrcnn"), "Mask R-CNN"),
    log:
        TREE.log("train_maskrcnn", "dataset", "run"),
    benchmark:
        TREE.benchmark("train_maskrcnn", "dataset", "run")
    conda:
        "../../environment.yml"
    threads: 8
    resources:
        gpu=1,
        mem_mb=by_attempt(48000),
        runtime="48h",
        pictures=PICTURES,
    params:
        settings=settings_of("maskrcnn"),
        seed=seed_of,
        revision=REVISION["train_maskrcnn"],
    message:
        "Mask R-CNN of {wildcards.dataset} {wildcards.run}"
    script:
        "../scripts/train_maskrcnn.py"


rule predict_instances:
    input:
        model=of("maskrcnn"),
        manifest=TREE.path("manifest"),
    output:
        store=directory(TREE.path("detections")),
    log:
        TREE.log("predict_instances", "dataset", "run", "subset"),
    benchmark:
        TREE.benchmark("predict_instances", "dataset", "run", "subset")
    conda:
        "../../environment.yml"
    threads: 8
    resources:
        gpu=1,
        mem_mb=by_attempt(16000),
        runtime=hours(12),
    params:
        settings=settings_of("detections"),
        revision=REVISION["predict_instances"],
    message:
        "Instances of {wildcards.dataset} {wildcards.subset} by Mask R-CNN, run {wildcards.run}"
    script:
        "../scripts/predict_instances.py"


rule export_detections:
    input:
        store=of("detections"),
        manifest=TREE.path("manifest"),
        classes=TREE.path("classes"),
    output:
        json=TREE.path("detections_json"),
    log:
        TREE.log("export_detections", "dataset", "run", "subset"),
    conda:
        "../../environment.yml"
    resources:
        mem_mb=by_attempt(8000),
        runtime=hours(1),
    params:
        results=True,
        revision=REVISION["export_detections"],
    message:
        "Detections of {wildcards.dataset} {wildcards.run} in the form of COCO's results"
    script:
        "../scripts/export_detections.py"


use rule export_detections as export_instance_truth with:
    input:
        store=TREE.path("instance_truth"),
        manifest=TREE.path("manifest"),
        classes=TREE.path("classes"),
    output:
        json=TREE.path("instance_truth_json"),
    log:
        TREE.log("export_instance_truth", "dataset", "subset"),
    params:
        results=False,
        revision=REVISION["export_detections"],
    message:
        "True objects of {wildcards.dataset} {wildcards.subset} in the form of COCO's annotations"


rule evaluate_instances:
    input:
        instances=of("detections", "val"),
        proposals=proposals_behind("val"),
        manifest=manifest_for("val"),
        truth=true_objects("val"),
        classes=TREE.path("classes"),
    output:
        result=as_score(TREE.path("detections_ap"), "Detections"),
    log:
        TREE.log("evaluate_instances", "dataset", "run"),
    benchmark:
        TREE.benchmark("evaluate_instances", "dataset", "run")
    conda:
        "../../environment.yml"
    resources:
        mem_mb=by_attempt(16000),
        runtime=hours(4),
    params:
        settings=section_of("detection.scores"),
        made_with=made_with("detections"),
        stage="detections",
        trained_on=training_objects_of,
        labels_used=False,
        seed=seed_of,
        subset=subset_for("val"),
        revision=REVISION["evaluate_instances"],
    message:
        "Score of the detector of {wildcards.dataset} {wildcards.run}"
    script:
        "../scripts/evaluate_instances.py"


use rule evaluate_instances as evaluate_irn_instances with:
    input:
        instances=of("irn_instances", "scored"),
        manifest=manifest_for("scored"),
        truth=true_objects("scored"),
        classes=TREE.path("classes"),
    output:
        result=as_score(TREE.path("irn_ap"), "IRNet's instances"),
    log:
        TREE.log("evaluate_irn_instances", "dataset", "run"),
    benchmark:
        TREE.benchmark("evaluate_irn_instances", "dataset", "run")
    params:
        settings=section_of("instances.scores"),
        made_with=made_with("irn_instances"),
        stage="irn_instances",
        trained_on=None,
        labels_used=True,
        seed=seed_of,
        subset=subset_for("scored"),
        revision=REVISION["evaluate_instances"],
    message:
        "Score of IRNet's instances of {wildcards.dataset} {wildcards.run}"


use rule evaluate_instances as evaluate_components with:
    input:
        instances=of("components", "scored"),
        manifest=manifest_for("scored"),
        truth=true_objects("scored"),
        classes=TREE.path("classes"),
    output:
        result=as_score(TREE.path("components_ap"), "Components"),
    log:
        TREE.log("evaluate_components", "dataset", "run"),
    benchmark:
        TREE.benchmark("evaluate_components", "dataset", "run")
    params:
        settings=section_of("instances.scores"),
        made_with=made_with("components"),
        stage="components",
        trained_on=None,
        labels_used=True,
        seed=seed_of,
        subset=subset_for("scored"),
        revision=REVISION["evaluate_instances"],
    message:
        "Score of the components of the pseudo masks of {wildcards.dataset} {wildcards.run}"
