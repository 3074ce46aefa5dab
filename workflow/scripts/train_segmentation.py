"""Rule train_segmentation: hand the job's files and settings to the core."""

from wsss_core.base.jobs import log_to, pick_device, seed_everything

log_to(snakemake.log[0])  # before the imports below, so that a failing one is logged

from pathlib import Path

from wsss_core.data import Classes, Manifest
from wsss_core.recipes.settings import made
from wsss_core.segmentation.training import NETWORKS, train_segmentation

network = snakemake.params.network
seed_everything(snakemake.params.seed, snakemake.threads)
train_segmentation(
    manifest=Manifest.read(snakemake.input.manifest),
    classes=Classes.read(snakemake.input.classes),
    masks=Path(snakemake.input.masks) if snakemake.input.masks else None,
    further=Path(snakemake.input.further) if snakemake.input.further else None,
    weights=Path(snakemake.input.weights) if snakemake.input.weights else None,
    settings=made(
        NETWORKS[network].settings,
        snakemake.params.settings[network],
        compile=bool(snakemake.resources.compile),
    ),
    output=Path(snakemake.output.model),
    seed=snakemake.params.seed,
    device=pick_device(snakemake.resources.get("gpu", 0)),
    workers=snakemake.threads - 1,
    pictures=snakemake.resources.pictures,
)
