"""A refinement of a user's own: class maps are smoothed, and nothing is trained. What it registers is all it takes."""

from dataclasses import dataclass
from pathlib import Path

import cv2

from wsss_core.data.manifest import Manifest
from wsss_core.maps.store import MapStore, MapWriter
from wsss_core.recipes.methods import METHODS, SECTIONS, Method, Stage
from wsss_core.recipes.revisions import REVISION
from wsss_core.recipes.settings import Positive, Section, identity
from wsss_core.recipes.tree import OF_RUN


@dataclass(frozen=True)
class SmoothSettings(Section):
    """Smoothing of class maps."""

    sigma: Positive = 2.0
    """Deviation of the Gaussian, in pixels at the maps' stride."""


SECTIONS["refinement"]["smooth"] = SmoothSettings
METHODS["refinement"]["smooth"] = Method(
    stages=(Stage("smoothed", ("cams",), ("smooth",)), Stage("pseudo_masks", ("smoothed",), ("masks",))),
    sections=("smooth", "masks", "scores"),
    maps="smoothed",
)
OF_RUN["smoothed"] = "smoothed/{subset}.zarr"
REVISION["smooth_cams"] = 1


def smooth_cams(*, manifest: Manifest, cams: MapStore, store: Path, settings: SmoothSettings) -> None:
    """Smooth each class map of a store."""
    about = {**cams.about, "settings": identity(settings)}
    with MapWriter(store, manifest, stride=cams.about["stride"], classwise=True, about=about) as out:
        for row in manifest:
            maps = cams[row.id][1].copy()
            for values in maps:
                cv2.GaussianBlur(values, (0, 0), settings.sigma, dst=values)
            out.append(row.id, maps)
