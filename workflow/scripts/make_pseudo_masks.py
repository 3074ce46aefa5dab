"""Rule make_pseudo_masks: hand the job's files and settings to the core."""

from wsss_core.base.jobs import Share, log_to

log_to(snakemake.log[0])  # before the imports below, so that a failing one is logged

from pathlib import Path

from wsss_core.affinity.pseudo_masks import make_pseudo_masks
from wsss_core.data import Classes, Manifest
from wsss_core.maps.store import MapStore
from wsss_core.recipes.settings import PseudoMaskSettings, made

make_pseudo_masks(
    manifest=Manifest.read(snakemake.input.manifest),
    classes=Classes.read(snakemake.input.classes),
    maps=MapStore(snakemake.input.maps),
    folder=Path(snakemake.output.folder),
    settings=made(PseudoMaskSettings, snakemake.params.settings["masks"]),
    workers=Share(snakemake.threads, snakemake.resources.mem_mb),
)
