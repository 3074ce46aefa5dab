"""Rule make_saliency_masks: hand the job's files and settings to the core."""

from wsss_core.base.jobs import Share, log_to

log_to(snakemake.log[0])  # before the imports below, so that a failing one is logged

from pathlib import Path

from wsss_core.data import Manifest
from wsss_core.maps.store import MapStore
from wsss_core.recipes.settings import SaliencyMaskSettings, made
from wsss_core.saliency.masks import make_saliency_masks

make_saliency_masks(
    manifest=Manifest.read(snakemake.input.manifest),
    maps=MapStore(snakemake.input.maps),
    folder=Path(snakemake.output.folder),
    settings=made(SaliencyMaskSettings, snakemake.params.settings["masks"]),
    workers=Share(snakemake.threads, snakemake.resources.mem_mb),
)
