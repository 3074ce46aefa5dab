"""Rule draw_predictions: hand the job's files and settings to the core."""

from wsss_core.base.jobs import log_to

log_to(snakemake.log[0])  # before the imports below, so that a failing one is logged

from pathlib import Path

from wsss_core.data import Classes, Manifest
from wsss_core.reports.pictures import TRUTH, draw_sheet, mask_panel, picture_panel, truth_panel

classes = Classes.read(snakemake.input.classes)
draw_sheet(
    manifest=Manifest.read(snakemake.input.manifest),
    panels={
        "picture": picture_panel,
        "prediction": mask_panel(Path(snakemake.input.masks), classes),
        TRUTH: truth_panel(classes),
    },
    output=Path(snakemake.output[0]),
    count=snakemake.params.images,
)
