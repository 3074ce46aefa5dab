"""The rooms of the package: what they may import, and what they leave alone."""

import ast
import subprocess
import sys
from pathlib import Path

import wsss_core

PACKAGE = Path(wsss_core.__file__).parent

# Each imports from those before it alone; the four of a line know nothing of one another.
ROOMS = [
    {"base"},
    {"recipes"},
    {"data"},
    {"networks"},
    {"fitting"},
    {"maps"},
    {"classifiers", "saliency", "affinity", "segmentation"},
    {"instances"},
    {"proposals"},
    {"cim"},
    {"scores"},
    {"reports"},
    {"commands"},
    {"formulas"},
]
EXCEPTIONS = {
    # the epochs of a classifier are scored by the maps of the network itself, which are never stored
    ("classifiers.epochs", "scores.metrics"),
    ("classifiers.epochs", "scores.totals"),
}
# Jobs that have no network start in half a second and in 100 MB without them, and so does each of their workers.
WITHOUT_TORCH = (
    "base", "recipes", "scores", "reports", "data.kinds", "data.mask_folder", "data.pictures", "maps.store",
    "maps.sizes", "maps.crf", "maps.shards", "affinity.labels", "affinity.pseudo_masks", "saliency.masks",
    "instances.store", "instances.components", "instances.labels", "instances.truth", "instances.export",
    "proposals", "cim.labels", "cim.label_scores", "cim.peak_table", "cim.score_store", "cim.selection", "commands.app",
    "commands.info", "commands.project", "commands.settings",
)  # fmt: skip


def modules() -> dict[str, Path]:
    """Every module of the package by its name below it, like ``maps.store``; a folder by its own, like ``maps``."""
    paths = {path.relative_to(PACKAGE).with_suffix(""): path for path in PACKAGE.rglob("*.py")}
    named = {".".join(name.parts).removesuffix("__init__").rstrip("."): path for name, path in paths.items()}
    return {name: path for name, path in named.items() if name}


def imports(path: Path) -> set[str]:
    """Full names of all modules that a file imports, those inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide where a room's neighbours are"
            own = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name for name in own if name.removeprefix("wsss_core.") in modules()} or {node.module}
    return found


def test_jobs_without_a_network_do_not_load_torch():
    wanted = [name for name in modules() if name.startswith(WITHOUT_TORCH)]
    assert len(wanted) > 20
    code = "import sys\n" + "".join(f"import wsss_core.{name}\n" for name in wanted)
    code += "print([name for name in ('torch', 'timm') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_nothing_imports_snakemake():
    assert [name for name, path in modules().items() if any("snakemake" in other for other in imports(path))] == []


def test_rooms_import_from_the_rooms_before_them():
    level = {room: number for number, rooms in enumerate(ROOMS) for room in rooms}
    assert {name.split(".")[0] for name in modules()} == set(level)
    found = set()
    for name, path in modules().items():
        room = name.split(".")[0]
        for other in (other.removeprefix("wsss_core.") for other in imports(path) if other.startswith("wsss_core.")):
            to = other.split(".")[0]
            if to != room and level[to] >= level[room]:
                found.add((name, other))
    assert found == EXCEPTIONS


def test_a_room_says_what_it_is_for_and_imports_nothing():
    for name, path in modules().items():
        if path.name == "__init__.py" and name not in ("data", "data.kinds"):
            (only,) = ast.parse(path.read_text(encoding="utf-8")).body
            assert isinstance(only.value.value, str)
