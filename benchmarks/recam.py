"""ReCAM's pooled class features as one product of matrices against the masked features written out."""

from collections.abc import Iterator
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.harness import Comparison, Options, compare
from wsss_core.classifiers.recam import reactivation_loss

STAGE = "ReCAM's loss"


def run(options: Options) -> Iterator[Comparison]:
    for images, classes, channels, side in ((4, 20, 1024, 16), (8, 20, 2048, 32)):
        generator = torch.Generator().manual_seed(0)
        features = torch.randn(images, channels, side, side, generator=generator).relu().to(options.device)
        head, second = (torch.randn(classes, channels, generator=generator).to(options.device) for _ in range(2))
        labels = (torch.rand(images, classes, generator=generator) < 0.1).float().to(options.device)
        inputs = [tensor.requires_grad_() for tensor in (features, head, second)]
        yield compare(
            STAGE,
            f"{images} maps of {side} x {side}, {channels} channels, {classes} classes, with gradients",
            usual="(B, K, C, h, w), then its mean",
            usual_way=partial(with_gradients, written_out, inputs, labels),
            our_way=partial(with_gradients, ours, inputs, labels),
            agreement=furthest_apart,
            pairs=3,
        )


def furthest_apart(theirs: list[Tensor], ours: list[Tensor]) -> str:
    apart = max(((x - y).abs().max() / x.abs().max()).item() for x, y in zip(theirs, ours, strict=True))
    return f"gradients differ by {apart:.0e} of the largest"


def with_gradients(loss, inputs: list[Tensor], labels: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(loss(*inputs, labels), inputs))


def ours(features: Tensor, head: Tensor, second: Tensor, labels: Tensor) -> Tensor:
    return reactivation_loss(features, labels, head, second)["reactivation"]


def written_out(features: Tensor, head: Tensor, second: Tensor, labels: Tensor) -> Tensor:
    maps = F.conv2d(features, head[:, :, None, None]).relu()
    masks = maps / (maps.amax((2, 3), keepdim=True) + 1e-5)
    pooled = (masks[:, :, None] * features[:, None]).mean((3, 4))
    own = -F.log_softmax(pooled @ second.t(), 2).diagonal(dim1=1, dim2=2)
    return ((own * labels).sum(1) / labels.sum(1).clamp(min=1)).mean()
