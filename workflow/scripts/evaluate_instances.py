"""Rule evaluate_instances: hand the job's files and settings to the core."""

from wsss_core.base.jobs import log_to

log_to(snakemake.log[0])  # before the imports below, so that a failing one is logged

from wsss_core.data import Classes, Manifest
from wsss_core.instances.store import InstanceStore
from wsss_core.recipes.settings import InstanceScoreSettings, made
from wsss_core.scores.instances import evaluate_instances
from wsss_core.scores.results import write_result

proposals = snakemake.input.get("proposals")
scores = evaluate_instances(
    manifest=Manifest.read(snakemake.input.manifest),
    classes=Classes.read(snakemake.input.classes),
    truth=InstanceStore(snakemake.input.truth),
    detections=InstanceStore(snakemake.input.instances),
    proposals=InstanceStore(proposals) if proposals else None,
    settings=made(InstanceScoreSettings, snakemake.params.settings["scores"]),
)
write_result(
    snakemake.output.result,
    scores,
    stage=snakemake.params.stage,
    **dict(snakemake.wildcards.items()),
    split=snakemake.params.subset,
    trained_on=snakemake.params.trained_on,  # instances of a run, or ground_truth; null of what trains nothing on them
    image_level_labels_used=snakemake.params.labels_used,
    settings=snakemake.params.settings,
    made_with=snakemake.params.get("made_with"),
    seed=snakemake.params.seed,
    revision=snakemake.params.revision,
)
