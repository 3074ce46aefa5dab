"""Rule make_proposals: hand the job's files and settings to the core."""

from wsss_core.base.jobs import Share, log_to

log_to(snakemake.log[0])  # before the imports below, so that a failing one is logged

from pathlib import Path

from wsss_core.data import Manifest
from wsss_core.proposals.making import make_declared_proposals

make_declared_proposals(
    declared=snakemake.params.declared,
    folder=Path(snakemake.input.folder) if snakemake.input.folder else None,
    manifest=Manifest.read(snakemake.input.manifest),
    store=Path(snakemake.output.store),
    about=dict(snakemake.wildcards.items()),
    workers=Share(snakemake.threads, snakemake.resources.mem_mb),
)
