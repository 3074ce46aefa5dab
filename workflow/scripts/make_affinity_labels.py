"""Rule make_affinity_labels: hand the job's files and settings to the core."""

from wsss_core.base.jobs import Share, log_to

log_to(snakemake.log[0])  # before the imports below, so that a failing one is logged

from pathlib import Path

from wsss_core.affinity.labels import make_affinity_labels
from wsss_core.data import Classes, Manifest
from wsss_core.maps.store import MapStore
from wsss_core.recipes.settings import AffinityLabelSettings, made

make_affinity_labels(
    manifest=Manifest.read(snakemake.input.manifest),
    classes=Classes.read(snakemake.input.classes),
    cams=MapStore(snakemake.input.cams),
    saliency=Path(snakemake.input.saliency) if snakemake.input.saliency else None,
    folder=Path(snakemake.output.folder),
    settings=made(AffinityLabelSettings, snakemake.params.settings["labels"]),
    workers=Share(snakemake.threads, snakemake.resources.mem_mb),
)
