"""Rule train_cim: hand the job's files and settings to the core."""

from wsss_core.base.jobs import log_to, pick_device, seed_everything

log_to(snakemake.log[0])  # before the imports below, so that a failing one is logged

from pathlib import Path

from wsss_core.cim.training import train_cim
from wsss_core.data import Classes, Manifest
from wsss_core.recipes.settings import CimSettings, made

seed_everything(snakemake.params.seed, snakemake.threads)
train_cim(
    manifest=Manifest.read(snakemake.input.manifest),
    classes=Classes.read(snakemake.input.classes),
    proposals=Path(snakemake.input.proposals),
    labels=Path(snakemake.input.labels) if snakemake.input.labels else None,
    weights=Path(snakemake.input.weights) if snakemake.input.weights else None,
    settings=made(CimSettings, snakemake.params.settings["cim"]),
    output=Path(snakemake.output.model),
    seed=snakemake.params.seed,
    device=pick_device(snakemake.resources.get("gpu", 0)),
    workers=snakemake.threads - 1,
)
