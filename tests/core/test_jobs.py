"""What any job does before its work."""

import json
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch

from wsss_core.base import jobs
from wsss_core.base.jobs import commit_of, digest_of, pick_device, provenance, seed_everything

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
    assert (done.stdout, done.stderr) == ("", "  [job] ValueError: the file is broken\n")
    assert lines[:3] == ["printed", "from a library", "from a child"]
    assert lines[3].endswith("INFO progress")
    assert any(line.startswith("Traceback") for line in lines)
    assert lines[-1].endswith("ERROR ValueError: the file is broken")


def test_an_error_about_the_users_data_is_one_line_without_a_traceback(tmp_path):
    error = "from wsss_core.recipes.config import RecipeError\nraise RecipeError('labels.csv, line 3: no class')"
    job = JOB.replace('raise ValueError("the file is broken")', error)
    done = subprocess.run([sys.executable, "-c", job, str(tmp_path / "job.log")], capture_output=True, text=True)
    assert done.stderr == "  [job] RecipeError: labels.csv, line 3: no class\n"
    assert "Traceback" not in (tmp_path / "job.log").read_text()


def test_a_log_keeps_the_lines_of_earlier_attempts_though_snakemake_removes_it(tmp_path):
    log = tmp_path / "job.log"
    for attempt in (1, 2, 3):
        subprocess.run([sys.executable, "-c", JOB, str(log)])
        assert log.read_text().count("INFO progress") == attempt
        log.unlink()


# --- ends -----------------------------------------------------------------------------------------------------------

STAYING = """
import sys, time
from wsss_core.base.jobs import log_to
log_to(sys.argv[1])
print("at work", flush=True)
time.sleep(60)
"""
# as Snakemake does: a process that plans, which starts another one by way of a shell, which starts the job
COORDINATOR = """
import subprocess, sys
from wsss_core.base.jobs import coordinate
coordinate()
subprocess.run(f"true; {sys.executable} -c 'import subprocess, sys; subprocess.run(sys.argv[1:]); 0' "
               f"{sys.executable} {sys.argv[1]} {sys.argv[2]}; true", shell=True)
"""


def until(holds, seconds=20):
    """Wait for something that another process does."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it does not happen"
        time.sleep(0.02)


def working(log) -> bool:
    return log.exists() and "at work" in log.read_text()


def processes(log) -> list[int]:
    """Those that have the log's path among their arguments."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if str(log).encode() in file.read_bytes().split(b"\0"):
                found.append(int(file.parent.name))
    return found


@pytest.fixture
def staying_job(tmp_path):
    """The script of a job that works for a minute, and its log; what is left of it is ended."""
    (tmp_path / "job.py").write_text(STAYING)
    log = tmp_path / "job.log"
    yield tmp_path / "job.py", log
    for process in processes(log):
        os.kill(process, signal.SIGKILL)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="Linux tells a process's parent there")
def test_a_job_ends_with_the_coordinator_that_was_killed(staying_job):
    job, log = staying_job
    coordinator = subprocess.Popen([sys.executable, "-c", COORDINATOR, str(job), str(log)])
    until(lambda: working(log))
    assert len(processes(log)) > 2
    coordinator.kill()  # and not waited for: its entry stays, as where nobody looks after it
    until(lambda: "was killed, and the job ends with it" in log.read_text())
    coordinator.wait()
    until(lambda: not processes(log))
    assert f"(process {coordinator.pid})" in log.read_text()


def test_a_job_that_a_cluster_started_survives_the_coordinator(staying_job, tmp_path):
    """It has the coordinator's environment, but is no descendant of it."""
    job, log = staying_job
    coordinator = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    environment = {**os.environ, jobs.COORDINATOR: str(coordinator.pid)}
    started = subprocess.Popen([sys.executable, str(job), str(log)], env=environment)
    until(lambda: working(log))
    coordinator.kill()
    coordinator.wait()
    time.sleep(1.5)  # it would have looked by now
    assert started.poll() is None
    started.kill()
    started.wait()


def test_a_job_does_not_run_with_other_revisions_than_it_was_planned_with(tmp_path, monkeypatch):
    revisions = tmp_path / "revisions.py"
    revisions.write_text("REVISION = {'make_cams': 1}")
    monkeypatch.setattr(jobs, "REVISIONS", revisions)
    for name in (jobs.COORDINATOR, jobs.PLANNED_WITH):
        monkeypatch.setenv(name, "-1")  # so that it is put back
    jobs.coordinate()
    jobs._hold_to_revisions()
    revisions.write_text("REVISION = {'make_cams': 2}")
    with pytest.raises(RuntimeError, match=r"revisions\.py was changed after this job was planned: stop snakemake"):
        jobs._hold_to_revisions()
    monkeypatch.delenv(jobs.PLANNED_WITH)
    jobs._hold_to_revisions()  # a script that is run by hand


def test_a_process_is_told_its_ancestors():
    assert jobs._ancestors()[0] == os.getppid()
    assert 0 not in jobs._ancestors()[:-1]


# --- devices --------------------------------------------------------------------------------------------------------


def test_without_a_gpu_a_job_runs_on_the_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert pick_device(1) == torch.device("cpu")


def test_a_rule_that_asks_for_no_gpu_gets_none(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: pytest.fail("the cards were looked at"))
    assert pick_device(0) == torch.device("cpu")


@pytest.mark.parametrize("promise", ["CUDA_VISIBLE_DEVICES", "SLURM_JOB_GPUS"])
def test_a_promised_gpu_that_cannot_be_used_is_an_error(monkeypatch, promise):
    for name in ("CUDA_VISIBLE_DEVICES", "SLURM_JOB_GPUS", jobs.ALLOW_CPU):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(promise, "0")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(RuntimeError, match=r"given a GPU \(.*=\d\) that PyTorch .* cannot use: .* WSSS_ALLOW_CPU=1"):
        pick_device(1)
    assert pick_device(0) == torch.device("cpu")
    monkeypatch.setenv(jobs.ALLOW_CPU, "1")
    assert pick_device(1) == torch.device("cpu")


@pytest.mark.parametrize("value", ["", "-1", "NoDevFiles"])
def test_no_card_is_promised_by_a_variable_that_names_none(monkeypatch, value):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert pick_device(1) == torch.device("cpu")


@pytest.fixture
def two_cards(tmp_path, monkeypatch):
    """The folder of their locks; what is locked is free again at the end."""
    monkeypatch.setattr(jobs.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(jobs, "_card_name", lambda index: f"card{index}")
    monkeypatch.setattr(jobs, "_locks", [])
    yield tmp_path / f"wsss-gpu-locks-{os.getuid()}"
    for lock in jobs._locks:
        os.close(lock)


def test_jobs_on_one_machine_get_different_cards(two_cards):
    first, second = jobs._lock_card(2), jobs._lock_card(2)
    assert [first, second] == [torch.device("cuda", 0), torch.device("cuda", 1)]
    os.close(jobs._locks.pop(0))  # the first job ends
    assert jobs._lock_card(2) == torch.device("cuda", 0)


def test_a_job_that_waits_takes_whichever_card_gets_free_and_says_once_that_it_waits(two_cards, monkeypatch, caplog):
    jobs._lock_card(2), jobs._lock_card(2)
    naps = []

    def sleep(seconds):
        naps.append(seconds)
        if len(naps) == 3:
            os.close(jobs._locks.pop(1))  # the second job ends

    monkeypatch.setattr(jobs.time, "sleep", sleep)
    with caplog.at_level("INFO", logger=jobs.logger.name):
        assert jobs._lock_card(2) == torch.device("cuda", 1)
    assert len(naps) == 3
    assert [record.getMessage() for record in caplog.records] == [
        "waiting for a GPU: other jobs hold all 2; `--resources gpu=2` starts no more jobs than that"
    ]


def test_locks_are_this_users_alone_and_no_link_leads_elsewhere(two_cards):
    two_cards.mkdir(mode=0o755)
    precious = two_cards.with_name("precious")
    precious.write_text("kept")
    (two_cards / "card0").symlink_to(precious)
    with pytest.raises(OSError, match="card0"):
        jobs._lock_card(1)
    assert precious.read_text() == "kept"
    assert stat.S_IMODE(two_cards.stat().st_mode) == 0o700
    shutil.rmtree(two_cards)
    two_cards.symlink_to(two_cards.parent)
    with pytest.raises(RuntimeError, match="is a link or belongs to someone else"):
        jobs._lock_card(1)


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


def test_results_tell_the_commit_and_whether_the_package_was_changed_since(tmp_path):
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    assert commit_of(package) == {"commit": None, "clean": None}  # no checkout

    def git(*words):
        named = ["-c", "user.name=a", "-c", "user.email=a@b"]
        return subprocess.run(["git", *named, *words], cwd=tmp_path, check=True, capture_output=True, text=True).stdout

    git("init")
    git("commit", "--allow-empty", "-m", "first")
    assert commit_of(package) == {"commit": None, "clean": None}  # a checkout that does not hold it
    git("add", ".")
    git("commit", "-m", "second")
    head = git("rev-parse", "HEAD").strip()
    (tmp_path / "results.txt").write_text("beside it")
    assert commit_of(package) == {"commit": head, "clean": True}
    (package / "new.py").write_text("")
    assert commit_of(package) == {"commit": head, "clean": False}


def test_without_git_no_commit_is_told_and_no_job_fails(monkeypatch):
    monkeypatch.setenv("PATH", "")
    about = provenance()
    assert (about["commit"], about["clean"]) == (None, None)
