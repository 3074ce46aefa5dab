"""What any job does before its work: its log file, its device, its seed."""

import fcntl
import hashlib
import json
import logging
import os
import random
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:  # torch is loaded by the jobs that have a network
    import torch

logger = logging.getLogger(__name__)
_started = time.monotonic()  # jobs import this module first


def log_to(path: str | Path, name: str = "") -> None:
    """Send all output of this process and of its children to a log file.

    The file descriptors are redirected, so that messages of workers and of CUDA land there too. Where a person
    watches (the old standard error is a terminal), log lines are shown there as well, behind the job's name.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    terminal = os.fdopen(os.dup(2), "w") if os.isatty(2) else None
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream, descriptor in ((sys.stdout, 1), (sys.stderr, 2)):
        stream.flush()
        os.dup2(log, descriptor)
    os.close(log)
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
    handlers[0].setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    if terminal:
        handlers.append(logging.StreamHandler(terminal))
        handlers[1].setFormatter(logging.Formatter(f"  [{name or path.stem}] %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=handlers, force=True)
    sys.excepthook = _log_exception


def _log_exception(kind: type, error: BaseException, trace: TracebackType | None) -> None:
    """The traceback, then the one line that matters, last."""
    logging.getLogger("wsss_core").error("%s", error, exc_info=(kind, error, trace))
    logging.getLogger("wsss_core").error("%s: %s", kind.__name__, error)


_locks: list[TextIO] = []  # open files: a lock lasts as long as its process


def pick_device(gpus: int) -> "torch.device":
    """The device of this job: a free GPU where the rule asks for one and there is one, else the CPU.

    A card is locked for the life of the process, so that two local jobs never share it; a job waits for a free one.
    The log tells what it was, with the versions of what computes.
    """
    import torch

    count = torch.cuda.device_count() if gpus else 0
    device = _lock_card(count) if count else torch.device("cpu")
    logger.info("running on %s", json.dumps(provenance(device)))
    return device


def _lock_card(count: int) -> "torch.device":
    import torch

    folder = Path(tempfile.gettempdir()) / f"wsss-gpu-locks-{os.getuid()}"
    folder.mkdir(exist_ok=True)
    for blocking in (False, True):  # look for a free one first, then wait for the first
        for index in range(count):
            lock = open(folder / _card_name(index), "w")  # noqa: SIM115
            try:
                fcntl.flock(lock, fcntl.LOCK_EX if blocking else fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lock.close()
                continue
            _locks.append(lock)
            return torch.device("cuda", index)
    raise RuntimeError("no GPU could be locked")


def _card_name(index: int) -> str:
    import torch

    return str(torch.cuda.get_device_properties(index).uuid)


def seed_everything(seed: int, threads: int) -> None:
    """Seed Python, numpy and torch, and use as many threads as the job was given."""
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - libraries beneath us may use it
    torch.manual_seed(seed)
    torch.set_num_threads(max(1, threads))
    torch.backends.cudnn.benchmark = True


def digest_of(*parts: object) -> str:
    """A digest of settings and inputs; a path stands for the content of its file."""
    state = hashlib.sha256()
    for part in parts:
        content = Path(part).read_bytes() if isinstance(part, Path) else json.dumps(part, sort_keys=True).encode()
        state.update(hashlib.sha256(content).digest())
    return state.hexdigest()


def provenance(device: "torch.device | None" = None) -> dict:
    """What produced a result: the device, the seconds since the job began, the versions of what computes."""
    import platform
    from importlib.metadata import version

    packages = ("wsss-core", "torch", "torchvision", "timm", "numpy", "zarr", "pydensecrf2")
    name = str(device or "cpu")
    if name.startswith("cuda"):
        import torch

        name = torch.cuda.get_device_name(device)
    return {
        "device": name,
        "seconds": round(time.monotonic() - _started, 1),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in packages}},
    }
