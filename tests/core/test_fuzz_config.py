"""Random damage to config files: one line that names a file or a key, or a config from which everything follows."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from damage import CASES, STRANGE, damaged, kept_within

from wsss_core.recipes.checks import faults
from wsss_core.recipes.config import RecipeError, read_config
from wsss_core.recipes.document import config_schema
from wsss_core.recipes.methods import SLOTS
from wsss_core.recipes.recipes import Recipes
from wsss_core.recipes.tree import Tree

pytestmark = pytest.mark.fuzz

SCHEMA = config_schema()
CONFIG = """\
targets: [results/own/pnoc/seg_miou.json]
seeds: [0, 1]
include:
  - more.yaml
"""
MORE = """\
runs:
  cam: {prior: {method: cam}}
  pnoc:
    prior: {method: pnoc, ordinary: cam}
  short:
    extends: pnoc
    prior:
      classifier: {epochs: 3}
    saliency: {from: pnoc}
    segmentation: none
datasets:
  drawn:
    kind: demo
    seed: 0
    images: {train: 320, val: 80}
    size: [96, 128]
    classes: null
    splits: {train: train, scored: train, val: val}
"""
OVERLAY = """\
seeds: [3]
runs:
  mine:
    extends: pnoc
    prior:
      classifier:
        learning_rate: 0.02
        resize: [96, 144]
        batch_norm: trained
      puzzle: {weight: {start: 0.0, end: 0.1}}
    saliency:
      poolnet: null
    refinement: {from: pnoc}
    segmentation:
      method: v2
      v2: {scales: [0.5, 1.0], updates: 80}
datasets:
  drawn:
    size: [48, 64]
    settings:
      prior:
        continued: {weights: ordinary, epochs: 8}
        cams: {scales: [0.5, 1.0, 1.5]}
      segmentation:
        v3plus: {backbone: resnet50, output_stride: 16, weights: none}
    runs:
      mine: {prior: {classifier: {epochs: 2}}}
  twin:
    extends: drawn
    seed: 4
"""
VALUES = (
    *("null", "true", "0", "-1", "1.5", "4294967296", "1e-4", "1.0e+308", ".nan", "-.inf", '""', "~", "text", "../x"),
    *(
        "[]",
        "[[]]",
        "{}",
        "[1, 2, 3]",
        "{a: 1}",
        "{from: mine}",
        "none",
        "pnoc@seed1",
        "cam",
        "mine",
        "drawn",
        "v3plus",
    ),
    *("2020-01-01", "!!binary aGk=", "!!set {a}", "!!python/object/apply:os.system [id]", "!unknown 1", "&a [*a]"),
    *("&b {c: *b}", "*nowhere", "{<<: {a: 1}}", "{<<: 1}", "{1: 2}", "{null: 1}", "{[1]: 2}", "? [1]", "0x1F", "1_000"),
    *(
        "'a\\nb'",
        '"\\0"',
        '"\\uD800"',
        "x" * 3000,
        "9" * 5000,
        "[" * 60,
        "[" * 3000,
        "- a",
        "a: b: c",
        "%YAML 1.1",
        "---",
    ),
)
PLACES = (".yaml", "config", "settings", "runs", "datasets", "seeds", "targets", "include", "results", "max_mem_mb")
KEYS = (
    "",
    "prior",
    "method",
    "extends",
    "from",
    "ordinary",
    "settings",
    "1",
    "null",
    "true",
    "a b",
    "é",
    "__use_yte__",
    "<<",
)


def changed(text: str, rng: random.Random) -> str:
    """One to three changes of lines: of a key, of a value, of the depth, of the place."""
    lines = text.splitlines()
    for _ in range(rng.randint(1, 3)):
        place = rng.randrange(len(lines))
        line = lines[place]
        key, colon, value = line.partition(":")
        indent = line[: len(line) - len(line.lstrip())]
        bare = key.strip()
        cut = rng.randrange(len(bare) + 1)
        lines[place : place + 1] = {
            "value": [f"{key}: {rng.choice(VALUES)}"],
            "inner value": [f"{key}{colon}" + value.replace(rng.choice(value.split() or [""]), rng.choice(VALUES), 1)],
            "key": [f"{indent}{rng.choice(KEYS)}:{value}"],
            "misspelt": [f"{indent}{bare[:cut] + bare[cut + 1 :]}:{value}"],
            "doubled": [line, line],
            "gone": [],
            "deeper": [f"  {line}"],
            "higher": [line[2:]],
            "elsewhere": [rng.choice(lines), line],
        }[rng.choice(("value",) * 3 + ("inner value",) * 3
                     + ("key", "misspelt", "doubled", "gone", "deeper", "higher", "elsewhere"))]  # fmt: skip
        lines = lines or [""]
    return "\n".join(lines) + "\n"


def plan(folder: Path) -> Recipes:
    """What the Snakefile does with a config, but for the rules."""
    config = read_config([folder / "mine.yaml"], folder)
    if found := faults(config, SCHEMA):
        raise RecipeError(found[0])
    recipes = Recipes(config)
    Tree.of(config)
    for dataset in recipes.datasets:
        for run in recipes.runs:
            recipes.flat(dataset, run)
            for slot in SLOTS:
                if result := recipes.result(dataset, run, slot):
                    recipes.behind(dataset, run, result)
    return recipes


@pytest.fixture
def folder(tmp_path):
    for name, text in (("config.yaml", CONFIG), ("more.yaml", MORE), ("mine.yaml", OVERLAY)):
        (tmp_path / name).write_text(text)
    assert {*plan(tmp_path).runs} == {"cam", "pnoc", "short", "mine"}
    with kept_within(tmp_path):
        yield tmp_path


def outcome(folder: Path, case: str) -> bool:
    """Whether the config is refused, in one line; another error, or a longer message, is the case's failure."""
    try:
        plan(folder)
    except RecipeError as error:
        check_message(str(error))
        return True
    except Exception as error:
        raise AssertionError(case) from error
    return False


def attack(path: Path, damage: Callable[[bytes, random.Random], bytes]) -> int:
    """How many of a file's damaged versions are refused."""
    content, refused = path.read_bytes(), 0
    for seed in range(CASES // 2):
        path.write_bytes(damage(content, random.Random(f"{path.name} {seed}")))
        refused += outcome(path.parent, f"{path.name}, seed {seed}: {path.read_bytes()[:3000]!r}")
    path.write_bytes(content)
    return refused


def check_message(text: str) -> None:
    """Short, on one line, and with a file or a key in it."""
    assert len(text.splitlines()) == 1, text
    assert len(text) < 1000 or text.startswith("cannot read the config file"), text
    assert any(place in text for place in (*PLACES, *(f"{place} " for place in ("run", "data set")))), text


@pytest.mark.parametrize("name", ["mine.yaml", "more.yaml", "config.yaml"])
def test_changed_config_files(folder, name):
    def damage(content, rng):
        return changed(content.decode(), rng).encode("utf-8", "surrogatepass")

    assert attack(folder / name, damage) > CASES // 4


@pytest.mark.parametrize("name", ["mine.yaml", "config.yaml"])
def test_damaged_config_files(folder, name):
    assert attack(folder / name, damaged) > CASES // 4


def test_strange_values_at_the_top(folder):
    for key in ("seeds", "include", "targets", "runs", "datasets", "results", "max_mem_mb"):
        for value in (*VALUES, *STRANGE):
            (folder / "mine.yaml").write_bytes(f"{key}: {value}\n".encode("utf-8", "surrogatepass"))
            outcome(folder, f"{key}: {value[:40]!r}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("runs: {on: {extends: cam}}", "the key True is not read as text: put it in quotes"),
        ("runs: &all {mine: *all}", "Circular reference"),
        ("include: more.yaml", "include: it takes a list of paths"),
        ("datasets: {twin: {extends: [drawn]}}", "datasets.twin.extends: it takes the name of a data set"),
    ],
)
def test_what_damage_has_found(folder, text, message):
    (folder / "mine.yaml").write_text(text)
    with pytest.raises(RecipeError, match=message):
        plan(folder)
