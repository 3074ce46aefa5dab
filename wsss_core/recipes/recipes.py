"""Recipes: the runs of config.yaml, which run each of their artefacts comes from, and what cannot work.

What a run has in a slot, and which value of a setting wins, is in ``slots.py``.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from wsss_core.recipes.backbones import unknown_backbone
from wsss_core.recipes.config import RecipeError, ordered
from wsss_core.recipes.depths import depths
from wsss_core.recipes.kinds import check_names, completed
from wsss_core.recipes.methods import METHODS, NONE, SLOTS, Method, Stage
from wsss_core.recipes.names import unknown
from wsss_core.recipes.settings import Ramp, Steps, identity, plain
from wsss_core.recipes.slots import REFERENCES, Slot, ancestry, resolve
from wsss_core.recipes.tree import MADE_WITH

TERMS_OF_MEANS = {"puzzle", "erasing", "discriminator", "reactivation"}  # sections of a prior
SUBSET = "[A-Za-z0-9_]+"  # a subset's name, which is a part of paths
NAME = "[A-Za-z0-9_-]+"  # of a run, a data set, a table


class Recipes:
    """The runs and data sets of config.yaml, with the files that it includes (``config.assemble``).

    A run's name may carry a seed: ``pnoc@seed2`` is the run ``pnoc`` with seed 2, and takes what comes from other runs
    from those runs with seed 2. Plain names have the first of the config's seeds.

    A run that extends another one shares all artefacts with it that would be the same: those whose settings, on this
    data set, and whose inputs are. So ``{extends: pnoc, segmentation: v2}`` trains a network and nothing else.

    Raises:
        RecipeError: a run or data set that cannot work. What depends on both is checked when it is asked for.
    """

    def __init__(self, config: dict[str, Any]):
        self.config = config
        self.runs: dict[str, dict[str, Any]] = config["runs"]
        self.datasets = {name: completed(declared) for name, declared in config["datasets"].items()}
        self._slots: dict[tuple[str, str, str], Slot] = {}
        self._sources: dict[tuple[str, str, str], str] = {}
        self._check()

    # --- names ---

    def parse(self, run: str) -> tuple[str, int]:
        """A run's recipe and seed."""
        name, at, seed = run.partition("@seed")
        bare = name.partition("@")[0]
        if bare != name and bare in self.runs:
            raise RecipeError(f"run {run!r}: write a seed as in {bare}@seed2")
        if name not in self.runs:
            raise RecipeError(unknown("run", name, self.runs, "the runs of config.yaml are"))
        if at and not seed.isdecimal():
            raise RecipeError(f"run {run!r}: write a seed as in {name}@seed2")
        if at:
            _checked_seed(int(seed), f"run {run!r}")
        return name, int(seed) if at else self.config["seeds"][0]

    def data_set(self, name: str) -> dict[str, Any]:
        """A data set as config.yaml declares it."""
        if name not in self.datasets:
            said = unknown("data set", name, self.datasets, "config.yaml has")
            raise RecipeError(f"{said}; a file that declares it goes in with --configfile")
        return self.datasets[name]

    def seeded(self, run: str) -> list[str]:
        """The same recipe with each of the config's seeds; the first keeps its plain name."""
        return [run, *(f"{run}@seed{seed}" for seed in self.config["seeds"][1:])]

    def train_subset(self, dataset: str, subset: str) -> str:
        """The subset whose stores hold the images of ``subset``: the scored images are a part of the training ones."""
        splits = self.data_set(dataset)["splits"]
        return splits["train"] if subset == splits["scored"] else subset

    # --- methods and settings ---

    def slot(self, dataset: str, run: str, slot: str) -> Slot:
        """What a run has in a slot on a data set; what it takes from another run is not followed."""
        self.data_set(dataset)  # before the run: where neither is known, a file of config is likely to be missing
        name, _ = self.parse(run)
        key = dataset, name, slot
        if key not in self._slots:
            self._slots[key] = resolve(self.config, dataset, name, slot)
            self._check_slot(dataset, name, slot)
        return self._slots[key]

    def filled(self, dataset: str, run: str, slot: str) -> tuple[str, Slot]:
        """The run that fills a slot of this run, with the same seed, and what it has there.

        Raises:
            RecipeError: runs take the slot from one another in a circle.
        """
        name, at, seed = run.partition("@seed")
        seen = [name]
        while source := self.slot(dataset, seen[-1], slot).source:
            if source in seen:
                raise RecipeError(f"runs.{name}.{slot} leads back to itself: {' -> '.join([*seen, source])}")
            seen.append(source)
        return f"{seen[-1]}{at}{seed}", self.slot(dataset, seen[-1], slot)

    def method(self, dataset: str, run: str, slot: str) -> Method | None:
        """The method that fills a slot, or None where the run has no such thing."""
        _, filled = self.filled(dataset, run, slot)
        return METHODS[slot][filled.method] if filled.method else None

    def section(self, dataset: str, run: str, name: str) -> Any:
        """Settings of the run in a section such as ``prior.cams``, as they fill the slot; None for a null section."""
        slot, _, section = name.partition(".")
        return self.filled(dataset, run, slot)[1].sections[section]

    def stage_settings(self, dataset: str, run: str, artefact: str) -> dict[str, dict[str, Any]]:
        """By section, what decides about an artefact of this run beside its inputs (``settings.identity``)."""
        slot, stage = self._stage(dataset, run, artefact)
        return ordered({name: identity(own) for name, own in self._sections(dataset, run, slot, stage).items()})

    # --- artefacts ---

    def source(self, dataset: str, run: str, artefact: str) -> str:
        """The run in whose folder an artefact of this run lies, with the same seed.

        Raises:
            RecipeError: the run has no such artefact on this data set.
        """
        name, at, seed = run.partition("@seed")
        key = dataset, name, MADE_WITH.get(artefact, artefact)
        if key not in self._sources:
            self._sources[key] = self._source(*key)
        return f"{self._sources[key]}{at}{seed}"

    def artefacts(self, dataset: str, run: str) -> list[str]:
        """What a run has, its own or another run's, by name and in the order in which it is made."""
        return [stage.makes for slot in SLOTS for stage in self._stages(dataset, run, slot)]

    def has(self, dataset: str, run: str, artefact: str) -> bool:
        """Whether a run has an artefact of this name, its own or another run's."""
        return artefact in self.artefacts(dataset, run)

    def result(self, dataset: str, run: str, slot: str) -> str | None:
        """The artefact that a slot hands to the next ones, by name; None if the run has no such slot."""
        stages = self._stages(dataset, run, slot)
        return stages[-1].makes if stages else None

    def ordinary(self, dataset: str, run: str) -> str:
        """The run whose classifier looks at erased images of this run: that which the prior names.

        Raises:
            RecipeError: the prior names none.
        """
        at = run.removeprefix(self.parse(run)[0])
        filled, slot = self.filled(dataset, run, "prior")
        if "ordinary" not in slot.references:
            raise RecipeError(f"runs.{self.parse(filled)[0]}.prior names no ordinary classifier")
        return slot.references["ordinary"] + at

    def plain(self, dataset: str, run: str) -> str:
        """The run of the plain classifier that ``weights: ordinary`` means: the prior's ordinary one, or its own."""
        filled, slot = self.filled(dataset, run, "prior")
        return self.ordinary(dataset, run) if "ordinary" in slot.references else filled

    def behind(self, dataset: str, run: str, artefact: str) -> dict[str, dict[str, Any]]:
        """Everything that an artefact is made of, the artefact itself last: for each its run and its settings.

        The ordinary classifier is called that; others have the names of their artefacts. ``weights`` is what a network
        starts from: a word, a file, or the run of a classifier.
        """
        found: dict[str, dict[str, Any]] = {}
        self._collect(dataset, self.source(dataset, run, artefact), artefact, artefact, found)
        return found

    def flat(self, dataset: str, run: str) -> dict[str, Any]:
        """Everything that a run is on a data set, key by key: methods, sources, references, settings."""
        found: dict[str, Any] = {}
        for name in SLOTS:
            slot = self.slot(dataset, run, name)
            if slot.source:
                found[f"{name}.from"] = slot.source
            else:
                found[f"{name}.method"] = slot.method or NONE
            found |= {f"{name}.{key}": value for key, value in slot.references.items()}
            for section, settings in slot.sections.items():
                values = None if settings is None else plain(settings)
                found |= _flattened(f"{name}.{section}", values)
        return found

    def differences(self, first: tuple[str, str], second: tuple[str, str]) -> dict[str, tuple[Any, Any]]:
        """Keys in which two runs, each (data set, run), differ, with both values; None where one has no such key."""
        one, two = self.flat(*first), self.flat(*second)
        keys = dict.fromkeys([*one, *two])
        return {key: (one.get(key), two.get(key)) for key in keys if one.get(key) != two.get(key)}

    def _stages(self, dataset: str, run: str, slot: str) -> list[Stage]:
        """The stages of a slot of a run, without those of sections that are null."""
        method = self.method(dataset, run, slot)
        if method is None:
            return []
        sections = self.filled(dataset, run, slot)[1].sections
        kept: list[Stage] = []
        left_out: set[str] = set()
        for stage in method.stages:
            own = [name for name in stage.sections if name in sections]  # those of other slots are never null
            if left_out & set(stage.takes) or any(sections[name] is None for name in own):
                left_out.add(stage.makes)
            else:
                kept.append(stage)
        return kept

    def _stage(self, dataset: str, run: str, artefact: str) -> tuple[str, Stage]:
        for slot in SLOTS:
            for stage in self._stages(dataset, run, slot):
                if stage.makes == artefact:
                    return slot, stage
        name, _ = self.parse(run)
        offered = {
            slot: [kind for kind, method in METHODS[slot].items() if artefact in (s.makes for s in method.stages)]
            for slot in SLOTS
        }
        slot, methods = next(((slot, names) for slot, names in offered.items() if names), ("", []))
        filled = self.filled(dataset, run, slot)[1].method if slot else None
        raise RecipeError(
            f"runs.{name}.{slot} is {filled or NONE}{' without its later stages' if filled in methods else ''}: "
            f"{artefact} cannot be made on {dataset}"
        )

    def _sections(self, dataset: str, run: str, slot: str, stage: Stage) -> dict[str, Any]:
        """The settings that a stage reads, by the name that it has for them (without a slot)."""
        filler, filled = self.filled(dataset, run, slot)
        return {
            name.rpartition(".")[2]: self.section(dataset, filler, name)
            if "." in name
            else filled.sections[self._of(dataset, run, stage, name)]
            for name in stage.sections
        }

    def _of(self, dataset: str, run: str, stage: Stage, section: str) -> str:
        """The section that a stage reads; affinity labels of runs without saliency have thresholds of their own."""
        bare = "objects" in stage.takes and self.result(dataset, run, "saliency") is None
        return "cam_labels" if bare and section == "labels" else section

    def _source(self, dataset: str, name: str, artefact: str) -> str:
        slot, _ = self._stage(dataset, name, artefact)
        if other := self.slot(dataset, name, slot).source:
            return self.source(dataset, other, artefact)
        parent = self.runs[name].get("extends")
        if parent and self._makes(dataset, name, artefact) == self._makes(dataset, parent, artefact):
            return self.source(dataset, parent, artefact)
        return name

    def _makes(self, dataset: str, name: str, artefact: str) -> Any:
        """What an artefact is made of, settings and inputs: equal ones make equal artefacts. None if there is none."""
        if not self.has(dataset, name, artefact):
            return None
        slot, stage = self._stage(dataset, name, artefact)
        sections = self._sections(dataset, name, slot, stage)
        weights = [getattr(own, "weights", None) for own in sections.values()]
        if "ordinary" in weights:
            weights.append(self.source(dataset, self.plain(dataset, name), "classifier"))
        return self.stage_settings(dataset, name, artefact), weights, self._taken(dataset, name, stage)

    def _collect(self, dataset: str, run: str, artefact: str, called: str, found: dict[str, dict[str, Any]]) -> None:
        slot, stage = self._stage(dataset, run, artefact)
        for take, taken, source in self._taken(dataset, run, stage):
            name = take if take in REFERENCES else taken
            if name not in found:
                self._collect(dataset, source, taken, name, found)
        sections = self._sections(dataset, run, slot, stage)
        start = [weights for own in sections.values() if (weights := getattr(own, "weights", None))]
        if start == ["ordinary"]:
            start = [self.source(dataset, self.plain(dataset, run), "classifier")]
        weights = {"weights": start[0]} if start else {}
        found[called] = {"run": run, **weights, **self.stage_settings(dataset, run, artefact)}

    def _taken(self, dataset: str, name: str, stage: Stage) -> list[tuple[str, str, str]]:
        """What a stage takes in: what it calls it, the artefact, and the run that it comes from."""
        found = []
        for take in stage.takes:
            artefact, run = take, name
            if take == "ordinary":
                artefact, run = "classifier", self.ordinary(dataset, name)
            elif take == "objects":
                result = self.result(dataset, name, "saliency")
                if result is None:
                    continue
                artefact = result
            elif take == "refined":
                artefact = getattr(self.method(dataset, name, "refinement"), "maps", None) or "pseudo_masks"
            elif self._left_alone(dataset, name, take):
                continue
            found.append((take, artefact, self.source(dataset, run, artefact)))
        return found

    def _left_alone(self, dataset: str, name: str, take: str) -> bool:
        """Whether a stage does without what it takes in other runs."""
        match take:
            case "pseudo_masks":
                return self.trains_on_truth(dataset, name)
            case "instance_labels":
                return self.learns_true_objects(dataset, name)
            case "proposal_labels":
                return not self.section(dataset, name, "instances.cim").cluster_labels
        return False

    def trains_on_truth(self, dataset: str, run: str) -> bool:
        """Whether the segmentation network of a run learns from true masks."""
        method = self.method(dataset, run, "refinement")
        return method is not None and method.truth

    def learns_true_objects(self, dataset: str, run: str) -> bool:
        """Whether the detector of a run learns from true objects."""
        method = self.method(dataset, run, "instances")
        return method is not None and method.truth

    # --- checks ---

    def _check(self) -> None:
        for seed in self.config["seeds"]:
            _checked_seed(seed, f"seeds: {seed}")
        for name, run in self.runs.items():
            if (parent := run.get("extends")) is not None and parent not in self.runs:
                raise RecipeError(f"runs.{name}.extends: {unknown('run', parent, self.runs, 'config.yaml has')}")
            for slot, key, other in _named(run):
                if other not in self.runs:
                    where = f"runs.{name}.{slot}.{key}"
                    raise RecipeError(f"{where}: {unknown('run', other, self.runs, 'config.yaml has')}")
                if other == name and key == "from":
                    raise RecipeError(f"runs.{name}.{slot}.from names the run itself: leave it out for its own")
            ancestry(self.runs, name)
        for dataset, declared in self.datasets.items():
            for name in declared.get("runs") or {}:
                if name not in self.runs:
                    raise RecipeError(f"datasets.{dataset}.runs: {unknown('run', name, self.runs, 'config.yaml has')}")
            for role, subset in declared["splits"].items():
                if subset is not None and not re.fullmatch(SUBSET, subset):
                    raise RecipeError(f"datasets.{dataset}.splits.{role} is {subset!r}: use letters, digits and _")
            if declared["splits"]["val"] in (declared["splits"]["train"], declared["splits"]["scored"]):
                raise RecipeError(f"datasets.{dataset}.splits: val must be another subset than train and scored")
            check_names(dataset, declared)

    def _check_slot(self, dataset: str, name: str, slot: str) -> None:
        found = self._slots[dataset, name, slot]
        where = f"run {name} on data set {dataset}: {slot}"
        for section, settings in found.sections.items():
            if wrong := unknown_backbone(getattr(settings, "backbone", "resnet50")):
                raise RecipeError(f"{where}.{section}.backbone: {wrong}")
            if getattr(settings, "nesterov", False) and not settings.momentum:
                raise RecipeError(f"{where}.{section}.nesterov needs a momentum above 0")
            for key in ("resize", "rescale"):
                pair = getattr(settings, key, None)
                if pair and pair[0] > pair[1]:
                    raise RecipeError(f"{where}.{section}.{key} is {list(pair)}: smallest first")
            steps = getattr(settings, "thresholds", None)
            if isinstance(steps, Steps) and steps.stop < steps.start:
                raise RecipeError(f"{where}.{section}.thresholds: stop {steps.stop} is below start {steps.start}")
            ramp = getattr(settings, "weight", None)
            if isinstance(ramp, Ramp) and ramp.start > ramp.end:
                raise RecipeError(f"{where}.{section}.weight falls from start to end; only rising weights are possible")
        if slot == "prior" and found.method:
            self._check_prior(dataset, name, found, where)
        if slot == "instances" and found.method:
            self._check_instances(dataset, name, found, where)
        if slot == "refinement" and found.method == "affinity" and self.result(dataset, name, "saliency") is None:
            labels = found.sections["cam_labels"]
            if labels.background >= labels.foreground:
                raise RecipeError(
                    f"{where}.cam_labels: background {labels.background} is not below foreground {labels.foreground}, "
                    "so that no pixel would be uncertain"
                )

    def _check_instances(self, dataset: str, name: str, found: Slot, where: str) -> None:
        """The methods need this of the refinement, beside what their stages take."""
        refinement = self.filled(dataset, name, "refinement")[1]
        affinity = refinement.sections.get("affinity")
        if found.method == "irn" and not (affinity and affinity.displacement):
            raise RecipeError(
                f"{where}: irn needs a displacement field: give the run the refinement affinity with "
                "affinity: {displacement: true}"
            )
        if found.method == "components" and not (refinement.method and METHODS["refinement"][refinement.method].maps):
            raise RecipeError(f"{where}: components needs pseudo masks: the run's refinement makes none")
        if cim := found.sections.get("cim"):
            if cim.strategy == "cim" and not cim.integrity_head:
                raise RecipeError(f"{where}.cim: the strategy cim needs integrity_head: true, or say strategy: mist")
            if len(cim.branch_weights) != cim.branches:
                raise RecipeError(
                    f"{where}.cim.branch_weights has {len(cim.branch_weights)} values for {cim.branches} branches: "
                    "name one for each"
                )

    def _check_prior(self, dataset: str, name: str, found: Slot, where: str) -> None:
        method, classifier = METHODS["prior"][str(found.method)], found.sections["classifier"]
        for key in method.needs:
            if key not in found.references:
                raise RecipeError(f"runs.{name}.prior needs an ordinary classifier: set {key} to a run such as cam")
        if "reactivation" in found.sections and classifier.weights in ("pretrained", "none"):
            raise RecipeError(
                f"{where}.classifier.weights is {classifier.weights!r}, but ReCAM goes on from a classifier: "
                "say ordinary, or name a checkpoint of one"
            )
        if found.sections["cams"].head and "reactivation" not in found.sections:
            raise RecipeError(f"{where}.cams.head: the method {found.method} has one head; recam has two")
        if classifier.label_loss and classifier.label_smoothing:
            raise RecipeError(f"{where}.classifier: label_loss takes labels as they are, so set label_smoothing to 0")
        if classifier.weights == "ordinary" and not found.references:
            raise RecipeError(f"{where}.classifier.weights is 'ordinary', but the run names no ordinary classifier")
        if classifier.pooling and len(found.sections.keys() & TERMS_OF_MEANS):
            raise RecipeError(f"{where}.classifier.pooling: {found.method} scores maps by their means: leave it null")
        if "puzzle" in found.sections:
            # each tile needs a whole number of cells, or the merged maps have another size than the image's
            side = round(found.sections["puzzle"].pieces ** 0.5) * classifier.output_stride
            if classifier.crop % side:
                raise RecipeError(
                    f"{where}.classifier.crop must be a multiple of {side}, as the image is cut into tiles"
                )
        if "erasing" in found.sections:
            depth = found.sections["erasing"].masking_depth
            other = found.references["ordinary"]
            backbone = self.section(dataset, other, "prior.classifier").backbone
            if depth > depths(backbone):
                raise RecipeError(
                    f"{where}.erasing.masking_depth is {depth}, but its ordinary classifier {other} has the backbone "
                    f"{backbone} with {depths(backbone)} groups of layers"
                )


def _checked_seed(seed: Any, where: str) -> None:
    if not isinstance(seed, int) or not 0 <= seed < 2**32:  # numpy and torch's CPU generator take 32 bits
        raise RecipeError(f"{where}: a seed is a whole number from 0 to 4294967295")


def _named(run: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """The runs that a run names: slot, key, name."""
    for slot in SLOTS:
        content = run.get(slot)
        if isinstance(content, Mapping):
            yield from ((slot, key, content[key]) for key in ("from", *REFERENCES) if key in content)


def _flattened(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        return {name: value}
    return {key: found for inner in value for key, found in _flattened(f"{name}.{inner}", value[inner]).items()}
