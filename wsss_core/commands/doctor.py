"""``wsss doctor``: whether this machine and this folder have what a target needs, and what is left to make."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

from wsss_core.base.jobs import commit_of
from wsss_core.commands.machine import cores, free_memory
from wsss_core.commands.printing import CommandError, megabytes
from wsss_core.commands.project import PACKAGED, Project
from wsss_core.data.classes import DataError
from wsss_core.data.manifest import Manifest
from wsss_core.reports.contents import scores_of, stages_of

Row = tuple[str, ...]
MISSING = "Not there, and nothing makes it"
# docs/scale.md: of a thousand images, hours of one core at 375 x 500 pixels, and MB on disk at 77,000 pixels. Stages of
# networks are left out: what they take depends on the device and on the run's backbone, sizes and epochs.
PIXELS, PIXELS_ON_DISK = 375 * 500, 77_000
HOURS = {
    "make_saliency_masks": 0.098,
    "make_affinity_labels": 0.21,
    "walk_cams": 0.046,
    "make_pseudo_masks": 0.11,
    "evaluate_cams": 0.00034,
    "predict_masks": 0.51,
}
MEGABYTES = {
    "dump_cams": 11,
    "make_hints": 8,
    "dump_c2am_maps": 5,
    "walk_cams": 8,
    "make_saliency_masks": 5,
    "predict_saliency": 14,
    "make_affinity_labels": 6,
    "make_pseudo_masks": 4,
}
OF_VAL = ("predict_masks",)


class Plan(NamedTuple):
    """What Snakemake says of a target: jobs that are left by rule, and files from elsewhere that are missing."""

    jobs: dict[str, int]
    missing: list[str]


def machine(project: Project) -> list[Row]:
    """The versions, the device and its memory, cores, memory and room on disk of this machine."""
    import torch

    at = commit_of(PACKAGED / "wsss_core")
    changed = " with changes" if at["clean"] is False else ""
    rows: list[Row] = [
        ("python", sys.version.split()[0]),
        ("wsss-core", version("wsss-core") + (f", commit {str(at['commit'])[:10]}{changed}" if at["commit"] else "")),
        ("torch", torch.__version__),
    ]
    wrong = differing(project.root / "constraints.txt")
    rows.append(("versions", "those of constraints.txt" if not wrong else "other than constraints.txt: "
                 + ", ".join(wrong[:8]) + (f" and {len(wrong) - 8} more" if len(wrong) > 8 else "")))  # fmt: skip
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        name = torch.cuda.get_device_name(index)
        rows.append((f"GPU {index}", f"{name}, {megabytes(free)} of {megabytes(total)} free"))
    if not torch.cuda.device_count():
        rows.append(("GPU", "none that PyTorch can use: trainings of large networks take days on the CPU"))
    results = Path(project.tree.results)
    place = next(folder for folder in (results, *results.resolve().parents) if folder.exists())
    rows += [
        ("cores", str(cores())),
        ("memory", f"{megabytes(free_memory() * 1e6 / 0.75)} free"),
        ("disk", f"{megabytes(shutil.disk_usage(place).free)} free under {results}"),
    ]
    return rows


def differing(constraints: Path) -> list[str]:
    """Installed packages that have another version than the file says; those that are not installed do not count."""
    if not constraints.is_file():
        return []
    found = []
    for line in constraints.read_text(encoding="utf-8").splitlines():
        name, sign, wanted = line.partition("==")
        if not sign or name.startswith("#"):
            continue
        try:
            own = version(name)
        except PackageNotFoundError:
            continue
        if own.partition("+")[0] != wanted.strip():
            found.append(f"{name} {own} (not {wanted.strip()})")
    return found


def target_of(project: Project, said: str) -> str:
    """The target that was meant: a path under results, or ``dataset/run``.

    That means the run's last score on unseen images, and its health where the data set has no truth to score with.
    """
    dataset, _, run = said.partition("/")
    if run and "/" not in run and dataset in project.recipes.datasets:
        project.checked(dataset, run)
        possible = scores_of(project.recipes, dataset, run, stages_of(project.recipes, dataset, run))
        last = [score.result for score in possible if score.role == "val"][-1:] or ["health"]
        return project.tree.path(*last, dataset=dataset, run=run)
    return said


def plan(project: Project, target: str, configfiles: Sequence[Path]) -> Plan:
    """What Snakemake would do for a target; no job runs.

    Raises:
        CommandError: it cannot plan that, with its own line.
    """
    files = [str(file) for file in configfiles]
    words = [sys.executable, "-m", "snakemake", "--snakefile", str(project.root / "Snakefile"), "--cores", "1"]
    words += ["--dry-run", *(["--configfile", *files] if files else []), "--", target]
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        lines = [line for line in done.stdout.splitlines() if line.strip()] or ["snakemake says nothing"]
        last = next((line for line in reversed(lines) if line.startswith("Error: ")), lines[-1])
        raise CommandError(last.removeprefix("Error: "))
    return read_plan(done.stdout)


def read_plan(output: str) -> Plan:
    """Jobs and missing files from what a dry run prints."""
    table = re.search(r"^job +count\n-[- ]+\n(.*?)^total", output, re.MULTILINE | re.DOTALL)
    jobs = {rule: int(count) for rule, count in re.findall(r"^(\w+) +(\d+)$", table[1], re.M)} if table else {}
    listed = re.search(rf"^{MISSING}.*:\n((?:  .*\n?)+)", output, re.MULTILINE)
    return Plan(jobs, [line.strip() for line in listed[1].splitlines()] if listed else [])


def cost(project: Project, dataset: str, jobs: Iterable[str]) -> list[Row]:
    """Of the stages without a network that are left: hours on this machine and room on disk, as far as they are known.

    They are extrapolated from docs/scale.md by the number of images and their pixels; none without manifests.
    """
    splits = project.recipes.data_set(dataset)["splits"]
    sizes = {role: _sizes(project, dataset, splits[role]) for role in ("train", "val")}
    rows: list[Row] = []
    for rule in jobs:
        images, pixels = sizes["val" if rule in OF_VAL else "train"]
        if not images or not (rule in HOURS or rule in MEGABYTES):
            continue
        hours = HOURS.get(rule, 0) * images / 1000 * pixels / PIXELS / min(8, cores())
        room = MEGABYTES.get(rule, 0) * 1e6 * images / 1000 * pixels / PIXELS_ON_DISK
        rows.append((rule, f"{hours:.2f} h" if hours else "", megabytes(room) if room else ""))
    return rows


def _sizes(project: Project, dataset: str, subset: str | None) -> tuple[int, float]:
    """Number of images of a subset and their mean number of pixels; 0 of one whose manifest is not made."""
    path = Path(project.tree.path("manifest", dataset=dataset, subset=subset or ""))
    try:
        rows = Manifest.read(path).rows if path.is_file() else []
    except DataError:
        rows = []
    return len(rows), sum(row.height * row.width for row in rows) / max(1, len(rows))


def doctor(project: Project, target: str | None, configfiles: Sequence[Path]) -> tuple[list[list[Row]], bool]:
    """Tables to print, and whether nothing is missing."""
    tables = [machine(project)]
    if target is None:
        return tables, True
    path = target_of(project, target)
    found = plan(project, path, configfiles)
    tables.append([("target", path), ("jobs left", str(sum(count for rule, count in found.jobs.items() if rule != "all")
                                                       if found.jobs else "none"))])  # fmt: skip
    tables.append([("job", "count"), *((rule, str(count)) for rule, count in found.jobs.items())] if found.jobs else [])
    dataset = path.removeprefix(f"{project.tree.results}/").partition("/")[0]
    rows = cost(project, dataset, found.jobs) if dataset in project.recipes.datasets else []
    tables.append([("stage", "about", "on disk"), *rows] if rows else [])
    if found.missing:
        tables.append([("missing", f"{len(found.missing)} files or folders, which nothing makes (docs/data.md)"),
                       *(tuple(line.split(": ", 1)) for line in found.missing)])  # fmt: skip
    return [table for table in tables if table], not found.missing
