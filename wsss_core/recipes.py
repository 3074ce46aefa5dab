"""Recipes: which settings hold for a run on a data set, and which other run its parts come from.

Plain Python without torch or numpy, because the Snakefile imports it, and every cluster job parses the Snakefile.
"""

from copy import deepcopy


class RecipeError(ValueError):
    """A recipe that cannot work, found before any job starts."""


class Recipes:
    """The runs and data sets of config.yaml.

    A run's name may carry a seed: ``pnoc@seed2`` is the run ``pnoc`` with seed 2, and takes the parts that come from
    other runs from those runs with seed 2. Plain names have the first of the config's seeds.
    """

    def __init__(self, config: dict):
        self.config = config
        self._check()

    def settings(self, dataset: str, run: str) -> dict:
        """All settings of a run on a data set: general ones, the data set's, the run's, the run's on the data set."""
        name, _ = self.parse(run)
        own = self.config["datasets"][dataset]
        layers = [own["settings"], self.config["runs"][name]["settings"], own["runs"].get(name, {})]
        result = deepcopy(self.config["settings"])
        for layer in layers:
            _merge(result, layer)
        return ordered(result)

    def parse(self, run: str) -> tuple[str, int]:
        """A run's recipe and seed."""
        name, at, seed = run.partition("@seed")
        if name not in self.config["runs"]:
            raise RecipeError(f"unknown run {name!r}; the runs of config.yaml are {', '.join(self.config['runs'])}")
        if at and not seed.isdecimal():
            raise RecipeError(f"run {run!r}: write a seed as in {name}@seed2")
        return name, int(seed) if at else self.config["seeds"][0]

    def source(self, run: str, part: str) -> str:
        """The run that a part (``ordinary`` or ``saliency``) of a run comes from, with the same seed."""
        name, at, seed = run.partition("@seed")
        other = self.config["runs"][name][part] or name
        # Saliency may be handed on by several runs; an ordinary classifier is that of the very run that is named.
        while part == "saliency" and self.config["runs"][other][part]:
            other = self.config["runs"][other][part]
        return f"{other}{at}{seed}"

    def with_method(self, method: str) -> list[str]:
        """The runs whose classifier is trained in a certain way."""
        return [name for name, run in self.config["runs"].items() if run["method"] == method]

    def seeded(self, run: str) -> list[str]:
        """The same recipe with each of the config's seeds; the first keeps its plain name."""
        return [run, *(f"{run}@seed{seed}" for seed in self.config["seeds"][1:])]

    def train_subset(self, dataset: str, subset: str) -> str:
        """The subset whose stores hold the images of ``subset``: the scored images are a part of the training ones."""
        splits = self.config["datasets"][dataset]["splits"]
        return splits["train"] if subset == splits["scored"] else subset

    def _check(self) -> None:
        runs = self.config["runs"]
        for name, run in runs.items():
            for part in ("ordinary", "saliency"):
                other = run[part]
                if other is not None and other not in runs:
                    raise RecipeError(f"runs.{name}.{part} names the run {other!r}, which is not in config.yaml")
                if other == name:
                    raise RecipeError(f"runs.{name}.{part} names the run itself: use null for its own")
            if run["method"] == "pnoc" and run["ordinary"] is None:
                raise RecipeError(
                    f"runs.{name} needs an ordinary classifier: set runs.{name}.ordinary to a vanilla run"
                )
            for part in ("ordinary", "saliency"):
                self._check_chain(name, part)
        for dataset, declared in self.config["datasets"].items():
            for name in declared["runs"]:
                if name not in runs:
                    raise RecipeError(f"datasets.{dataset}.runs.{name} is no run; config.yaml has {', '.join(runs)}")
            if declared["splits"]["val"] in (declared["splits"]["train"], declared["splits"]["scored"]):
                raise RecipeError(f"datasets.{dataset}.splits: val must be another subset than train and scored")
            for name in runs:
                self._check_settings(dataset, name)

    def _check_chain(self, name: str, part: str) -> None:
        seen = [name]
        while (other := self.config["runs"][seen[-1]][part]) is not None:
            if other in seen:
                raise RecipeError(f"runs.{name}.{part} leads back to itself: {' -> '.join([*seen, other])}")
            seen.append(other)

    def _check_settings(self, dataset: str, name: str) -> None:
        settings = self.settings(dataset, name)
        where = f"run {name} on data set {dataset}"
        if self.config["runs"][name]["ordinary"] is None and settings["classifier"]["weights"] == "ordinary":
            raise RecipeError(f"{where}: classifier.weights is 'ordinary', but the run has no ordinary classifier")
        if self.config["runs"][name]["method"] == "pnoc":
            # each tile needs a whole number of cells, or the merged maps have another size than the image's
            side = round(settings["pnoc"]["pieces"] ** 0.5) * settings["classifier"]["output_stride"]
            if settings["classifier"]["crop"] % side:
                raise RecipeError(
                    f"{where}: classifier.crop must be a multiple of {side}, as the image is cut into tiles"
                )
        for stage in ("classifier", "affinity", "deeplab"):
            smallest, largest = settings[stage]["resize"]
            if smallest > largest:
                raise RecipeError(f"{where}: {stage}.resize is [{smallest}, {largest}]: smallest first")
        for ramp in ("reconstruction", "erasing", "discriminator"):
            values = settings["pnoc"][ramp]
            if values["start"] > values["end"]:
                raise RecipeError(f"{where}: pnoc.{ramp} falls from start to end; only rising weights are possible")


def ordered(value):
    """The same value with the keys of its dicts sorted: Snakemake takes another order for another param."""
    return {key: ordered(value[key]) for key in sorted(value)} if isinstance(value, dict) else value


def _merge(base: dict, layer: dict) -> None:
    """Put a layer's values over the base's, key by key and in place."""
    for key, value in layer.items():
        if isinstance(value, dict) and isinstance(base.get(key), dict):
            _merge(base[key], value)
        else:
            base[key] = deepcopy(value)
