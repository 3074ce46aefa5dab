"""Rule evaluate_segmentation: hand the job's files and settings to the core."""

from wsss_core.base.jobs import Share, log_to

log_to(snakemake.log[0])  # before the imports below, so that a failing one is logged

from pathlib import Path

from wsss_core.data import Classes, Manifest
from wsss_core.scores.masks import evaluate_masks
from wsss_core.scores.results import write_result

scores = evaluate_masks(
    manifest=Manifest.read(snakemake.input.manifest),
    classes=Classes.read(snakemake.input.classes),
    folder=Path(snakemake.input.masks),
    images=Path(snakemake.output.images),
    workers=Share(snakemake.threads, snakemake.resources.mem_mb),
)
write_result(
    snakemake.output.result,
    scores,
    stage="segmentation",
    **dict(snakemake.wildcards.items()),
    split=snakemake.params.subset,
    network=snakemake.params.network,
    trained_on=snakemake.params.trained_on,  # a run's pseudo masks, or ground_truth
    image_level_labels_used=False,
    settings=snakemake.params.settings,
    made_with=snakemake.params.get("made_with"),
    seed=snakemake.params.seed,
    revision=snakemake.params.revision,
)
