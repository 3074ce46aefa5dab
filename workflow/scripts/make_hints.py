"""Rule make_hints: hand the job's files and settings to the core."""

from wsss_core.base.jobs import log_to

log_to(snakemake.log[0])  # before the imports below, so that a failing one is logged

from pathlib import Path

from wsss_core.data import Manifest
from wsss_core.maps.store import MapStore
from wsss_core.saliency.hints import make_hints

make_hints(
    manifest=Manifest.read(snakemake.input.manifest),
    cams=MapStore(snakemake.input.cams),
    store=Path(snakemake.output.store),
)
