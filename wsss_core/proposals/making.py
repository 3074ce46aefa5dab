"""The proposals of a split, as a store of instances of no class."""

from collections.abc import Callable, Mapping
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from wsss_core.base.files import whole
from wsss_core.base.jobs import Share
from wsss_core.base.parallel import in_processes
from wsss_core.base.progress import with_progress
from wsss_core.data.manifest import Manifest, Row
from wsss_core.data.pictures import read_picture
from wsss_core.instances.store import Instances, InstanceWriter
from wsss_core.maps.memory import processes_for
from wsss_core.proposals.files import find_file, read_proposals
from wsss_core.proposals.grouping import group_superpixels
from wsss_core.recipes.kinds import ProposalSettings
from wsss_core.recipes.settings import GroupingSettings, identity, made

# What a store says that its proposals were learnt from, and with it every result that is made of them.
NOTHING = "nothing: the pictures themselves"
PUBLISHED = "segments of PASCAL-Context (the borders of COB) or of VOC 2012 (the ranking of MCG)"


def import_proposals(
    *,
    manifest: Manifest,
    folder: Path,
    store: Path,
    limit: int,
    supervision: str = PUBLISHED,
    about: dict[str, Any],
    workers: int | Share = 1,
) -> None:
    """Store the proposals of all images from files, see ``files.read_proposals``.

    Args:
        folder: with a file an image, see ``files.NAMES``.
        limit: most proposals an image.
        supervision: what the masks were learnt from, to be told with every result.
        about: plain values to keep with the store (data set, ...).
        workers: processes.

    Raises:
        DataError: an image without a file, a damaged one, or masks of another size.
    """
    about = about | {"limit": limit, "supervision": supervision}
    _write(manifest, store, partial(_imported, folder=folder, limit=limit), about, workers)


def make_proposals(
    *,
    manifest: Manifest,
    store: Path,
    settings: GroupingSettings,
    about: dict[str, Any],
    workers: int | Share = 1,
) -> None:
    """Store proposals of our own of all images, see ``grouping``.

    Args:
        about: plain values to keep with the store.
        workers: processes.
    """
    make = partial(_grouped, settings=settings)
    about = about | {"settings": identity(settings), "supervision": NOTHING}
    _write(manifest, store, make, about, workers)


def make_declared_proposals(
    *,
    declared: Mapping[str, Any],
    folder: Path | None,
    manifest: Manifest,
    store: Path,
    about: dict[str, Any],
    workers: int | Share = 1,
) -> None:
    """Store the proposals that a data set declares, read from files or made.

    Args:
        declared: what decides about them (``kinds.proposals_declared``).
        folder: of the files, for those of kind ``files``.
    """
    settings = made(ProposalSettings, declared)
    if settings.kind == "grouping":
        grouping = GroupingSettings(**{field.name: getattr(settings, field.name) for field in fields(GroupingSettings)})
        make_proposals(manifest=manifest, store=store, settings=grouping, about=about, workers=workers)
        return
    assert folder is not None  # the plan has seen to it
    import_proposals(
        manifest=manifest,
        folder=folder,
        store=store,
        limit=settings.limit,
        supervision=settings.supervision or PUBLISHED,
        about=about,
        workers=workers,
    )


def _write(
    manifest: Manifest,
    store: Path,
    make: Callable[[Row], tuple[str, Instances]],
    about: dict[str, Any],
    workers: int | Share,
) -> None:
    workers = processes_for("make_proposals", manifest, workers)
    with whole(store) as unfinished, InstanceWriter(unfinished, manifest, about=about) as out:
        for image_id, instances in with_progress(in_processes(make, manifest.rows, workers), len(manifest)):
            out.write(image_id, instances)


def _imported(row: Row, *, folder: Path, limit: int) -> tuple[str, Instances]:
    return row.id, read_proposals(find_file(folder, row.id), (row.height, row.width), limit)


def _grouped(row: Row, *, settings: GroupingSettings) -> tuple[str, Instances]:
    return row.id, group_superpixels(np.asarray(read_picture(row)), settings)
