"""Rule class_properties: hand the job's files and settings to the core."""

from wsss_core.base.jobs import log_to

log_to(snakemake.log[0])  # before the imports below, so that a failing one is logged

from wsss_core.data import Classes, Manifest
from wsss_core.reports.analysis import class_properties

class_properties(
    manifest=Manifest.read(snakemake.input.manifest),
    classes=Classes.read(snakemake.input.classes),
    kind=snakemake.params.kind,
    workers=snakemake.threads,
).write(snakemake.output.table)
