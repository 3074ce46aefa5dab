"""The schema of config.yaml and the page of all settings, made from the classes that declare them.

``python -m wsss_core.recipes write`` writes both; a test says when they are no longer those of the classes.
"""

import textwrap
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

import yaml
from pydantic import TypeAdapter

from wsss_core.recipes.checks import SCHEMA, in_words
from wsss_core.recipes.kinds import KINDS, DataSet
from wsss_core.recipes.methods import METHODS, NONE, SECTIONS, SLOTS, USUAL
from wsss_core.recipes.settings import INPUT, SCALE, SPEED, ClassifierSettings, marks, plain
from wsss_core.recipes.slots import CONTINUED, REFERENCES

PAGE = "docs/settings.md"
TURNS_INTO = {SCALE: "data set", SPEED: "speed", INPUT: "a file"}
NAME = r"^[A-Za-z0-9_-]+$"

Schema = dict[str, Any]


def config_schema() -> Schema:
    """The JSON schema of config.yaml with what it includes; every object in it is closed."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "config.yaml; made by python -m wsss_core.recipes write",
        **_closed(
            "What is made, with which settings.",
            {
                "targets": _list("Files that are made when no target is given."),
                "seeds": {
                    "type": "array",
                    "items": {"type": "integer", "minimum": 0},
                    "minItems": 1,
                    "uniqueItems": True,
                    "description": "Seeds; plain runs have the first one.",
                },
                "compare": _list(
                    "Runs that results/{dataset}/compare.html shows, the one that others are held against first; all "
                    "that have scores by default."
                ),
                "include": _list("Files with runs and data sets, from the folder of the Snakefile."),
                **{
                    name: {"type": "string", "minLength": 1, "description": f"Folder of all {name}; {name} by default."}
                    for name in ("results", "logs", "benchmarks")
                },
                "max_mem_mb": {
                    "type": "integer",
                    "minimum": 1000,
                    "description": "The most memory that a job asks for, in MB; 96000 by default. A retry asks for "
                    "twice the memory, up to this.",
                },
                "pictures_every": {
                    "type": "integer",
                    "minimum": 0,
                    "description": "Epochs from one set of pictures of training images in TensorBoard to the next; "
                    "5 by default, 0 for none.",
                },
                "settings": _settings("What differs from the defaults for every run on every data set."),
                "runs": _named("Recipes by name.", {"$ref": "#/$defs/run"}),
                "datasets": _named("Data sets by name.", _dataset()),
            },
            required=["targets", "seeds", "runs", "datasets"],
        ),
        "$defs": {
            "run": _run(),
            "dataset_settings": _settings("What differs for every run on this data set.", continued=True),
            **{slot: _slot(slot) for slot in SLOTS},
            **{f"{slot}.{name}": of_class(kind) for slot in SLOTS for name, kind in SECTIONS[slot].items()},
        },
    }


def of_class(kind: type) -> Schema:
    """The schema of a section: defaults, titles and demands left out, since a layer holds only what differs."""
    schema = TypeAdapter(kind).json_schema(ref_template="#/{model}")
    shared = schema.pop("$defs", {})
    _describe(schema, kind)
    for hint in get_type_hints(kind).values():
        for inner in (hint, *get_args(hint)):
            if getattr(inner, "__name__", "") in shared:
                _describe(shared[inner.__name__], inner)
    return _inlined(schema, shared, required=issubclass(kind, DataSet))


def _describe(schema: Schema, kind: type) -> None:
    """Descriptions of what a section has from those that it is based on; pydantic reads those of its own alone."""
    for base in filter(is_dataclass, kind.__mro__[1:]):
        for name, node in TypeAdapter(base).json_schema()["properties"].items():
            if "description" in node:
                schema["properties"][name].setdefault("description", node["description"])


def _inlined(node: Any, shared: Schema, *, required: bool) -> Any:
    """A schema with shared parts put in place of references, without what only makes it longer."""
    if isinstance(node, list):
        return [_inlined(item, shared, required=required) for item in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        node = {**shared[node["$ref"].removeprefix("#/")], **{k: v for k, v in node.items() if k != "$ref"}}
    dropped = {"title", "default"} | (set() if required else {"required"})
    found = {
        key: {name: _inlined(inner, shared, required=required) for name, inner in value.items()}
        if key == "properties"
        else _inlined(value, shared, required=required)
        for key, value in node.items()
        if key not in dropped or key in ("properties",)
    }
    description = found.get("description")
    if isinstance(description, str):
        found["description"] = _one_line(description)
    return found


def _run() -> Schema:
    slots = {slot: {"$ref": f"#/$defs/{slot}"} for slot in SLOTS}
    extends = {"type": "string", "description": "The run that this one is but for what it says."}
    return _closed(
        "A recipe. What it does not say is that of the run it extends, or of the method.", {"extends": extends, **slots}
    )


def _slot(slot: str) -> Schema:
    methods = list(METHODS[slot])
    properties = {
        "method": {"enum": methods, "description": f"What fills the slot; {_usual(slot)} by default."},
        "from": {"type": "string", "description": "The run whose slot is taken, in place of everything else here."},
        "own_scale": {
            "type": "boolean",
            "description": "The run's values hold even where a data set names one for all runs (its scale).",
        },
        **_sections(slot),
    }
    if slot == "prior":
        run = "Run of a plain classifier: it looks at erased images, and `weights: ordinary` means it."
        properties |= {name: {"type": "string", "description": run} for name in REFERENCES}
    return {
        "type": ["object", "string"],
        "if": {"type": "string"},
        "then": {"enum": [*methods, "none"]},
        "else": _closed(f"The {slot} of the run; a string is a method without settings, or none.", properties),
        "description": f"The {slot} of the run: a method with settings, from another run, or none.",
    }


def _usual(slot: str) -> str:
    method = USUAL.get(slot, "no method")
    return "nothing" if method == NONE else method


def _sections(slot: str) -> Schema:
    optional = {name for method in METHODS[slot].values() for name in method.optional}
    return {
        name: {"anyOf": [{"$ref": f"#/$defs/{slot}.{name}"}, {"type": "null"}]}
        if name in optional
        else {"$ref": f"#/$defs/{slot}.{name}"}
        for name in SECTIONS[slot]
    }


def _settings(description: str, *, continued: bool = False) -> Schema:
    slots = {slot: _closed(f"Settings of the {slot}.", _sections(slot)) for slot in SLOTS}
    if continued:
        slots["prior"]["properties"][CONTINUED] = {
            **of_class(ClassifierSettings),
            "description": "What differs from `classifier` for classifiers that have an ordinary one.",
        }
    return _closed(description, slots)


def _dataset() -> Schema:
    """Each kind is chosen by if and then, not by oneOf, so that an error names the key that is wrong."""
    further = {
        "settings": {"$ref": "#/$defs/dataset_settings"},
        "runs": _named("What differs for one run on this data set, and those that extend it.", {"$ref": "#/$defs/run"}),
    }
    cases = []
    for name, kind in KINDS.items():
        schema = of_class(kind.declares)
        schema["properties"] |= further
        cases.append({"if": {"properties": {"kind": {"const": name}}, "required": ["kind"]}, "then": schema})
    kinds = {"enum": list(KINDS), "description": "What is read, and how."}
    return {
        "type": "object",
        "description": "A data set; its kind decides about its other keys.",
        "required": ["kind"],
        "properties": {"kind": kinds},
        "allOf": cases,
    }


def _closed(description: str, properties: Schema, required: list[str] | None = None) -> Schema:
    found: Schema = {
        "type": "object",
        "description": description,
        "additionalProperties": False,
        "properties": properties,
    }
    return {**found, "required": required} if required else found


def _named(description: str, schema: Schema) -> Schema:
    return {
        "type": "object",
        "propertyNames": {"pattern": NAME},
        "additionalProperties": schema,
        "description": description,
    }


def _list(description: str) -> Schema:
    return {"type": "array", "items": {"type": "string"}, "minItems": 1, "description": description}


def settings_page() -> str:
    """``docs/settings.md``: every setting with its default, range and meaning, and what methods have in its place."""
    lines = [
        "# Settings",
        "",
        "Made from `wsss_core/recipes/settings.py` by `python -m wsss_core.recipes write`; do not edit.",
        "",
        "A heading is a slot of a run and a section in it: `prior.cams` with `stride` is `runs.NAME.prior.cams.stride`",
        "or `datasets.NAME.settings.prior.cams.stride`. Which value wins stands in [wildcards.md](wildcards.md#run).",
        "Defaults are those of P-NOC's paper and code on Pascal VOC 2012; where the two differ, the code's. Marks:",
        "*data set*, the value of a data set that names one holds for all runs; *speed*, it changes no number and",
        "reruns nothing;",
        "*a file*, it stands for a file that the stage takes in.",
        "",
    ]
    for slot in SLOTS:
        lines += [f"## {slot}", "", *_methods(slot)]
        for name, kind in SECTIONS[slot].items():
            lines += [f"### {slot}.{name}", "", _one_line(kind.__doc__ or ""), "", *_rows(kind), ""]
    return "\n".join(lines).rstrip() + "\n"


def _methods(slot: str) -> Iterator[str]:
    yield "| method | settings | in place of the defaults |"
    yield "|---|---|---|"
    for name, method in METHODS[slot].items():
        values = "; ".join(
            f"`{section}.{key}: {_text(value)}`" for section, own in method.values.items() for key, value in own.items()
        )
        usual = ", the usual one" if USUAL.get(slot) == name else ""
        sections = ", ".join(f"{own} (or null)" if own in method.optional else own for own in method.sections)
        yield f"| `{name}`{usual} | {sections} | {values} |"
    yield ""


def _rows(kind: type) -> Iterator[str]:
    yield "| setting | default | values | meaning |"
    yield "|---|---|---|---|"
    schema, of = of_class(kind), marks(kind)
    default = plain(kind())
    for field in fields(kind):
        node = schema["properties"][field.name]
        told = [TURNS_INTO[mark] for mark in (SCALE, SPEED, INPUT) if mark in of[field.name]]
        meaning = node.get("description", "") + (f" *{', '.join(told)}*" if told else "")
        yield f"| `{field.name}` | {_text(default[field.name])} | {in_words(node)} | {meaning} |"


def _text(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=1000).removesuffix("\n...\n").strip()


def _one_line(text: str) -> str:
    return " ".join(textwrap.dedent(text).replace("``", "`").split())


def texts() -> dict[str, str]:
    """Path -> content of everything that is made here."""
    schema = yaml.safe_dump(config_schema(), sort_keys=False, width=120, allow_unicode=True)
    return {SCHEMA: schema, PAGE: settings_page()}


def write(root: str | Path) -> None:
    """Write the schema and the page below a folder."""
    for path, text in texts().items():
        Path(root, path).write_text(text, encoding="utf-8")
