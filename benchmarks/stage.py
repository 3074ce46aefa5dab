"""One module's benchmarks, a line of JSON each; ``python -m benchmarks`` runs this in a process of its own."""

import json
import sys
from dataclasses import asdict
from importlib import import_module

import torch

from benchmarks.harness import Growth, Options


def main(name: str, device: str, threads: str) -> None:
    options = Options(device, int(threads))
    torch.set_num_threads(options.threads)
    for entry in import_module(f"benchmarks.{name}").run(options):
        kind = "growth" if isinstance(entry, Growth) else "comparison"
        print(json.dumps({"kind": kind, **asdict(entry)}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
