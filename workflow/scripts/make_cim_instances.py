"""Rule make_cim_instances: hand the job's files and settings to the core."""

from wsss_core.base.jobs import log_to

log_to(snakemake.log[0])  # before the imports below, so that a failing one is logged

from pathlib import Path

from wsss_core.cim.selection import make_cim_instances
from wsss_core.data import Manifest
from wsss_core.recipes.settings import SelectionSettings, made

make_cim_instances(
    manifest=Manifest.read(snakemake.input.manifest),
    proposals=Path(snakemake.input.proposals),
    scores=Path(snakemake.input.scores),
    store=Path(snakemake.output.store),
    settings=made(SelectionSettings, snakemake.params.settings["selection"]),
    about=dict(snakemake.wildcards.items()),
    workers=snakemake.threads,
)
