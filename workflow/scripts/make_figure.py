"""Rule make_figure: hand the job's files and settings to the core."""

from wsss_core.base.jobs import log_to

log_to(snakemake.log[0])  # before the imports below, so that a failing one is logged

from pathlib import Path

from wsss_core.reports.figures import make_figure

make_figure(
    resolved=snakemake.params.resolved,
    picture=Path(snakemake.output.picture),
    table=Path(snakemake.output.table),
)
