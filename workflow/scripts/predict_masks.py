"""Rule predict_masks: hand the job's files and settings to the core."""

from wsss_core.base.jobs import Share, log_to, pick_device, seed_everything

log_to(snakemake.log[0])  # before the imports below, so that a failing one is logged

from pathlib import Path

from wsss_core.data import Classes, Manifest
from wsss_core.recipes.settings import PredictionSettings, made
from wsss_core.segmentation.prediction import predict_masks
from wsss_core.segmentation.training import load_segmentation

seed_everything(0, snakemake.threads)
predict_masks(
    model=load_segmentation(snakemake.input.model),
    manifest=Manifest.read(snakemake.input.manifest),
    classes=Classes.read(snakemake.input.classes),
    folder=Path(snakemake.output.folder),
    settings=made(PredictionSettings, snakemake.params.settings["prediction"]),
    device=pick_device(snakemake.resources.get("gpu", 0)),
    workers=Share(snakemake.threads, snakemake.resources.mem_mb),
)
