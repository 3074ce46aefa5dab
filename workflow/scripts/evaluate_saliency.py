"""Rule evaluate_saliency: hand the job's files and settings to the core."""

from wsss_core.base.jobs import Share, log_to

log_to(snakemake.log[0])  # before the imports below, so that a failing one is logged

from pathlib import Path

from wsss_core.data import Classes, Manifest
from wsss_core.maps.store import MapStore
from wsss_core.recipes.settings import SweepSettings, made
from wsss_core.scores.results import write_result
from wsss_core.scores.saliency import evaluate_saliency

scores = evaluate_saliency(
    manifest=Manifest.read(snakemake.input.manifest),
    classes=Classes.read(snakemake.input.classes),
    cams=MapStore(snakemake.input.cams),
    coarse=Path(snakemake.input.coarse),
    refined=Path(snakemake.input.refined) if snakemake.input.refined else None,
    settings=made(SweepSettings, snakemake.params.settings["scores"]),
    workers=Share(snakemake.threads, snakemake.resources.mem_mb),
)
write_result(
    snakemake.output.result,
    scores,
    stage="saliency",
    **dict(snakemake.wildcards.items()),
    split=snakemake.params.subset,
    image_level_labels_used=True,
    settings=snakemake.params.settings,
    made_with=snakemake.params.get("made_with"),
    seed=snakemake.params.seed,
    revision=snakemake.params.revision,
)
