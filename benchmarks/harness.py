"""What the benchmarks share: pairs of timings, peak memory, growth."""

import ctypes
import gc
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TypeVar

import numpy as np
import torch

Result = TypeVar("Result")


@dataclass(frozen=True)
class Options:
    """Where and how much to measure.

    Attributes:
        device: ``cpu`` or ``cuda``.
        threads: threads of torch, and processes of stages that use some.
    """

    device: str
    threads: int


@dataclass(frozen=True)
class Comparison:
    """The usual way and this code's, on the same input in one run: medians of pairs; memory in MB above the input."""

    stage: str
    case: str
    usual: str
    usual_seconds: float
    seconds: float
    ratio: float
    usual_memory: float
    memory: float
    agreement: str


@dataclass(frozen=True)
class Growth:
    """Seconds of this code over one quantity, and the exponent of the power law that fits them best."""

    stage: str
    quantity: str
    values: list[float]
    seconds: list[float]
    exponent: float


def compare(
    stage: str,
    case: str,
    *,
    usual: str,
    usual_way: Callable[[], Result],
    our_way: Callable[[], Result],
    agreement: Callable[[Result, Result], str],
    pairs: int = 5,
    warm_up: bool = True,
) -> Comparison:
    """Time both ways in turns.

    Args:
        usual: what the straightforward way does, in a few words.
        agreement: tells from both results (usual, ours) how far they agree.
        pairs: timed calls of each.
        warm_up: call both once before (not for what takes minutes).
    """
    if warm_up:
        usual_way(), our_way()
    seconds, memory = [], []
    for _ in range(pairs):
        theirs, their_seconds, their_memory = measured(usual_way)
        ours, our_seconds, our_memory = measured(our_way)
        seconds.append((their_seconds, our_seconds))
        memory.append((their_memory, our_memory))
    slow, fast = (median(column) for column in zip(*seconds, strict=True))
    return Comparison(
        stage=stage,
        case=case,
        usual=usual,
        usual_seconds=slow,
        seconds=fast,
        ratio=median(theirs / ours for theirs, ours in seconds),
        usual_memory=max(theirs for theirs, _ in memory),
        memory=max(ours for _, ours in memory),
        agreement=agreement(theirs, ours),
    )


def growth(
    stage: str,
    quantity: str,
    values: Sequence[float],
    prepare: Callable[[float], Callable[[], object]],
    repeats: int = 3,
) -> Growth:
    """Time this code at several values of one quantity; ``prepare(value)`` gives the call to be timed."""
    seconds = []
    for value in values:
        call = prepare(value)
        call()
        seconds.append(median(measured(call)[1] for _ in range(repeats)))
    exponent = np.polyfit(np.log(values), np.log(seconds), 1)[0]
    return Growth(stage, quantity, [float(v) for v in values], seconds, float(exponent))


def measured(call: Callable[[], Result]) -> tuple[Result, float, float]:
    """A call's result, its seconds, and its peak memory in MB above what was held before; on a GPU the card's."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # memory that an earlier call freed would hide what this one takes
    on_card = torch.cuda.is_available()
    if on_card:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated() / 2**20
    else:
        Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark
        before = _status("VmRSS")
    started = time.perf_counter()
    result = call()
    if on_card:
        torch.cuda.synchronize()
    seconds = time.perf_counter() - started
    peak = torch.cuda.max_memory_allocated() / 2**20 if on_card else _status("VmHWM")
    return result, seconds, max(0.0, peak - before)


def _status(key: str) -> float:
    """A line of this process's status, in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:")) / 1024


def machine(options: Options) -> dict:
    """The machine and the versions of what computes."""
    cpu = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.machine(),
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "memory_gb": round(memory),
        "gpu": torch.cuda.get_device_name() if options.device == "cuda" else None,
        "threads": options.threads,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }


def relative_difference(theirs, ours) -> str:
    """Largest difference relative to the usual way's value, as text."""
    theirs, ours = (torch.as_tensor(x).double().cpu() for x in (theirs, ours))
    return f"differs by {((ours - theirs).abs() / theirs.abs().clamp(min=1e-300)).max().item():.0e} at most, relatively"


def equal_arrays(theirs, ours) -> str:
    """Whether integer results are the same, as text."""
    return "equal" if np.array_equal(theirs, ours) else f"{np.count_nonzero(theirs != ours)} entries differ"
