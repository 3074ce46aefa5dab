"""The tiny pipeline through profiles/slurm, on a real SLURM of one node that is set up for it and ended again.

    .venv/bin/python tests/slurm/trial.py

It is for a throw-away machine, as root, with Debian's packages: it installs SLURM, writes /etc/slurm, and listens on
the loopback alone. The node's one GPU is pretended, so its jobs compute on the CPU. What it tries:

- the whole recipe, with a training that meets its time limit and one that somebody cancels: checkpoints and scores are
  those of a run without SLURM, and the logs keep every attempt
- each job in the partition that profiles/mine.example's way of saying it leads to
- a config that is edited while a job waits, and a GPU that cannot be used: refused, with the message

It is no part of bin/test. On two cores it takes eleven minutes, most of them spent waiting.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import torch
import yaml

from wsss_core.recipes.revisions import REVISION

ROOT = Path(__file__).parents[2]
PACKAGES = ("munge", "slurmctld", "slurmd", "slurm-client")
CONFIG = Path("/etc/slurm")
MARK = "# written by tests/slurm/trial.py"
TARGETS = ("results/demo/pnoc/seg_miou.json", "results/demo/pnoc/pseudo_miou.json")
PATIENCE = 1800  # seconds for any step

NODE = """{mark}
ClusterName=trial
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
ProctrackType=proctrack/linuxproc
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SlurmdParameters=config_overrides
StateSaveLocation={folder}/slurmctld
SlurmdSpoolDir={folder}/slurmd
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
MinJobAge=3600
KillWait=5
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs=4 CoresPerSocket=4 RealMemory=400000 Gres=gpu:1
PartitionName=cpu Nodes=ALL Default=YES
PartitionName=gpu Nodes=ALL
"""
PARTITIONS = {"partitions": {"cpu": {"max_mem_mb": 100000}, "gpu": {"max_mem_mb": 200000, "max_gpu": 1}}}
# Trainings long enough to be met half way.
LONGER = {"prior": {"classifier": {"epochs": 12}}, "segmentation": {"v3plus": {"epochs": 12}}}


def main() -> None:
    refuse_elsewhere()
    folder = Path(tempfile.mkdtemp(prefix="wsss-slurm-"))
    os.chdir(folder)
    said("SLURM's packages are there", install)
    said("a run without SLURM is done", lambda: finish(start("local", *profiles("local"), "--cores", "2")))
    with cluster(folder):
        coordinator = start("slurm", *profiles("slurm", folder), env={"WSSS_ALLOW_CPU": "1"})
        limited = said("the plain classifier is held until its time limit", lambda: meet_limit(folder / "slurm"))
        cancelled = said("the segmentation network's job is cancelled", lambda: cancel(folder / "slurm"))
        said("the run on SLURM is done", lambda: finish(coordinator))
        check_jobs(limited, cancelled)
        check_results(folder / "local/results", folder / "slurm/results")
        check_logs(folder / "slurm")
        said("a GPU that cannot be used is refused", lambda: check_refused_gpu(folder))
        said("a job of an edited config is refused", lambda: check_refused_config(folder))
    os.chdir("/")
    shutil.rmtree(folder)
    print("all as it should be", flush=True)


def refuse_elsewhere() -> None:
    file = CONFIG / "slurm.conf"
    if os.geteuid() or not shutil.which("apt-get"):
        sys.exit("this trial installs SLURM: it needs root on a throw-away machine with Debian's packages")
    if file.exists() and MARK not in file.read_text():
        sys.exit(f"{file} is not this trial's: it would break the SLURM of this machine")
    if running := [p.name() for p in psutil.process_iter() if p.name() in ("slurmctld", "slurmd", "munged")]:
        sys.exit(f"{running[0]} runs already: end it first")


def install() -> None:
    quiet = {"stdout": subprocess.DEVNULL, "env": {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}, "check": True}
    if not shutil.which("slurmctld"):
        subprocess.run(["apt-get", "update"], **quiet)
        # the packages start nothing where there is no systemd; where there is one, it shall not either
        policy = Path("/usr/sbin/policy-rc.d")
        ours = not policy.exists()
        if ours:
            policy.write_text("#!/bin/sh\nexit 101\n")
            policy.chmod(0o755)
        try:
            subprocess.run(["apt-get", "install", "-y", "--no-install-recommends", *PACKAGES], **quiet)
        finally:
            if ours:
                policy.unlink()


# --- the cluster ---


@contextmanager
def cluster(folder: Path) -> Iterator[None]:
    """SLURM on one node, for as long as the block lasts; no process of it or of its jobs is left."""
    host = socket.gethostname().partition(".")[0]
    files = {
        CONFIG / "slurm.conf": NODE.format(mark=MARK, host=host, folder=folder),
        CONFIG / "gres.conf": f"{MARK}\nNodeName={host} Name=gpu File=/dev/null\n",
    }
    for path, text in files.items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    (folder / "slurmctld").mkdir()
    run = Path("/run/munge")
    run.mkdir(mode=0o755, exist_ok=True)
    shutil.chown(run, "munge", "munge")
    daemons = []
    try:
        munge = {"user": "munge", "group": "munge", "extra_groups": []}
        for command, options in (
            (["munged", "--foreground"], munge),
            (["slurmctld", "-D"], {}),
            (["slurmd", "-D"], {}),
        ):
            daemons.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options))
            time.sleep(1)
        said("the node is idle", lambda: wait_for(lambda: "idle" in slurm("sinfo", "-h", "-o", "%T"), 60))
        yield
    finally:
        end_all(folder, daemons)
        for path in files:
            path.unlink()


def end_all(folder: Path, daemons: list[subprocess.Popen]) -> None:
    """The coordinators, then the jobs, which outlive the daemons, then the daemons in reverse; each by its id."""
    for coordinator in coordinators:
        if coordinator.poll() is None:
            coordinator.send_signal(signal.SIGINT)
            ended(coordinator)
    with suppress(subprocess.SubprocessError, TimeoutError):
        slurm("scancel", "--user", "root")
        wait_for(lambda: not slurm("squeue", "-h"), 60)
    for daemon in reversed(daemons):
        daemon.terminate()
        ended(daemon)
    for process in of_folder(folder):
        process.kill()


def ended(process: subprocess.Popen, seconds: float = 60) -> None:
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def of_folder(folder: Path, word: str = "") -> list[psutil.Process]:
    """Other processes that work in the folder, and have a word in their command line."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            inside = Path(process.cwd()).is_relative_to(folder) and process.pid != os.getpid()
            if inside and any(word in argument for argument in process.cmdline()):
                found.append(process)
    return found


def slurm(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


def job_of(comment: str) -> str:
    """The number of the running job of a rule and its wildcards."""
    lines = [line.split() for line in slurm("squeue", "-h", "-t", "RUNNING", "-o", "%i %k").splitlines()]
    return next(number for number, about in lines if about == comment)


# --- Snakemake ---

coordinators: list[subprocess.Popen] = []


def profiles(name: str, folder: Path | None = None) -> tuple[str, ...]:
    """The shipped profile, and over it one's own as docs/slurm.md describes it."""
    shipped = ("--profile", str(ROOT / "profiles" / name))
    if not folder:
        return shipped
    own = folder / "mine"
    own.mkdir(exist_ok=True)
    (own / "profile.yaml").write_text("slurm-partition-config: partitions.yaml\n")
    (own / "partitions.yaml").write_text(yaml.safe_dump(PARTITIONS))
    return *shipped, "--profile", str(own), "--slurm-init-seconds-before-status-checks", "5"


def start(name: str, *words: str, targets: tuple[str, ...] = TARGETS, env: dict | None = None) -> subprocess.Popen:
    """A coordinator in a folder of its own; one thread a job, since with more of them sums round differently."""
    folder = Path(name)
    folder.mkdir(exist_ok=True)
    longer = folder / "longer.yaml"
    longer.write_text(yaml.safe_dump({"datasets": {"demo": {"settings": LONGER}}}))
    files = [str(path) for path in (ROOT / "config.yaml", ROOT / "tests/tiny/config.yaml", longer.resolve())]
    command = [
        *(sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--directory", name),
        *("--configfile", *files, "--set-threads", *(f"{rule}=1" for rule in sorted(REVISION)), *words, "--", *targets),
    ]
    with open(f"{name}.log", "a") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **(env or {})})
    process.name = name
    coordinators.append(process)
    return process


def finish(process: subprocess.Popen) -> None:
    if process.wait(PATIENCE):
        raise AssertionError(Path(f"{process.name}.log").read_text()[-6000:])


def wait_for(condition: Callable[[], object], seconds: float = PATIENCE, pause: float = 0.2) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if any(process.poll() for process in coordinators):
            raise AssertionError("\n".join(Path(f"{p.name}.log").read_text()[-6000:] for p in coordinators))
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(pause)


def said(what: str, work: Callable):
    began = time.monotonic()
    result = work()
    print(f"{time.monotonic() - began:6.1f} s  {what}", flush=True)
    return result


# --- what is tried ---


def meet_limit(folder: Path) -> str:
    """Hold the training after an epoch until its time limit ends it; no limit is shorter than a minute."""
    wait_for((folder / "results/demo/cam/classifier.resume.pt").exists, pause=0.01)
    for process in of_folder(folder, ".train_classifier.py"):
        process.suspend()
    assert not (folder / "results/demo/cam/classifier.pt").exists(), "the training was too fast to be held"
    job = job_of("rule_train_classifier_wildcards_demo_cam")
    slurm("scontrol", "update", f"JobId={job}", "TimeLimit=1")
    wait_for(lambda: "JobState=TIMEOUT" in slurm("scontrol", "show", "job", job), 300)
    return job


def cancel(folder: Path) -> str:
    wait_for((folder / "results/demo/pnoc/segmentation.resume.pt").exists, pause=0.01)
    job = job_of("rule_train_segmentation_wildcards_demo_pnoc")
    slurm("scancel", job)
    wait_for(lambda: "JobState=CANCELLED" in slurm("scontrol", "show", "job", job), 60)
    assert not (folder / "results/demo/pnoc/segmentation.pt").exists(), "the training was too fast to be cancelled"
    return job


def check_jobs(limited: str, cancelled: str) -> None:
    """Two jobs were run again, no other; jobs with a GPU were in the partition that has it."""
    lines = slurm(
        "squeue", "-a", "-h", "-t", "all", "-O", "JobID:12,State:12,Partition:12,tres-per-job:24,Comment:120"
    ).splitlines()
    jobs = {number: about for number, *about in map(str.split, lines)}
    failed = {number: about[0] for number, about in jobs.items() if about[0] != "COMPLETED"}
    assert failed == {limited: "TIMEOUT", cancelled: "CANCELLED"}, jobs
    rules = [about[3] for about in jobs.values()]
    assert len(rules) == len(set(rules)) + 2, rules
    for _, partition, devices, rule in jobs.values():
        assert partition == ("gpu" if "gpu" in devices else "cpu"), (rule, partition, devices)
    print(f"          {len(jobs)} jobs, {sum('gpu' in about[2] for about in jobs.values())} of them with the GPU")


def check_results(local: Path, remote: Path) -> None:
    """Checkpoints are equal to the last bit, and so are scores; nothing is left to resume from."""
    networks = sorted(path.relative_to(local) for path in local.rglob("*.pt"))
    assert sorted(path.relative_to(remote) for path in remote.rglob("*.pt")) == networks
    for name in networks:
        a, b = (torch.load(folder / name, weights_only=True)["state"] for folder in (local, remote))
        assert a.keys() == b.keys()
        assert all(torch.equal(a[key], b[key]) for key in a), name
    scores = [Path(target).relative_to("results") for target in TARGETS]
    for name in scores:
        a, b = (json.loads((folder / name).read_text()) for folder in (local, remote))
        assert (a["miou"], a["iou"]) == (b["miou"], b["iou"]), name
    print(f"          {len(networks)} checkpoints and {len(scores)} scores equal those of the run without SLURM")


def check_logs(folder: Path) -> None:
    for name in ("cam/train_classifier", "pnoc/train_segmentation"):
        log = (folder / f"logs/demo/{name}.log").read_text()
        assert log.count("running on") == 2, f"{name}: not both attempts"
        assert log.count("resuming after epoch") == 1, name


def check_refused_gpu(folder: Path) -> None:
    target = "results/demo/pnoc/cams/val.zarr"
    process = start("slurm", *profiles("slurm", folder), "--retries", "0", targets=(target,))
    coordinators.remove(process)
    assert process.wait(PATIENCE) == 1
    assert (
        "this job was given a GPU (CUDA_VISIBLE_DEVICES=0)"
        in Path("slurm/logs/demo/pnoc/dump_cams.val.log").read_text()
    )


def check_refused_config(folder: Path) -> None:
    """The partition is closed until the job waits there and the config is another one."""
    slurm("scontrol", "update", "PartitionName=cpu", "State=DOWN")
    target = "results/demo/pnoc/priors_miou.json"
    process = start("slurm", *profiles("slurm", folder), "--retries", "0", targets=(target,))
    coordinators.remove(process)
    wait_for(lambda: "evaluate_cams" in slurm("squeue", "-h", "-t", "PENDING", "-o", "%k"), 120)
    with open("slurm/longer.yaml", "a") as file:
        file.write("seeds: [7]\n")
    slurm("scontrol", "update", "PartitionName=cpu", "State=UP")
    assert process.wait(PATIENCE) == 1
    logs = "".join(path.read_text() for path in Path("slurm/logs/slurm/rule_evaluate_cams").rglob("*.log"))
    assert "edited after this job was planned" in logs
    assert not Path("slurm", target).exists()


if __name__ == "__main__":
    main()
