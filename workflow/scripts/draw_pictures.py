"""Rule draw_pictures: hand the job's files and settings to the core."""

from wsss_core.base.jobs import log_to

log_to(snakemake.log[0])  # before the imports below, so that a failing one is logged

from pathlib import Path

from wsss_core.data import Classes, Manifest
from wsss_core.maps.store import MapStore
from wsss_core.reports.pictures import cam_panel, draw_sheet, grey_panel, mask_panel, picture_panel, truth_panel

classes = Classes.read(snakemake.input.classes)
panels = {"picture": picture_panel, "CAM": cam_panel(MapStore(snakemake.input.cams), classes)}
if snakemake.input.saliency:
    panels |= {
        "C2AM": grey_panel(Path(snakemake.input.coarse)),
        "PoolNet": grey_panel(Path(snakemake.input.saliency)),
    }
draw_sheet(
    manifest=Manifest.read(snakemake.input.manifest),
    panels=panels
    | {
        "affinity labels": mask_panel(Path(snakemake.input.affinity_labels), classes),
        "pseudo mask": mask_panel(Path(snakemake.input.pseudo_masks), classes),
        "truth": truth_panel(classes),
    },
    output=Path(snakemake.output[0]),
    count=snakemake.params.images,
)
