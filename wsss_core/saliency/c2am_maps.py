"""The maps of C²AM and C²AM-H, as a store."""

from pathlib import Path

import torch
from torch import Tensor, nn

from wsss_core.base.files import whole
from wsss_core.base.jobs import Share
from wsss_core.data.manifest import Manifest
from wsss_core.maps.inference import dump_scaled, scaled_batches
from wsss_core.maps.memory import processes_for
from wsss_core.maps.store import MapWriter
from wsss_core.recipes.settings import C2amMapSettings, identity
from wsss_core.saliency.c2am import C2AM


class _Logits(nn.Module):
    """What multi-scale inference wants of a network: one map an image."""

    def __init__(self, model: C2AM):
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model.salient_logits(x)


def dump_c2am_maps(
    *,
    model: C2AM,
    manifest: Manifest,
    store: Path,
    settings: C2amMapSettings,
    about: dict,
    device: torch.device,
    workers: int | Share = 0,
) -> None:
    """Store C²AM's map of every image: scales and mirror images averaged, divided by the image's maximum.

    Foreground is where the logit is positive, or negative if that is the direction of the network's split.
    """
    # an activation before the sum: what one view calls background takes nothing from the others
    activate = {"relu": torch.relu, "sigmoid": torch.sigmoid}[settings.activation]
    workers = processes_for("dump_c2am_maps", manifest, workers, scales=settings.scales)
    batches = scaled_batches(
        _Logits(model), manifest, settings.scales, lambda a, b: activate(a) + activate(b), device, workers
    )
    about = {**about, "settings": identity(settings)}
    with whole(store) as folder, MapWriter(
        folder, manifest, stride=settings.stride, classwise=False, about=about
    ) as out:  # fmt: skip
        dump_scaled(batches, manifest, out, stride=settings.stride)
