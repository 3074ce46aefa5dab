"""Rule make_instance_maps: hand the job's files and settings to the core."""

from wsss_core.base.jobs import log_to, pick_device, seed_everything

log_to(snakemake.log[0])  # before the imports below, so that a failing one is logged

from pathlib import Path

from wsss_core.affinity.training import load_affinity
from wsss_core.data import Manifest
from wsss_core.instances.irn import dump_instance_maps
from wsss_core.recipes.settings import IrnSettings, WalkSettings, made

seed_everything(0, snakemake.threads)
dump_instance_maps(
    model=load_affinity(snakemake.input.model),
    manifest=Manifest.read(snakemake.input.manifest),
    folder=Path(snakemake.output.folder),
    settings=made(IrnSettings, snakemake.params.settings["irn"]),
    walk=made(WalkSettings, snakemake.params.settings["walk"]),
    device=pick_device(snakemake.resources.get("gpu", 0)),
    workers=snakemake.threads - 1,
)
