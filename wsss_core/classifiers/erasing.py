"""Class-specific erasing of images by their class maps, and the term of OC-CSE (Kweon et al., ICCV 2021).

Erasing happens in normalised space, where 0 is the ImageNet mean colour.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import torch.nn.functional as F
from torch import Tensor

from wsss_core.classifiers.class_choice import ClassChoice
from wsss_core.classifiers.losses import label_loss, smooth
from wsss_core.classifiers.network import logits
from wsss_core.classifiers.step import Loss, Stateful, Term, Training, View
from wsss_core.fitting.loop import placed
from wsss_core.fitting.schedules import ramp
from wsss_core.networks.backbones import masked
from wsss_core.recipes.settings import ErasingSettings

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


class Erased(NamedTuple):
    """What was erased in a step.

    Attributes:
        chosen: (B,) class index of each image.
        images: (B, 3, H, W), softly erased, without gradient.
    """

    chosen: Tensor
    images: Tensor


class ErasingTerm(Term[ErasingSettings]):
    """An ordinary classifier looks at erased images, and shall no longer find the class that was erased.

    Attributes:
        ordinary: that classifier; frozen, unless a later term trains it.
        leak: whether the loss also leaves its gradient in what of it is trained.
        erased: of the last step.
    """

    def __init__(self, settings: ErasingSettings, training: Training, earlier: Mapping[str, Term[Any]]):
        super().__init__(settings, training, earlier)
        if training.ordinary is None:
            raise ValueError("a classifier cannot be erased against nothing: give the ordinary classifier's checkpoint")
        # the hook of a mask is a new one at every step, for each of which the network would be compiled again
        compiled = training.settings.compile and not settings.masking_depth
        self.ordinary = training.ordinary.eval().requires_grad_(False)
        placed(self.ordinary, training.device, compiled=compiled)
        self.leak = False
        classes = training.model.head.out_channels
        self.choice = ClassChoice(settings.class_choice, classes, training.seed, training.device)
        self.erased: Erased | None = None

    def losses(self, view: View) -> dict[str, Loss]:
        settings = self.settings
        chosen = self.choice(view.batch["labels"], view.step)
        keep = soft_keep(view.images, view.output.maps, chosen, settings.per_image_maximum, settings.relu_first)
        soft = view.images * keep
        rest = self._rest(view.images, soft, keep)
        remaining = without(view.labels, chosen)
        self.choice.observe(rest.detach(), view.labels, remaining)
        self.erased = Erased(chosen, soft.detach())
        # the original OC-CSE raises its weight once an epoch, its successors at every step
        at = view.step - view.step % self.training.epoch_length if settings.by_epoch else view.step
        value = label_loss(rest, smooth(remaining, self.training.settings.label_smoothing))
        return {"erasing": Loss(value, ramp(settings.weight, at, self.training.steps))}

    def state(self) -> dict[str, Stateful]:
        return {"choice": self.choice}

    def _rest(self, images: Tensor, soft: Tensor, keep: Tensor) -> Tensor:
        """Logits (B, C) of the ordinary classifier where the chosen class is erased, in pixels or in features."""
        self.ordinary.eval()
        trained = [parameter for parameter in self.ordinary.parameters() if parameter.requires_grad]
        _require_grad(trained, self.leak)  # the gradient passes through to the images in any case
        if self.settings.masking_depth:
            with masked(self.ordinary.backbone, self.settings.masking_depth, keep):
                rest = logits(self.ordinary.maps(images))
        else:
            rest = logits(self.ordinary.maps(soft))
        _require_grad(trained, True)
        return rest


def _require_grad(parameters: Iterable[Tensor], required: bool) -> None:
    for parameter in parameters:
        parameter.requires_grad_(required)
