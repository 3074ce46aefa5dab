"""Rule train_affinity: hand the job's files and settings to the core."""

from wsss_core.base.jobs import log_to, pick_device, seed_everything

log_to(snakemake.log[0])  # before the imports below, so that a failing one is logged

from pathlib import Path

from wsss_core.affinity.training import train_affinity
from wsss_core.data import Classes, Manifest
from wsss_core.recipes.settings import AffinitySettings, made

seed_everything(snakemake.params.seed, snakemake.threads)
train_affinity(
    manifest=Manifest.read(snakemake.input.manifest).labelled(),
    classes=Classes.read(snakemake.input.classes),
    labels=Path(snakemake.input.labels),
    weights=Path(snakemake.input.weights) if snakemake.input.weights else None,
    settings=made(AffinitySettings, snakemake.params.settings["affinity"]),
    output=Path(snakemake.output.model),
    seed=snakemake.params.seed,
    device=pick_device(snakemake.resources.get("gpu", 0)),
    workers=snakemake.threads - 1,
    pictures=snakemake.resources.pictures,
)
