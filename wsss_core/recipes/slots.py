"""What a run has in a slot on a data set.

The values of a section, where the later one wins:

1. the defaults in ``settings.py``, what the method has in their place (``methods.py``), and ``settings`` of config.yaml
2. ``datasets.D.settings``
3. the runs that the run extends, from the first one, then the run; each followed by ``datasets.D.runs`` of it
4. ``datasets.D.settings`` once more, but only what belongs to the scale of a data set (``settings.SCALE``), and not for
   a slot with ``own_scale``; then ``datasets.D.runs`` again
"""

from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from wsss_core.recipes.config import RecipeError, merge
from wsss_core.recipes.methods import METHODS, NONE, SECTIONS, USUAL
from wsss_core.recipes.names import unknown
from wsss_core.recipes.settings import SCALE, made, marked, plain

REFERENCES = ("ordinary",)  # keys of a slot that name another run
CONTINUED = "continued"  # key of a data set's prior: what differs for classifiers that have an ordinary one


@dataclass(frozen=True)
class Slot:
    """A slot of a run on a data set.

    Attributes:
        method: its name, or None where the slot is none or taken from another run.
        source: the run that it is taken from, without a seed, or None.
        references: the runs that it names by key (``REFERENCES``).
        sections: settings by section, in the order of the method; None for one that is null.
        origins: ``section.key`` -> which layer its value comes from.
    """

    method: str | None = None
    source: str | None = None
    references: Mapping[str, str] = field(default_factory=dict)
    sections: Mapping[str, Any] = field(default_factory=dict)
    origins: Mapping[str, str] = field(default_factory=dict)


def ancestry(runs: Mapping[str, Any], name: str) -> list[str]:
    """The runs that a run extends, the first one first, and the run itself."""
    chain = [name]
    while parent := runs[chain[0]].get("extends"):
        if parent in chain:
            raise RecipeError(f"runs.{name}.extends leads back to itself: {' -> '.join([parent, *chain])}")
        chain.insert(0, parent)
    return chain


def resolve(config: Mapping[str, Any], dataset: str, name: str, slot: str) -> Slot:
    """What a run has in a slot on a data set.

    Raises:
        RecipeError: a method or settings that the slot does not have, or values out of their range.
    """
    method, source, own_scale, said_none = USUAL.get(slot), None, False, False
    if method == NONE:
        method, said_none = None, True
    references: dict[str, str] = {}
    layers: list[tuple[str, dict[str, Any], bool]] = []
    for origin, content, exact in _said(config, dataset, name, slot):
        said: dict[str, Any] = {"method": content} if isinstance(content, str) else dict(content)
        if "from" in said or said.get("method") == NONE:
            if len(said) > 1:
                raise RecipeError(f"{origin}.{slot}: beside {'from' if 'from' in said else 'none'} no key counts")
            method, source, references, layers, own_scale = None, said.get("from"), {}, [], False
            said_none = source is None
            continue
        if "method" in said:
            method, source, said_none = said.pop("method"), None, False
        elif method is None and (source or slot != "prior"):
            raise RecipeError(
                f"{origin}.{slot} sets {', '.join(said)}, but what it extends has "
                + (f"that slot from {source}" if source else "no such slot")
                + ": name a method"
            )
        own_scale = said.pop("own_scale", own_scale)
        references |= {key: said.pop(key) for key in REFERENCES if key in said}
        layers.append((origin, said, exact))
    if source or said_none:
        return Slot(source=source)
    if method is None:
        raise RecipeError(f"runs.{name}.{slot} names no method: {', '.join(METHODS[slot])}, or from: another run")
    if method not in METHODS[slot]:
        raise RecipeError(f"runs.{name}.{slot}: {unknown('method', method, METHODS[slot], 'it offers')}")
    _check_sections(name, slot, method, layers)
    sections, origins = _layered(config, dataset, slot, method, layers, bool(references), own_scale)
    return Slot(method, None, references, sections, origins)


def _said(config: Mapping[str, Any], dataset: str, name: str, slot: str) -> Iterator[tuple[str, Any, bool]]:
    """What the runs of the ancestry and the data set's entries for them say of a slot, in order."""
    of_dataset = config["datasets"][dataset].get("runs") or {}
    for run in ancestry(config["runs"], name):
        if slot in config["runs"][run]:
            yield f"runs.{run}", config["runs"][run][slot], False
        if slot in of_dataset.get(run, {}):
            yield f"datasets.{dataset}.runs.{run}", of_dataset[run][slot], True


def _check_sections(name: str, slot: str, method: str, layers: list) -> None:
    """A run itself may only set what its method has; what it inherits beyond that is left behind."""
    for origin, said, _ in layers:
        foreign = [section for section in said if section not in METHODS[slot][method].sections]
        if foreign and origin.endswith(f"runs.{name}"):
            others = [other for other, kind in METHODS[slot].items() if foreign[0] in kind.sections]
            raise RecipeError(
                f"{origin}.{slot}.{foreign[0]}: the method {method} has no such settings; "
                + (f"{', '.join(others)} has" if others else f"it has {', '.join(METHODS[slot][method].sections)}")
            )


def _layered(
    config: Mapping[str, Any], dataset: str, slot: str, method: str, layers: list, continued: bool, own_scale: bool
) -> tuple[dict[str, Any], dict[str, str]]:
    of_dataset = dict((config["datasets"][dataset].get("settings") or {}).get(slot, {}))
    further = of_dataset.pop(CONTINUED, {})
    if continued and further:
        of_dataset["classifier"] = {**of_dataset.get("classifier", {}), **further}
    declared = METHODS[slot][method]
    beneath = [
        (f"method {method}", declared.values),
        ("settings", (config.get("settings") or {}).get(slot, {})),
        (f"datasets.{dataset}", of_dataset),
    ]
    sections: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for section in declared.sections:
        kind = SECTIONS[slot][section]
        values = _Values(plain(kind()), section)
        for origin, said in [*beneath, *((origin, said) for origin, said, _ in layers)]:
            values.put(origin, said, optional=section in declared.optional)
        if not own_scale:
            scale = marked(kind, SCALE)
            values.put(f"datasets.{dataset}", of_dataset, only=scale)
            for origin, said, exact in layers:
                if exact:
                    values.put(origin, said, only=scale)
        try:
            sections[section] = None if values.now is None else made(kind, values.now)
        except ValueError as error:
            raise RecipeError(f"{slot}.{section} of a run on data set {dataset}: {error}") from error
        origins |= {f"{section}.{key}": origin for key, origin in values.origins.items()}
    return sections, origins


class _Values:
    """A section's values while layers are put over one another, and where each comes from."""

    def __init__(self, default: dict[str, Any], section: str):
        self.default, self.section = default, section
        self.now: dict[str, Any] | None = deepcopy(default)
        self.origins = dict.fromkeys(default, "default")

    def put(
        self, origin: str, said: Mapping[str, Any], *, only: frozenset[str] | None = None, optional: bool = False
    ) -> None:
        """Take a layer's values of this section, or those of the keys ``only``."""
        if self.section not in said:
            return
        layer = said[self.section]
        if layer is None and only is None:
            if not optional:
                raise RecipeError(f"{origin}: the settings {self.section} cannot be null")
            self.now = None
            return
        if only is not None:
            layer = {key: value for key, value in (layer or {}).items() if key in only}
            if self.now is None:
                return
        if self.now is None:
            self.now = deepcopy(self.default)
        merge(self.now, layer)
        self.origins |= dict.fromkeys(layer, origin)
