"""Checkpoints of networks: what kind of network it is, the plain values that rebuild it, its state dict.

There are five kinds: ``classifier``, ``c2am``, ``poolnet``, ``affinity`` and ``segmentation``.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from wsss_core.base.files import whole

if TYPE_CHECKING:  # torch is loaded by the jobs that have a network
    from torch import nn


def save_model(path: str | Path, model: "nn.Module", kind: str, recipe: dict) -> None:
    """Write a model's state dict with its kind and the plain values that rebuild it (backbone, classes, ...)."""
    import torch

    state = {key: value.detach().cpu() for key, value in model.state_dict().items()}
    with whole(path) as partial:
        torch.save({"kind": kind, "recipe": recipe, "state": state}, partial)


def read_model(path: str | Path, kind: str) -> tuple[dict, dict]:
    """Read what ``save_model`` wrote: the recipe and the state dict.

    Raises:
        ValueError: a damaged file, one that ``save_model`` did not write, or a network of another kind.
    """
    import torch

    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise
    except Exception as error:
        raise ValueError(f"{path} is damaged ({error}); delete it and run its rule again") from error
    if not isinstance(content, dict) or content.keys() != {"kind", "recipe", "state"}:
        raise ValueError(f"{path} was not written by this pipeline; delete it and run its rule again")
    if content["kind"] != kind:
        raise ValueError(
            f"{path} holds a {content['kind']}, not a {kind}: name the checkpoint of a {kind}, or delete the file and "
            "run its rule again"
        )
    return content["recipe"], content["state"]
