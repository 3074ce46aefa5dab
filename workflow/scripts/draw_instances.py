"""Rule draw_instances: hand the job's files and settings to the core."""

from wsss_core.base.jobs import log_to

log_to(snakemake.log[0])  # before the imports below, so that a failing one is logged

from pathlib import Path

from wsss_core.data import Classes, Manifest
from wsss_core.instances.store import InstanceStore
from wsss_core.reports.pictures import draw_sheet, instance_panel, picture_panel

classes, stores = Classes.read(snakemake.input.classes), {}
if snakemake.input.truth:
    stores["true objects"] = InstanceStore(snakemake.input.truth)
stores[snakemake.params.caption] = InstanceStore(snakemake.input.instances)
draw_sheet(
    manifest=Manifest.read(snakemake.input.manifest),
    panels={
        "picture": picture_panel,
        **{name: instance_panel(store, classes, snakemake.params.score) for name, store in stores.items()},
    },
    output=Path(snakemake.output[0]),
    count=snakemake.params.images,
)
