"""Rule dump_cams: hand the job's files and settings to the core."""

from wsss_core.base.jobs import Share, log_to, pick_device, seed_everything

log_to(snakemake.log[0])  # before the imports below, so that a failing one is logged

from pathlib import Path

from wsss_core.classifiers.cams import dump_cams
from wsss_core.classifiers.network import load_classifier
from wsss_core.data import Manifest
from wsss_core.recipes.settings import CamSettings, made

settings = made(CamSettings, snakemake.params.settings["cams"])
seed_everything(0, snakemake.threads)
dump_cams(
    model=load_classifier(snakemake.input.model, head=settings.head),
    manifest=Manifest.read(snakemake.input.manifest),
    store=Path(snakemake.output.store),
    settings=settings,
    about=dict(snakemake.wildcards.items()),
    device=pick_device(snakemake.resources.get("gpu", 0)),
    workers=Share(snakemake.threads, snakemake.resources.mem_mb),
)
