"""``wsss export``: a segmentation network as a file that runs without this project."""

import json
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from timm.layers import padding
from torch import Tensor, nn

from wsss_core.base.checkpoints import read_checkpoint
from wsss_core.base.files import whole
from wsss_core.commands.printing import CommandError
from wsss_core.data.classes import Classes, classes_of, described
from wsss_core.data.pictures import read_image
from wsss_core.data.samples import network_input
from wsss_core.segmentation.training import load_segmentation

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
IMAGE, PROBABILITIES = "image", "probabilities"
ABOUT = "about.json"  # of a torch.export program
SIZES = ((97, 130), (200, 64))  # that are tried, beside a photo; odd ones, so that a fixed grid would be found out
TOLERANCE = 1e-3  # of probabilities; kernels of libraries round differently


class Exported(nn.Module):
    """A network with what surrounds it: RGB bytes (1, H, W, 3) to class probabilities (1, classes, H, W) float32."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        """The background's is the first."""
        logits = self.network(network_input(image))  # on a grid of its own; an image's is left as it is
        return F.interpolate(logits, image.shape[1:3], mode="bilinear", align_corners=False).softmax(1)


def export(
    *,
    checkpoint: Path,
    onnx: Path | None = None,
    program: Path | None = None,
    photo: Path | None = None,
    classes: Path | None = None,
    overwrite: bool = False,
) -> dict[Path, float]:
    """Write a segmentation network as an ONNX file, as a ``torch.export`` program, or as both.

    Both take photos of any size from 32 x 32 and carry what ``about`` says. They are tried on noise of other sizes than
    the one they were made with, and on the photo, and are not written where they differ from the network.

    Args:
        photo: a further image to try them on.
        classes: a table of classes in place of the checkpoint's.

    Returns:
        By file, the largest difference of a probability from the network's.

    Raises:
        CommandError: no file is asked for, one is there already, libraries are missing, the checkpoint is of another
            network, or the file says something else than the network.
        CheckpointError: a damaged checkpoint.
    """
    files = {path: kind for path, kind in ((onnx, _write_onnx), (program, _write_program)) if path is not None}
    if not files:
        raise CommandError("say what to write: --onnx FILE or --torch FILE")
    for path in files:
        if path.exists() and not overwrite:
            raise CommandError(f"{path} is there already: add --overwrite to replace it, or name another file")
    if onnx and (missing := [name for name in PACKAGES if find_spec(name) is None]):
        raise CommandError(
            f"ONNX needs {', '.join(missing)}: pip install -c constraints.txt -e '.[onnx]'; --torch needs nothing"
        )
    kind, recipe, _ = read_checkpoint(checkpoint)
    if kind != "segmentation":
        raise CommandError(f"{checkpoint} holds a {kind}; segmentation networks can be exported (segmentation.pt)")
    if classes is None and "names" not in recipe:
        raise CommandError(f"{checkpoint} does not name its classes: name their table with --classes")
    told = about(Classes.read(classes) if classes else classes_of(recipe))
    pictures = _pictures(photo)
    network = Exported(load_segmentation(checkpoint)).eval()
    with _quiet(), _whole_numbers(), torch.no_grad():
        exported = _exported(network, pictures[0], checkpoint)
        return {path: _written(path, write, exported, told, network, pictures) for path, write in files.items()}


def about(classes: Classes) -> dict[str, Any]:
    """What an exported file carries: names and colours of its outputs, and what goes in and comes out."""
    said = described(classes)
    return {
        "names": ["background", *said["names"]],
        "colours": said["colours"],
        "normalisation": said["normalisation"] | {"where": "inside: the input is RGB from 0 to 255"},
        "input": f"{IMAGE}: (1, height, width, 3) uint8, RGB",
        "output": f"{PROBABILITIES}: (1, {len(classes) + 1}, height, width) float32",
    }


Run = Callable[[Tensor], Tensor]
Write = Callable[[Path, Any, dict[str, Any]], Run]


def _exported(network: Exported, picture: Tensor, checkpoint: Path) -> Any:
    sides = {1: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC}
    try:
        return torch.export.export(network, (picture,), dynamic_shapes={IMAGE: sides})
    except Exception as error:  # what is raised depends on the step that a network's layers fail in
        raise CommandError(f"{checkpoint}: torch.export does not take this network: {str(error).splitlines()[0]}"
                           ) from error  # fmt: skip


def _pictures(photo: Path | None) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    noise = [torch.randint(0, 256, (1, *size, 3), dtype=torch.uint8, generator=generator) for size in SIZES]
    return noise if photo is None else [*noise, torch.from_numpy(np.array(read_image(photo)))[None]]


def _written(
    path: Path, write: Write, exported: Any, told: dict[str, Any], network: Exported, pictures: list[Tensor]
) -> float:
    with whole(path) as partial:
        run = write(partial, exported, told)
        error = max(float((run(picture) - network(picture)).abs().max()) for picture in pictures)
        if not error <= TOLERANCE:
            raise CommandError(f"{path} is not written: its probabilities differ by {error:.2g} from the network's")
    return error


def _write_onnx(path: Path, exported: Any, told: dict[str, Any]) -> Run:
    import onnx
    import onnxruntime

    made = torch.onnx.export(
        exported, dynamo=True, input_names=[IMAGE], output_names=[PROBABILITIES], external_data=False, verbose=False
    )
    assert made is not None
    model = made.model_proto
    onnx.helper.set_model_props(model, {key: json.dumps(value) for key, value in told.items()})
    onnx.save_model(model, str(path))
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    return lambda picture: torch.from_numpy(session.run([PROBABILITIES], {IMAGE: picture.numpy()})[0])


def _write_program(path: Path, exported: Any, told: dict[str, Any]) -> Run:
    with open(path, "wb") as file:  # by its name, torch would ask for .pt2
        torch.export.save(exported, file, extra_files={ABOUT: json.dumps(told)})
    with open(path, "rb") as file:
        run = torch.export.load(file).module()
    return lambda picture: run(picture)


@contextmanager
def _whole_numbers() -> Iterator[None]:
    """Have timm reckon its padding without fractions, which programs of torch.export cannot be saved with."""
    usual = padding.get_same_padding
    padding.get_same_padding = _same_padding
    try:
        yield
    finally:
        padding.get_same_padding = usual


def _same_padding(x: int, kernel_size: int, stride: int, dilation: int) -> int:
    """Pixels to add to a side of ``x`` so that a strided layer gives one value for each stride, begun ones too."""
    return max((-(-x // stride) - 1) * stride + (kernel_size - 1) * dilation + 1 - x, 0)


@contextmanager
def _quiet() -> Iterator[None]:
    """Leave out what libraries say of themselves while they export."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
