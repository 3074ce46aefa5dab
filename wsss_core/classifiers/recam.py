"""ReCAM (Chen et al., CVPR 2022): class maps re-activated by a softmax loss over classes.

A trained classifier goes on with a second head. Each class's own map masks the features, and the second head has to
tell that class from all others by what is left: binary cross-entropy, which looks at each class alone, cannot ask that.
"""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsss_core.classifiers.losses import label_loss
from wsss_core.classifiers.network import logits
from wsss_core.classifiers.step import Loss, Term, Training, View
from wsss_core.recipes.settings import ReactivationSettings

EPS = 1e-5


def class_features(features: Tensor, head: Tensor, eps: float = EPS) -> Tensor:
    """The pooled features under each class's soft mask (paper, equations 5 and 6): (B, K, C).

    The mask is ``relu(w_k . f)`` over its own maximum, and its gradient is kept. Pooling divides by all cells, not by
    the mask's mass: what a small object leaves is small, as published.

    Args:
        features: (B, C, h, w), the backbone's last map.
        head: (K, C), weights of the head that makes the class maps.
    """
    return _pooled(torch.einsum("kc,bchw->bkhw", head, features), features, eps)


def reactivation_loss(features: Tensor, labels: Tensor, head: Tensor, second: Tensor) -> dict[str, Tensor]:
    """ReCAM's two losses before their weights (paper, equations 1 and 7).

    Args:
        features: (B, C, h, w), the backbone's last map.
        labels: (B, K), 1 for a class of the image.
        head, second: (K, C), weights of the classifier's head and of the one that re-activates.

    Returns:
        ``class``, the binary cross-entropy of the labels; ``reactivation``, the softmax cross-entropy of each class of
        an image, mean over these, then over all images, of which those without labels add 0.
    """
    maps = torch.einsum("kc,bchw->bkhw", head, features)
    pooled = _pooled(maps, features, EPS)
    return {"class": label_loss(logits(maps), labels), "reactivation": _own_class_loss(pooled, labels, second)}


def _pooled(maps: Tensor, features: Tensor, eps: float) -> Tensor:
    active = maps.relu()
    masks = active / (active.amax((2, 3), keepdim=True) + eps)
    # one product of matrices; the masked features themselves would be (B, K, C, h, w)
    return torch.einsum("bkhw,bchw->bkc", masks, features) / masks[0, 0].numel()


def _own_class_loss(pooled: Tensor, labels: Tensor, second: Tensor) -> Tensor:
    """How well the second head (K, C) tells each class of an image by its own features (B, K, C) among all classes."""
    own = -F.log_softmax(pooled @ second.t(), dim=2).diagonal(dim1=1, dim2=2)  # (B, K)
    return ((own * labels).sum(1) / labels.sum(1).clamp(min=1)).mean()


class ReactivationTerm(Term[ReactivationSettings]):
    """The softmax loss of ReCAM, and the second head that it trains.

    Raises:
        ValueError: the network's head is a new one; ReCAM goes on from a trained classifier of the same classes.
    """

    def __init__(self, settings: ReactivationSettings, training: Training, earlier: Mapping[str, Term[Any]]):
        super().__init__(settings, training, earlier)
        model = training.model
        if not model.head_trained:
            raise ValueError(
                f"ReCAM goes on from a classifier that was trained for these {model.head.out_channels} classes, but "
                "classifier.weights has none such: name the run of one by ordinary, with weights: ordinary"
            )
        model.head_goes_on = True  # at the rate of pretrained layers; only the second head is new
        # of PyTorch's usual first values, as published
        self.second = nn.Conv2d(model.head.in_channels, model.head.out_channels, 1, bias=False)
        model.add_head("reactivation", self.second)

    def losses(self, view: View) -> dict[str, Loss]:
        # half precision would lose a mask's small values beside its epsilon
        with torch.autocast(view.images.device.type, enabled=False):
            maps, features = view.output.maps.float(), view.output.features[-1].float()
            if self.settings.detach_masks:
                maps = maps.detach()
            pooled = _pooled(maps, features, EPS)
            value = _own_class_loss(pooled, view.labels, self.second.weight.flatten(1))
        return {"reactivation": Loss(value, self.settings.weight)}
