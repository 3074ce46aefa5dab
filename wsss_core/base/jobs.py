"""What any job does before its work: its log file, its device, its seed."""

import fcntl
import hashlib
import json
import logging
import os
import random
import stat
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

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
    log = _open_log(path)
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


def _open_log(path: Path) -> int:
    """Open a log behind what earlier attempts wrote: Snakemake removes it before each, but not its second name."""
    kept = path.with_name(f".{path.name}")
    with suppress(OSError):  # no earlier attempt, or a disk without hard links
        os.link(kept, path)
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    with suppress(OSError):
        os.link(path, kept)
    return log


def _log_exception(kind: type, error: BaseException, trace: TracebackType | None) -> None:
    """The traceback, then the one line that matters, last."""
    logging.getLogger("wsss_core").error("%s", error, exc_info=(kind, error, trace))
    logging.getLogger("wsss_core").error("%s: %s", kind.__name__, error)


ALLOW_CPU = "WSSS_ALLOW_CPU"
_locks: list[int] = []  # open files: a lock lasts as long as its process


def pick_device(gpus: int) -> "torch.device":
    """The device of this job: a free GPU where the rule asks for one and there is one, else the CPU.

    A card is locked for the life of the process, so that two local jobs never share it; a job waits for a free one.
    The log tells what it was, with the versions of what computes.

    Raises:
        RuntimeError: the job was given a GPU that it cannot use; on a CPU it would take days without a word.
    """
    import torch

    count = torch.cuda.device_count() if gpus else 0
    if gpus and not count and (promise := _promised_gpu()) and not os.environ.get(ALLOW_CPU):
        raise RuntimeError(
            f"this job was given a GPU ({promise}) that PyTorch {torch.__version__} cannot use: look at nvidia-smi and "
            f"at `python -c 'import torch; torch.zeros(1).cuda()'` there, or set {ALLOW_CPU}=1 to compute on the CPU"
        )
    device = _lock_card(count) if count else torch.device("cpu")
    logger.info("running on %s", json.dumps(provenance(device)))
    return device


def _promised_gpu() -> str:
    """The variable that names a card of this job, if any; a user who wants no card sets the first to nothing or -1."""
    values = {name: os.environ.get(name, "") for name in ("CUDA_VISIBLE_DEVICES", "SLURM_JOB_GPUS")}
    return next((f"{name}={value}" for name, value in values.items() if value not in ("", "-1", "NoDevFiles")), "")


def _lock_card(count: int, seconds: float = 5) -> "torch.device":
    """The first card that is free; where none is, all of them are looked at again every few seconds."""
    import torch

    waiting = False
    while (index := _free_card(count)) is None:
        if not waiting:
            logger.info("waiting for a GPU: other jobs hold all %d; `--resources gpu=%d` starts no more jobs than that",
                        count, count)  # fmt: skip
            waiting = True
        time.sleep(seconds)
    return torch.device("cuda", index)


def _free_card(count: int) -> int | None:
    """Lock a card that no other process has."""
    folder = _lock_folder()
    for index in range(count):
        lock = os.open(folder / _card_name(index), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
        else:
            _locks.append(lock)
            return index
    return None


def _lock_folder() -> Path:
    """A folder of this user alone, in a place where everyone may write."""
    folder = Path(tempfile.gettempdir()) / f"wsss-gpu-locks-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    about = folder.lstat()
    if not stat.S_ISDIR(about.st_mode) or about.st_uid != os.getuid():
        raise RuntimeError(f"{folder} is a link or belongs to someone else: remove it, or set TMPDIR")
    folder.chmod(0o700)
    return folder


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
    """What produced a result: the device, seconds since the job began, versions of what computes, the commit."""
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
        **commit_of(Path(__file__).parents[1]),
    }


def commit_of(package: Path) -> dict[str, str | bool | None]:
    """The commit that a package is at, and whether its folder is ``clean``; both None without git or a checkout."""
    try:
        # the second is refused where the package lies in a checkout that does not hold it, such as in site-packages
        commit, _ = _git(package, "rev-parse", "HEAD", "HEAD:./__init__.py").split()
        return {"commit": commit, "clean": not _git(package, "status", "--porcelain", "--", ".")}
    except (OSError, subprocess.SubprocessError, ValueError):
        return {"commit": None, "clean": None}


def _git(folder: Path, *words: str) -> str:
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}  # several jobs may ask at once
    return subprocess.run(
        ["git", *words], cwd=folder, env=environment, capture_output=True, text=True, check=True, timeout=10
    ).stdout.strip()
