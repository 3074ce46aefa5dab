"""What a run left on disk, for commands that look at it."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from wsss_core.commands.printing import CommandError
from wsss_core.commands.project import Project
from wsss_core.data.classes import Classes
from wsss_core.data.manifest import Manifest, Row
from wsss_core.recipes.names import unknown
from wsss_core.reports.tables import read_result
from wsss_core.scores.images import ImageScore, read_image_scores


class Scored(NamedTuple):
    """A stage that is scored: what it is called, its artefact, and the files of scores by their names in the tree."""

    caption: str
    artefact: str
    result: str
    images: str


STAGES = {
    "priors": Scored("CAM", "cams", "priors_miou", "priors_images"),
    "pseudo": Scored("pseudo mask", "pseudo_masks", "pseudo_miou", "pseudo_images"),
    "seg": Scored("prediction", "masks", "seg_miou", "seg_images"),
    "priors_val": Scored("CAM", "cams", "priors_miou_val", "priors_images_val"),
    "pseudo_val": Scored("pseudo mask", "pseudo_masks", "pseudo_miou_val", "pseudo_images_val"),
}
LAST_FIRST = ("seg", "pseudo", "priors", "pseudo_val", "priors_val")


@dataclass(frozen=True)
class RunOnDisk:
    """What a run left, as far as it is there."""

    project: Project
    dataset: str
    run: str

    def path(self, artefact: str, subset: str = "") -> Path | None:
        """Where an artefact lies, the run's own or that of the run it comes from; None if it is not there."""
        runs = [self.run]
        if self.project.recipes.has(self.dataset, self.run, artefact):
            runs.insert(0, self.project.recipes.source(self.dataset, self.run, artefact))
        known = {"dataset": self.dataset, "subset": subset}
        paths = [Path(self.project.tree.path(artefact, run=run, **known)) for run in runs]
        return next((path for path in paths if path.exists()), None)

    @property
    def sure(self) -> float:
        """The score from which an instance is shown: that from which a detector learns from it."""
        return self.project.recipes.section(self.dataset, self.run, "instances.labels").score

    @cached_property
    def classes(self) -> Classes:
        """The classes of the data set."""
        return Classes.read(self._of_dataset("classes"))

    @cached_property
    def manifests(self) -> dict[str, Manifest]:
        """By subset, those that are there; those whose roles are scored and val come first."""
        splits = self.project.recipes.data_set(self.dataset)["splits"]
        folder = self._of_dataset("manifest", subset="*").parent
        found = {path.stem: path for path in sorted(folder.glob("*.csv"))}
        first = [splits[role] for role in ("scored", "val", "train") if splits[role] in found]
        return {name: Manifest.read(found[name]) for name in dict.fromkeys([*first, *found])}

    def _of_dataset(self, artefact: str, **known: str) -> Path:
        path = Path(self.project.tree.path(artefact, dataset=self.dataset, **known))
        if not path.parent.is_dir() or (not known and not path.exists()):
            raise CommandError(
                f"there is no {path}: nothing was made on {self.dataset} here yet; such as "
                f"snakemake --cores all -- {self.project.tree.path('pictures', dataset=self.dataset, run=self.run)}"
            )
        return path

    def find(self, image_id: str) -> tuple[str, Row]:
        """The subset and the row of an image.

        Raises:
            CommandError: no subset has it, with the ids that are near.
        """
        for subset, manifest in self.manifests.items():
            if image_id in (ids := manifest.ids):
                return subset, manifest.rows[ids.index(image_id)]
        ids = [id for manifest in self.manifests.values() for id in manifest.ids]
        raise CommandError(unknown(f"image of {self.dataset}", image_id, ids, "there are"))

    def scored(self, name: str, stage: str) -> Path | None:
        """A file of scores of a stage; None where it was not made. Runs that share what is scored have the same."""
        artefact, recipes = STAGES[stage].artefact, self.project.recipes
        path = self.path(name)
        if path is None and recipes.has(self.dataset, self.run, artefact):
            source = recipes.source(self.dataset, self.run, artefact)
            path = RunOnDisk(self.project, self.dataset, source).path(name)
        return path

    @cached_property
    def tables(self) -> dict[str, dict[str, ImageScore]]:
        """By stage, the scores by image, as far as they are there."""
        paths = {stage: self.scored(about.images, stage) for stage, about in STAGES.items()}
        return {stage: {one.image_id: one for one in read_image_scores(path)} for stage, path in paths.items() if path}

    @cached_property
    def results(self) -> dict[str, dict[str, Any]]:
        """By stage, the result files, as far as they are there.

        Raises:
            ResultError: one is damaged.
        """
        paths = {stage: self.scored(about.result, stage) for stage, about in STAGES.items()}
        return {stage: read_result(path) for stage, path in paths.items() if path}
