"""The class activation maps of a classifier, as a store."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wsss_core.base.files import whole
from wsss_core.base.jobs import Share
from wsss_core.classifiers.network import Classifier
from wsss_core.data.manifest import Manifest
from wsss_core.maps.inference import dump_scaled, scaled_batches
from wsss_core.maps.memory import processes_for
from wsss_core.maps.store import MapWriter
from wsss_core.recipes.settings import CamSettings, identity


class _Cams(nn.Module):
    """A classifier as inference at several scales calls it."""

    def __init__(self, model: Classifier):
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return self.model.cams(images)


def dump_cams(
    *,
    model: Classifier,
    manifest: Manifest,
    store: Path,
    settings: CamSettings,
    about: dict[str, Any],
    device: torch.device,
    workers: int | Share = 0,
) -> None:
    """Store the CAMs of the classes that each image is labelled with (P-NOC's inference, no threshold, no CRF).

    For every scale the activated maps of image and mirror image are added; scales are resized and added; each class
    map is divided by its maximum + 1e-5.

    Args:
        model: says by ``cams(images)`` what is added up.
        store: the store to create, see ``maps.store``.
        about: plain values to keep with the store (run, data set, ...).
        workers: processes that decode images; they change the speed alone.
    """
    workers = processes_for("dump_cams", manifest, workers, scales=settings.scales)
    batches = scaled_batches(_Cams(model), manifest, settings.scales, torch.add, device, workers, settings.precision)
    about = {**about, "settings": identity(settings)}
    with (
        whole(store) as partial,
        MapWriter(partial, manifest, stride=settings.stride, classwise=True, about=about, dtype=settings.dtype) as out,
    ):
        dump_scaled(batches, manifest, out, stride=settings.stride)
