"""Rule evaluate_proposals: hand the job's files and settings to the core."""

from wsss_core.base.jobs import log_to

log_to(snakemake.log[0])  # before the imports below, so that a failing one is logged

from wsss_core.data import Manifest
from wsss_core.instances.store import InstanceStore
from wsss_core.proposals.recall import evaluate_proposals
from wsss_core.scores.results import write_result

scores = evaluate_proposals(
    manifest=Manifest.read(snakemake.input.manifest),
    proposals=InstanceStore(snakemake.input.proposals),
    truth=InstanceStore(snakemake.input.truth),
)
write_result(
    snakemake.output.result,
    scores,
    stage="proposals",
    **dict(snakemake.wildcards.items()),
    split=snakemake.params.subset,
    settings=snakemake.params.declared,
    revision=snakemake.params.revision,
)
