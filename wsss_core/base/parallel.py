"""Many independent pieces of work on several processes, as a plain generator."""

import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context, parent_process
from multiprocessing.process import BaseProcess
from threading import Thread
from types import FunctionType, ModuleType
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

WAITING_PER_WORKER = 2  # enough to keep a worker busy while the results before it are taken

# The parallelism is the processes'. Read when NumPy, torch and OpenCV are loaded.
ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OPENCV_FOR_THREADS_NUM"), "1"
)


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
    functions = _functions(function)
    for one in functions:
        if one.__module__ == "__main__":
            raise ValueError(f"workers do not load the main script: move {one} to a module")
    return _pooled(function, items, workers, [one.__module__ for one in functions])


def _pooled(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int, modules: list[str]
) -> Iterator[Result]:
    # A fork of this process may hang, because torch or OpenCV threads may have started. A server that has only
    # loaded the modules has no threads: its forks need no second or more of imports and share their memory.
    context = get_context("forkserver")
    context.set_forkserver_preload(modules)
    pool = ProcessPoolExecutor(workers, context, initializer=_prepare_worker)
    waiting: deque[Future[Result]] = deque()
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


def _prepare_worker() -> None:
    """Keep a worker to one thread, and let it end when the process that it works for was killed."""
    os.environ.update(ONE_THREAD)  # again, for workers of a server that another library has started
    if parent := parent_process():
        Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(process: BaseProcess) -> None:
    process.join()
    os._exit(1)


def _submit(pool: Executor, function: Callable[[Item], Result], item: Item) -> Future[Result]:
    with _start_of_workers():  # submitting is what starts a process
        return pool.submit(function, item)


@contextmanager
def _start_of_workers() -> Iterator[None]:
    """Start processes with one thread each, and without the main script.

    A new process would run the main script again to find functions in it. A Snakemake script has no
    ``__name__`` guard, so every worker would start the whole job anew.
    """
    main, before = sys.modules["__main__"], dict(os.environ)
    sys.modules["__main__"] = ModuleType("__main__")
    os.environ.update(ONE_THREAD)
    try:
        yield
    finally:
        sys.modules["__main__"] = main
        for name in ONE_THREAD:
            os.environ.pop(name)
            if name in before:
                os.environ[name] = before[name]


def _functions(function: Callable) -> list[Callable]:
    """A function without its bound arguments, and the functions among these."""
    if not isinstance(function, partial):
        return [function]
    bound = [part for part in (*function.args, *function.keywords.values()) if isinstance(part, FunctionType | partial)]
    return [one for part in (function.func, *bound) for one in _functions(part)]
