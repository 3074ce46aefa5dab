"""Rule smooth_cams: hand the job's files and settings to the core."""

from wsss_core.base.jobs import log_to

log_to(snakemake.log[0])

from pathlib import Path

from toy_method import SmoothSettings, smooth_cams

from wsss_core.data import Manifest
from wsss_core.maps.store import MapStore
from wsss_core.recipes.settings import made

smooth_cams(
    manifest=Manifest.read(snakemake.input.manifest),
    cams=MapStore(snakemake.input.cams),
    store=Path(snakemake.output.store),
    settings=made(SmoothSettings, snakemake.params.settings["smooth"]),
)
