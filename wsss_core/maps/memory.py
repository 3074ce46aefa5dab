"""What the stages without a network take of memory, and how many processes of a job fit into what it asked for.

The bytes were measured on photos of 12 megapixels (docs/scale.md, Memory). The share of the CRF is bounded by
``crf.WHOLE_BYTES``, and photos by a data set's ``longest_side``, so that one process fits into what rules ask for.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from wsss_core.base.jobs import Share
from wsss_core.data.classes import DataError
from wsss_core.data.manifest import Manifest, Row
from wsss_core.maps.crf import crf_bytes

logger = logging.getLogger(__name__)

MB = 10**6


@dataclass(frozen=True, kw_only=True)
class Need:
    """Memory of a stage.

    Attributes:
        job: MB beside its processes: libraries, a network and what it makes of a tile.
        process: MB of a process before it sees a picture.
        pixel: bytes a pixel, times the sum of the scales' squares.
        label: bytes a pixel and class of the image.
        score: bytes a pixel and class of the data set, times the sum of the scales' squares.
        crf: (labels of the image, classes of the data set) -> labels that compete in the CRF; None without one.
        compared: the pixels are those of the photo's own size, which scores compare at.
    """

    job: int = 300
    process: int = 120
    pixel: int
    label: int = 0
    score: int = 0
    crf: Callable[[int, int], int] | None = None
    compared: bool = False

    def of(self, row: Row, classes: int, scales: Sequence[float]) -> float:
        """MB of a process for this image."""
        height, width = row.own_size if self.compared else (row.height, row.width)
        scaled = (self.pixel + self.score * classes) * sum(scale**2 for scale in scales)
        kernels = crf_bytes(row.height * row.width, self.crf(len(row.labels), classes)) if self.crf else 0
        return self.process + (height * width * (scaled + self.label * len(row.labels)) + kernels) / MB


def _two(labels: int, classes: int) -> int:
    return 2


def _of_image(labels: int, classes: int) -> int:
    return max(2, labels + 1)


def _all(labels: int, classes: int) -> int:
    return classes + 1


# A process that decodes for a network has one image in work, two that wait, and the network has one.
DECODING = Need(job=2500, pixel=12)
NEEDS = {  # by rule
    "dump_cams": DECODING,
    "dump_c2am_maps": DECODING,
    "walk_cams": DECODING,
    "make_saliency_masks": Need(pixel=12, crf=_two),
    "make_affinity_labels": Need(pixel=32, label=13, crf=_of_image),
    "make_pseudo_masks": Need(pixel=34, label=5, crf=_of_image),
    # PoolNet sees whole photos, of its ``longest_side`` at most; on a GPU they have to fit into its memory. Its process
    # has 68 million parameters, and for a training their gradients and Adam's two means.
    "train_poolnet": Need(job=0, process=1200, pixel=5000),
    "predict_saliency": Need(job=0, process=400, pixel=1800),
    "make_proposals": Need(process=230, pixel=155),
    "make_proposal_labels": Need(pixel=400),  # with 200 proposals, the most that data sets here have
    "check_health": Need(pixel=22, label=5),
    "make_components": Need(pixel=20, label=3),
    "predict_masks": Need(job=2500, pixel=3, score=1, crf=_all),
    "evaluate_cams": Need(pixel=14, label=6, compared=True),
    "evaluate_saliency": Need(pixel=32, label=13, compared=True),
    "evaluate_saliency_gt": Need(pixel=50, crf=_two, compared=True),
    "evaluate_pseudo_masks": Need(pixel=50, label=5, crf=_of_image, compared=True),
    "evaluate_segmentation": Need(pixel=18, compared=True),
}


def processes_for(
    rule: str, manifest: Manifest, share: int | Share, *, classes: int = 0, scales: Sequence[float] = (1.0,)
) -> int:
    """Processes of a job, at most a thread each, that fit into its memory with the largest picture each.

    They change the speed alone. Where a network runs, the job itself is one of them.

    Args:
        share: of the machine; a number of processes stays what it is.
        classes: number of classes of the data set, where all of them compete in a CRF.
        scales: those at which images are looked at.

    Raises:
        DataError: not even one process fits, with the image and the way out.
    """
    if not isinstance(share, Share):
        return share
    need, mem_mb = NEEDS[rule], share.mem_mb
    most, row = max(((need.of(row, classes, scales), row) for row in manifest.rows), key=lambda found: found[0])
    fitting = int((mem_mb - need.job) // most)
    alone = 500 + most  # libraries and one process, which runs the network and the CRF in turn
    if alone > mem_mb:
        height, width = row.own_size
        asked = f"{alone:.0f}"
        raise DataError(
            f"{row.image} of {width} x {height} pixels needs {asked} MB in {rule}, which has {mem_mb:.0f}: set "
            f"longest_side of the data set, such as 1024, or --set-resources {rule}:mem_mb={asked}"
        )
    processes = max(1, min(share.threads, fitting))
    if processes < share.threads:
        logger.info("%d processes in place of %d: image %s takes %.0f MB each", processes, share.threads, row.id, most)
    return processes - (need is DECODING)
