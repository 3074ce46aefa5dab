"""What CIM's network says of the proposals of a split."""

import hashlib
import logging
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from wsss_core.base.files import whole
from wsss_core.base.jobs import digest_of
from wsss_core.base.parts import Parts
from wsss_core.base.progress import with_progress
from wsss_core.cim.network import CimNetwork, memory_for
from wsss_core.cim.score_store import write_scores
from wsss_core.cim.views import view
from wsss_core.data.manifest import Manifest, Row
from wsss_core.data.pictures import read_picture
from wsss_core.data.samples import network_input
from wsss_core.fitting.precision import Precision
from wsss_core.instances.store import InstanceStore
from wsss_core.recipes.revisions import REVISION
from wsss_core.recipes.settings import ProposalScoreSettings, identity

logger = logging.getLogger(__name__)

PART = 256  # images whose scores are kept together, for a job that goes on where another one was killed


def score_proposals(
    *,
    model: CimNetwork,
    manifest: Manifest,
    proposals: Path,
    store: Path,
    settings: ProposalScoreSettings,
    about: dict[str, Any],
    device: torch.device,
    workers: int = 0,
) -> None:
    """Store the scores of all proposals; labels of the images are not used.

    A score is the mean of classification times integrity over the refinement branches, and that is averaged over all
    sizes of the picture and of its mirror image. A proposal keeps its mask.

    What is done is kept beside the store until that is whole, and a job that was killed goes on from there, if neither
    network nor proposals nor settings have changed.

    Args:
        proposals: store of the manifest's proposals; an image may have none.
        store: the store to create, see ``cim.score_store``.
        about: plain values to keep with it (run, data set, ...).
        workers: processes that decode and resize pictures; they change the speed alone.

    Raises:
        StoreError: the proposals were made from another manifest, or are damaged.
        FloatingPointError: a score is no number.
    """
    found = InstanceStore(proposals)
    found.check(manifest)
    about = {**about, "settings": identity(settings)}
    parts = Parts(store, _digest(model, manifest, found, settings))
    with whole(store) as partial:
        scores = with_progress(_resumed(parts, model, manifest, found, settings, device, workers), len(manifest))
        write_scores(partial, manifest, found, scores, classes=model.columns - 1, about=about)
    parts.forget()


def _digest(model: CimNetwork, manifest: Manifest, proposals: InstanceStore, settings: ProposalScoreSettings) -> str:
    weights = hashlib.sha256()
    for value in model.state_dict().values():
        weights.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    made_of = (weights.hexdigest(), manifest.digest(), proposals.digest(), identity(settings))
    return digest_of(REVISION["score_proposals"], *made_of, PART)


def _resumed(
    parts: Parts,
    model: CimNetwork,
    manifest: Manifest,
    proposals: InstanceStore,
    settings: ProposalScoreSettings,
    device: torch.device,
    workers: int,
) -> Iterator[tuple[str, np.ndarray]]:
    """Id and scores of each image: first those of the parts that there are, then those that the network makes."""
    groups, done = [manifest.rows[begin : begin + PART] for begin in range(0, len(manifest), PART)], len(parts)
    if done:
        logger.info("going on after %d of %d images", sum(map(len, groups[:done])), len(manifest))
    for number, rows in enumerate(groups[:done]):
        ends = np.cumsum([proposals.count(row.id) for row in rows])
        yield from zip([row.id for row in rows], np.split(parts[number], ends[:-1]), strict=True)
    left = [row for rows in groups[done:] for row in rows]
    scores = _scores(model, left, proposals, settings, device, workers)
    for number, rows in enumerate(groups[done:], start=done):
        found = []
        for one in islice(scores, len(rows)):
            found.append(one[1])
            yield one
        parts.write(number, np.concatenate(found))  # not before the store has taken them, which looks at their values


@torch.inference_mode()
def _scores(
    model: CimNetwork,
    rows: Sequence[Row],
    proposals: InstanceStore,
    settings: ProposalScoreSettings,
    device: torch.device,
    workers: int,
) -> Iterator[tuple[str, np.ndarray]]:
    model.to(device).to(memory_format=torch.channels_last).eval()
    precision = Precision(settings.precision, device)
    pictures = DataLoader(
        _Views(rows, proposals, settings), batch_size=None, num_workers=workers, pin_memory=device.type == "cuda"
    )
    for row, views in zip(rows, pictures, strict=True):
        total = torch.zeros(len(views[0]["boxes"]), model.columns - 1, device=device)
        for shown in views if len(total) else []:
            pixels, boxes, crops = (shown[name].to(device, non_blocking=True) for name in ("pixels", "boxes", "crops"))
            # cuDNN would look for its fastest kernels at each of the many sizes anew, for longer than these save
            plain = torch.backends.cudnn.flags(enabled=True, benchmark=False)
            with memory_for(len(boxes)), precision.autocast(), plain:
                total += model(network_input(pixels[None]), boxes, crops).final()
        yield row.id, (total / len(views)).cpu().numpy()


class _Views(Dataset):
    def __init__(self, rows: Sequence[Row], proposals: InstanceStore, settings: ProposalScoreSettings):
        self.rows, self.proposals, self.settings = rows, proposals, settings

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> list[dict[str, Tensor]]:
        row = self.rows[index]
        pixels, found = np.asarray(read_picture(row)), self.proposals[row.id]
        mirrors = (False, True) if self.settings.mirror else (False,)
        return [view(pixels, found, side, mirror) for side in self.settings.longer_sides for mirror in mirrors]
