"""config.yaml with the files that it includes, as one dictionary."""

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
    for name in config.get("include", []):
        content = _read(Path(root, name))
        for kind in ("runs", "datasets"):
            if twice := beneath.get(kind, {}).keys() & content.get(kind, {}).keys():
                raise RecipeError(f"{name}: {kind}.{sorted(twice)[0]} is declared by another included file as well")
        merge(beneath, content)
    merge(beneath, config)
    config.update(beneath)
    return config


def read_config(files: Iterable[str | Path], root: str | Path) -> dict[str, Any]:
    """The config that Snakemake would have with these ``--configfile``s, without its schema's checks."""
    config = _read(Path(root, "config.yaml"))
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
        return super().construct_mapping(node, deep)


def _read(path: Path) -> dict[str, Any]:
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _OnceLoader) or {}
    except OSError as error:
        raise RecipeError(f"cannot read the config file {path} ({error.strerror}): correct its name") from error
    except yaml.YAMLError as error:
        raise RecipeError(f"{path} cannot be read as YAML: {error}") from error
    if not isinstance(content, dict):
        raise RecipeError(f"{path} must hold keys and values, as config.yaml does")
    return content
