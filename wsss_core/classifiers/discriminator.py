"""The term of P-NOC, which makes the ordinary classifier not so ordinary: it goes on learning from erased images."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from wsss_core.classifiers.erasing import Erased, ErasingTerm, hard_erase
from wsss_core.classifiers.losses import label_loss
from wsss_core.classifiers.network import logits
from wsss_core.classifiers.step import Learner, Stateful, Term, Training, View
from wsss_core.fitting.precision import Precision
from wsss_core.fitting.schedules import ramp
from wsss_core.recipes.settings import DiscriminatorSettings


class DiscriminatorTerm(Term[DiscriminatorSettings]):
    """The full label, the erased class included, must be told from erased images (Algorithm 1).

    It adds nothing to the classifier's loss; its own loss trains the ordinary classifier of the term ``erasing``.
    """

    def __init__(self, settings: DiscriminatorSettings, training: Training, earlier: Mapping[str, Term[Any]]):
        super().__init__(settings, training, earlier)
        erasing = earlier.get("erasing")
        if not isinstance(erasing, ErasingTerm):
            raise ValueError("a discriminator learns from erased images: the method must have the term erasing")
        # Published code of P-NOC: the erasing loss also leaves its gradient in the discriminator, whose next update
        # applies it. Without the leak (Algorithm 1 as printed) the discriminator is frozen there.
        erasing.leak = settings.leak
        self.erasing = erasing
        self.network = erasing.ordinary
        self.network.requires_grad_(True).train()  # which leaves out again what is fixed or frozen
        self.precision = Precision(training.settings.precision, training.device)
        self.learner = Learner(self.network, training, rate=settings.rate, every=settings.every)

    def after(self, view: View) -> dict[str, Tensor]:
        turn, waits = divmod(view.step + 1, self.settings.every)
        if waits or self.erasing.erased is None:
            return {}
        erased = self._erased(view, self.erasing.erased)
        self.network.train()  # matters for dropout only: its BatchNorm is fixed
        with self.precision.autocast():
            loss = label_loss(logits(self.network.maps(erased)), view.targets)
            weighted = ramp(self.settings.weight, view.step, self.training.steps) * loss
        self.learner.learn(weighted, turn - 1)
        return {"discriminator": loss.detach()}

    def state(self) -> dict[str, Stateful]:
        return {"network": self.network, **self.learner.state()}

    def _erased(self, view: View, erased: Erased) -> Tensor:
        """The images that it looks at, (B, 3, H, W)."""
        if self.settings.input == "soft":
            return erased.images
        return hard_erase(view.images, view.output.maps.detach(), erased.chosen, self.settings.hard_threshold)
