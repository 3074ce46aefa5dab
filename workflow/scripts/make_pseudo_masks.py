"""Rule make_pseudo_masks: hand the job's files and settings to the core."""

from wsss_core.base.jobs import log_to

log_to(snakemake.log[0])  # before the imports below, so that a failing one is logged

from pathlib import Path

from wsss_core.affinity.pseudo_masks import PseudoMaskSettings, make_pseudo_masks
from wsss_core.data import Classes, Manifest
from wsss_core.maps.store import MapStore

make_pseudo_masks(
    manifest=Manifest.read(snakemake.input.manifest),
    classes=Classes.read(snakemake.input.classes),
    walked=MapStore(snakemake.input.walked),
    folder=Path(snakemake.output.folder),
    settings=PseudoMaskSettings(**snakemake.params.settings),
    workers=snakemake.threads,
)
