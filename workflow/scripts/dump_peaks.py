"""Rule dump_peaks: hand the job's files and settings to the core."""

from wsss_core.base.jobs import log_to, pick_device, seed_everything

log_to(snakemake.log[0])  # before the imports below, so that a failing one is logged

from pathlib import Path

from wsss_core.cim.peaks import dump_peaks
from wsss_core.classifiers.network import load_classifier
from wsss_core.data import Manifest
from wsss_core.recipes.settings import PeakSettings, made

seed_everything(0, snakemake.threads)
dump_peaks(
    model=load_classifier(snakemake.input.model),
    manifest=Manifest.read(snakemake.input.manifest),
    output=Path(snakemake.output.table),
    settings=made(PeakSettings, snakemake.params.settings["peaks"]),
    device=pick_device(snakemake.resources.get("gpu", 0)),
    workers=snakemake.threads - 1,
)
