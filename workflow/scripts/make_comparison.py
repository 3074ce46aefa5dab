"""Rule make_comparison: hand the job's settings to the core."""

from wsss_core.base.jobs import log_to

log_to(snakemake.log[0])  # before the imports below, so that a failing one is logged

from pathlib import Path

from wsss_core.reports.comparison import make_comparison

make_comparison(
    resolved=snakemake.params.resolved,
    output=Path(snakemake.output.page),
    images=snakemake.params.images,
)
