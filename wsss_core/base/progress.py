"""Progress of a job in its log."""

import logging
from collections.abc import Iterable

logger = logging.getLogger(__name__)


def count_progress(results: Iterable[object], total: int) -> None:
    """Run through an iterable of finished images with some twenty log lines."""
    every = max(1, total // 20)
    for done, _ in enumerate(results, start=1):
        if done % every == 0:
            logger.info("%d of %d images", done, total)
