"""CIM: pseudo truth from what a branch thinks of proposals, and what it teaches the next (Li et al., IJCAI 2023).

Columns of scores are the classes from 1, and the background at 0. Overlaps and containment are those of
``proposals.overlaps``. Everything here is without gradient, and for a picture at a time.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

IGNORED = -1


class Mined(NamedTuple):
    """Pseudo truth: which proposals, in rising order, their columns and weights; column 0 stands for none."""

    places: Tensor
    classes: Tensor
    weights: Tensor


class Targets(NamedTuple):
    """What each proposal learns: its column (-1: ignored), whether it is whole (0 or 1), and its weight; (N,) each."""

    classes: Tensor
    whole: Tensor
    weights: Tensor


@torch.no_grad()
def mine(
    classification: Tensor,
    integrity: Tensor,
    iou: Tensor,
    containment: Tensor,
    labels: Tensor,
    seeds: float,
    nms: float,
    contained: float = 0.85,
    largest: float = 0.9,
    *,
    dense: bool = False,
) -> Mined:
    """The pseudo truth of a picture by the CIM strategy (algorithm 1).

    Of each class, the best proposals by classification are thinned out to seeds; each seed gives way to that proposal
    among those that contain it which has the highest integrity. So seeds on parts of one thing meet in the whole.

    Args:
        classification, integrity: (N, C + 1) scores of the branch before.
        iou, containment: (N, N), the latter ``[i, j]`` the share of j in i.
        labels: the columns of the picture's classes, (L,) from 1; or (C + 1,) of 0 and 1, as the losses take them.
        seeds: share of the proposals that are looked at, rounded up.
        nms: overlap from which on a proposal is no further seed.
        contained: share of a seed from above which on a proposal contains it.
        largest: a proposal that contains at least this share of all proposals is never pseudo truth; the published
            code has this, the paper does not.
        dense: give all proposals, those that are no pseudo truth with column 0, and do not wait for the device.
    """
    columns = _columns(labels, classification)
    contains = containment > contained  # [i, j]: i contains j
    contains = contains & (contains.sum(1) < largest * len(classification))[:, None]
    places, kept = _seeds(classification[:, columns], iou, seeds, nms)  # (L, S)
    inside = contains.T[places]  # (L, S, N): which proposals may stand for a seed
    whole = integrity[:, columns].T[:, None]
    best = torch.where(inside, whole, -torch.inf).argmax(2)  # of equal ones the first
    mined = _by_class(best, kept & inside.any(2), (classification * integrity)[:, columns], columns)
    return mined if dense else _found(mined)


@torch.no_grad()
def mine_mist(
    classification: Tensor,
    integrity: Tensor | None,
    iou: Tensor,
    labels: Tensor,
    seeds: float,
    nms: float,
    *,
    dense: bool = False,
) -> Mined:
    """The pseudo truth of a picture by MIST (Ren et al., CVPR 2020), as in the paper's ablation: the seeds themselves.

    Args as for ``mine``. The score of a proposal is the product of both, or its classification alone.
    """
    columns = _columns(labels, classification)
    scores = (classification if integrity is None else classification * integrity)[:, columns]
    mined = _by_class(*_seeds(scores, iou, seeds, nms), scores, columns)
    return mined if dense else _found(mined)


def _seeds(scores: Tensor, iou: Tensor, share: float, nms: float) -> tuple[Tensor, Tensor]:
    """The best proposals of each class (L, S), and which of them are left by a greedy NMS on masks (L, S) bool."""
    count = math.ceil(round(share * len(scores), 6))  # 0.07 * 100 is a little above 7
    places = scores.T.argsort(dim=1, descending=True, stable=True)[:, :count]
    alike = iou[places[:, :, None], places[:, None]] >= nms
    kept = torch.ones_like(places, dtype=torch.bool)
    for rank in range(1, count):  # of all classes at once
        kept[:, rank] = ~(alike[:, :rank, rank] & kept[:, :rank]).any(1)
    return places, kept


def _by_class(places: Tensor, kept: Tensor, scores: Tensor, labels: Tensor) -> Mined:
    """The mined ones among places (L, S) by class; one of several classes keeps that of its highest score."""
    found = torch.zeros_like(scores.T, dtype=torch.int64).scatter_add_(1, places, kept.long()) > 0  # (L, N)
    weights, row = torch.where(found, scores.T, -torch.inf).max(0)  # of equal ones the first class
    some = found.any(0)
    index = torch.arange(len(scores), device=scores.device)
    return Mined(index, torch.where(some, labels[row], 0), torch.where(some, weights, 0))


def _columns(labels: Tensor, classification: Tensor) -> Tensor:
    labels = torch.as_tensor(labels, device=classification.device)
    if len(labels) == classification.shape[1]:  # more than there can be classes beside the background
        return labels[1:].nonzero()[:, 0] + 1
    return labels.long()


def _found(mined: Mined) -> Mined:
    there = mined.classes > 0
    return Mined(*(part[there] for part in mined))


@torch.no_grad()
def sampled(mined: Mined, labels: Tensor, uniform: Tensor) -> Mined:
    """The anti-noise strategy: of each class, as many draws with replacement as it has pseudo truths, each kept once.

    A pseudo truth is drawn with odds in proportion to its weight. One of a class always remains, and weights stay.

    Args:
        labels: (L,) int64, the columns of the picture's classes.
        uniform: (L, D) in [0, 1), D not below the pseudo truths of any class: a row has the draws of a class, of
            which it takes as many as it needs. They come from the caller's generator.
    """
    if not mined.places.numel():
        return mined
    own = mined.classes == labels[:, None]  # (L, G)
    weights = torch.where(own, mined.weights, 0).double()
    # weights that have all underflown are as good as equal
    weights = torch.where((weights.sum(1, keepdim=True) > 0), weights, own.double())
    shares = weights.cumsum(1)
    shares = shares / shares[:, -1:].clamp(min=torch.finfo(shares.dtype).tiny)
    needed = own.sum(1, keepdim=True)
    uniform = uniform[:, : own.shape[1]].to(shares).contiguous()
    place = torch.searchsorted(shares, uniform, right=True).clamp(max=own.shape[1] - 1)
    drawn = torch.arange(uniform.shape[1], device=own.device) < needed
    kept = torch.zeros_like(own, dtype=torch.int64).scatter_add_(1, place, drawn.long()) > 0
    return mined._replace(classes=torch.where((kept & own).any(0), mined.classes, 0))


@torch.no_grad()
def assign(mined: Mined, iou: Tensor, foreground: float, integrity: float) -> Targets:
    """What proposals learn from the pseudo truth that each overlaps most (equations 4 to 6).

    Those that overlap none are ignored; up to ``foreground`` they are background, from there on of its class. What
    overlaps it by more than ``integrity`` is whole. The weight is that of the pseudo truth, for background as well.
    (By the equations a proposal may have several classes; the published code gives it one.)

    Args:
        mined: in rising order of the proposals, which decides between equal overlaps.
        iou: (N, N).
    """
    places, columns, weights = mined
    if not places.numel():
        nothing = iou.new_zeros(len(iou))
        return Targets(torch.full_like(nothing, IGNORED, dtype=torch.int64), nothing, nothing)
    overlap, which = torch.where(columns > 0, iou[:, places], -1).max(1)  # of equal ones the first
    known = overlap > 0
    classes = torch.where(overlap >= foreground, columns[which], 0)
    return Targets(
        torch.where(known, classes, IGNORED),
        (overlap > integrity).to(iou.dtype),
        torch.where(known, weights[which], 0),
    )
