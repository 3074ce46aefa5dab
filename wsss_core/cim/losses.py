"""The losses of CIM (Li et al., IJCAI 2023), and where its published code leaves the paper."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from wsss_core.cim.mining import Targets

EPS = 1e-6  # scores are kept this far from 0 and 1


def image_loss(classification: Tensor, integrity: Tensor, labels: Tensor) -> Tensor:
    """Cross entropy of a picture's labels and of the sum of the scores of its proposals (first term of equation 7).

    Args:
        classification: (N, C + 1), sums to 1 over the classes.
        integrity: (N, C + 1), sums to 1 over the proposals of this one picture.
        labels: (C + 1,) of 0 and 1, the background's 1 first.
    """
    scores = (classification * integrity).sum(0).clamp(EPS, 1 - EPS)
    return _cross_entropy(scores, labels).mean()


def cluster_loss(
    scores: Tensor, cluster: Tensor, classes: Tensor, form: Literal["bce", "ce"] = "bce", weight: float = 12.0
) -> Tensor:
    """Proposals of a cluster have its class in the mean (PCL, Tang et al., TPAMI 2018; second term of equation 7).

    A cluster counts by its size; each background proposal is a cluster of its own. What has no label is in no term.

    Args:
        scores: (N, C + 1), sums to 1 over the classes.
        cluster: (N,) int64: -1 background, 0 no label, else the cluster from 1; a number may be of no proposal.
        classes: (P,) int64, the column, from 1, of clusters 1 to P.
        form: ``bce``, the published code's: cross entropy over all columns, each against 0 or 1; ``ce``, the paper's:
            minus the logarithm of the own column.
        weight: alpha of equation 7.
    """
    # background is one more sum, which nobody reads; its members are taken one by one
    member = cluster.clamp(min=0)
    size = scores.new_zeros(len(classes) + 1).index_add(0, member, torch.ones_like(scores[:, 0]))[1:]
    mean = scores.new_zeros(len(classes) + 1, scores.shape[1]).index_add(0, member, scores)[1:]
    mean = mean / size.clamp(min=1)[:, None]
    background = (cluster == -1).to(scores.dtype)
    lost = _lost(mean, classes, form) * size
    lost_background = _lost(scores, torch.zeros_like(cluster), form) * background
    total = size.sum() + background.sum()
    total = total + EPS if form == "bce" else total.clamp(min=1)
    return weight * (lost.sum() + lost_background.sum()) / total


def refinement_losses(
    classification: Tensor, integrity: Tensor | None, targets: Targets, labels: Tensor, factor: float = 1.0
) -> dict[str, Tensor]:
    """The losses of a refinement branch (equation 3), and a term of the published code, before their factors.

    ``class``: cross entropy of the classes of labelled proposals. ``integrity``: smooth L1 of the integrity of those of
    a class, 0 without the head. ``bag``, not in the paper: cross entropy of a picture's labels and of the highest score
    of each column. All are 0 where no proposal has a target.

    Args:
        classification: (N, C + 1), sums to 1 over the classes.
        integrity: (N, C + 1) in [0, 1], or None for a network without this head.
        targets: what ``assign`` gives.
        labels: (C + 1,) of 0 and 1, the background's 1 first.
        factor: of the weights, and so of all three losses (lambda of the published code).
    """
    classes, whole, weights = targets
    weights = factor * weights
    labelled, foreground = (classes >= 0).to(weights), (classes > 0).to(weights)
    own = classes.clamp(min=0)[:, None]
    logs = classification.gather(1, own)[:, 0].clamp(EPS, 1 - EPS).log()
    losses = {"class": -(labelled * weights * logs).sum() / labelled.sum().clamp(min=1)}
    if integrity is None:
        scores, losses["integrity"] = classification, weights.new_zeros(())
    else:
        scores = classification * integrity
        away = F.smooth_l1_loss(integrity.gather(1, own)[:, 0], whole, reduction="none")
        losses["integrity"] = (foreground * weights * away).sum() / foreground.sum().clamp(min=1)
    # a column of the picture is judged by proposals that were given it, any other one by all
    present = labels > 0
    candidates = ~present | (classes[:, None] == torch.arange(len(labels), device=labels.device))
    highest, which = torch.where(candidates, scores, 0).max(0)
    factors = torch.where(present, weights[which], 1)
    bag = (factors * _cross_entropy(highest.clamp(EPS, 1 - EPS), labels)).mean()
    losses["bag"] = bag * labelled.any()
    return losses


def _lost(scores: Tensor, classes: Tensor, form: str) -> Tensor:
    """Loss of each row of scores (M, C + 1) against its column (M,)."""
    scores = scores.clamp(EPS, 1 - EPS)
    if form == "ce":
        return -scores.gather(1, classes[:, None])[:, 0].log()
    if form != "bce":
        raise ValueError(f"the form of the cluster loss is bce or ce, not {form!r}")
    wanted = F.one_hot(classes, scores.shape[1]).to(scores)
    return _cross_entropy(scores, wanted).mean(1)


def _cross_entropy(scores: Tensor, wanted: Tensor) -> Tensor:
    # without PyTorch's own, which autocast forbids
    return -(wanted * scores.log() + (1 - wanted) * (1 - scores).log())
