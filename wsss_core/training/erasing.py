"""Class-specific erasing of images by their class maps (OC-CSE, P-OC, P-NOC).

Erasing happens in normalised space, where 0 is the ImageNet mean colour.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

EPS = 1e-5


def choose_classes(labels: Tensor, generator: torch.Generator) -> Tensor:
    """One present class an image, uniformly: multi-hot (B, C) -> (B,) int64. Images without a label are an error."""
    if not labels.any(dim=1).all():
        raise ValueError("an image has no label that could be erased: train on images with at least one class")
    return torch.multinomial(labels.float(), 1, generator=generator)[:, 0]


def without(labels: Tensor, chosen: Tensor) -> Tensor:
    """The labels (B, C) with the chosen class of each image taken out."""
    return labels.scatter(1, chosen[:, None], 0.0)


def soft_erase(images: Tensor, maps: Tensor, chosen: Tensor, per_image: bool = False) -> Tensor:
    """Darken images where the chosen class is active: ``x (1 - M / (max M + 1e-5))``.

    ``M`` is the ReLU of the chosen class's map, bilinearly resized to the image. Gradients flow through it.

    Args:
        images: (B, 3, H, W), normalised.
        maps: (B, C, h, w), raw class maps.
        chosen: (B,) class index of each image.
        per_image: take the maximum of each image instead of the whole batch's (the published default).
    """
    mask = _class_mask(images, maps, chosen)
    peak = mask.amax((1, 2, 3), keepdim=True) if per_image else mask.max()
    return images * (1 - mask / (peak + EPS))


def hard_erase(images: Tensor, maps: Tensor, chosen: Tensor, threshold: float = 0.2) -> Tensor:
    """Keep the pixels at which the chosen class's map is at most ``threshold`` of its maximum in the same image.

    Arguments as in ``soft_erase``; no gradient flows through the maps.
    """
    mask = _class_mask(images, maps.detach(), chosen)
    peak = mask.amax((1, 2, 3), keepdim=True)
    return images * (mask / (peak + EPS) <= threshold)


def _class_mask(images: Tensor, maps: Tensor, chosen: Tensor) -> Tensor:
    if len(chosen) != len(images):
        raise ValueError(f"{len(images)} images need one chosen class each, got {len(chosen)}")
    active = maps.gather(1, chosen[:, None, None, None].expand(-1, 1, *maps.shape[2:])).relu()  # (B, 1, h, w)
    return F.interpolate(active, images.shape[2:], mode="bilinear", align_corners=False)
