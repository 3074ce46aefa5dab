"""What is wrong with a config by its schema, in one line: the key, the mistake, the way out."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from wsss_core.recipes.config import RecipeError
from wsss_core.recipes.names import MANY, meant

SCHEMA = "workflow/schemas/config.schema.yaml"
IN_DATASET = re.compile(r"^datasets\.[^.]+\.")

Schema = Mapping[str, Any]


def check_config(config: Mapping[str, Any], root: str | Path) -> None:
    """Hold a config against the schema below a folder.

    Raises:
        RecipeError: the first mistake, and how many there are beside it.
    """
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    schema = yaml.load(Path(root, SCHEMA).read_text(encoding="utf-8"), loader)
    if found := faults(config, schema):
        count = len({IN_DATASET.sub("", line) for line in found})  # one that extends another has its mistakes as well
        raise RecipeError(found[0] + (f" (and {count - 1} more)" if count > 1 else ""))


def faults(config: Mapping[str, Any], schema: Schema) -> list[str]:
    """Every mistake, unknown keys first, since other mistakes follow from them."""
    from jsonschema import Draft202012Validator  # comes with Snakemake

    errors = [_leaf(error) for error in Draft202012Validator(schema).iter_errors(config)]
    errors.sort(key=lambda error: (error.validator != "additionalProperties", list(map(str, error.absolute_path))))
    return list(dict.fromkeys(line for error in errors for line in _told(error, schema)))


def in_words(node: Schema) -> str:
    """What a setting may be."""
    if "anyOf" in node:
        return ", or ".join(in_words(option) for option in node["anyOf"])
    if "enum" in node or "const" in node:
        return ", ".join(map(str, node.get("enum", [node.get("const")])))
    kind = node.get("type")
    if kind == "object":
        return "{" + ", ".join(f"{key}: {in_words(inner)}" for key, inner in node["properties"].items()) + "}"
    if kind == "array":
        items = node.get("prefixItems")
        return f"{len(items)} x {in_words(items[0])}" if items else f"list of {in_words(node['items'])}"
    bounds = [
        f"{sign} {node[key]}"
        for key, sign in (("minimum", "≥"), ("exclusiveMinimum", ">"), ("maximum", "≤"), ("exclusiveMaximum", "<"))
        if key in node
    ]
    return " ".join([{"boolean": "true, false", "string": "text"}.get(str(kind), str(kind)), *bounds])


def _leaf(error: Any) -> Any:
    """Where several forms are possible, the mistake within the one that was tried."""
    while error.context:
        branches: dict[Any, list[Any]] = {}
        for inner in error.context:
            branches.setdefault(inner.schema_path[0], []).append(inner)
        tried = [found for found in branches.values() if not any(_of_another_type(inner) for inner in found)]
        if len(tried) != 1:
            return error
        error = tried[0][0]
    return error


def _of_another_type(error: Any) -> bool:
    return error.validator == "type" and not error.relative_path


def _told(error: Any, schema: Schema) -> Iterator[str]:
    path, value, wanted = _path(error.absolute_path), error.instance, error.schema
    if error.validator == "additionalProperties" and wanted["additionalProperties"] is False:
        for key in value:
            if key not in wanted["properties"]:
                yield f"{_path([*error.absolute_path, key])}: unknown key; {_instead(str(key), wanted, schema)}"
    elif error.validator == "required":
        missing = [key for key in wanted["required"] if key not in value]
        yield f"{path}: it needs {', '.join(missing)} too"
    elif error.validator == "pattern" and "propertyNames" in error.schema_path:
        yield f"{path}: {value!r} is no name: use letters, digits, - and _"
    elif error.validator == "enum":
        options = list(map(str, wanted["enum"]))
        question = meant(str(value), options)
        yield f"{path}: {_said(value)} is none of {', '.join(options)}" + (f"; {question}" if question else "")
    else:
        yield f"{path}: {_said(value)} cannot be; it takes {_wanted(wanted, error, schema)}{_as_number(value, error)}"


def _instead(key: str, wanted: Schema, schema: Schema) -> str:
    """The key that was meant, here or one level below, or all that there are."""
    known = list(wanted["properties"])
    below = [f"{name}.{key}" for name in known if key in _resolved(wanted["properties"][name], schema)]
    if question := meant(key, known) or (f"did you mean {below[0]}?" if below else ""):
        return question
    if len(known) > MANY:
        return "docs/settings.md lists those that there are"
    return f"it has {', '.join(known)}" if known else "nothing is declared here"


def _resolved(node: Schema, schema: Schema) -> Schema:
    """The properties of a node, followed to where it is defined."""
    while "$ref" in node:
        node = schema["$defs"][node["$ref"].rpartition("/")[2]]
    found: Schema = node.get("properties") or node.get("else", {}).get("properties", {})
    return found


def _wanted(wanted: Schema, error: Any, schema: Schema) -> str:
    kind = wanted.get("type")
    if "$ref" in json.dumps(wanted) or kind == "object":
        names = list(_resolved(wanted, schema))
        return "a block of keys" + (f": {', '.join(names)}" if 0 < len(names) <= MANY else "")
    if isinstance(kind, list):
        return " or ".join({"object": "a block of keys", "string": "text"}.get(name, str(name)) for name in kind)
    words = in_words(wanted)
    if error.validator == "uniqueItems":
        return f"{words}, each once"
    return f"{words}, not empty" if error.validator in ("minItems", "minLength") else words


def _as_number(value: Any, error: Any) -> str:
    """How to write what YAML has read as text."""
    if not isinstance(value, str) or "number" not in json.dumps(error.schema):
        return ""
    try:
        return f" (YAML reads {value} as text: write {float(value)!r})"
    except ValueError:
        return ""


def _said(value: Any) -> str:
    text = repr(value) if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "..."


def _path(keys: Sequence[Any]) -> str:
    text = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in keys)
    return text.removeprefix(".") or "config"
