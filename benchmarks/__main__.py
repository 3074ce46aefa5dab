"""Run the benchmarks and write what they measured as JSON and Markdown."""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

from benchmarks.harness import Options, machine
from benchmarks.report import write_tables

STAGES = ("images", "training", "recam", "cams", "stores", "crf", "random_walk", "instances", "proposals", "scores")
RESULTS = Path(__file__).with_name("results.json")


def run_stage(name: str, options: Options) -> list[dict]:
    """All that one module measures, in a process of its own, so that its memory starts empty."""
    command = [sys.executable, "-m", "benchmarks.stage", name, options.device, str(options.threads)]
    entries = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            print(line, end="", flush=True)
            entries.append(json.loads(line))
    if process.returncode:
        raise SystemExit(f"benchmarks.{name} failed")
    return entries


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("stages", nargs="*", metavar="STAGE", help=f"{', '.join(STAGES)}; all if none is given")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    given = parser.parse_args()
    if unknown := set(given.stages) - set(STAGES):
        parser.error(f"unknown stages: {', '.join(sorted(unknown))}")
    options = Options(given.device, given.threads)

    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    here = results.setdefault(options.device, {"stages": {}})
    for name in given.stages or STAGES:
        entries = run_stage(name, options)
        here["machine"] = machine(options)
        here["stages"][name] = entries
        here["stages"] = {stage: here["stages"][stage] for stage in STAGES if stage in here["stages"]}
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    write_tables(results)


if __name__ == "__main__":
    main()
