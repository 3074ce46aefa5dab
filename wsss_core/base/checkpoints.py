"""Checkpoints of networks: what kind of network it is, the plain values that rebuild it, its state dict.

There are seven kinds: ``classifier``, ``c2am``, ``poolnet``, ``affinity``, ``segmentation``, ``cim`` and ``maskrcnn``.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from wsss_core.base.files import check_zip, reading, whole

if TYPE_CHECKING:  # torch is loaded by the jobs that have a network
    from torch import Tensor, nn

TRAIN_AGAIN = "lower the learning_rate of its training, or set precision to float32, in config.yaml, and run it again"


def save_model(path: str | Path, model: "nn.Module", kind: str, recipe: dict) -> None:
    """Write a model's state dict with its kind and the plain values that rebuild it (backbone, classes, ...).

    Raises:
        FloatingPointError: a tensor is not finite.
    """
    import torch

    state = {key: value.detach().cpu() for key, value in model.state_dict().items()}
    if broken := _broken(state):
        raise FloatingPointError(f"{path} is not written: {broken}; {TRAIN_AGAIN}")
    with whole(path) as partial:
        torch.save({"kind": kind, "recipe": recipe, "state": state}, partial)


class CheckpointError(ValueError):
    """A file that is no sound checkpoint of the kind that is needed."""


class Checkpoint(NamedTuple):
    """What ``save_model`` wrote: the kind of network, the plain values that rebuild it, its state dict."""

    kind: str
    recipe: dict[str, Any]
    state: dict[str, "Tensor"]


def read_model(path: str | Path, kind: str) -> tuple[dict, dict]:
    """Read what ``save_model`` wrote of a network of this kind: the recipe and the state dict.

    Raises:
        CheckpointError: as ``read_checkpoint``, or a network of another kind.
        FloatingPointError: a tensor is not finite.
        OSError: the file cannot be read, whatever is in it.
    """
    found = read_checkpoint(path)
    if found.kind != kind:
        raise CheckpointError(
            f"{path} holds a {found.kind}, not a {kind}: name the checkpoint of a {kind}, or delete the file and "
            "run its rule again"
        )
    return found.recipe, found.state


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read what ``save_model`` wrote, a network of any kind.

    Raises:
        CheckpointError: a damaged file, or one that ``save_model`` did not write.
        FloatingPointError: a tensor is not finite.
        OSError: the file cannot be read, whatever is in it.
    """
    import torch

    try:
        with reading(path, "is damaged", "delete it and run its rule again"):
            check_zip(path)
            content = torch.load(path, map_location="cpu", weights_only=True)
    except ValueError as error:
        raise CheckpointError(str(error)) from error.__cause__
    if not isinstance(content, dict) or content.keys() != {"kind", "recipe", "state"}:
        raise CheckpointError(f"{path} was not written by this pipeline; delete it and run its rule again")
    if broken := _broken(content["state"]):
        raise FloatingPointError(f"{path} holds a broken network: {broken}; delete it, then {TRAIN_AGAIN}")
    return Checkpoint(**content)


def _broken(state: dict[str, "Tensor"]) -> str:
    """What is not finite in a state dict; nothing if all is."""
    names = [name for name, tensor in state.items() if not tensor.isfinite().all()]
    return f"{len(names)} of its {len(state)} tensors are not finite, the first is {names[0]}" if names else ""
