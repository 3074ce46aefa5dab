"""Rule evaluate_saliency_gt: hand the job's files and settings to the core."""

from wsss_core.base.jobs import Share, log_to

log_to(snakemake.log[0])  # before the imports below, so that a failing one is logged

from pathlib import Path

from wsss_core.data import Classes, Manifest
from wsss_core.maps.store import MapStore
from wsss_core.recipes.settings import SaliencyMaskSettings, SaliencyScoreSettings, made
from wsss_core.scores.results import write_result
from wsss_core.scores.saliency import evaluate_saliency_gt

scores = evaluate_saliency_gt(
    manifest=Manifest.read(snakemake.input.manifest),
    classes=Classes.read(snakemake.input.classes),
    coarse=MapStore(snakemake.input.coarse),
    refined=Path(snakemake.input.refined) if snakemake.input.refined else None,
    crf=made(SaliencyMaskSettings, snakemake.params.settings["masks"]).crf,
    settings=made(SaliencyScoreSettings, snakemake.params.settings["scores"]),
    workers=Share(snakemake.threads, snakemake.resources.mem_mb),
)
write_result(
    snakemake.output.result,
    scores,
    stage="saliency with known classes",
    **dict(snakemake.wildcards.items()),
    split=snakemake.params.subset,
    image_level_labels_used=True,
    settings=snakemake.params.settings,
    made_with=snakemake.params.get("made_with"),
    seed=snakemake.params.seed,
    revision=snakemake.params.revision,
)
