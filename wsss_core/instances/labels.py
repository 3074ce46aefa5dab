"""Which instances of the training images a detector learns from."""

from itertools import starmap
from pathlib import Path
from typing import Any

import numpy as np

from wsss_core.base.files import whole
from wsss_core.base.progress import count_progress
from wsss_core.data.classes import DataError
from wsss_core.data.manifest import Manifest
from wsss_core.instances.store import Instances, InstanceStore, InstanceWriter
from wsss_core.recipes.settings import InstanceLabelSettings, identity


def make_instance_labels(
    *,
    manifest: Manifest,
    instances: InstanceStore,
    store: Path,
    settings: InstanceLabelSettings,
    about: dict[str, Any],
) -> None:
    """Store those of a split's instances that are sure enough and of a class that their image is labelled with.

    An image may be left without any; no detector learns from it.

    Raises:
        DataError: no image has one.
    """
    instances.check(manifest)
    about = {**about, "settings": identity(settings), "source": str(instances.path)}
    with whole(store) as folder, InstanceWriter(folder, manifest, about=about) as out:
        pairs = ((row.id, sure(instances[row.id], row.labels, settings.score)) for row in manifest)
        count_progress(starmap(out.write, pairs), len(manifest))
        if not out.count:
            raise DataError(
                f"{instances.path}: no instance of its {len(manifest)} images has a score of {settings.score} or more "
                "and a class of its image: set instances.labels.score lower, or look at what made them"
            )


def sure(instances: Instances, labels: tuple[int, ...], score: float) -> Instances:
    """Those with this score or more, a class among the labels, and a pixel."""
    return instances.kept((instances.scores >= score) & np.isin(instances.labels, labels) & (instances.areas > 0))
