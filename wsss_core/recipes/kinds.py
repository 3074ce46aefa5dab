"""Kinds of data sets, as far as a plan asks: what decides about a subset, and which files that is read from.

What reads them is in ``data/kinds``, a module a kind.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Le, MinLen

from wsss_core.recipes.config import ordered
from wsss_core.recipes.settings import Count, Name, Number, Section

Byte = Annotated[int, Ge(0), Le(255)]

Declared = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Splits(Section):
    """Subsets by their role."""

    train: Name
    """Trains every network."""
    scored: Name
    """Scores priors, saliency and pseudo masks; a part of the training subset."""
    val: Name
    """Scores the segmentation network."""


@dataclass(frozen=True, kw_only=True)
class DataSet(Section):
    """What every data set declares beside ``settings`` and ``runs``."""

    splits: Splits
    """Subsets by their role."""
    classes: Annotated[tuple[str, ...], MinLen(1)] | None
    """Names of the classes to keep; others become void, and images left without a class are dropped. null keeps all."""


@dataclass(frozen=True, kw_only=True)
class VocDataSet(DataSet):
    """Pascal VOC 2012 in the layout of its devkit."""

    kind: Literal["voc"]
    """Pascal VOC 2012."""
    root: Name
    """Folder with JPEGImages, Annotations, SegmentationClass and ImageSets."""
    sbd: str | None
    """Folder of SBD with its train.txt and val.txt, for train_aug; null without."""


@dataclass(frozen=True, kw_only=True)
class CocoSubset(Section):
    """Files of a subset."""

    images: Name
    """Folder of images, from root; their names stand in the annotations."""
    annotations: Name
    """File of annotated instances, from root."""
    list: Name | None
    """Text file of image ids, one a line; null takes all images of the annotations."""


@dataclass(frozen=True, kw_only=True)
class CocoDataSet(DataSet):
    """MS COCO, by its files of annotated instances."""

    kind: Literal["coco"]
    """MS COCO."""
    root: Name
    """Folder that the paths of images and annotations start at."""
    subsets: Annotated[dict[str, CocoSubset], MinLen(1)]
    """The subsets by name."""
    masks: Name | None
    """Folder of masks that are there already, named by the twelve digits of the image id; null makes them from the
    annotations."""


@dataclass(frozen=True, kw_only=True)
class DemoDataSet(DataSet):
    """The project's own small data set, drawn from a seed."""

    kind: Literal["demo"]
    """Pictures that the project draws."""
    seed: Number
    """Seed of the pictures."""
    images: Annotated[dict[str, Count], MinLen(1)]
    """Number of pictures of each subset."""
    size: tuple[Annotated[int, Ge(32)], Annotated[int, Ge(32)]]
    """Height and width of the pictures, in pixels."""


@dataclass(frozen=True, kw_only=True)
class FolderDataSet(DataSet):
    """A data set of your own."""

    kind: Literal["folders"]
    """A data set of your own."""
    images: Name
    """Folder of images."""
    masks: str | None
    """Folder of mask PNGs of the same names, for scores; null without."""
    labels: Name
    """CSV with the columns image_id and classes (names joined by ;), or the word masks."""
    names: Annotated[tuple[str, ...], MinLen(1)]
    """Class names in the order of the mask values 1, 2, ..."""
    colours: tuple[tuple[Byte, Byte, Byte], ...] | None
    """Colours of background and classes; null takes VOC's."""
    lists: Annotated[dict[str, str], MinLen(1)]
    """Text file of image ids of each subset."""


@dataclass(frozen=True)
class Kind:
    """What config.yaml declares of such a data set.

    Attributes:
        declares: what an entry of config.yaml holds.
        keys: declarations that decide about the images of a subset and their labels.
        by_subset: declarations with an entry a subset, of which only its own counts.
        lists: (declaration, subset) -> files that say which images there are and what they show.
        drawn: the project draws the pictures itself.
        makes_masks: masks are made from annotations, unless the declaration names ready ones.
    """

    declares: type[DataSet]
    keys: tuple[str, ...]
    lists: Callable[[Declared, str], list[Path]]
    by_subset: tuple[str, ...] = ()
    drawn: bool = False
    makes_masks: bool = False


def _voc_lists(declared: Declared, subset: str) -> list[Path]:
    names = {"train_aug": ("train_aug", "train", "val")}.get(subset, (subset,))
    folders = [Path(declared["root"], "ImageSets/Segmentation")]
    if subset == "train_aug" and declared["sbd"]:
        folders += [Path(declared["sbd"], inner) for inner in ("", "dataset", "benchmark_RELEASE/dataset")]
    return [folder / f"{name}.txt" for folder in folders for name in names]


def _coco_lists(declared: Declared, subset: str) -> list[Path]:
    part = declared["subsets"].get(subset, {"annotations": "", "list": None})
    return [Path(declared["root"], part["annotations"]), Path(part["list"] or "")]


def _folder_lists(declared: Declared, subset: str) -> list[Path]:
    return [Path(file) for file in (declared["lists"].get(subset), declared["labels"]) if file]


KINDS = {
    "voc": Kind(VocDataSet, ("kind", "classes", "root", "sbd"), _voc_lists),
    "coco": Kind(
        CocoDataSet, ("kind", "classes", "root", "masks"), _coco_lists, by_subset=("subsets",), makes_masks=True
    ),
    "demo": Kind(DemoDataSet, ("kind", "classes"), lambda declared, subset: [], drawn=True),
    "folders": Kind(
        FolderDataSet, ("kind", "classes", "names", "images", "masks", "labels"), _folder_lists, by_subset=("lists",)
    ),
}


def deciding(declared: Declared, subset: str) -> dict[str, Any]:
    """What decides about the images of a subset and their labels; a further subset must not remake the others."""
    kind = KINDS[declared["kind"]]
    found = {key: declared[key] for key in kind.keys}
    for key in kind.by_subset:
        own = {name: part for name, part in declared[key].items() if name == subset}
        found[key] = own or declared[key]
    return dict(ordered(found))


def list_files(declared: Declared, subset: str) -> list[str]:
    """The files that a manifest is made from, apart from the images, as far as they are there.

    One that should be there and is not is left to the job, which explains what is expected where.
    """
    return [str(file) for file in KINDS[declared["kind"]].lists(declared, subset) if file.is_file()]


def makes_masks(declared: Declared) -> bool:
    """Whether the pipeline makes the masks of this data set itself."""
    return KINDS[declared["kind"]].makes_masks and not declared["masks"]
