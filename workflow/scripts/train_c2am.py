"""Rule train_c2am: hand the job's files and settings to the core."""

from wsss_core.base.jobs import log_to, pick_device, seed_everything

log_to(snakemake.log[0])  # before the imports below, so that a failing one is logged

from pathlib import Path

from wsss_core.data import Manifest
from wsss_core.maps.store import MapStore
from wsss_core.recipes.settings import C2amSettings, HintSettings, made
from wsss_core.saliency.c2am_training import train_c2am

settings = snakemake.params.settings
seed_everything(snakemake.params.seed, snakemake.threads)
train_c2am(
    manifest=Manifest.read(snakemake.input.manifest).labelled(),
    hints=MapStore(snakemake.input.hints) if snakemake.input.hints else None,
    weights=Path(snakemake.input.weights) if snakemake.input.weights else None,
    settings=made(C2amSettings, settings["c2am"], compile=bool(snakemake.resources.compile)),
    hint_settings=made(HintSettings, settings["hints"]) if "hints" in settings else None,
    output=Path(snakemake.output.model),
    seed=snakemake.params.seed,
    device=pick_device(snakemake.resources.get("gpu", 0)),
    workers=snakemake.threads - 1,
    pictures=snakemake.resources.pictures,
)
