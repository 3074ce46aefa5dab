"""PoolNet's saliency, the final one, as a folder of PNG files."""

from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from wsss_core.base.files import whole
from wsss_core.base.jobs import Share
from wsss_core.base.progress import count_progress
from wsss_core.data.manifest import Manifest, Row
from wsss_core.data.mask_folder import png_of
from wsss_core.data.masks import write_grey
from wsss_core.data.pictures import read_picture
from wsss_core.maps.inference import named
from wsss_core.maps.memory import processes_for
from wsss_core.saliency.poolnet import PoolNet


@torch.inference_mode()
def predict_saliency(
    *, model: PoolNet, manifest: Manifest, folder: Path, device: torch.device, share: int | Share = 1
) -> None:
    """Write PoolNet's saliency of every image at the size to work at, 8 bit PNG of the probability.

    Photos that are larger than the network's ``longest_side`` are reduced to it, and their maps enlarged.
    """
    seen = manifest.limited(model.longest_side)
    if device.type == "cpu":
        processes_for("predict_saliency", seen, share)
    model.to(device).eval()
    with whole(folder) as partial_folder:
        partial_folder.mkdir()
        task = partial(_predict, model=model, folder=partial_folder, device=device)
        count_progress(map(task, manifest.rows, seen.rows), len(manifest))


def _predict(row: Row, seen: Row, *, model: PoolNet, folder: Path, device: torch.device) -> None:
    # one scale: the network was trained on whole images of any size
    rgb = torch.from_numpy(np.array(read_picture(seen))).permute(2, 0, 1)[None].to(device, torch.float32)
    with named(seen):
        saliency = model.saliency(rgb)
    if seen != row:
        saliency = F.interpolate(saliency, (row.height, row.width), mode="bilinear", align_corners=False)
    if not saliency.isfinite().all():  # it would be written as 0
        raise FloatingPointError(
            f"PoolNet's saliency of image {row.id} is not finite: delete its checkpoint, lower "
            "saliency.poolnet.learning_rate in config.yaml, and train it again"
        )
    write_grey(png_of(folder, row.id), (saliency[0, 0] * 255).round().to(torch.uint8).cpu().numpy())
