"""Rule mean_over_seeds: hand the job's files and settings to the core."""

from wsss_core.base.jobs import log_to

log_to(snakemake.log[0])  # before the imports below, so that a failing one is logged

from pathlib import Path

from wsss_core.reports.tables import mean_over_seeds

mean_over_seeds(
    results=[Path(path) for path in snakemake.input],
    output=Path(snakemake.output.result),
    table=Path(snakemake.output.table),
    revision=snakemake.params.revision,
)
