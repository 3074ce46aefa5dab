"""Many independent pieces of work on several processes, as a plain generator."""

import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from types import ModuleType
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

WAITING_PER_WORKER = 2  # enough to keep a worker busy while the results before it are taken


def in_processes(function: Callable[[Item], Result], items: Iterable[Item], workers: int) -> Iterator[Result]:
    """Yield ``function(item)`` for every item, in the order of the items.

    The results are the same for any number of workers. At most ``2 * workers`` items are taken ahead of the
    result that is yielded, so memory does not grow with the number of items.

    Args:
        function: a function of a module, or a ``functools.partial`` of one; its arguments and results travel
            as pickles between the processes. With more than one worker it cannot be one of the main script,
            which the workers do not load.
        items: any iterable; read lazily, in this process.
        workers: processes; 1 or less runs the function here.

    Raises:
        ValueError: the function cannot be found by another process.
        RuntimeError: a worker died.
        Whatever the function or the iterable raises, at the place of that item.
    """
    if workers <= 1:
        return map(function, items)
    _check_reachable(function)
    return _pooled(function, items, workers)


def _pooled(function, items, workers):
    # "spawn", because a fork of a process whose torch or OpenCV threads have started may hang
    pool = ProcessPoolExecutor(workers, get_context("spawn"), initializer=_one_thread)
    waiting: deque[Future] = deque()
    try:
        for item in items:
            waiting.append(_submit(pool, function, item))
            if len(waiting) >= WAITING_PER_WORKER * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool as error:
        raise RuntimeError(
            "a worker process died without an error of its own, most often for want of memory: "
            "ask for more memory or fewer threads"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _submit(pool: Executor, function, item) -> Future:
    with _no_main_script():  # submitting is what starts a process
        return pool.submit(function, item)


@contextmanager
def _no_main_script():
    """Start processes without the main script.

    A spawned process would run the main script again to find functions in it. A Snakemake script has no
    ``__name__`` guard, so every worker would start the whole job anew.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _one_thread():
    """Keep a worker to one thread: the parallelism is the processes'."""
    # read when NumPy, torch and OpenCV are loaded, which comes with the first item
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OPENCV_FOR_THREADS_NUM"):
        os.environ[name] = "1"


def _check_reachable(function):
    while isinstance(function, partial):
        function = function.func
    if function.__module__ == "__main__":
        raise ValueError(f"workers do not load the main script: move {function} to a module")
