"""Rule predict_instances: hand the job's files and settings to the core."""

from wsss_core.base.jobs import log_to, pick_device, seed_everything

log_to(snakemake.log[0])  # before the imports below, so that a failing one is logged

from pathlib import Path

from wsss_core.data import Manifest
from wsss_core.instances.maskrcnn import load_maskrcnn
from wsss_core.instances.maskrcnn_prediction import predict_instances
from wsss_core.recipes.settings import MaskrcnnPredictionSettings, made

seed_everything(0, snakemake.threads)
predict_instances(
    model=load_maskrcnn(snakemake.input.model),
    manifest=Manifest.read(snakemake.input.manifest),
    store=Path(snakemake.output.store),
    settings=made(MaskrcnnPredictionSettings, snakemake.params.settings["prediction"]),
    about=dict(snakemake.wildcards.items()),
    device=pick_device(snakemake.resources.get("gpu", 0)),
    workers=snakemake.threads,
)
