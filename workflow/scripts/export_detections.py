"""Rule export_detections: hand the job's files and settings to the core."""

from wsss_core.base.jobs import log_to

log_to(snakemake.log[0])  # before the imports below, so that a failing one is logged

from pathlib import Path

from wsss_core.data import Classes, Manifest
from wsss_core.instances.export import write_coco
from wsss_core.instances.store import InstanceStore

write_coco(
    Path(snakemake.output.json),
    InstanceStore(snakemake.input.store),
    Manifest.read(snakemake.input.manifest),
    Classes.read(snakemake.input.classes),
    results=snakemake.params.results,
)
