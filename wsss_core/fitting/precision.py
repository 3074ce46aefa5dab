"""Arithmetic of networks on a GPU."""

from contextlib import AbstractContextManager

import torch


class Precision:
    """Mixed precision on a GPU, plain float32 on a CPU.

    Args:
        name: ``float32``, ``float16`` (autocast; a training scales its loss, as published) or ``bfloat16``.
    """

    def __init__(self, name: str, device: torch.device):
        self.dtype = getattr(torch, name)
        self.device = device
        self.enabled = device.type == "cuda" and name != "float32"

    def autocast(self) -> AbstractContextManager:
        return torch.autocast(self.device.type, self.dtype, enabled=self.enabled)

    def scaler(self) -> torch.amp.GradScaler:
        return torch.amp.GradScaler(self.device.type, enabled=self.enabled and self.dtype == torch.float16)
