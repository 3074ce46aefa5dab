"""Progress of a job in its log."""

import logging
from collections.abc import Iterable, Iterator
from typing import TypeVar

logger = logging.getLogger(__name__)

Item = TypeVar("Item")


def count_progress(results: Iterable[object], total: int) -> None:
    """Run through an iterable of finished images with some twenty log lines."""
    for _ in with_progress(results, total):
        pass


def with_progress(items: Iterable[Item], total: int) -> Iterator[Item]:
    """The same items, an image each, with some twenty log lines on the way."""
    every = max(1, total // 20)
    for done, item in enumerate(items, start=1):
        yield item
        if done % every == 0:
            logger.info("%d of %d images", done, total)
