"""CIM: proposals of a data set, and which of them are instances."""


rule make_proposals:
    input:
        folder=proposal_files,
        manifest=TREE.path("manifest"),
    output:
        store=directory(TREE.path("proposals")),
    log:
        TREE.log("make_proposals", "dataset", "subset"),
    benchmark:
        TREE.benchmark("make_proposals", "dataset", "subset")
    conda:
        "../../environment.yml"
    threads: 8
    resources:
        mem_mb=by_attempt(16000),
        runtime=hours(12),
    params:
        declared=deciding_about_proposals,
        revision=REVISION["make_proposals"],
    message:
        "Proposals of {wildcards.dataset} {wildcards.subset}"
    script:
        "../scripts/make_proposals.py"


rule evaluate_proposals:
    input:
        proposals=proposals_for("val"),
        manifest=manifest_for("val"),
        truth=true_objects("val"),
    output:
        result=report(
            TREE.path("proposals_recall"),
            caption="../report/recall.rst",
            category="Scores",
            labels=with_score("Recall of proposals"),
        ),
    log:
        TREE.log("evaluate_proposals", "dataset"),
    benchmark:
        TREE.benchmark("evaluate_proposals", "dataset")
    conda:
        "../../environment.yml"
    resources:
        mem_mb=by_attempt(8000),
        runtime=hours(2),
    params:
        declared=deciding_about_proposals,
        subset=subset_for("val"),
        revision=REVISION["evaluate_proposals"],
    message:
        "Recall of the proposals of {wildcards.dataset}"
    script:
        "../scripts/evaluate_proposals.py"


rule dump_peaks:
    input:
        model=of("classifier"),
        manifest=TREE.path("manifest"),
    output:
        table=TREE.path("peaks"),
    log:
        TREE.log("dump_peaks", "dataset", "run", "subset"),
    benchmark:
        TREE.benchmark("dump_peaks", "dataset", "run", "subset")
    conda:
        "../../environment.yml"
    threads: 8
    resources:
        gpu=1,
        mem_mb=by_attempt(16000),
        runtime=hours(4),
    params:
        settings=settings_of("peaks"),
        revision=REVISION["dump_peaks"],
    message:
        "Peaks of class maps of {wildcards.dataset} {wildcards.subset}, run {wildcards.run}"
    script:
        "../scripts/dump_peaks.py"


rule make_proposal_labels:
    input:
        peaks=of("peaks"),
        proposals=proposals_for(),
        manifest=TREE.path("manifest"),
    output:
        labels=TREE.path("proposal_labels"),
    log:
        TREE.log("make_proposal_labels", "dataset", "run", "subset"),
    benchmark:
        TREE.benchmark("make_proposal_labels", "dataset", "run", "subset")
    conda:
        "../../environment.yml"
    threads: 8
    resources:
        mem_mb=by_attempt(16000),
        runtime=hours(12),
    params:
        settings=settings_of("proposal_labels"),
        revision=REVISION["make_proposal_labels"],
    message:
        "Labels of the proposals of {wildcards.dataset} {wildcards.subset}, run {wildcards.run}"
    script:
        "../scripts/make_proposal_labels.py"


rule evaluate_proposal_labels:
    input:
        labels=of("proposal_labels", "train"),
        peaks=of("peaks", "train"),
        proposals=proposals_for("train"),
        manifest=manifest_for("train"),
        truth=objects_to_show("train"),
        classes=TREE.path("classes"),
    output:
        result=TREE.path("proposal_labels_scores"),
    log:
        TREE.log("evaluate_proposal_labels", "dataset", "run"),
    benchmark:
        TREE.benchmark("evaluate_proposal_labels", "dataset", "run")
    conda:
        "../../environment.yml"
    resources:
        mem_mb=by_attempt(8000),
        runtime=hours(2),
    params:
        made_with=made_with("proposal_labels"),
        seed=seed_of,
        subset=subset_for("train"),
        revision=REVISION["evaluate_proposal_labels"],
    message:
        "What the labels of proposals of {wildcards.dataset} {wildcards.run} are worth"
    script:
        "../scripts/evaluate_proposal_labels.py"


rule train_cim:
    input:
        proposals=proposals_for("train"),
        labels=labels_of_proposals,
        manifest=manifest_for("train"),
        classes=TREE.path("classes"),
        weights=weights_for("instances.cim"),
    output:
        model=TREE.path("cim"),
        history=as_curve(TREE.history("cim"), "CIM"),
    log:
        TREE.log("train_cim", "dataset", "run"),
    benchmark:
        TREE.benchmark("train_cim", "dataset", "run")
    conda:
        "../../environment.yml"
    threads: 8
    resources:
        gpu=1,
        mem_mb=by_attempt(32000),
        runtime="72h",
    params:
        settings=settings_of("cim"),
        seed=seed_of,
        revision=REVISION["train_cim"],
    message:
        "CIM's network of {wildcards.dataset} {wildcards.run}"
    script:
        "../scripts/train_cim.py"


rule score_proposals:
    input:
        model=of("cim"),
        proposals=proposals_for(),
        manifest=TREE.path("manifest"),
    output:
        store=directory(TREE.path("proposal_scores")),
    log:
        TREE.log("score_proposals", "dataset", "run", "subset"),
    benchmark:
        TREE.benchmark("score_proposals", "dataset", "run", "subset")
    conda:
        "../../environment.yml"
    threads: 8
    resources:
        gpu=1,
        mem_mb=by_attempt(16000),
        runtime=hours(48),
    params:
        settings=settings_of("proposal_scores"),
        revision=REVISION["score_proposals"],
    message:
        "Scores of the proposals of {wildcards.dataset} {wildcards.subset}, run {wildcards.run}"
    script:
        "../scripts/score_proposals.py"


rule make_cim_instances:
    input:
        scores=of("proposal_scores"),
        proposals=proposals_for(),
        manifest=TREE.path("manifest"),
    output:
        store=directory(TREE.path("cim_instances")),
    log:
        TREE.log("make_cim_instances", "dataset", "run", "subset"),
    benchmark:
        TREE.benchmark("make_cim_instances", "dataset", "run", "subset")
    conda:
        "../../environment.yml"
    threads: 8
    resources:
        mem_mb=by_attempt(8000),
        runtime=hours(4),
    params:
        settings=settings_of("cim_instances"),
        revision=REVISION["make_cim_instances"],
    message:
        "Instances of {wildcards.dataset} {wildcards.subset} by CIM, run {wildcards.run}"
    script:
        "../scripts/make_cim_instances.py"


use rule evaluate_instances as evaluate_cim_instances with:
    input:
        instances=of("cim_instances", "val"),
        proposals=proposals_for("val"),
        manifest=manifest_for("val"),
        truth=true_objects("val"),
        classes=TREE.path("classes"),
    output:
        result=as_score(TREE.path("cim_ap"), "CIM's instances"),
    log:
        TREE.log("evaluate_cim_instances", "dataset", "run"),
    benchmark:
        TREE.benchmark("evaluate_cim_instances", "dataset", "run")
    params:
        settings=section_of("instances.scores"),
        made_with=made_with("cim_instances"),
        stage="cim_instances",
        trained_on=None,
        labels_used=False,
        seed=seed_of,
        subset=subset_for("val"),
        revision=REVISION["evaluate_instances"],
    message:
        "Score of CIM's instances of {wildcards.dataset} {wildcards.run}"
