"""Rule check_health: hand the job's files and settings to the core."""

from wsss_core.base.jobs import Share, log_to

log_to(snakemake.log[0])  # before the imports below, so that a failing one is logged

from pathlib import Path

from wsss_core.data import Classes, Manifest
from wsss_core.maps.store import MapStore
from wsss_core.scores.health import health
from wsss_core.scores.results import write_result

inputs = snakemake.input
stages = ("saliency_masks", "saliency", "affinity_labels", "pseudo_masks", "masks")
found = health(
    manifest=Manifest.read(inputs.manifest),
    classes=Classes.read(inputs.classes),
    cams=MapStore(inputs.cams) if inputs.cams else None,
    threshold=snakemake.params.threshold,
    folders={name: Path(inputs[name]) if inputs[name] else None for name in stages},
    workers=Share(snakemake.threads, snakemake.resources.mem_mb),
)
write_result(
    snakemake.output.result,
    found,
    stage="health",
    **dict(snakemake.wildcards.items()),
    split=snakemake.params.subset,
    threshold_of_cams=snakemake.params.threshold,
    made_with=snakemake.params.made_with,
    seed=snakemake.params.seed,
    revision=snakemake.params.revision,
)
