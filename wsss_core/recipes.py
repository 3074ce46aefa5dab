"""Recipes: which settings hold for a run on a data set, and which other run its parts come from.

Plain Python without torch or numpy, because the Snakefile imports it, and every cluster job parses the Snakefile.
"""

from copy import deepcopy

from wsss_core.networks.names import depths

# What each method of training a classifier adds to the plain classifier's loss: sections of the settings.
METHODS = {
    "vanilla": (),
    "puzzle": ("puzzle",),
    "occse": ("erasing",),
    "poc": ("puzzle", "erasing"),
    "pnoc": ("puzzle", "erasing", "discriminator"),
}

# What a run may take from another run, and the words that mean that it has no such part.
PARTS = {"ordinary": (), "priors": (), "saliency": ("none",), "pseudo_masks": ("ground_truth",)}


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
        """The run that a part of a run (see ``PARTS``) comes from, with the same seed; or a word such as ``none``."""
        name, at, seed = run.partition("@seed")
        other = self.config["runs"][name].get(part) or name
        # Parts may be handed on by several runs; an ordinary classifier is that of the very run that is named.
        while part != "ordinary" and other in self.config["runs"] and self.config["runs"][other].get(part):
            other = self.config["runs"][other][part]
        return other if other in PARTS[part] else f"{other}{at}{seed}"

    def plain(self, run: str) -> str:
        """The run whose classifier ``weights: ordinary`` means: the ordinary one of this run or of its priors."""
        other = self.source(run, "ordinary")
        if other == run:
            priors = self.source(run, "priors")
            other = self.source(priors, "ordinary")
        return other

    def needs(self, run: str, section: str) -> bool:
        """Whether the run's classifier is trained with this part of the loss (see ``METHODS``)."""
        method = self.config["runs"][self.parse(run)[0]].get("method")
        return section in METHODS.get(method, ())

    def ordinary(self, dataset: str, run: str) -> str:
        """The run whose classifier looks at the erased images of this run.

        Raises:
            RecipeError: its network is not as deep as the masks are to go.
        """
        other = self.source(run, "ordinary")
        backbone = self.settings(dataset, other)["classifier"]["backbone"]
        depth = self.settings(dataset, run)["erasing"]["masking_depth"]
        if depth > depths(backbone):
            raise RecipeError(
                f"run {run} on data set {dataset}: erasing.masking_depth is {depth}, but its ordinary classifier "
                f"{other} has the backbone {backbone} with {depths(backbone)} groups of layers"
            )
        return other

    def classifier_sections(self, run: str) -> tuple[str, ...]:
        """The sections of the settings on which the training of the run's classifier depends."""
        return "classifier", *METHODS[self.config["runs"][self.parse(run)[0]]["method"]]

    def with_classifier(self) -> list[str]:
        """The runs that train a classifier of their own."""
        return [name for name, run in self.config["runs"].items() if run.get("method")]

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
            for part, words in PARTS.items():
                other = run.get(part)
                if other is not None and other not in runs and other not in words:
                    raise RecipeError(f"runs.{name}.{part} names the run {other!r}, which is not in config.yaml")
                if other == name:
                    raise RecipeError(f"runs.{name}.{part} names the run itself: leave it out for its own")
                self._check_chain(name, part)
        for name, run in runs.items():
            self._check_run(name, run)
        for dataset, declared in self.config["datasets"].items():
            for name in declared["runs"]:
                if name not in runs:
                    raise RecipeError(f"datasets.{dataset}.runs.{name} is no run; config.yaml has {', '.join(runs)}")
            if declared["splits"]["val"] in (declared["splits"]["train"], declared["splits"]["scored"]):
                raise RecipeError(f"datasets.{dataset}.splits: val must be another subset than train and scored")
            for name in runs:
                self._check_settings(dataset, name)

    def _check_chain(self, name: str, part: str) -> None:
        seen, runs = [name], self.config["runs"]
        while (other := runs[seen[-1]].get(part)) in runs:
            if other in seen:
                raise RecipeError(f"runs.{name}.{part} leads back to itself: {' -> '.join([*seen, other])}")
            seen.append(other)

    def _check_run(self, name: str, run: dict) -> None:
        method, priors, runs = run.get("method"), run.get("priors"), self.config["runs"]
        if bool(method) == bool(priors) and (method or run.get("pseudo_masks") != "ground_truth"):
            raise RecipeError(
                f"runs.{name}: set either a method, to train a classifier, or priors, to take another run's"
            )
        if priors and not runs[self.source(name, "priors")].get("method"):
            raise RecipeError(f"runs.{name}.priors is {priors}, which has no classifier")
        if "erasing" in METHODS.get(method, ()) and not run.get("ordinary"):
            raise RecipeError(f"runs.{name} needs an ordinary classifier: set runs.{name}.ordinary to a vanilla run")
        if run.get("ordinary") and not runs[run["ordinary"]].get("method"):
            raise RecipeError(
                f"runs.{name}.ordinary is {run['ordinary']}, which trains no classifier: name the run in its priors"
            )

    def _check_settings(self, dataset: str, name: str) -> None:
        settings, run = self.settings(dataset, name), self.config["runs"][name]
        where = f"run {name} on data set {dataset}"
        if not run.get("ordinary") and run.get("method") and settings["classifier"]["weights"] == "ordinary":
            raise RecipeError(f"{where}: classifier.weights is 'ordinary', but the run has no ordinary classifier")
        if self.needs(name, "puzzle"):
            # each tile needs a whole number of cells, or the merged maps have another size than the image's
            side = round(settings["puzzle"]["pieces"] ** 0.5) * settings["classifier"]["output_stride"]
            if settings["classifier"]["crop"] % side:
                raise RecipeError(
                    f"{where}: classifier.crop must be a multiple of {side}, as the image is cut into tiles"
                )
        for stage in ("classifier", "affinity", "deeplab"):
            smallest, largest = settings[stage]["resize"]
            if smallest > largest:
                raise RecipeError(f"{where}: {stage}.resize is [{smallest}, {largest}]: smallest first")
        for section in METHODS["pnoc"]:
            ramp = settings[section]["weight"]
            if ramp["start"] > ramp["end"]:
                raise RecipeError(
                    f"{where}: {section}.weight falls from start to end; only rising weights are possible"
                )


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
