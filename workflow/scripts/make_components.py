"""Rule make_components: hand the job's files and settings to the core."""

from wsss_core.base.jobs import Share, log_to

log_to(snakemake.log[0])  # before the imports below, so that a failing one is logged

from pathlib import Path

from wsss_core.data import Classes, Manifest
from wsss_core.instances.components import make_components
from wsss_core.maps.store import MapStore
from wsss_core.recipes.settings import ComponentSettings, made

make_components(
    manifest=Manifest.read(snakemake.input.manifest),
    classes=Classes.read(snakemake.input.classes),
    masks=Path(snakemake.input.masks),
    maps=MapStore(snakemake.input.maps),
    store=Path(snakemake.output.store),
    settings=made(ComponentSettings, snakemake.params.settings["components"]),
    about=dict(snakemake.wildcards.items()),
    workers=Share(snakemake.threads, snakemake.resources.mem_mb),
)
