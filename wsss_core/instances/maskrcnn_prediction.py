"""Instances that a trained Mask R-CNN finds in photos, as a store."""

from collections.abc import Iterator
from itertools import starmap
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from pycocotools import mask as run_lengths
from torch.utils.data import DataLoader

from wsss_core.base.files import whole
from wsss_core.base.parallel import in_processes
from wsss_core.base.progress import count_progress
from wsss_core.data.manifest import Manifest, Row
from wsss_core.data.samples import ScaledImages
from wsss_core.instances.maskrcnn import MaskRCNN, resized, scaled_size
from wsss_core.instances.store import Instances, InstanceWriter, encoded_instances
from wsss_core.recipes.settings import MaskrcnnPredictionSettings, identity

INSIDE = 0.5  # probability from which a pixel belongs to an instance


class Found(NamedTuple):
    """What the network says of a photo: D instances.

    Attributes:
        boxes: (D, 4) float32 in the photo's pixels: x0, y0, x1, y1.
        labels: (D,) from 0.
        scores: (D,) in [0, 1], falling.
        masks: (D, 28, 28) float32, the probabilities of places in a box.
        offset: of these places, right and down, in the photo's pixels; see ``_found``.
    """

    row: Row
    boxes: np.ndarray
    labels: np.ndarray
    scores: np.ndarray
    masks: np.ndarray
    offset: tuple[float, float]


def predict_instances(
    *,
    model: MaskRCNN,
    manifest: Manifest,
    store: Path,
    settings: MaskrcnnPredictionSettings,
    about: dict[str, Any],
    device: torch.device,
    workers: int = 0,
) -> None:
    """Store the instances of every image; labels of the images are not used.

    One scale, no mirror image. Masks are brought to the image's own size and cut at 0.5; one without a pixel left is
    dropped.

    Args:
        store: the store to create, see ``instances.store``.
        about: plain values to keep with the store (run, data set, ...).
        workers: processes that cut masks; they change the speed alone.

    Raises:
        FloatingPointError: the network's features are not finite.
    """
    about = {**about, "settings": identity(settings)}
    with whole(store) as partial, InstanceWriter(partial, manifest, about=about) as out:
        found = in_processes(cut, _found(model, manifest, settings, device), workers)
        count_progress(starmap(out.write, found), len(manifest))


@torch.inference_mode()
def _found(
    model: MaskRCNN, manifest: Manifest, settings: MaskrcnnPredictionSettings, device: torch.device
) -> Iterator[Found]:
    """Run the network over the photos, ahead of the processes that cut the masks.

    In training, torchvision reads the true mask half a pixel of the resized picture right and below of where a place in
    a box lies (RoIAlign without ``aligned``), so what is learnt of a place belongs there.
    """
    model.to(device).to(memory_format=torch.channels_last).eval()
    heads = model.roi_heads
    heads.score_thresh, heads.nms_thresh, heads.detections_per_img = settings.score, settings.overlap, settings.limit
    photos = DataLoader(ScaledImages(manifest, [1.0]), batch_size=None, pin_memory=device.type == "cuda")
    for index, (pixels,) in photos:
        row = manifest.rows[index]
        h, w = scaled_size(row.height, row.width, model.shorter_side, model.longest_side)
        images, _ = model.transform([resized(pixels.to(device, non_blocking=True), (h, w))])
        features = model.backbone(images.tensors)
        # no score of such features would reach the threshold, and the photo would count as empty
        if not torch.stack([level.isfinite().all() for level in features.values()]).all():
            raise FloatingPointError(
                f"the network's features of image {row.id} are not finite: delete its checkpoint, lower its "
                "learning_rate, or set its precision to float32, in config.yaml, and train it again"
            )
        regions, _ = model.rpn(images, features)
        (result,), _ = heads(features, regions, images.image_sizes)
        x, y = row.width / w, row.height / h
        yield Found(
            row,
            result["boxes"].cpu().numpy() * np.array([x, y, x, y], np.float32),
            result["labels"].cpu().numpy() - 1,
            result["scores"].cpu().numpy(),
            result["masks"][:, 0].cpu().numpy(),
            (x / 2, y / 2),
        )


def cut(found: Found) -> tuple[str, Instances]:
    """Masks of a photo in its own size, as run lengths; those without a pixel are left out."""
    size = found.row.height, found.row.width
    masks = [
        run_lengths.encode(np.asfortranarray(_pasted(mask, box, size, found.offset) >= INSIDE).view(np.uint8))
        for mask, box in zip(found.masks, found.boxes, strict=True)
    ]
    instances = encoded_instances(masks, found.labels, found.scores)
    return found.row.id, instances.kept(instances.areas > 0)


def _pasted(mask: np.ndarray, box: np.ndarray, size: tuple[int, int], offset: tuple[float, float]) -> np.ndarray:
    """Bring the places of a box, (28, 28), to the pixels of a photo, (H, W); outside of the box they fade to 0.

    Bilinear between the middles of places and of pixels. Two matrices do it, one for each side.
    """
    left, top, right, bottom = box.tolist()
    rows = _weights(top + offset[1], bottom + offset[1], len(mask), size[0])
    columns = _weights(left + offset[0], right + offset[0], mask.shape[1], size[1])
    return rows @ mask @ columns.T


def _weights(begin: float, end: float, places: int, pixels: int) -> np.ndarray:
    """(pixels, places): how much each place between ``begin`` and ``end`` has of each pixel's middle."""
    middles = (np.arange(pixels, dtype=np.float32) + 0.5 - begin) / (end - begin) * places - 0.5
    return np.maximum(0, 1 - np.abs(middles[:, None] - np.arange(places, dtype=np.float32)))
