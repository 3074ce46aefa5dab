"""Rule train_maskrcnn: hand the job's files and settings to the core."""

from wsss_core.base.jobs import log_to, pick_device, seed_everything

log_to(snakemake.log[0])  # before the imports below, so that a failing one is logged

from pathlib import Path

from wsss_core.data import Classes, Manifest
from wsss_core.instances.maskrcnn_training import train_maskrcnn
from wsss_core.recipes.settings import MaskrcnnSettings, made

seed_everything(snakemake.params.seed, snakemake.threads)
train_maskrcnn(
    manifest=Manifest.read(snakemake.input.manifest),
    classes=Classes.read(snakemake.input.classes),
    instances=Path(snakemake.input.instances),
    weights=Path(snakemake.input.weights) if snakemake.input.weights else None,
    settings=made(MaskrcnnSettings, snakemake.params.settings["maskrcnn"]),
    output=Path(snakemake.output.model),
    seed=snakemake.params.seed,
    device=pick_device(snakemake.resources.get("gpu", 0)),
    workers=snakemake.threads - 1,
    pictures=snakemake.resources.pictures,
)
