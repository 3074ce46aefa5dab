"""The random walk over the CAMs of a split."""

from itertools import islice
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from wsss_core.affinity.network import AffinityNet
from wsss_core.affinity.pseudo_masks import MAP_STRIDE
from wsss_core.affinity.random_walk import random_walks
from wsss_core.base.files import whole
from wsss_core.data.manifest import Manifest, Row
from wsss_core.maps.inference import image_by_image, scaled_batches
from wsss_core.maps.sizes import strided
from wsss_core.maps.store import MapStore, MapWriter
from wsss_core.recipes.settings import WalkSettings, identity

WALKS_AT_ONCE = 16  # images whose walks share threads or a card; it changes the speed alone


def walk_cams(
    *,
    model: AffinityNet,
    manifest: Manifest,
    cams: MapStore,
    store: Path,
    settings: WalkSettings,
    about: dict,
    device: torch.device,
    workers: int = 0,
) -> None:
    """Spread every image's CAMs by a random walk that edges hold back, and store the result at stride 4.

    Images are padded to ``settings.padding`` before the edge network; see ``random_walk.random_walk`` for the rest.
    """
    padded = _Padded(model, settings.padding)
    # the mirror image's logits are averaged with the image's before the sigmoid, as in IRNet
    batches = scaled_batches(padded, manifest, (1.0,), lambda a, b: (a + b) / 2, device, workers)
    outputs = image_by_image(batches, manifest)
    about = {**about, "settings": identity(settings), "source": str(cams.path)}
    with (
        whole(store) as folder,
        MapWriter(folder, manifest, stride=MAP_STRIDE, classwise=True, about=about) as out,
    ):
        while batch := list(islice(outputs, WALKS_AT_ONCE)):
            edges = [torch.sigmoid(edge_logits[0]) for _, (edge_logits,) in batch]
            maps = [torch.from_numpy(_at_walk_stride(cams, row)).to(device) for row, _ in batch]
            walks = random_walks(maps, edges, settings.radius, settings.beta, settings.squarings)
            for (row, _), walked in zip(batch, walks, strict=True):
                # Only the ratios of an image's maps matter from here on; the scale keeps them in float16's range.
                peak = walked.max() if row.labels else 0
                out.append(row.id, (walked / (peak + 1e-5)).cpu().numpy())


def _at_walk_stride(cams: MapStore, row: Row) -> np.ndarray:
    _, maps = cams[row.id]
    size = strided(row.height, MAP_STRIDE), strided(row.width, MAP_STRIDE)
    if not len(maps):  # interpolation refuses to resize nothing
        return np.zeros((0, *size), np.float32)
    if maps.shape[1:] == size:
        return maps
    return F.interpolate(torch.from_numpy(maps)[None], size, mode="bilinear", align_corners=False)[0].numpy()


class _Padded(torch.nn.Module):
    """Edge logits of images that are first padded bottom/right to at least ``side``, cropped to their own grid."""

    def __init__(self, model: AffinityNet, side: int):
        super().__init__()
        self.model, self.side = model, side

    def forward(self, x: Tensor) -> Tensor:
        h, w = x.shape[2:]
        padded = F.pad(x, (0, max(0, self.side - w), 0, max(0, self.side - h)))
        return self.model(padded)[:, :, : strided(h, MAP_STRIDE), : strided(w, MAP_STRIDE)]
