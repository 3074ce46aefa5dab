"""What CIM's network says of the proposals of a split."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from wsss_core.base.files import whole
from wsss_core.base.progress import with_progress
from wsss_core.cim.network import CimNetwork
from wsss_core.cim.score_store import write_scores
from wsss_core.cim.views import view
from wsss_core.data.manifest import Manifest
from wsss_core.data.pictures import read_picture
from wsss_core.data.samples import network_input
from wsss_core.fitting.precision import Precision
from wsss_core.instances.store import InstanceStore
from wsss_core.recipes.settings import ProposalScoreSettings, identity


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
    scores = with_progress(_scores(model, manifest, found, settings, device, workers), len(manifest))
    with whole(store) as partial:
        write_scores(partial, manifest, found, scores, classes=model.columns - 1, about=about)


@torch.inference_mode()
def _scores(
    model: CimNetwork,
    manifest: Manifest,
    proposals: InstanceStore,
    settings: ProposalScoreSettings,
    device: torch.device,
    workers: int,
) -> Iterator[tuple[str, np.ndarray]]:
    model.to(device).to(memory_format=torch.channels_last).eval()
    precision = Precision(settings.precision, device)
    pictures = DataLoader(
        _Views(manifest, proposals, settings), batch_size=None, num_workers=workers, pin_memory=device.type == "cuda"
    )
    for row, views in zip(manifest.rows, pictures, strict=True):
        total = torch.zeros(len(views[0]["boxes"]), model.columns - 1, device=device)
        if len(total):
            for shown in views:
                pixels, boxes, crops = (
                    shown[name].to(device, non_blocking=True) for name in ("pixels", "boxes", "crops")
                )
                # cuDNN would look for its fastest kernels at each of the many sizes anew, for longer than these save
                with precision.autocast(), torch.backends.cudnn.flags(enabled=True, benchmark=False):
                    total += model(network_input(pixels[None]), boxes, crops).final()
        yield row.id, (total / len(views)).cpu().numpy()


class _Views(Dataset):
    def __init__(self, manifest: Manifest, proposals: InstanceStore, settings: ProposalScoreSettings):
        self.rows, self.proposals, self.settings = manifest.rows, proposals, settings

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> list[dict[str, Tensor]]:
        row = self.rows[index]
        pixels, found = np.asarray(read_picture(row)), self.proposals[row.id]
        mirrors = (False, True) if self.settings.mirror else (False,)
        return [view(pixels, found, side, mirror) for side in self.settings.longer_sides for mirror in mirrors]
