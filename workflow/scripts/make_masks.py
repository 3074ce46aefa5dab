"""Rule make_masks: hand the job's files and settings to the core."""

from wsss_core.base.jobs import log_to

log_to(snakemake.log[0])  # before the imports below, so that a failing one is logged

from wsss_core.data.kinds import declared_masks

declared_masks(
    snakemake.params.declared,
    subset=snakemake.wildcards.subset,
    folder=snakemake.output.folder,
    workers=snakemake.threads,
)
