"""Rule predict_saliency: hand the job's files and settings to the core."""

from wsss_core.base.jobs import Share, log_to, pick_device, seed_everything

log_to(snakemake.log[0])  # before the imports below, so that a failing one is logged

from pathlib import Path

from wsss_core.data import Manifest
from wsss_core.saliency.poolnet_maps import predict_saliency
from wsss_core.saliency.poolnet_training import load_poolnet

seed_everything(0, snakemake.threads)
predict_saliency(
    model=load_poolnet(snakemake.input.model),
    manifest=Manifest.read(snakemake.input.manifest),
    folder=Path(snakemake.output.folder),
    device=pick_device(snakemake.resources.get("gpu", 0)),
    share=Share(snakemake.threads, snakemake.resources.mem_mb),
)
