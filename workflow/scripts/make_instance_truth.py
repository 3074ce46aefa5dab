"""Rule make_instance_truth: hand the job's files and settings to the core."""

from wsss_core.base.jobs import log_to

log_to(snakemake.log[0])  # before the imports below, so that a failing one is logged

from pathlib import Path

from wsss_core.data import Classes, Manifest
from wsss_core.instances.truth import make_instance_truth

make_instance_truth(
    declared=snakemake.params.declared,
    subset=snakemake.wildcards.subset,
    root=snakemake.input.get("root"),
    manifest=Manifest.read(snakemake.input.manifest),
    classes=Classes.read(snakemake.input.classes),
    store=Path(snakemake.output.store),
    about=dict(snakemake.wildcards.items()),
    workers=snakemake.threads,
)
