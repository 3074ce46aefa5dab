"""Instances of a split as IRNet makes them: class maps, cut by the displacements, walk up to the edges."""

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from wsss_core.affinity.network import AffinityNet
from wsss_core.affinity.pseudo_masks import MAP_STRIDE
from wsss_core.affinity.random_walk import random_walk
from wsss_core.affinity.walk import _Padded, walk_start
from wsss_core.base.files import whole
from wsss_core.data.classes import Classes
from wsss_core.data.manifest import Manifest, Row
from wsss_core.data.mask_folder import png_of, read_folder_mask
from wsss_core.data.masks import COMPRESS_LEVEL
from wsss_core.instances.displacement import Best, find_centroids, instance_map
from wsss_core.instances.store import InstanceWriter, instances_of
from wsss_core.maps.inference import image_by_image, scaled_batches
from wsss_core.maps.sizes import enlarge
from wsss_core.maps.store import MapStore
from wsss_core.recipes.settings import IrnSettings, WalkSettings, identity

WALKS_AT_ONCE = 64  # maps of an image that walk together; a bound of memory, however many instances there are

Objects = tuple[np.ndarray, np.ndarray, np.ndarray]  # scores, labels, masks


def dump_irn_instances(
    *,
    model: AffinityNet,
    cams: MapStore,
    manifest: Manifest,
    store: Path,
    settings: IrnSettings,
    walk: WalkSettings,
    about: dict,
    device: torch.device,
    workers: int = 0,
) -> None:
    """Store the instances of every image, of the classes that it is labelled with.

    Args:
        model: with a displacement branch; one without it is a ValueError.
        store: path of the store of instances to create, see ``instances.store``.
        walk: of each instance; that of the images' class maps (``affinity.walk.walk_cams``), its padding included.
    """
    about = {**about, "settings": identity(settings), "walk": identity(walk), "source": str(cams.path)}
    with whole(store) as folder, InstanceWriter(folder, manifest, about=about) as out:
        for row, edge, displacement in _fields(model, manifest, walk, device, workers):
            labels, maps = cams[row.id]
            start = walk_start(maps, row.height, row.width) ** (walk.power or 1.0)
            scores, found, masks = irn_objects(
                start, labels, edge, displacement, (row.height, row.width), settings, walk
            )
            out.write(row.id, instances_of(masks, found, scores))


def irn_objects(
    start: Tensor,
    labels: Sequence[int] | np.ndarray,
    edge: Tensor,
    displacement: np.ndarray,
    size: tuple[int, int],
    settings: IrnSettings,
    walk: WalkSettings,
) -> Objects:
    """The objects of one image: ``split_by_instance``, the random walk of each map, ``finish_maps`` and ``detect``.

    The same as these one after the other, without holding all maps at once: a field without order has thousands of
    instances. Of what a class has nowhere in an instance, nothing walks, as it can win no pixel.

    Args:
        start: (K, h, w) class maps at stride 4 that the walk starts from.
        labels: (K,) their classes.
        edge: (h, w) in [0, 1], on the device that the walk is to run on.
        displacement: (2, h, w).
        size: height and width of the image.

    Returns:
        as ``detect``.
    """
    centroids = find_centroids(displacement, settings.iterations)
    instances = torch.from_numpy(instance_map(centroids, displacement, settings.threshold))
    count = int(instances.max()) + 1
    pairs = ((k, n) for k, map_ in enumerate(start) for n in instances[map_ > 0].unique().tolist())
    best = Best(*size)
    while some := list(islice(pairs, WALKS_AT_ONCE)):
        maps = torch.stack([start[k] * (instances == n) for k, n in some]).to(edge.device)
        walked = random_walk(maps, edge, walk.radius, walk.beta, walk.squarings).cpu().numpy().astype(np.float64)
        for (k, n), map_ in zip(some, walked, strict=True):
            best.add(k * count + n, enlarge(map_[None], MAP_STRIDE, *size)[0])
    return best.objects(np.repeat(np.asarray(labels, np.int64), count), settings.background, settings.smallest)


def dump_instance_maps(
    *,
    model: AffinityNet,
    manifest: Manifest,
    folder: Path,
    settings: IrnSettings,
    walk: WalkSettings,
    device: torch.device,
    masks: Path | None = None,
    classes: Classes | None = None,
    workers: int = 0,
) -> None:
    """Write the class-agnostic instances of every image, as PNG of 16 bits at the image's size.

    A pixel holds the number of its instance from 1, the same in all of its cell of stride 4.

    Args:
        walk: its padding before the network alone.
        masks: folder of masks of ``classes``; where they are background, pixels are 0. None leaves all pixels in.
    """
    with whole(folder) as partial_folder:
        partial_folder.mkdir()
        for row, _, displacement in _fields(model, manifest, walk, device, workers):
            instances = instance_map(
                find_centroids(displacement, settings.iterations), displacement, settings.threshold
            )
            numbers = (instances + 1).repeat(MAP_STRIDE, 0).repeat(MAP_STRIDE, 1)[: row.height, : row.width]
            if masks is not None and classes is not None:
                numbers *= read_folder_mask(row, folder=masks, classes=classes) > 0
            if numbers.max() >= 2**16:
                raise ValueError(f"image {row.id} has {numbers.max()} instances, more than a PNG of 16 bits can number")
            path = png_of(partial_folder, row.id)
            Image.fromarray(numbers.astype(np.uint16)).save(path, format="PNG", compress_level=COMPRESS_LEVEL)


def _fields(
    model: AffinityNet, manifest: Manifest, walk: WalkSettings, device: torch.device, workers: int
) -> Iterator[tuple[Row, Tensor, np.ndarray]]:
    """Each image's row, edges (h, w) on the device, and displacements (2, h, w), in the manifest's order."""
    padded = _Padded(_Both(model), walk.padding, swapped=walk.swapped_padding)  # type: ignore[arg-type]
    batches = scaled_batches(padded, manifest, (1.0,), _joined, device, workers)
    for row, (output,) in image_by_image(batches, manifest):
        yield row, torch.sigmoid(output[0]), output[1:].cpu().numpy()


def _joined(ahead: Tensor, back: Tensor) -> Tensor:
    """The mirror image has a part in the edges, as in ``walk_cams``, but none in the displacements."""
    return torch.cat([(ahead[:, :1] + back[:, :1]) / 2, ahead[:, 1:]], dim=1)


class _Both(nn.Module):
    """Edge logits and displacements as one output of three channels."""

    def __init__(self, model: AffinityNet):
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat(self.model.both(x), dim=1)
