"""Rule score_proposals: hand the job's files and settings to the core."""

from wsss_core.base.jobs import log_to, pick_device, seed_everything

log_to(snakemake.log[0])  # before the imports below, so that a failing one is logged

from pathlib import Path

from wsss_core.cim.network import load_cim
from wsss_core.cim.scores import score_proposals
from wsss_core.data import Manifest
from wsss_core.recipes.settings import ProposalScoreSettings, made

seed_everything(0, snakemake.threads)
score_proposals(
    model=load_cim(snakemake.input.model),
    manifest=Manifest.read(snakemake.input.manifest),
    proposals=Path(snakemake.input.proposals),
    store=Path(snakemake.output.store),
    settings=made(ProposalScoreSettings, snakemake.params.settings["proposal_scores"]),
    about=dict(snakemake.wildcards.items()),
    device=pick_device(snakemake.resources.get("gpu", 0)),
    workers=snakemake.threads - 1,
)
