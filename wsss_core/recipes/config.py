"""config.yaml with the files that it includes, as one dictionary."""

from collections.abc import Iterable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml


class RecipeError(ValueError):
    """A recipe that cannot work, found before any job starts."""


def assemble(config: dict[str, Any], root: str | Path) -> dict[str, Any]:
    """Put the files under ``include`` beneath the config, in place, so that what the config says itself wins.

    Args:
        config: the content of config.yaml, with what ``--configfile`` put over it.
        root: folder from which the included files' paths start.

    Raises:
        RecipeError: a file that is not there or is no YAML, or two that declare the same run or data set.
    """
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


def ordered(value: Any) -> Any:
    """The same value with the keys of its dicts sorted: Snakemake takes another order for another param."""
    return {key: ordered(value[key]) for key in sorted(value)} if isinstance(value, Mapping) else value


def _read(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except OSError as error:
        raise RecipeError(f"cannot read the config file {path} ({error.strerror}): correct its name") from error
    except yaml.YAMLError as error:
        raise RecipeError(f"{path} is not YAML: {error}") from error
    if not isinstance(content, dict):
        raise RecipeError(f"{path} must hold keys and values, as config.yaml does")
    return content
