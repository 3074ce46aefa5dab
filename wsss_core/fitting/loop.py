"""What every training shares: epochs, history, resuming, precision."""

import logging
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter

import wsss_core
from wsss_core.base.files import alone, check_zip, reading, whole
from wsss_core.base.jobs import digest_of
from wsss_core.data.classes import Classes
from wsss_core.data.manifest import Manifest
from wsss_core.fitting.loader import EpochLoader
from wsss_core.fitting.record import LossRecord
from wsss_core.fitting.snapshots import Snapshots
from wsss_core.recipes.revisions import REVISION

logger = logging.getLogger(__name__)
PACKAGE = Path(wsss_core.__file__).parent
# A network that exploded can stay finite, held together by its normalisation. No schedule makes a loss a hundred times
# what it was before the first update; one that ends at five times that is worth a look.
ABSURD, RISEN = 100, 5
LOOKS = 20  # at the losses, in a training, beside those where epochs end; each waits for the device
AFRESH = "starting from the first epoch"
WAY_OUT = "lower its learning_rate, or set precision to float32, in config.yaml"


def fit(
    *,
    step: Callable[[dict, int], dict[str, Tensor]],
    loader: EpochLoader,
    epochs: int,
    state: dict,
    output: str | Path,
    digest: str,
    lr: Callable[[], float],
    after_epoch: Callable[[int], None] = lambda epoch: None,
    snapshots: Snapshots | None = None,
) -> None:
    """Run ``step(batch, micro_step)`` over all batches of all epochs.

    After each epoch the state is kept in ``<output>.resume.pt``, from which a killed job goes on when its settings
    and data (``digest``) are still the same; a row goes to ``<output stem>.history.csv`` and to TensorBoard.

    The state stays after the last epoch, since the job may still count as failed, and lose its checkpoint: a limit
    was reached while it was saved, a network disk showed it too late. What is finished counts for the same code alone,
    so that who edits code and trains again by force does train.

    Args:
        step: returns the loss parts as scalar tensors without gradient; they are fetched at log time only.
        state: name -> object with ``state_dict`` and ``load_state_dict``: all that a resumed training needs.
        output: the checkpoint that the caller writes afterwards.
        lr: the learning rate to note in the history.
        after_epoch: called with the number of each epoch, from 1, once it is over.
        snapshots: pictures of what the network makes of a few images, for TensorBoard.

    Raises:
        FloatingPointError: a loss is no longer finite, with the step and its images; or it was absurd (``ABSURD``) in
            most steps of an epoch.
        RuntimeError: another process trains it.
    """
    # closed also where a step fails: its thread would write on
    with alone(output), closing(_History(output)) as history:
        made_by = {"digest": digest, "code": digest_of(*sorted(PACKAGE.rglob("*.py")))}
        first, first_losses, rows = _resume(output, made_by, epochs, state)
        history.begin(rows)
        every = max(1, len(loader) * epochs // LOOKS)
        begin = time.monotonic()
        for epoch in range(first, epochs):
            record = LossRecord(first_losses)
            started = time.monotonic()
            for index, batch in enumerate(loader.epoch(epoch)):
                micro_step = epoch * len(loader) + index
                rate = lr()  # before the step changes it
                record.add(step(batch, micro_step), rate)
                if (micro_step + 1) % every == 0:
                    done = micro_step + 1 - first * len(loader)
                    left = (time.monotonic() - begin) / done * (epochs * len(loader) - micro_step - 1)
                    _check(record, loader, epoch, output)
                    logger.info("epoch %d of %d, step %d of %d: %s; %s left", epoch + 1, epochs, index + 1,
                                len(loader), _text(record.means()), _clock(left))  # fmt: skip
            _check(record, loader, epoch, output)
            seconds = round(time.monotonic() - started, 2)
            history.add({"epoch": epoch + 1, **record.means(), "lr": lr(), "seconds": seconds,
                         "gpu_memory_mb": _peak_memory()})  # fmt: skip
            first_losses = record.first
            _check_risen(record, epoch, epochs, output)
            after_epoch(epoch + 1)
            if snapshots and snapshots.due(epoch + 1, epochs):
                history.show(snapshots.take(), epoch + 1)
            _keep(output, made_by | {"first_losses": first_losses}, state, history, epoch + 1)


def training_digest(rule: str, classes: Classes, manifest: Manifest, seed: int, *further: object) -> str:
    """What a training is made from, for ``fit`` to compare; of ``further``, a path stands for its file's content."""
    return digest_of(REVISION[rule], list(classes.names), manifest.digest(), seed, *further)


def placed(model: nn.Module, device: torch.device, *, compiled: bool = False) -> nn.Module:
    """The network on its device, channels last, as convolutions are fastest.

    Args:
        compiled: compile its passes, one time for every shape and mode; its results change by rounding alone.
    """
    model.to(device).to(memory_format=torch.channels_last)
    if compiled:
        model.compile(dynamic=False)
    return model


class _History:
    """Rows of epochs, as CSV and TensorBoard events, and pictures, which are events alone.

    A training that resumes goes on in both; what the events say of epochs that it will train again is withdrawn.
    """

    def __init__(self, output: str | Path):
        stem = Path(output).with_suffix("")
        self.path = stem.with_name(f"{stem.name}.history.csv")
        self.events = stem.with_name(f"{stem.name}.tensorboard")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.rows: list[dict] = []
        self.writer: SummaryWriter | None = None

    def begin(self, rows: Sequence[dict]) -> None:
        """Start behind these rows, those of a training that resumes."""
        told = bool(rows) and self.events.exists()
        if not told:
            shutil.rmtree(self.events, ignore_errors=True)
        self.writer = SummaryWriter(self.events, purge_step=rows[-1]["epoch"] + 1 if told else None)
        self.rows = list(rows)
        for row in () if told else rows:
            self._tell(row)
        self._write()

    def add(self, row: dict) -> None:
        self.rows.append(row)
        self._tell(row)
        self._write()

    def show(self, pictures: Iterable[tuple[str, np.ndarray]], epoch: int) -> None:
        """Pictures (H, W, 3) uint8 by name."""
        assert self.writer
        for name, picture in pictures:
            self.writer.add_image(f"maps/{name}", picture, epoch, dataformats="HWC")

    def close(self) -> None:
        if self.writer:
            self.writer.close()

    def _tell(self, row: dict) -> None:
        assert self.writer
        for name, value in row.items():
            self.writer.add_scalar(name, value, row["epoch"])

    def _write(self) -> None:
        if self.rows:
            with whole(self.path) as partial:
                pd.DataFrame(self.rows).to_csv(partial, index=False)


def _resume_path(output: str | Path) -> Path:
    return Path(output).with_suffix(".resume.pt")


def _keep(output: str | Path, made_by: dict, state: dict, history: _History, epoch: int) -> None:
    content = _content(state) | {"epoch": epoch, **made_by, "history": history.rows}
    with whole(_resume_path(output)) as partial:
        torch.save(content, partial)


def _content(state: dict) -> dict[str, Any]:
    """All that a resumed training needs, by the names of its parts, with the random generators."""
    content = {name: part.state_dict() for name, part in state.items()} | {"rng": torch.get_rng_state()}
    return content | ({"cuda_rng": torch.cuda.get_rng_state()} if torch.cuda.is_available() else {})


def _restore(state: dict, content: dict) -> None:
    for name, part in state.items():
        part.load_state_dict(content[name])
    torch.set_rng_state(content["rng"])
    if torch.cuda.is_available() and "cuda_rng" in content:
        torch.cuda.set_rng_state(content["cuda_rng"])


def _resume(output: str | Path, made_by: dict, epochs: int, state: dict) -> tuple[int, dict[str, float], list[dict]]:
    """Restore the last epoch's state where there is one of this very training.

    One that is damaged, or that other code kept, is left to the first epoch, which overwrites it.

    Returns:
        The epoch to start with, the losses of the training's first step, and the rows of the epochs before.

    Raises:
        OSError: it cannot be read, whatever is in it.
    """
    path = _resume_path(output)
    if not path.exists():
        return 0, {}, []
    try:
        with reading(path, "is damaged", AFRESH):
            check_zip(path)
            content = torch.load(path, map_location="cpu", weights_only=True)
        with reading(path, "was kept by other code", AFRESH):
            epoch, digest, rows = content["epoch"], content["digest"], content["history"]
    except ValueError as error:
        logger.warning("%s", error)
        return 0, {}, []
    if digest != made_by["digest"]:
        logger.info("%s belongs to other settings or data: %s", path, AFRESH)
        return 0, {}, []
    if epoch == epochs and content.get("code") != made_by["code"]:
        logger.info("%s was finished by other code: %s", path, AFRESH)
        return 0, {}, []
    before = deepcopy(_content(state))  # what does not fit may be found when a part of it has been loaded
    try:
        with reading(path, "was kept by other code", AFRESH):
            parts = content.keys() - {"epoch", "digest", "code", "history", "rng", "cuda_rng", "first_losses"}
            if parts != state.keys():
                raise ValueError(f"of the two, only one has {', '.join(sorted(parts ^ state.keys()))}")
            _restore(state, content)
    except ValueError as error:
        logger.warning("%s", error)
        _restore(state, before)
        return 0, {}, []
    logger.info("resuming after epoch %d from %s", epoch, path)
    return epoch, content.get("first_losses", {}), rows


def _check(record: LossRecord, loader: EpochLoader, epoch: int, output: str | Path) -> None:
    if fault := record.fetch():
        raise FloatingPointError(
            f"the loss {fault.loss} of {Path(output).name} is {fault.value} in epoch {epoch + 1}, "
            f"step {fault.step + 1} of {len(loader)}, at a learning rate of {fault.rate:.3g}, on the images "
            f"{', '.join(loader.ids(epoch, fault.step))}: {WAY_OUT}"
        )


def _check_risen(record: LossRecord, epoch: int, epochs: int, output: str | Path) -> None:
    def said(losses: dict[str, float]) -> str:
        return ", ".join(f"{name} {value:.3g} (at first {record.first[name]:.3g})" for name, value in losses.items())

    if absurd := record.risen(ABSURD):
        raise FloatingPointError(f"{Path(output).name} has diverged in epoch {epoch + 1}: {said(absurd)}; {WAY_OUT}")
    if epoch + 1 == epochs and (risen := record.risen(RISEN)):
        logger.warning("losses of %s ended far above where they began: %s; if its maps are of no use, %s",
                       Path(output).name, said(risen), WAY_OUT)  # fmt: skip


def _text(means: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in means.items())


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"


def _peak_memory() -> int:
    return torch.cuda.max_memory_allocated() // 2**20 if torch.cuda.is_available() else 0
