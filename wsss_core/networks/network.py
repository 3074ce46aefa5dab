"""What a network must have to be a backbone, in the form that timm's networks have it."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn


class Network(nn.Module):
    """A network whose maps ``Backbone`` reads.

    Attributes:
        feature_info: of each map, the first one at stride 2: ``num_chs`` (channels), ``reduction`` (stride), ``module``
            (the name of the module that it comes from).
        num_features: channels of the last map.
    """

    feature_info: Sequence[Mapping[str, Any]]
    num_features: int

    def forward_intermediates(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(N, 3, H, W) -> the last map, and all of ``feature_info``."""
        raise NotImplementedError
