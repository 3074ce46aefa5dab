"""Rule make_instance_labels: hand the job's files and settings to the core."""

from wsss_core.base.jobs import log_to

log_to(snakemake.log[0])  # before the imports below, so that a failing one is logged

from pathlib import Path

from wsss_core.data import Manifest
from wsss_core.instances.labels import make_instance_labels
from wsss_core.instances.store import InstanceStore
from wsss_core.recipes.settings import InstanceLabelSettings, made

make_instance_labels(
    manifest=Manifest.read(snakemake.input.manifest),
    instances=InstanceStore(snakemake.input.instances),
    store=Path(snakemake.output.store),
    settings=made(InstanceLabelSettings, snakemake.params.settings["labels"]),
    about=dict(snakemake.wildcards.items()),
)
