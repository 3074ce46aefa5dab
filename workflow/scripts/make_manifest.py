"""Rule make_manifest: hand the job's files and settings to the core."""

from wsss_core.base.jobs import log_to

log_to(snakemake.log[0])  # before the imports below, so that a failing one is logged

from wsss_core.data.kinds import declared_manifest

declared_manifest(
    snakemake.params.declared,
    subset=snakemake.wildcards.subset,
    root=snakemake.input.get("root"),
    workers=snakemake.threads,
).write(snakemake.output.manifest)
