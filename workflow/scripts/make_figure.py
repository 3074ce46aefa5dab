"""Rule plot_curves: hand the job's files and settings to the core."""

from wsss_core.base.jobs import log_to

log_to(snakemake.log[0])  # before the imports below, so that a failing one is logged

from pathlib import Path

from wsss_core.reports.pictures import plot_curves

plot_curves(
    curves={name: Path(path) for name, path in zip(snakemake.params.names, snakemake.input, strict=True)},
    picture=Path(snakemake.output.picture),
    table=Path(snakemake.output.table),
)
