"""``wsss wandb``: what a run left, as a run of Weights & Biases. Nothing else in this project knows of that service."""

import csv
import io
import json
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from wsss_core.commands.printing import CommandError
from wsss_core.commands.project import Project
from wsss_core.reports.contents import resolve_report
from wsss_core.reports.labels import headline


def send(project: Project, dataset: str, run: str, *, to: str, offline: bool = False) -> dict[str, int]:
    """Send losses and pictures of the trainings that a run has made so far, its scores and what it changes of settings.

    They become one run there, called as here and in a group by data set. To send again replaces it. Curves have the
    name of the network and the loss, over epochs; those of a network that is shared are the other run's.

    Args:
        to: the project there.
        offline: write the folder ``wandb`` alone, which ``wandb sync`` sends.

    Returns:
        By network, how many epochs were sent.

    Raises:
        CommandError: the library is missing, or there is nothing to send.
    """
    resolved = resolve_report(dataset, run, project.recipes, project.tree)
    histories = {stop["artefact"]: Path(stop["history"]) for stop in resolved["road"] if stop["history"]}
    rows = {name: _rows(path) for name, path in histories.items() if path.exists()}
    scores = {score["name"]: Path(score["result"]) for score in resolved["scores"] if Path(score["result"]).exists()}
    if not rows and not scores:
        raise CommandError(f"{run} has neither losses nor scores on {dataset} yet: make it with snakemake first")
    try:
        wandb: Any = import_module("wandb")
    except ImportError as error:
        raise CommandError("this sends to Weights & Biases, whose library is no part of this project: "
                           "pip install wandb, then wandb login") from error  # fmt: skip
    settings = {key: value for key, value, *_ in resolved["settings"]}
    about = {"project": to, "name": run, "group": dataset, "id": f"{dataset}-{run}".replace("@", "-")}
    try:
        begun = wandb.init(**about, config=settings, mode="offline" if offline else "online")
    except wandb.Error as error:  # nobody is logged in, the service is out of reach
        raise CommandError(f"Weights & Biases: {str(error).rstrip('.')}; --offline writes for later") from error
    with begun as there:
        for name, history in rows.items():
            there.define_metric(f"{name}/*", step_metric=f"{name}/epoch")
            pictures = dict(_pictures(histories[name]))
            for row in history:
                shown = {key: wandb.Image(data) for key, data in pictures.get(row["epoch"], {}).items()}
                there.log({f"{name}/{key}": value for key, value in (row | shown).items()})
        for name, path in scores.items():
            measure, value = headline(json.loads(path.read_text(encoding="utf-8")))
            if value is not None:
                there.summary[f"{name}/{measure}"] = value
    return {name: len(history) for name, history in rows.items()}


def _rows(history: Path) -> list[dict[str, float]]:
    """The rows of a history; a loss that an epoch had none of is left out."""
    with open(history, newline="", encoding="utf-8") as file:
        return [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(file)]


def _pictures(history: Path) -> Iterator[tuple[float, dict[str, Any]]]:
    """By epoch, the pictures that TensorBoard has of a training, by name."""
    from PIL import Image
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = history.with_name(history.name.removesuffix(".history.csv") + ".tensorboard")
    if not folder.exists():
        return
    events = EventAccumulator(str(folder), size_guidance={"images": 0})
    events.Reload()
    found: dict[float, dict[str, Any]] = {}
    for name in events.Tags()["images"]:
        for event in events.Images(name):
            found.setdefault(event.step, {})[name] = Image.open(io.BytesIO(event.encoded_image_string))
    yield from found.items()
