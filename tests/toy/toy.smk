"""The rule of the toy method."""


rule smooth_cams:
    input:
        cams=of("cams"),
        manifest=TREE.path("manifest"),
    output:
        store=directory(TREE.path("smoothed")),
    log:
        TREE.log("smooth_cams", "dataset", "run", "subset"),
    params:
        settings=settings_of("smoothed"),
        revision=REVISION["smooth_cams"],
    script:
        "../scripts/smooth_cams.py"
