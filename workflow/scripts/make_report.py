"""Rule make_report: hand the job's files and settings to the core."""

from wsss_core.base.jobs import log_to

log_to(snakemake.log[0])  # before the imports below, so that a failing one is logged

from pathlib import Path

from wsss_core.reports.page import make_report

make_report(
    resolved=snakemake.params.resolved,
    output=Path(snakemake.output.page),
    images=snakemake.params.images,
)
