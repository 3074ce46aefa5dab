"""What a network in training makes of a few of its images, as pictures for TensorBoard."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsss_core.data.manifest import Row
from wsss_core.data.pictures import read_picture
from wsss_core.data.transforms import resize_longer_side

COUNT = 4  # images, evenly spread over those of the training
SIDE = 512  # pixels of their longer sides at most
DARKENED = 0.4  # brightness of a photo beneath coloured maps


@dataclass(frozen=True)
class Snapshots:
    """Pictures of a fixed handful of training images, each beside what the network makes of it.

    No number of the training changes by them: the network is in eval mode meanwhile, and its modes and all random
    generators are as before afterwards. The device is waited for when they are taken, and at no other time.

    Attributes:
        every: epochs from one time to the next, 0 for never; the last epoch has them too.
        rows: the images of the training.
        network: what is looked at.
        draw: a photo (1, H, W, 3) uint8 on the network's device and its row -> (H, W, 3) from 0 to 1; without gradient.
    """

    every: int
    rows: Sequence[Row]
    network: nn.Module
    draw: Callable[[Tensor, Row], Tensor]

    def due(self, epoch: int, epochs: int) -> bool:
        """Whether they are taken after this epoch, from 1."""
        return self.every > 0 and (epoch % self.every == 0 or epoch == epochs)

    def take(self) -> Iterator[tuple[str, np.ndarray]]:
        """An image's id, and (H, W, 3) uint8: the photo and, right of it, what is drawn."""
        device = next(self.network.parameters()).device
        step = max(1, len(self.rows) // COUNT)
        with _looking_at(self.network, device):
            for row in self.rows[::step][:COUNT]:
                photo = read_picture(row)
                if max(photo.size) > SIDE:
                    photo = resize_longer_side(photo, SIDE)
                pixels = np.array(photo)
                drawn = self.draw(torch.from_numpy(pixels)[None].to(device), row)
                yield row.id, np.hstack([pixels, (255 * drawn.float().clamp(0, 1)).round().byte().cpu().numpy()])


@contextmanager
def _looking_at(network: nn.Module, device: torch.device) -> Iterator[None]:
    """Eval mode, without gradients; afterwards all is as if nobody had looked."""
    modes = {module: module.training for module in network.modules()}
    for module in modes:  # not by eval(), which networks override and from which train() would not lead back
        module.training = False
    try:
        with (
            torch.no_grad(),
            torch.random.fork_rng([device] if device.type == "cuda" else []),
            # nothing is looked for or compiled anew for sizes that the training does not have
            torch.backends.cudnn.flags(enabled=True, benchmark=False),
            torch.compiler.set_stance("force_eager"),
        ):
            yield
    finally:
        for module, training in modes.items():
            module.training = training


def coloured(photo: Tensor, maps: Tensor, colours: np.ndarray) -> Tensor:
    """Maps in their colours on a darkened photo, (H, W, 3).

    Args:
        photo: (1, H, W, 3) uint8.
        maps: (K, h, w), from 0 to 1.
        colours: (K, 3) uint8.
    """
    tint = torch.einsum("khw,kc->hwc", enlarged(maps, photo).float(), _palette(colours, photo))
    return DARKENED * photo[0].float().mean(2, keepdim=True) / 255 + tint


def grey(photo: Tensor, probability: Tensor) -> Tensor:
    """A map (h, w) from 0 to 1 as grey values, (H, W, 3)."""
    return enlarged(probability[None], photo)[0, :, :, None].expand(-1, -1, 3)


def labelled(photo: Tensor, logits: Tensor, colours: np.ndarray) -> Tensor:
    """The class of the highest of (K, h, w) logits at each pixel of the photo, in its colour, (H, W, 3)."""
    return _palette(colours, photo)[enlarged(logits, photo).argmax(0)]


def enlarged(maps: Tensor, photo: Tensor) -> Tensor:
    """Maps (K, h, w) at the size of the photo, bilinear, (K, H, W)."""
    if not len(maps):
        return maps.new_zeros(0, *photo.shape[1:3])
    return F.interpolate(maps[None].float(), photo.shape[1:3], mode="bilinear", align_corners=False)[0]


def _palette(colours: np.ndarray, photo: Tensor) -> Tensor:
    return torch.from_numpy(np.asarray(colours, np.float32) / 255).to(photo.device)
