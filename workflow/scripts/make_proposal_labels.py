"""Rule make_proposal_labels: hand the job's files and settings to the core."""

from wsss_core.base.jobs import Share, log_to

log_to(snakemake.log[0])  # before the imports below, so that a failing one is logged

from pathlib import Path

from wsss_core.cim.labels import make_proposal_labels
from wsss_core.data import Manifest
from wsss_core.recipes.settings import ProposalLabelSettings, made

make_proposal_labels(
    manifest=Manifest.read(snakemake.input.manifest),
    proposals=Path(snakemake.input.proposals),
    peaks=Path(snakemake.input.peaks),
    output=Path(snakemake.output.labels),
    settings=made(ProposalLabelSettings, snakemake.params.settings["proposal_labels"]),
    workers=Share(snakemake.threads, snakemake.resources.mem_mb),
)
