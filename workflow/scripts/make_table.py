"""Rule make_table: hand the job's files and settings to the core."""

from wsss_core.base.jobs import log_to

log_to(snakemake.log[0])  # before the imports below, so that a failing one is logged

from pathlib import Path

from wsss_core.reports.paper_tables import make_table

make_table(
    resolved=snakemake.params.resolved,
    dataset=snakemake.wildcards.dataset,
    kind=snakemake.params.kind,
    output=Path(snakemake.output.output),
    table=Path(snakemake.output.table),
)
