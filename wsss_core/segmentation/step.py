"""One step of a segmentation network on images with masks."""

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from wsss_core.fitting.optim import PolySGD
from wsss_core.fitting.precision import Precision


class MaskStep(ABC):
    """One micro-step; an update takes ``accumulation`` of them and, unlike in other trainings, their mean loss.

    Args:
        precision: arithmetic of the network, see ``Precision``; the loss is always computed in float32.
    """

    def __init__(
        self, model: nn.Module, optimizer: PolySGD, *, accumulation: int, precision: str, device: torch.device
    ):
        self.model, self.optimizer, self.accumulation, self.device = model, optimizer, accumulation, device
        self.precision = Precision(precision, device)
        self.scaler = self.precision.scaler()

    def state(self) -> dict:
        return {"model": self.model, "optimizer": self.optimizer, "scaler": self.scaler}

    @abstractmethod
    def outputs(self, images: Tensor) -> Any:
        """What the network makes of images (N, 3, H, W), for ``loss``."""

    @abstractmethod
    def loss(self, outputs: Any, masks: Tensor) -> Tensor:
        """The loss of these outputs, a float32 scalar, against masks (N, H, W) uint8."""

    def __call__(self, batch: dict[str, Tensor], step: int) -> dict[str, Tensor]:
        images = batch["image"].to(self.device, memory_format=torch.channels_last, non_blocking=True)
        masks = batch["mask"].to(self.device, non_blocking=True)
        with self.precision.autocast():
            outputs = self.outputs(images)
        loss = self.loss(outputs, masks)  # not in half precision
        self.scaler.scale(loss / self.accumulation).backward()
        if (step + 1) % self.accumulation == 0:
            self.optimizer.step(self.scaler)
        return {"loss": loss.detach()}
