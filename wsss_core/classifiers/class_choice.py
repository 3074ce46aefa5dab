"""Which of an image's classes is erased next (OC-CSE, P-OC, P-NOC)."""

from typing import Any

import torch
from torch import Tensor

STRATEGIES = ("random", "balanced", "least_chosen", "focal")
MEMORY, GAMMA = 0.9, 2  # of the focal factors


class ClassChoice:
    """One present class an image, by one of four strategies of P-NOC's code.

    ``random``: uniform (the paper). ``balanced``: with odds of one over how often a class was chosen so far.
    ``least_chosen``: the one chosen least often, the first in case of a tie. ``focal``: with odds of the class's focal
    factor, which grows where the ordinary classifier is wrong about erased images.

    Draws depend on the seed and the step alone (and on the counts, which are part of the state), so that a resumed
    training agrees; nothing waits for the device.
    """

    def __init__(self, strategy: str, classes: int, seed: int, device: torch.device):
        if strategy not in STRATEGIES:
            raise ValueError(f"erasing.class_choice is {strategy!r}: use {', '.join(STRATEGIES)}")
        self.strategy, self.seed, self.device = strategy, seed, device
        self.counts = torch.ones(classes, dtype=torch.float64)
        self.factors = torch.ones(classes, device=device)

    def __call__(self, labels: Tensor, step: int) -> Tensor:
        """Multi-hot labels (B, C), on the host -> (B,) int64 on the device.

        Raises:
            ValueError: an image has no label.
        """
        present = labels > 0
        if not present.any(dim=1).all():
            raise ValueError("an image has no label that could be erased: train on images with at least one class")
        # torch's generator looks at 32 bits of its seed alone, in which this lays the seeds' steps far apart
        generator = torch.Generator().manual_seed((self.seed * 0x9E3779B1 + step) % 2**32)
        if self.strategy == "random":
            chosen = torch.multinomial(present.float(), 1, generator=generator)[:, 0]
        elif self.strategy == "focal":
            # Gumbel's trick: the largest of log odds + noise is a draw with these odds, made where the factors are
            noise = -torch.empty(present.shape).exponential_(generator=generator).log()
            noise, absent = noise.to(self.device, non_blocking=True), (~present).to(self.device, non_blocking=True)
            return (self.factors.log() + noise).masked_fill(absent, -torch.inf).argmax(dim=1)
        else:
            chosen = torch.stack([self._by_count(row, generator) for row in present])
        return chosen.to(self.device, non_blocking=True)

    def _by_count(self, present: Tensor, generator: torch.Generator) -> Tensor:
        """One image after another, since each choice counts for the next."""
        odds = present / self.counts
        chosen = (
            odds.argmax() if self.strategy == "least_chosen" else torch.multinomial(odds, 1, generator=generator)[0]
        )
        self.counts[chosen] += 1
        return chosen

    def observe(self, logits: Tensor, labels: Tensor, target: Tensor) -> None:
        """Update the focal factors of the classes in the batch by how wrong the ordinary classifier is.

        ``m f + (1 - m) / n * sum (1 - p)^2`` with p the probability of the target and n the images with the class;
        the sum runs over all images of the batch, as published.

        Args:
            logits: (B, C), of the erased images.
            labels: (B, C), before erasing.
            target: (B, C), labels without the erased class.
        """
        if self.strategy != "focal":
            return
        probability = torch.sigmoid(logits.float())
        right = torch.where(target > 0, probability, 1 - probability)
        images = (labels > 0).sum(dim=0)
        wrong = ((1 - right) ** GAMMA).sum(dim=0) / images.clamp(min=1)
        self.factors = torch.where(images > 0, MEMORY * self.factors + (1 - MEMORY) * wrong, self.factors)

    def state_dict(self) -> dict[str, Any]:
        return {"counts": self.counts, "factors": self.factors}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.counts = state["counts"].clone()
        self.factors = state["factors"].to(self.device)
