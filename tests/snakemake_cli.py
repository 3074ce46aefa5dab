"""Snakemake on this workflow in a folder of its own, called as a person calls it."""

import multiprocessing
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
SCORES = (
    "results/demo/cam/priors_miou.json",
    "results/demo/pnoc/priors_miou.json",
    "results/demo/pnoc/saliency_miou.json",
    "results/demo/pnoc/pseudo_miou.json",
    "results/demo/pnoc/seg_miou.json",
)

# Snakemake takes longer to import than to plan, so calls that start no job are forked from a process that has it.
WITHOUT_JOBS = {"--dry-run", "--summary", "--touch", "--dag", "--report", "--rulegraph"}
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["pytest", "snakemake.cli", "snakemake_executor_plugin_slurm"])


def command(folder: Path, *options: str, targets: Sequence[str] = (), config: dict | None = None) -> list[str]:
    """The command line; ``config`` holds what differs from config.yaml."""
    overlay = folder / "overlay.yaml"
    overlay.write_text(yaml.safe_dump(config or {"seeds": [0, 1, 2]}))
    return [
        *(sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--directory", str(folder)),
        *("--cores", "2", "--configfile", str(ROOT / "config.yaml"), str(overlay)),
        *(*options, "--", *targets),
    ]


def snakemake(folder: Path, *options: str, timeout: int = 120, **call) -> subprocess.CompletedProcess:
    """Run it to its end; ``output`` of both streams is in ``stdout``."""
    words = command(folder, *options, **call)
    if WITHOUT_JOBS.isdisjoint(options):
        return subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=timeout)
    output = folder / "output.txt"
    process = FORKS.Process(target=_main, args=(words[3:], output))
    process.start()
    process.join(timeout)
    if process.exitcode is None:
        process.kill()
        raise subprocess.TimeoutExpired(words, timeout)
    return subprocess.CompletedProcess(words, process.exitcode, output.read_text())


def _main(words: list[str], output: Path) -> None:
    """What the command ``snakemake`` does, with both streams in a file."""
    from snakemake.cli import main

    with open(output, "wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    main(words)


def succeed(folder: Path, *options: str, **call) -> str:
    """Run it; the output, and a failure of the test where it fails."""
    done = snakemake(folder, *options, **call)
    assert done.returncode == 0, done.stdout[-4000:]
    return done.stdout


def planned(folder: Path, *options: str, **call) -> Counter:
    """How often each rule would run."""
    return jobs_in(succeed(folder, "--dry-run", *options, **call))


def jobs_in(output: str) -> Counter:
    """How often each rule runs, as Snakemake says before it starts."""
    table = re.search(r"^job +count\n-[- ]+\n(.*?)^total", output, re.MULTILINE | re.DOTALL)
    return Counter({rule: int(count) for rule, count in re.findall(r"^(\w+) +(\d+)$", table[1], re.M)} if table else {})
