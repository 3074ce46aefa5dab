"""Rule evaluate_epochs: hand the job's files and settings to the core."""

from wsss_core.base.jobs import log_to, pick_device

log_to(snakemake.log[0])  # before the imports below, so that a failing one is logged

from pathlib import Path

from wsss_core.classifiers.epochs import evaluate_epochs
from wsss_core.data import Classes, Manifest
from wsss_core.recipes.settings import MonitoringSettings, made
from wsss_core.scores.results import write_result

epochs = Path(snakemake.input.epochs)
scores = evaluate_epochs(
    checkpoints={"first": epochs / "first.pt", "middle": epochs / "middle.pt", "last": Path(snakemake.input.model)},
    manifest=Manifest.read(snakemake.input.manifest),
    classes=Classes.read(snakemake.input.classes),
    settings=made(MonitoringSettings, snakemake.params.settings["monitoring"]),
    crop=snakemake.params.crop,
    device=pick_device(snakemake.resources.get("gpu", 0)),
    workers=snakemake.threads - 1,
)
write_result(
    snakemake.output.result,
    scores,
    stage="priors_by_epoch",
    **dict(snakemake.wildcards.items()),
    split=snakemake.params.subset,
    image_level_labels_used=True,
    settings={"crop": snakemake.params.crop, **snakemake.params.settings["monitoring"]},
    made_with=snakemake.params.get("made_with"),
    seed=snakemake.params.seed,
    revision=snakemake.params.revision,
)
