"""Rule train_classifier: hand the job's files and settings to the core."""

from wsss_core.base.jobs import log_to, pick_device, seed_everything

log_to(snakemake.log[0])  # before the imports below, so that a failing one is logged

from pathlib import Path

from wsss_core.classifiers.terms import read_terms
from wsss_core.classifiers.training import train_classifier
from wsss_core.data import Classes, Manifest
from wsss_core.recipes.settings import ClassifierSettings, made

settings = snakemake.params.settings
seed_everything(snakemake.params.seed, snakemake.threads)
train_classifier(
    manifest=Manifest.read(snakemake.input.manifest).labelled(),
    classes=Classes.read(snakemake.input.classes),
    weights=Path(snakemake.input.weights) if snakemake.input.weights else None,
    ordinary=Path(snakemake.input.ordinary) if snakemake.input.ordinary else None,
    settings=made(ClassifierSettings, settings["classifier"], compile=bool(snakemake.resources.compile)),
    terms=read_terms(settings),
    output=Path(snakemake.output.model),
    epochs=Path(snakemake.output.epochs),
    seed=snakemake.params.seed,
    device=pick_device(snakemake.resources.get("gpu", 0)),
    workers=snakemake.threads - 1,
    pictures=snakemake.resources.pictures,
)
