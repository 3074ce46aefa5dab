"""Rule train_poolnet: hand the job's files and settings to the core."""

from wsss_core.base.jobs import Share, log_to, pick_device, seed_everything

log_to(snakemake.log[0])  # before the imports below, so that a failing one is logged

from pathlib import Path

from wsss_core.data import Manifest
from wsss_core.recipes.settings import PoolnetSettings, made
from wsss_core.saliency.poolnet_training import train_poolnet

settings = snakemake.params.settings["poolnet"]
seed_everything(snakemake.params.seed, snakemake.threads)
train_poolnet(
    manifest=Manifest.read(snakemake.input.manifest),
    masks=Path(snakemake.input.masks),
    weights=Path(snakemake.input.weights) if snakemake.input.weights else None,
    settings=made(PoolnetSettings, settings),
    padding=settings.get("padding") or 0,
    output=Path(snakemake.output.model),
    seed=snakemake.params.seed,
    device=pick_device(snakemake.resources.get("gpu", 0)),
    workers=snakemake.threads - 1,
    pictures=snakemake.resources.pictures,
    share=Share(snakemake.threads, snakemake.resources.mem_mb),
)
