"""Binary pseudo-saliency from the maps of C²AM."""

from functools import partial
from pathlib import Path

import numpy as np

from wsss_core.base.files import whole
from wsss_core.base.jobs import Share
from wsss_core.base.parallel import in_processes
from wsss_core.base.progress import count_progress
from wsss_core.data.manifest import Manifest, Row
from wsss_core.data.mask_folder import png_of
from wsss_core.data.masks import write_grey
from wsss_core.data.pictures import read_picture
from wsss_core.maps.crf import crf_labels
from wsss_core.maps.memory import processes_for
from wsss_core.maps.sizes import full_size
from wsss_core.maps.store import MapStore
from wsss_core.recipes.settings import SaliencyMaskSettings


def make_saliency_masks(
    *, manifest: Manifest, maps: MapStore, folder: Path, settings: SaliencyMaskSettings, workers: int | Share = 1
) -> None:
    """Write binary pseudo-saliency (PNG, 0 or 255) of every image: threshold, then any CRF with two labels."""
    workers = processes_for("make_saliency_masks", manifest, workers)
    with whole(folder) as partial_folder:
        partial_folder.mkdir()
        task = partial(_saliency_mask, maps=maps, folder=partial_folder, settings=settings)
        count_progress(in_processes(task, manifest.rows, workers), len(manifest))


def _saliency_mask(row: Row, *, maps: MapStore, folder: Path, settings: SaliencyMaskSettings) -> None:
    salient = np.zeros((row.height, row.width), np.uint8)
    if row.labels:  # an image without any class has no object that could be salient
        # resized maps are divided by their maximum, which the threshold is a share of
        salient = (full_size(maps, row.id)[1][0] > settings.threshold).astype(np.uint8)
        if crf := settings.crf:
            salient = crf_labels(np.asarray(read_picture(row)), salient, 2, crf.iterations, crf.confidence)
    write_grey(png_of(folder, row.id), salient * np.uint8(255))
