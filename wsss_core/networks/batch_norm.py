"""BatchNorm whose statistics are those of parts of a batch, as several GPUs compute them (ghost batch norm)."""

import torch
from torch import Tensor, nn

BatchNorm = nn.modules.batchnorm._BatchNorm


def group_batch_norm(module: nn.Module, batch_size: int, group: int | None) -> None:
    """Let every BatchNorm in training take its statistics from groups of so many images, in place.

    The published runs had four GPUs: DataParallel cuts what it is called with into as many consecutive parts as there
    are GPUs, and each normalises its own. So a batch of images becomes ``batch_size / group`` parts, and any other
    batch as many: of P-NOC's tiles, stacked piece by piece, a part is all images' tiles at one place where there are
    as many pieces as parts, and never the tiles of ``group`` images. The running statistics are those of the first
    part alone, since DataParallel keeps the buffers of its first replica.

    Names in the state dict, parameters and evaluation stay as they are, and so does all else where ``group`` is None
    or the whole batch.

    Args:
        batch_size: images of a batch in training.
        group: images whose statistics are shared.

    Raises:
        ValueError: the batch is not a whole number of groups.
    """
    if group is None:
        return
    if batch_size % group:
        raise ValueError(
            f"a batch of {batch_size} images is not a whole number of groups of {group}: set batch_norm_group to a "
            "divisor of batch_size, or to null"
        )
    if batch_size == group:
        return
    layers, own = [layer for layer in module.modules() if isinstance(layer, BatchNorm)], {"parts": batch_size // group}
    grouped = {kind: type(f"Grouped{kind.__name__}", (_Grouped, kind), own) for kind in map(type, layers)}
    for layer in layers:
        layer.__class__ = grouped[type(layer)]


class _Grouped(BatchNorm):
    """What is put before a kind of BatchNorm; it calls that one part after part."""

    parts: int

    def forward(self, x: Tensor) -> Tensor:
        plain = super().forward
        if not self.training:
            return plain(x)
        first, *others = x.chunk(self.parts)
        outputs, tracked = [plain(first)], self.track_running_stats
        self.track_running_stats = False
        for part in others:
            outputs.append(plain(part))
        self.track_running_stats = tracked
        return torch.cat(outputs)
