"""config.yaml with the files that it includes, as one dictionary."""

import json
import os
from collections.abc import Iterable, Mapping
from copy import deepcopy
from hashlib import sha256
from pathlib import Path
from typing import Any

import yaml

from wsss_core.recipes.revisions import REVISION

PLAN = "WSSS_PLAN"  # environment variable: digest of the plan that a job belongs to


class RecipeError(ValueError):
    """A recipe that cannot work, found before any job starts."""


def assemble(config: dict[str, Any], root: str | Path, files: Iterable[str | Path] = ()) -> dict[str, Any]:
    """Put the files under ``include`` beneath the config, in place, so that what the config says itself wins.

    Args:
        config: the content of config.yaml, with what ``--configfile`` put over it.
        root: folder from which the included files' paths start.
        files: those that the config was read from by others, who let a key stand twice; they are looked over.

    Raises:
        RecipeError: a file that is not there, is no YAML or says a key twice, or two that declare the same run or data
            set.
    """
    for file in files:
        _read(Path(file))
    beneath: dict[str, Any] = {}
    include = config.get("include", [])
    if not isinstance(include, list) or not all(isinstance(name, str) for name in include):
        raise RecipeError("include: it takes a list of paths")
    for name in include:
        content = _read(Path(root, name))
        for kind in ("runs", "datasets"):
            if twice := _names(beneath, kind) & _names(content, kind):
                raise RecipeError(f"{name}: {kind}.{sorted(twice)[0]} is declared by another included file as well")
        merge(beneath, content)
    merge(beneath, config)
    config.update(beneath)
    datasets = config.get("datasets", {})
    for name in datasets if isinstance(datasets, dict) else ():
        _extend(datasets, name, [])
    return config


def _names(config: Mapping[str, Any], kind: str) -> set[str]:
    """Those that are declared under a key; none where the schema will find something else there."""
    return set(config[kind]) if isinstance(config.get(kind), dict) else set()


def _extend(datasets: dict[str, Any], name: str, behind: list[str]) -> None:
    """Put what a data set says over that which it ``extends``, in place, after that one was."""
    if not isinstance(datasets[name], dict) or "extends" not in datasets[name]:
        return
    base = datasets[name]["extends"]
    if not isinstance(base, str):
        raise RecipeError(f"datasets.{name}.extends: it takes the name of a data set")
    if base in (name, *behind):
        raise RecipeError(f"datasets.{name}.extends leads back to itself: {' -> '.join([*behind, name, base])}")
    if base not in datasets:
        raise RecipeError(f"datasets.{name}.extends names the data set {base!r}, which is not in config.yaml")
    _extend(datasets, base, [*behind, name])
    whole = deepcopy(datasets[base])
    merge(whole, {key: value for key, value in datasets[name].items() if key != "extends"})
    datasets[name] = whole


def read_config(files: Iterable[str | Path], root: str | Path, base: str | Path = "config.yaml") -> dict[str, Any]:
    """The config that Snakemake would have with these ``--configfile``s, without its schema's checks.

    Args:
        root: folder of the Snakefile, from which paths of included files start.
        base: the file that the others are put over, from ``root``.
    """
    config = _read(Path(root, base))
    for file in files:
        merge(config, _read(Path(file)))
    return assemble(config, root)


def merge(base: dict[str, Any], layer: Mapping[str, Any]) -> None:
    """Put a layer's values over the base's, key by key and in place; lists are replaced."""
    for key, value in layer.items():
        if isinstance(value, Mapping) and isinstance(base.get(key), dict):
            merge(base[key], value)
        else:
            base[key] = deepcopy(value)


def hold_to_plan(config: Mapping[str, Any], planning: bool) -> None:
    """Refuse a job whose config, or code, is no longer what it was planned with.

    A job on a cluster reads both again when it starts, hours after the plan. The process that plans leaves a digest in
    its environment, which its jobs inherit, and they compare.

    Raises:
        RecipeError: the digests differ.
    """
    digest = sha256(repr([config, REVISION]).encode()).hexdigest()
    if planning:
        os.environ[PLAN] = digest
    elif os.environ.get(PLAN, digest) != digest:
        raise RecipeError(
            "a config file or the code (wsss_core/recipes/revisions.py) was edited after this job was planned: wait "
            "until no job is queued or running, or stop snakemake, and start it again, so that it plans anew"
        )


def ordered(value: Any) -> Any:
    """The same value with the keys of its dicts sorted: Snakemake takes another order for another param."""
    return {key: ordered(value[key]) for key in sorted(value)} if isinstance(value, Mapping) else value


class _OnceLoader(yaml.SafeLoader):
    """YAML whose mappings say each key once; the last of two would win without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """As the safe loader's, once every key was looked at."""
        seen: set[str] = set()
        for key, _ in node.value:
            if key.tag != "tag:yaml.org,2002:merge" and str(key.value) in seen:  # `<<` may stand twice
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value!r} stands twice in one block", key.start_mark
                )
            seen.add(str(key.value))
        content = super().construct_mapping(node, deep)
        for name in content:
            if not isinstance(name, str):  # YAML reads `on` as a truth value, `1` as a number
                problem = f"the key {name!r} is not read as text: put it in quotes, or name it otherwise"
                raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
        return content


def _read(path: Path) -> dict[str, Any]:
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _OnceLoader) or {}
        json.dumps(content, skipkeys=True, default=str)  # fails where a block is an alias within itself
    except OSError as error:
        raise RecipeError(f"cannot read the config file {path} ({error.strerror}): correct its name") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # among them text that is no UTF-8
        raise RecipeError(f"{path} cannot be read as YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise RecipeError(f"{path} must hold keys and values, as config.yaml does")
    return content
