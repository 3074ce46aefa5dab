"""Rule dump_saliency: hand the job's files and settings to the core."""

from wsss_core.base.jobs import log_to, pick_device, seed_everything

log_to(snakemake.log[0])  # before the imports below, so that a failing one is logged

from pathlib import Path

from wsss_core.data import Manifest
from wsss_core.saliency.c2am_maps import C2amMapSettings, dump_c2am_maps
from wsss_core.saliency.c2am_training import load_c2am

seed_everything(0, snakemake.threads)
dump_c2am_maps(
    model=load_c2am(snakemake.input.model),
    manifest=Manifest.read(snakemake.input.manifest),
    store=Path(snakemake.output.store),
    settings=C2amMapSettings(**snakemake.params.settings),
    about=dict(snakemake.wildcards.items()),
    device=pick_device(snakemake.resources.get("gpu", 0)),
    workers=snakemake.threads - 1,
)
