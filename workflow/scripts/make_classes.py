"""Rule make_classes: hand the job's files and settings to the core."""

from wsss_core.base.jobs import log_to

log_to(snakemake.log[0])  # before the imports below, so that a failing one is logged

from wsss_core.data.kinds import declared_classes

declared_classes(snakemake.params.declared).write(snakemake.output.classes)
