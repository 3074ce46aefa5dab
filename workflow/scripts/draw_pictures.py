"""Rule draw_pictures: hand the job's files and settings to the core."""

from wsss_core.base.jobs import log_to

log_to(snakemake.log[0])  # before the imports below, so that a failing one is logged

from pathlib import Path

from wsss_core.data import Classes, Manifest
from wsss_core.maps.store import MapStore
from wsss_core.reports.pictures import TRUTH, cam_panel, draw_sheet, grey_panel, mask_panel, picture_panel, truth_panel

classes = Classes.read(snakemake.input.classes)
grey = {"C2AM": snakemake.input.coarse, "PoolNet": snakemake.input.saliency}
masks = {"affinity labels": snakemake.input.affinity_labels, "pseudo mask": snakemake.input.pseudo_masks}
draw_sheet(
    manifest=Manifest.read(snakemake.input.manifest),
    panels={
        "picture": picture_panel,
        "CAM": cam_panel(MapStore(snakemake.input.cams), classes),
        **{name: grey_panel(Path(folder)) for name, folder in grey.items() if folder},
        **{name: mask_panel(Path(folder), classes) for name, folder in masks.items() if folder},
        TRUTH: truth_panel(classes),
    },
    output=Path(snakemake.output[0]),
    count=snakemake.params.images,
)
