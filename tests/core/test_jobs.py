"""What any job does before its work."""

import json
import random
import subprocess
import sys

import numpy as np
import pytest
import torch

from wsss_core.base import jobs
from wsss_core.base.jobs import digest_of, pick_device, provenance, seed_everything

JOB = """
import sys
from wsss_core.base.jobs import log_to
log_to(sys.argv[1])
import logging, os, subprocess
print("printed", flush=True)
os.write(2, b"from a library\\n")
subprocess.run(["echo", "from a child"])
logging.getLogger("wsss_core.some").info("progress")
raise ValueError("the file is broken")
"""


def test_everything_a_job_says_is_in_its_log_and_the_error_is_last(tmp_path):
    log = tmp_path / "logs" / "job.log"
    done = subprocess.run([sys.executable, "-c", JOB, str(log)], capture_output=True, text=True)
    lines = log.read_text().splitlines()
    assert done.returncode == 1
    assert done.stdout == done.stderr == ""
    assert lines[:3] == ["printed", "from a library", "from a child"]
    assert lines[3].endswith("INFO progress")
    assert any(line.startswith("Traceback") for line in lines)
    assert lines[-1].endswith("ERROR ValueError: the file is broken")


def test_without_a_gpu_a_job_runs_on_the_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert pick_device(1) == torch.device("cpu")


def test_a_rule_that_asks_for_no_gpu_gets_none(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: pytest.fail("the cards were looked at"))
    assert pick_device(0) == torch.device("cpu")


def test_jobs_on_one_machine_get_different_cards(tmp_path, monkeypatch):
    monkeypatch.setattr(jobs.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(jobs, "_card_name", lambda index: f"card{index}")
    monkeypatch.setattr(jobs, "_locks", [])
    first, second = jobs._lock_card(2), jobs._lock_card(2)
    assert [first, second] == [torch.device("cuda", 0), torch.device("cuda", 1)]
    jobs._locks.pop(0).close()  # the first job ends
    assert jobs._lock_card(2) == torch.device("cuda", 0)
    for lock in jobs._locks:
        lock.close()


def test_a_seed_decides_all_random_numbers():
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    draws = []
    for _ in range(2):
        seed_everything(11, threads=0)
        draws.append((random.random(), np.random.rand(), torch.rand(1).item()))  # noqa: NPY002
        assert torch.get_num_threads() == 1
    assert draws[0] == draws[1]
    torch.set_num_threads(threads)
    torch.set_rng_state(state)


def test_a_digest_changes_with_settings_files_and_their_order(tmp_path):
    file = tmp_path / "weights.pt"
    file.write_bytes(b"one")
    before = digest_of({"a": 1, "b": [1, 2]}, file, None)
    assert before == digest_of({"b": (1, 2), "a": 1}, file, None)
    assert (
        len({before, digest_of({"a": 2, "b": [1, 2]}, file, None), digest_of(file, {"a": 1, "b": [1, 2]}, None)}) == 3
    )
    copied = tmp_path / "elsewhere.pt"
    copied.write_bytes(b"one")
    assert digest_of({"a": 1, "b": [1, 2]}, copied, None) == before
    file.write_bytes(b"two")
    assert digest_of({"a": 1, "b": [1, 2]}, file, None) != before


def test_results_tell_what_computed_them():
    about = provenance()
    assert about["device"] == "cpu"
    assert (
        about["versions"]["torch"] == torch.__version__.split("+")[0] or about["versions"]["torch"] == torch.__version__
    )
    assert {"python", "numpy", "zarr", "timm", "wsss-core"} <= about["versions"].keys()
    assert json.dumps(about)
