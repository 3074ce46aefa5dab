"""Rule evaluate_proposal_labels: hand the job's files and settings to the core."""

from wsss_core.base.jobs import log_to

log_to(snakemake.log[0])  # before the imports below, so that a failing one is logged

from wsss_core.cim.label_scores import evaluate_proposal_labels
from wsss_core.cim.labels import ProposalLabels
from wsss_core.cim.peak_table import read_peaks
from wsss_core.data import Classes, Manifest
from wsss_core.instances.store import InstanceStore
from wsss_core.scores.results import write_result

truth = snakemake.input.get("truth")
scores = evaluate_proposal_labels(
    manifest=Manifest.read(snakemake.input.manifest),
    classes=Classes.read(snakemake.input.classes),
    labels=ProposalLabels(snakemake.input.labels),
    peaks=read_peaks(snakemake.input.peaks),
    proposals=InstanceStore(snakemake.input.proposals),
    truth=InstanceStore(truth) if truth else None,
)
write_result(
    snakemake.output.result,
    scores,
    stage="proposal_labels",
    **dict(snakemake.wildcards.items()),
    split=snakemake.params.subset,
    made_with=snakemake.params.made_with,
    seed=snakemake.params.seed,
    revision=snakemake.params.revision,
)
