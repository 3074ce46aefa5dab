"""Peak memory of every stage on photos of 12 megapixels: ``python -m benchmarks.large_photos FOLDER``.

Runs the whole pipeline and the roads to instances in FOLDER, one process at a time, on photos that are drawn there,
with the demo's network of 0.4 million parameters and trainings of an epoch, without a limit of the photos' size. What
is there is not made again, and ``peaks.json`` keeps what was measured. The table on standard output has the sum of the
largest resident sizes of each job's processes.
"""

import argparse
import json
import re
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import yaml
from PIL import Image

from benchmarks.report import table
from wsss_core.base.files import whole

ROOT = Path(__file__).parents[1]
LISTS = {"train": ["large", "small", "tiny"], "scored": ["large"], "val": ["new"]}
PARTS = {"small": 4, "tiny": 8}  # of the sides of the others: time is saved, and the largest one decides
NAMES = [f"class{index}" for index in range(1, 21)]  # as many as VOC's, which all compete in the CRF of predictions
RUNS = {
    "pnoc": (
        *("priors_miou.json", "saliency_miou.json", "saliency_gt_miou.json", "pseudo_miou.json", "seg_miou.json"),
        *("health.json", "pictures.png", "predictions.png", "predictions/val.png", "report.html"),
    ),
    "maskrcnn_irn": ("irn_ap.json", "detections_ap.json", "instances.png", "detections.png"),
    "components": ("components_ap.json",),
    "cim_cam": ("cim_ap.json", "instances.png"),
}
# In place of the demo's: one epoch, the published scales, and crops large enough for what is in these photos.
SETTINGS = """
prior:
  classifier: {epochs: 1, resize: [256, 320], crop: 256, batch_size: 2}
  continued: {epochs: 1}
  cams: {scales: [0.5, 1.0, 1.5, 2.0]}
saliency:
  c2am: {epochs: 1, crop: 256, batch_size: 2}
  maps: {scales: [0.5, 1.0, 1.5, 2.0]}
  poolnet: {epochs: 1, accumulation: 1}
refinement: {affinity: {epochs: 1, resize: [256, 320], crop: 256, batch_size: 2}}
segmentation:
  v3plus: {epochs: 1, resize: [256, 320], crop: 256, batch_size: 2}
  prediction: {scales: [0.5, 1.0, 1.5, 2.0]}
instances:
  cim: {iterations: 3, decay_at: [2], longer_sides: [480, 1200]}
  proposal_scores: {longer_sides: [480, 1200]}
detection: {maskrcnn: {epochs: 1, decay_at: [1], batch_size: 2, shorter_sides: [800], longest_side: 1333}}
"""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.large_photos", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", type=int, nargs=2, default=(3000, 4000), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("runs", nargs="*", metavar="RUN", help=f"{', '.join(RUNS)}; all if none is given")
    given = parser.parse_args()
    folder = given.folder.absolute()
    draw_data_set(folder, tuple(given.size))
    targets = [f"results/large/{run}/{name}" for run in given.runs or RUNS for name in RUNS[run]]
    command = [sys.executable, "-m", "snakemake", "--snakefile", ROOT / "Snakefile", "--directory", folder]
    command += ["--cores", "1", "--configfile", ROOT / "config.yaml", folder / "overlay.yaml"]
    command += ["--keep-going", "--rerun-incomplete", "--rerun-triggers", "mtime", "params", "--", *targets]
    kept = folder / "peaks.json"
    with subprocess.Popen(list(map(str, command))) as process:
        watch(process, kept)
    peaks = json.loads(kept.read_text())
    print(table(["stage", "peak, MB", "seconds"], [[rule, *map("{:,.0f}".format, peaks[rule])] for rule in peaks]))
    sys.exit(process.returncode)


def watch(coordinator: subprocess.Popen, kept: Path, every: float = 0.3) -> None:
    """Keep the MB at the peak and the seconds of each rule's largest job in a JSON file, until Snakemake ends.

    Each process tells its own largest resident size; those of a job's processes are added, with what they share.
    """
    found = json.loads(kept.read_text()) if kept.exists() else {}
    sizes: dict[int, dict[int, float]] = {}  # by job and process
    while coordinator.poll() is None:
        for job in psutil.Process(coordinator.pid).children(recursive=True):
            with suppress(psutil.Error, OSError):  # it may end at any moment
                if rule := re.search(r"/scripts/tmp\w+\.(\w+)\.py", " ".join(job.cmdline())):
                    of_job = sizes.setdefault(job.pid, {})
                    of_job |= {one.pid: largest_resident_size(one.pid) for one in (job, *job.children(recursive=True))}
                    taken = [sum(of_job.values()), time.time() - job.create_time()]
                    found[rule[1]] = max(found.get(rule[1], [0, 0]), taken)
        with whole(kept) as partial:
            partial.write_text(json.dumps(found, indent=1))
        time.sleep(every)


def largest_resident_size(process: int) -> float:
    """MB that a process ever held, as the kernel counts; 0 of one that has ended."""
    found = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{process}/status").read_text())
    return int(found[1]) * 1024 / 1e6 if found else 0


def draw_data_set(folder: Path, size: tuple[int, int]) -> None:
    """Photos, masks, lists and the config of a data set ``large``, with settings as the demo's."""
    rng = np.random.default_rng(0)
    for name in ("photos", "masks"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for subset, ids in LISTS.items():
        if not (folder / f"{subset}.txt").exists():
            (folder / f"{subset}.txt").write_text("\n".join(ids) + "\n")
    for index, id in enumerate(LISTS["train"] + LISTS["val"]):
        if not (folder / f"masks/{id}.png").exists():
            height, width = (side // PARTS.get(id, 1) for side in size)
            photo, mask = draw(rng, (height, width), (2 * index + 1, 2 * index + 2))
            Image.fromarray(photo).save(folder / f"photos/{id}.jpg", quality=90)
            Image.fromarray(mask).save(folder / f"masks/{id}.png")
    demo = yaml.safe_load((ROOT / "config/data/demo.yaml").read_text())["datasets"]["demo"]
    declared = {
        "kind": "folders",
        "images": "photos",
        "masks": "masks",
        "labels": "masks",
        "names": NAMES,
        "lists": {subset: f"{subset}.txt" for subset in LISTS},
        "splits": {subset: subset for subset in LISTS},
        "instances": "components",
        "proposals": {"kind": "grouping"},
        "settings": merged(demo["settings"], yaml.safe_load(SETTINGS)),
    }
    overlay = {"datasets": {"large": declared}, "seeds": [0]}
    if not (folder / "overlay.yaml").exists():
        (folder / "overlay.yaml").write_text(yaml.safe_dump(overlay, sort_keys=False))


def draw(rng: np.random.Generator, size: tuple[int, int], values: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """A noisy picture (H, W, 3) with an object of each value, of a texture of its own, and its mask (H, W), uint8."""
    height, width = size
    y, x = np.ogrid[:height, :width]
    picture, mask = clouds(rng, size, (12, 16)), np.zeros(size, np.uint8)
    for place, value in enumerate(values):
        middle = width * (2 * place + 1) / (2 * len(values))
        inside = ((y - height / 2) / (0.3 * height)) ** 2 + ((x - middle) / (0.18 * width)) ** 2 < 1
        mask[inside] = value
        picture[inside] = clouds(rng, size, (60 + 20 * value, 80))[inside]
    noise = rng.integers(-20, 21, (height, width, 1), np.int16)
    return (picture + noise).clip(0, 255).astype(np.uint8), mask


def clouds(rng: np.random.Generator, size: tuple[int, int], cells: tuple[int, int]) -> np.ndarray:
    """Random colours of a coarse grid, enlarged smoothly: (H, W, 3) uint8."""
    coarse = Image.fromarray(rng.integers(0, 256, (*cells, 3), np.uint8))
    return np.asarray(coarse.resize(size[::-1], Image.Resampling.BICUBIC)).copy()


def merged(below: dict, above: dict) -> dict:
    """Settings with those of ``above`` in place of theirs."""
    both = below.keys() & above.keys()
    return {**below, **above, **{key: merged(below[key], above[key]) for key in both if isinstance(above[key], dict)}}


if __name__ == "__main__":
    main()
