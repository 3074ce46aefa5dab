"""Class-specific erasing of images by their class maps (OC-CSE, P-OC, P-NOC).

Erasing happens in normalised space, where 0 is the ImageNet mean colour.
"""

import torch.nn.functional as F
from torch import Tensor

EPS = 1e-5


def without(labels: Tensor, chosen: Tensor) -> Tensor:
    """The labels (B, C) with the chosen class of each image taken out."""
    return labels.scatter(1, chosen[:, None], 0.0)


def soft_erase(images: Tensor, maps: Tensor, chosen: Tensor, per_image: bool = False) -> Tensor:
    """Darken images where the chosen class is active: ``x (1 - M / (max M + 1e-5))``, see ``soft_keep``."""
    return images * soft_keep(images, maps, chosen, per_image)


def soft_keep(images: Tensor, maps: Tensor, chosen: Tensor, per_image: bool = False, relu_first: bool = True) -> Tensor:
    """What is left of every pixel, ``1 - M / (max M + 1e-5)``: (B, 1, H, W) in (0, 1].

    ``M`` is the ReLU of the chosen class's map, bilinearly resized to the image. Gradients flow through it.

    Args:
        images: (B, 3, H, W), normalised.
        maps: (B, C, h, w), raw class maps.
        chosen: (B,) class index of each image.
        per_image: take the maximum of each image instead of the whole batch's (the published default).
        relu_first: ReLU, then resize, as P-OC and P-NOC do; OC-CSE's own code does the reverse.
    """
    mask = _class_mask(images, maps, chosen, relu_first)
    peak = mask.amax((1, 2, 3), keepdim=True) if per_image else mask.max()
    return 1 - mask / (peak + EPS)


def hard_erase(images: Tensor, maps: Tensor, chosen: Tensor, threshold: float = 0.2) -> Tensor:
    """Keep the pixels at which the chosen class's map is at most ``threshold`` of its maximum in the same image.

    Arguments as in ``soft_keep``; no gradient flows through the maps.
    """
    mask = _class_mask(images, maps.detach(), chosen)
    peak = mask.amax((1, 2, 3), keepdim=True)
    return images * (mask / (peak + EPS) <= threshold)


def _class_mask(images: Tensor, maps: Tensor, chosen: Tensor, relu_first: bool = True) -> Tensor:
    if len(chosen) != len(images):
        raise ValueError(f"{len(images)} images need one chosen class each, got {len(chosen)}")
    active = maps.gather(1, chosen[:, None, None, None].expand(-1, 1, *maps.shape[2:]))  # (B, 1, h, w)
    if relu_first:
        return F.interpolate(active.relu(), images.shape[2:], mode="bilinear", align_corners=False)
    return F.interpolate(active, images.shape[2:], mode="bilinear", align_corners=False).relu()
