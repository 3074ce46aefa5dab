"""Work on several processes: order, bounds, and no silent loss."""

import os
import subprocess
import sys
import time
from functools import partial

import pytest

from wsss_core.base.parallel import in_processes


def square_or_fail(number: int, *, fails_at: int = -1, dies_at: int = -1) -> int:
    if number == fails_at:
        raise ValueError(f"item {number} is broken")
    if number == dies_at:
        os._exit(9)
    return number * number


def threads(_) -> tuple[str, int]:
    import cv2

    return os.environ["OMP_NUM_THREADS"], cv2.getNumThreads()


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_results_come_in_order_for_any_number_of_workers(workers):
    assert list(in_processes(square_or_fail, range(20), workers)) == [n * n for n in range(20)]


def test_items_are_taken_only_a_little_ahead():
    taken = []

    def items():
        for number in range(50):
            taken.append(number)
            yield number

    results = in_processes(square_or_fail, items(), 2)
    assert next(results) == 0
    assert len(taken) <= 5
    results.close()


def test_an_error_in_a_worker_arrives_with_its_message():
    results = in_processes(partial(square_or_fail, fails_at=3), range(10), 2)
    assert [next(results) for _ in range(3)] == [0, 1, 4]
    with pytest.raises(ValueError, match="item 3 is broken"):
        next(results)


def test_a_worker_that_dies_is_an_error():
    with pytest.raises(RuntimeError, match="a worker process died"):
        list(in_processes(partial(square_or_fail, dies_at=1), range(10), 2))


def test_a_worker_has_one_thread():
    assert list(in_processes(threads, [0], 2)) == [("1", 1)]


def test_the_main_script_is_not_run_again_by_the_workers(tmp_path):
    script = tmp_path / "job.py"  # like a Snakemake script: no guard against being imported
    script.write_text(
        "import math\nfrom wsss_core.base.parallel import in_processes\n"
        "print(list(in_processes(math.isqrt, [9, 16, 25], 2)))\n"
    )
    ran = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
    assert ran.stdout == "[3, 4, 5]\n"


@pytest.mark.parametrize("bound", [False, True])
def test_a_function_of_the_main_script_is_refused(monkeypatch, bound):
    monkeypatch.setattr(square_or_fail, "__module__", "__main__")
    function = partial(square_or_fail, fails_at=3)
    with pytest.raises(ValueError, match=r"move .* to a module"):
        in_processes(partial(threads, function=function) if bound else function, [1], 2)


def test_the_settings_of_this_process_stay(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    before = dict(os.environ)
    assert list(in_processes(square_or_fail, [3], 2)) == [9]
    assert dict(os.environ) == before


def test_workers_end_when_their_job_is_killed(tmp_path):
    script = tmp_path / "job.py"
    script.write_text(
        "import os, time\nfrom wsss_core.base.parallel import in_processes\n"
        "results = in_processes(os.getpgid, [0] * 6, 2)\nnext(results)\n"
        "time.sleep(0.5)  # until the workers wait for work\nprint(next(results), flush=True)\ntime.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True, start_new_session=True) as job:
        group = int(job.stdout.readline())  # of the job and all that it started
        job.kill()
    deadline = time.monotonic() + 30
    while _alive(group):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
