"""Rule fetch_weights: hand the job's files and settings to the core."""

from wsss_core.base.jobs import log_to

log_to(snakemake.log[0])  # before the imports below, so that a failing one is logged

from wsss_core.networks.backbones import fetch_pretrained

fetch_pretrained(snakemake.wildcards.backbone, snakemake.output.weights)
