"""Kinds of data sets, as far as a plan asks: what decides about a subset, and which files that is read from.

What reads them is in ``data/kinds``, a module a kind.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Le, MinLen

from wsss_core.recipes import sources
from wsss_core.recipes.config import RecipeError, ordered
from wsss_core.recipes.label_table import digest_of_rows
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
    sbd_masks: str | None
    """Folder of masks of the images that SBD adds: PNGs (SegmentationClassAug) or SBD's own cls. Full supervision alone
    reads them, in training; null without."""


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
        rows: (declaration, subset) -> what else decides, of a file that says something of other subsets too.
        lists: (declaration, subset) -> files that say which images there are and what they show.
        missing: (declaration, subset) -> what a manifest needs and is not there, {path: what it is, and from where}.
        ids: (declaration, subset) -> the text file of the subset's image ids, one a line, or None.
        drawn: the project draws the pictures itself.
        makes_masks: masks are made from annotations, unless the declaration names ready ones.
    """

    declares: type[DataSet]
    keys: tuple[str, ...]
    lists: Callable[[Declared, str], list[Path]]
    missing: Callable[[Declared, str], dict[str, str]] = lambda declared, subset: {}
    ids: Callable[[Declared, str], Path | None] = lambda declared, subset: None
    by_subset: tuple[str, ...] = ()
    rows: Callable[[Declared, str], dict[str, Any]] = lambda declared, subset: {}
    drawn: bool = False
    makes_masks: bool = False


def _voc_lists(declared: Declared, subset: str) -> list[Path]:
    names = {"train_aug": ("train_aug", "train", "val")}.get(subset, (subset,))
    files = [_voc_ids(declared, name) for name in names]
    return files + (_sbd_lists(declared["sbd"]) if subset == "train_aug" and declared["sbd"] else [])


def _sbd_lists(folder: str) -> list[Path]:
    places = [Path(folder, inner) for inner in ("", "dataset", "benchmark_RELEASE/dataset")]
    return [place / f"{name}.txt" for place in places for name in ("train", "val")]


def _voc_ids(declared: Declared, subset: str) -> Path:
    return Path(declared["root"], "ImageSets/Segmentation", f"{subset}.txt")


def _voc_missing(declared: Declared, subset: str) -> dict[str, str]:
    found = _absent(_devkit(declared, subset))
    if subset == "train_aug" and not _voc_ids(declared, "train_aug").is_file():
        lists = _sbd_lists(declared["sbd"]) if declared["sbd"] else []
        if not any(train.is_file() and val.is_file() for train, val in zip(lists[::2], lists[1::2], strict=True)):
            found[declared["sbd"] or "sbd (null)"] = f"SBD with train.txt and val.txt, for train_aug, {sources.SBD}"
    return found


def _devkit(declared: Declared, subset: str) -> dict[Path, str]:
    folders = {"JPEGImages": "images", "Annotations": "labels", "SegmentationClass": "masks"}
    root = Path(declared["root"])
    if not root.is_dir():
        return {root: f"VOC 2012 with {', '.join(folders)} and ImageSets, {sources.VOC}"}
    used = list(folders)[: 1 if subset == "test" else 3]
    lists = ("train", "val") if subset == "train_aug" else (subset,)
    return {root / name: f"{folders[name]} of VOC 2012, {sources.VOC}" for name in used} | {
        _voc_ids(declared, name): f"a list of VOC 2012, {sources.VOC}" for name in lists
    }


def _coco_lists(declared: Declared, subset: str) -> list[Path]:
    part = declared["subsets"].get(subset, {"annotations": "", "list": None})
    return [Path(declared["root"], part["annotations"]), Path(part["list"] or "")]


def _coco_ids(declared: Declared, subset: str) -> Path | None:
    listed = declared["subsets"].get(subset, {}).get("list")
    return Path(listed) if listed else None


def _coco_missing(declared: Declared, subset: str) -> dict[str, str]:
    part = declared["subsets"].get(subset)
    if part is None:  # the job says which there are
        return {}
    wanted = {
        Path(declared["root"], part["images"]): f"images of MS COCO, {sources.COCO}",
        Path(declared["root"], part["annotations"]): f"annotations of MS COCO, {sources.COCO}",
    }
    if part["list"]:
        wanted[Path(part["list"])] = f"a list of the images of {subset}"
    if declared["masks"]:
        wanted[Path(declared["masks"])] = "ready masks of MS COCO, or `masks: null` to have them made"
    return _absent(wanted)


def _folder_lists(declared: Declared, subset: str) -> list[Path]:
    # not the table of labels: a further row would remake the manifests of all subsets; see _folder_rows
    return [Path(declared["lists"][subset])] if subset in declared["lists"] else []


def _folder_rows(declared: Declared, subset: str) -> dict[str, Any]:
    """Whether labels are needed, and a digest of what the table says of the subset's images.

    A subset with a role needs them; any other is there to be predicted, which uses none.
    """
    found: dict[str, Any] = {"labelled": subset in declared["splits"].values()}
    table = Path(declared["labels"])
    if declared["labels"] != "masks" and table.is_file():
        listed = _folder_ids(declared, subset)
        without = f"{table}: images of {listed} without a row" if found["labelled"] else None
        found["rows"] = digest_of_rows(table, _read(listed), without=without)
    return found


def _folder_ids(declared: Declared, subset: str) -> Path | None:
    return Path(declared["lists"][subset]) if subset in declared["lists"] else None


def _folder_missing(declared: Declared, subset: str) -> dict[str, str]:
    wanted = {Path(declared["images"]): "the folder of images"}
    if declared["masks"]:
        wanted[Path(declared["masks"])] = "the folder of masks"
    if declared["labels"] != "masks":
        wanted[Path(declared["labels"])] = "the table of labels"
    if listed := _folder_ids(declared, subset):
        wanted[listed] = f"the list of the images of {subset}"
    return _absent(wanted)


def _absent(wanted: Mapping[Path, str]) -> dict[str, str]:
    return {str(path): what for path, what in wanted.items() if not path.exists()}


KINDS = {
    "voc": Kind(VocDataSet, ("kind", "classes", "root", "sbd"), _voc_lists, _voc_missing, _voc_ids),
    "coco": Kind(
        CocoDataSet,
        ("kind", "classes", "root", "masks"),
        _coco_lists,
        _coco_missing,
        _coco_ids,
        by_subset=("subsets",),
        makes_masks=True,
    ),
    "demo": Kind(DemoDataSet, ("kind", "classes"), lambda declared, subset: [], drawn=True),
    "folders": Kind(
        FolderDataSet,
        ("kind", "classes", "names", "images", "masks", "labels"),
        _folder_lists,
        _folder_missing,
        _folder_ids,
        by_subset=("lists",),
        rows=_folder_rows,
    ),
}


def deciding(declared: Declared, subset: str) -> dict[str, Any]:
    """What decides about the images of a subset and their labels; a further subset must not remake the others."""
    kind = KINDS[declared["kind"]]
    found = {key: declared[key] for key in kind.keys}
    for key in kind.by_subset:
        own = {name: part for name, part in declared[key].items() if name == subset}
        found[key] = own or declared[key]
    return dict(ordered(found | kind.rows(declared, subset)))


def list_files(declared: Declared, subset: str) -> list[str]:
    """The files that a manifest is made from, apart from the images, as far as they are there.

    One that should be there and is not is left to the job, which explains what is expected where.
    """
    return [str(file) for file in KINDS[declared["kind"]].lists(declared, subset) if file.is_file()]


def makes_masks(declared: Declared) -> bool:
    """Whether the pipeline makes the masks of this data set itself."""
    return KINDS[declared["kind"]].makes_masks and not declared["masks"]


def missing_files(declared: Declared, subset: str) -> dict[str, str]:
    """What the manifest of a subset is made from and what is not there: {path: what it is, and from where}."""
    return KINDS[declared["kind"]].missing(declared, subset)


def check_apart(declared: Declared) -> None:
    """Refuse a data set whose images of val are also among those that train or score priors, as far as lists say so.

    Raises:
        RecipeError: with one of the images.
    """
    splits, ids = declared["splits"], KINDS[declared["kind"]].ids
    val = ids(declared, splits["val"])
    for role in ("train", "scored"):
        other = ids(declared, splits[role])
        if shared := sorted(_read(val) & _read(other)):
            raise RecipeError(
                f"{other} and {val} share {len(shared)} of their images, such as {shared[0]}: networks would be scored "
                "on images that they have learnt from"
            )


def needs_further_masks(declared: Declared) -> bool:
    """Whether full supervision needs the masks under ``sbd_masks``, which are for that and for nothing else."""
    return declared["kind"] == "voc" and declared["splits"]["train"] == "train_aug"


def _read(file: Path | None) -> set[str]:
    """The lines of a list; none of one that is not there, which the job says."""
    if file is None or not file.is_file():
        return set()
    text = file.read_text(encoding="utf-8-sig", errors="replace")  # the job says what cannot be decoded
    return {line.strip() for line in text.splitlines()} - {""}


def has_masks(declared: Declared) -> bool:
    """Whether a data set has true masks, its own or made by the pipeline."""
    return declared["kind"] != "folders" or declared["masks"] is not None
