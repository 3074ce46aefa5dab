"""Rule make_demo: hand the job's files and settings to the core."""

from wsss_core.base.jobs import log_to

log_to(snakemake.log[0])  # before the imports below, so that a failing one is logged

from pathlib import Path

from wsss_core.base.files import whole
from wsss_core.data.kinds.demo import make_demo

with whole(snakemake.output.folder) as folder:
    make_demo(folder=Path(folder), **snakemake.params.declared)
