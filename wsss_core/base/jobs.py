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
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:  # torch is loaded by the jobs that have a network
    import torch

logger = logging.getLogger(__name__)
_started = time.monotonic()  # jobs import this module first


class Share(NamedTuple):
    """What a job may use of its machine; the stages that work on pictures find out how many processes that makes."""

    threads: int
    mem_mb: float


def log_to(path: str | Path, name: str = "") -> None:
    """Send all output of this process and of its children to a log file.

    The file descriptors are redirected, so that messages of workers and of CUDA land there too. Where a person
    watches (the old standard error is a terminal), log lines are shown there as well, behind the job's name. What a
    job dies of is said there in one line, also where the output is piped; its traceback stays in the log.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    console, watched = os.fdopen(os.dup(2), "w"), os.isatty(2)
    log = _open_log(path)
    for stream, descriptor in ((sys.stdout, 1), (sys.stderr, 2)):
        stream.flush()
        os.dup2(log, descriptor)
    os.close(log)
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr), logging.StreamHandler(console)]
    handlers[0].setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    handlers[1].setFormatter(logging.Formatter(f"  [{name or path.stem}] %(message)s"))
    handlers[1].addFilter(lambda record: not record.exc_info and (watched or hasattr(record, "last_words")))
    logging.basicConfig(level=logging.INFO, handlers=handlers, force=True)
    sys.excepthook = _log_exception
    _end_with_coordinator()
    _hold_to_revisions()


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
    """The one line that matters, last; before it the traceback, but not of errors that are about the user's data."""
    if not kind.__module__.startswith("wsss_core."):
        logging.getLogger("wsss_core").error("%s", error, exc_info=(kind, error, trace))
    logging.getLogger("wsss_core").error("%s: %s", kind.__name__, error, extra={"last_words": True})


# Environment variables of jobs: the process that planned them, and a digest of the revisions that it had.
COORDINATOR, PLANNED_WITH = "WSSS_COORDINATOR", "WSSS_REVISIONS"
REVISIONS = Path(__file__).parents[1] / "recipes/revisions.py"


def coordinate() -> None:
    """Let the jobs that this process starts on this machine end with it; the Snakefile calls this when it plans.

    They also stop where the revisions are no longer those of the plan: jobs on this machine are handed their settings,
    but load the code when they start.
    """
    os.environ.update({COORDINATOR: str(os.getpid()), PLANNED_WITH: digest_of(REVISIONS)})


def _hold_to_revisions() -> None:
    digest = digest_of(REVISIONS)
    if os.environ.get(PLANNED_WITH, digest) != digest:
        raise RuntimeError(
            f"{REVISIONS} was changed after this job was planned: stop snakemake and start it again, so that it plans "
            "anew with this code"
        )


def _end_with_coordinator() -> None:
    """End this process soon after the coordinator that it descends from was killed.

    An orphan would write on beside the job that the next coordinator starts. A job that a cluster started descends from
    no coordinator, and goes on whatever becomes of that.
    """
    coordinator = int(os.environ.get(COORDINATOR, "-1"))
    if coordinator in _ancestors():
        threading.Thread(target=_watch, args=(coordinator,), daemon=True).start()


def _watch(coordinator: int) -> None:
    while coordinator in _ancestors():
        time.sleep(1)
    logger.error("the snakemake that started this job (process %d) was killed, and the job ends with it", coordinator)
    os._exit(1)


def _ancestors() -> list[int]:
    """Process ids from the parent up; none without Linux's /proc. A dead process is nobody's ancestor."""
    found, process = [], "self"
    with suppress(OSError, IndexError, ValueError):
        while process != "0":
            # behind the name, which may hold anything: the state and the parent
            process = Path(f"/proc/{process}/stat").read_text(errors="replace").rpartition(")")[2].split()[1]
            found.append(int(process))
    return found


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
