"""What every training shares: epochs, history, resuming, precision."""

import logging
import math
import shutil
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter

import wsss_core
from wsss_core.base.files import check_zip, reading, whole
from wsss_core.base.jobs import digest_of
from wsss_core.fitting.loader import EpochLoader

logger = logging.getLogger(__name__)
PACKAGE = Path(wsss_core.__file__).parent


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

    Raises:
        FloatingPointError: a loss is no longer finite.
    """
    with closing(_History(output)) as history:  # also where a step fails: its thread would write on
        made_by = {"digest": digest, "code": digest_of(*sorted(PACKAGE.rglob("*.py")))}
        first = _resume(output, made_by, epochs, state, history)
        every = max(1, len(loader) * epochs // 20)
        begin = time.monotonic()
        for epoch in range(first, epochs):
            sums: dict[str, Tensor] = {}
            counts: Counter[str] = Counter()
            started = time.monotonic()
            for index, batch in enumerate(loader.epoch(epoch)):
                micro_step = epoch * len(loader) + index
                for name, value in step(batch, micro_step).items():
                    sums[name] = sums.get(name, 0) + value
                    counts[name] += 1  # a part may have no value in some steps
                if (micro_step + 1) % every == 0:
                    done = micro_step + 1 - first * len(loader)
                    left = (time.monotonic() - begin) / done * (epochs * len(loader) - micro_step - 1)
                    means = _means(sums, counts, output)
                    logger.info("epoch %d of %d, step %d of %d: %s; %s left", epoch + 1, epochs, index + 1,
                                len(loader), _text(means), _clock(left))  # fmt: skip
            means = _means(sums, counts, output)
            history.add({"epoch": epoch + 1, **means, "lr": lr(), "seconds": round(time.monotonic() - started, 2),
                         "gpu_memory_mb": _peak_memory()})  # fmt: skip
            after_epoch(epoch + 1)
            _keep(output, made_by, state, history, epoch + 1)


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
    """Rows of epochs, as CSV and TensorBoard events; both are rewritten from the rows when a training resumes."""

    def __init__(self, output: str | Path):
        stem = Path(output).with_suffix("")
        self.path = stem.with_name(f"{stem.name}.history.csv")
        self.events = stem.with_name(f"{stem.name}.tensorboard")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.rows: list[dict] = []
        shutil.rmtree(self.events, ignore_errors=True)
        self.writer = SummaryWriter(self.events)

    def add(self, row: dict) -> None:
        self.rows.append(row)
        for name, value in row.items():
            self.writer.add_scalar(name, value, row["epoch"])
        with whole(self.path) as partial:
            pd.DataFrame(self.rows).to_csv(partial, index=False)

    def close(self) -> None:
        self.writer.close()


def _resume_path(output: str | Path) -> Path:
    return Path(output).with_suffix(".resume.pt")


def _keep(output: str | Path, made_by: dict, state: dict, history: _History, epoch: int) -> None:
    content = {name: part.state_dict() for name, part in state.items()}
    content |= {"epoch": epoch, **made_by, "history": history.rows, "rng": torch.get_rng_state()}
    if torch.cuda.is_available():
        content["cuda_rng"] = torch.cuda.get_rng_state()
    with whole(_resume_path(output)) as partial:
        torch.save(content, partial)


def _resume(output: str | Path, made_by: dict, epochs: int, state: dict, history: _History) -> int:
    """Restore the last epoch's state where there is one of this very training; return the epoch to start with.

    A damaged one is left to the first epoch, which overwrites it.

    Raises:
        OSError: it cannot be read, whatever is in it.
    """
    path = _resume_path(output)
    if not path.exists():
        return 0
    try:
        with reading(path, "is damaged", "starting from the first epoch"):
            check_zip(path)
            content = torch.load(path, map_location="cpu", weights_only=True)
    except ValueError as error:
        logger.warning("%s", error)
        return 0
    if content["digest"] != made_by["digest"]:
        logger.info("%s belongs to other settings or data: starting from the first epoch", path)
        return 0
    if content["epoch"] == epochs and content.get("code") != made_by["code"]:
        logger.info("%s was finished by other code: starting from the first epoch", path)
        return 0
    for name, part in state.items():
        part.load_state_dict(content[name])
    torch.set_rng_state(content["rng"])
    if torch.cuda.is_available() and "cuda_rng" in content:
        torch.cuda.set_rng_state(content["cuda_rng"])
    for row in content["history"]:
        history.add(row)
    logger.info("resuming after epoch %d from %s", content["epoch"], path)
    return content["epoch"]


def _means(sums: dict[str, Tensor], counts: dict[str, int], output: str | Path) -> dict[str, float]:
    means = {name: float(total) / counts[name] for name, total in sums.items()}
    broken = [name for name, value in means.items() if not math.isfinite(value)]
    if broken:
        raise FloatingPointError(
            f"the loss {', '.join(broken)} of {Path(output).name} is no longer finite: lower its learning_rate, or "
            "set precision to float32, in config.yaml"
        )
    return means


def _text(means: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in means.items())


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"


def _peak_memory() -> int:
    return torch.cuda.max_memory_allocated() // 2**20 if torch.cuda.is_available() else 0
