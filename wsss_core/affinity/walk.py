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
from wsss_core.base.jobs import Share
from wsss_core.data.manifest import Manifest
from wsss_core.maps.inference import image_by_image, normalize_cam, scaled_batches
from wsss_core.maps.memory import processes_for
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
    workers: int | Share = 0,
) -> None:
    """Spread every image's CAMs by a random walk that edges hold back, and store the result at stride 4.

    Images are padded to ``settings.padding`` before the edge network; see ``random_walk.random_walk`` for the rest.
    """
    workers = processes_for("walk_cams", manifest, workers)
    padded = _Padded(model, settings.padding, swapped=settings.swapped_padding)
    # the mirror image's logits are averaged with the image's before the sigmoid, as in IRNet
    batches = scaled_batches(padded, manifest, (1.0,), lambda a, b: (a + b) / 2, device, workers, tiled=False)
    outputs = image_by_image(batches, manifest)
    power = settings.power or 1.0
    about = {**about, "settings": identity(settings), "source": str(cams.path)}
    with (
        whole(store) as folder,
        MapWriter(
            folder,
            manifest,
            stride=MAP_STRIDE,
            classwise=True,
            about=about,
            multiple=MAP_STRIDE,  # the edges' grid
        ) as out,
    ):
        while batch := list(islice(outputs, WALKS_AT_ONCE)):
            edges = [torch.sigmoid(edge_logits[0]) for _, (edge_logits,) in batch]
            maps = [walk_start(cams[row.id][1], row.height, row.width).to(device) ** power for row, _ in batch]
            walks = random_walks(maps, edges, settings.radius, settings.beta, settings.squarings)
            for (row, _), walked in zip(batch, walks, strict=True):
                # Only the ratios of an image's maps matter from here on; the scale keeps them in float16's range.
                peak = walked.max() if row.labels else 0
                out.append(row.id, (walked / (peak + 1e-5)).cpu().numpy())


def walk_start(maps: np.ndarray, height: int, width: int) -> Tensor:
    """What the published code walks from: maps of ceil(side / 4) cells, each divided by its maximum + 1e-5.

    It resizes a network's maps to these cells as it does to the next multiples of 16, so they stretch what there is of
    the larger image over the image; so does this, from the grid of a store.

    Args:
        maps: (C, h, w) floats of an image of (height, width), as a store holds them at any stride.
    """
    size = strided(height, MAP_STRIDE), strided(width, MAP_STRIDE)
    if not len(maps):  # interpolation refuses to resize nothing
        return torch.zeros(0, *size)
    return normalize_cam(F.interpolate(torch.from_numpy(maps)[None], size, mode="bilinear", align_corners=False)[0])


class _Padded(torch.nn.Module):
    """Edge logits of images that are first padded bottom/right for a side, cropped to the images' own grid.

    The width grows by what it lacks of ``side``, or, ``swapped``, by what the height lacks; and the reverse. Larger
    images are not cropped, which IRNet's code does.
    """

    def __init__(self, model: AffinityNet, side: int, *, swapped: bool):
        super().__init__()
        self.model, self.side, self.swapped = model, side, swapped

    def forward(self, x: Tensor) -> Tensor:
        h, w = x.shape[2:]
        right, bottom = (max(0, self.side - length) for length in ((h, w) if self.swapped else (w, h)))
        padded = F.pad(x, (0, right, 0, bottom))
        return self.model(padded)[:, :, : strided(h, MAP_STRIDE), : strided(w, MAP_STRIDE)]
