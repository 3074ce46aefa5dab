"""Rule evaluate_pseudo_masks: hand the job's files and settings to the core."""

from wsss_core.base.jobs import Share, log_to

log_to(snakemake.log[0])  # before the imports below, so that a failing one is logged

from pathlib import Path

from wsss_core.data import Classes, Manifest
from wsss_core.maps.store import MapStore
from wsss_core.recipes.settings import PseudoMaskScoreSettings, PseudoMaskSettings, made
from wsss_core.scores.masks import evaluate_pseudo_masks
from wsss_core.scores.results import write_result

scores = evaluate_pseudo_masks(
    manifest=Manifest.read(snakemake.input.manifest),
    classes=Classes.read(snakemake.input.classes),
    maps=MapStore(snakemake.input.maps),
    masks=made(PseudoMaskSettings, snakemake.params.settings["masks"]),
    settings=made(PseudoMaskScoreSettings, snakemake.params.settings["scores"]),
    images=Path(snakemake.output.images),
    workers=Share(snakemake.threads, snakemake.resources.mem_mb),
)
write_result(
    snakemake.output.result,
    scores,
    stage="pseudo masks",
    **dict(snakemake.wildcards.items()),
    split=snakemake.params.subset,
    image_level_labels_used=True,
    settings=snakemake.params.settings,
    made_with=snakemake.params.get("made_with"),
    seed=snakemake.params.seed,
    revision=snakemake.params.revision,
)
