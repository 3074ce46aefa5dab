"""Kinds of data sets, as far as a plan asks: what decides about a subset, and which files that is read from.

What reads them is in ``data/kinds``, a module a kind.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Le, MinLen

from wsss_core.recipes import sources
from wsss_core.recipes.class_names import COCO_CLASSES, DEMO_CLASSES, VOC_CLASSES, VOC_SUBSETS
from wsss_core.recipes.config import RecipeError, ordered
from wsss_core.recipes.label_table import IMAGE_SUFFIXES, check_classes, digest_of_rows, read_class_folders, read_table
from wsss_core.recipes.names import unknown
from wsss_core.recipes.settings import Count, GroupingSettings, Name, Number, Section, Share, identity, made

Byte = Annotated[int, Ge(0), Le(255)]

Declared = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Splits(Section):
    """Subsets by their role."""

    train: Name
    """Trains every network."""
    scored: Name | None = None
    """Scores priors, saliency and pseudo masks; a part of the training subset. null is all of it."""
    val: Name | None = None
    """Scores the segmentation network; null where no images are kept for that."""


@dataclass(frozen=True, kw_only=True)
class ProposalSettings(GroupingSettings):
    """Masks that may be objects, the same for all runs that choose among them."""

    kind: Literal["grouping", "files"]
    """grouping: groups of superpixels, made here; files: those of some other work, of which limit alone counts beside
    the next two keys."""
    folders: Annotated[dict[str, Name], MinLen(1)] | None = None
    """Folder of the files of each subset, an image a file (docs/cim.md)."""
    supervision: Name | None = None
    """What the masks in the files were learnt from, in words, which every result repeats; null is that of COB and
    MCG."""


@dataclass(frozen=True, kw_only=True)
class DataSet(Section):
    """What every data set declares beside ``settings`` and ``runs``."""

    splits: Splits
    """Subsets by their role."""
    classes: Annotated[tuple[str, ...], MinLen(1)] | None = None
    """Names of the classes to keep; others become void, and images left without a class are dropped. null keeps all."""
    longest_side: Annotated[int, Ge(64)] | None = None
    """Length in pixels of the longer side that larger photos are worked on at, in every stage; masks are written at the
    photo's own size. null works on every photo as it is."""
    proposals: ProposalSettings | None = None
    """Masks that may be objects, for runs whose instances are CIM's; null for none."""


@dataclass(frozen=True, kw_only=True)
class VocDataSet(DataSet):
    """Pascal VOC 2012 in the layout of its devkit."""

    kind: Literal["voc"]
    """Pascal VOC 2012."""
    root: Name
    """Folder with JPEGImages, Annotations, SegmentationClass and ImageSets."""
    sbd: str | None = None
    """Folder of SBD with its train.txt and val.txt, for train_aug; null without."""
    instances: Literal["objects", "components"] | None = "objects"
    """True objects: those of SegmentationObject (of images that SBD adds, of its folder ``inst``), or connected
    components of the class masks; null for none."""
    sbd_masks: str | None = None
    """Folder of masks of the images that SBD adds: PNGs (SegmentationClassAug) or SBD's own cls. Full supervision alone
    reads them, in training; null without."""


@dataclass(frozen=True, kw_only=True)
class CocoSubset(Section):
    """Files of a subset."""

    images: Name
    """Folder of images, from root; their names stand in the annotations."""
    annotations: Name
    """File of annotated instances, from root."""
    list: Name | None = None
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
    instances: Literal["annotations", "components"] | None = "annotations"
    """True objects: those of the annotations, or connected components of the class masks; null for none."""
    masks: Name | None = None
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
    twins: Share = 0.0
    """Share of the pictures that get a further object of a kind that is there already, if there is a place for it: a
    place that touches the other one, or just as often one apart from all, which is harder to find."""
    instances: Literal["objects", "components"] | None = "objects"
    """True objects: those that were drawn, or connected components of the class masks; null for none."""


@dataclass(frozen=True, kw_only=True)
class FolderDataSet(DataSet):
    """A data set of your own."""

    kind: Literal["folders"]
    """A data set of your own."""
    images: Name
    """Folder of images; with ``labels: folders``, of a folder of images for each class."""
    masks: str | None = None
    """Folder of mask PNGs of the same names, for scores; null without."""
    instances: Literal["components"] | None = None
    """True objects: connected components of the masks; null for none."""
    labels: Name
    """CSV with the columns image_id and classes (names joined by ;), or a word: folders, an image has the class of the
    folder that it lies in; masks, the classes that its mask shows."""
    names: Annotated[tuple[str, ...], MinLen(1)]
    """Class names in the order of the mask values 1, 2, ..."""
    colours: tuple[tuple[Byte, Byte, Byte], ...] | None = None
    """Colours of background and classes; null takes VOC's."""
    lists: Annotated[dict[str, Name | None], MinLen(1)] = field(default_factory=dict)
    """The images of each subset: a text file of image ids, a folder of photos of its own, or null for all images with
    labels that are not in the subset val. Without a list train, that is train."""
    splits: Splits = Splits(train="train")
    """Subsets by their role; by default train, and val if there is such a list."""


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
        subsets: declaration -> the names of its subsets.
        names: declaration -> the names of its classes.
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
    subsets: Callable[[Declared], Iterable[str]] = lambda declared: declared["lists"]
    names: Callable[[Declared], Iterable[str]] = lambda declared: declared["names"]
    drawn: bool = False
    makes_masks: bool = False


def _voc_lists(declared: Declared, subset: str) -> list[Path]:
    names = {"train_aug": ("train_aug", "train", "val")}.get(subset, (subset,))
    files = [_voc_ids(declared, name) for name in names]
    return files + (_sbd_lists(declared["sbd"]) if subset == "train_aug" and declared["sbd"] else [])


def _sbd_lists(folder: str) -> list[Path]:
    return [place / f"{name}.txt" for place in sbd_places(folder) for name in ("train", "val")]


def sbd_places(folder: str) -> list[Path]:
    """Where SBD's own files may lie, as downloads unpack it."""
    return [Path(folder, inner) for inner in ("", "dataset", "benchmark_RELEASE/dataset")]


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
    listed = _listed(declared, subset)
    return [listed] if listed else []


def _folder_rows(declared: Declared, subset: str) -> dict[str, Any]:
    """Whether labels are needed, and a digest of what is said of the subset's images.

    A subset with a role needs them; any other is there to be predicted, which uses none.
    """
    found: dict[str, Any] = {"labelled": subset in declared["splits"].values()}
    listed = _listed(declared, subset)
    if listed and listed.is_dir():
        ids = photos_in(listed)
        found["photos"] = digest_of_rows(dict.fromkeys(ids, ()), ids)
    if listed is None:  # the job has to know which images are not among the rest
        val = declared["splits"]["val"]
        found["lists"] = {subset: None, **({val: declared["lists"].get(val)} if val else {})}
    labels = _folder_labels(declared)
    if labels is None:
        return found
    check_classes(labels, declared["names"], declared["images" if declared["labels"] == "folders" else "labels"])
    if listed is None:
        found["rows"] = digest_of_rows(labels, labels.keys() - _members(_listed(declared, declared["splits"]["val"])))
    else:
        source = declared["images"] if declared["labels"] == "folders" else f"{Path(declared['labels'])}"
        what = "that are in no folder of a class" if declared["labels"] == "folders" else "without a row"
        without = f"{source}: images of {listed} {what}" if found["labelled"] else None
        found["rows"] = digest_of_rows(labels, _members(listed), without=without)
    return found


def _folder_labels(declared: Declared) -> dict[str, list[str]] | None:
    """Labels by image id as far as they are there; None where masks are the labels, which the job reads."""
    if declared["labels"] == "folders":
        if not Path(declared["images"]).is_dir():
            return None
        files = read_class_folders(declared["images"], declared["names"])
        return {id: [path.parent.name for path in paths] for id, paths in files.items()}
    table = Path(declared["labels"])
    return read_table(table) if declared["labels"] != "masks" and table.is_file() else None


def photos_in(folder: Path) -> list[str]:
    """The ids of the photos in a folder that is a subset of its own."""
    return sorted(path.stem for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)


def _members(listed: Path | None) -> set[str]:
    """The image ids of a list: the lines of a text file, or the photos of a folder."""
    return set(photos_in(listed)) if listed and listed.is_dir() else _read(listed)


def _listed(declared: Declared, subset: str | None) -> Path | None:
    listed = declared["lists"].get(subset)
    return Path(listed) if listed else None


def _folder_missing(declared: Declared, subset: str) -> dict[str, str]:
    wanted = {Path(declared["images"]): "the folder of images"}
    if declared["masks"]:
        wanted[Path(declared["masks"])] = "the folder of masks"
    if declared["labels"] not in ("masks", "folders"):
        wanted[Path(declared["labels"])] = "the table of labels"
    if listed := _listed(declared, subset):
        wanted[listed] = f"the list of the images of {subset}"
    return _absent(wanted)


def _absent(wanted: Mapping[Path, str]) -> dict[str, str]:
    return {str(path): what for path, what in wanted.items() if not path.exists()}


KINDS = {
    "voc": Kind(
        VocDataSet,
        ("kind", "classes", "root", "sbd"),
        _voc_lists,
        _voc_missing,
        _voc_ids,
        subsets=lambda declared: VOC_SUBSETS,
        names=lambda declared: VOC_CLASSES,
    ),
    "coco": Kind(
        CocoDataSet,
        ("kind", "classes", "root", "masks"),
        _coco_lists,
        _coco_missing,
        _coco_ids,
        by_subset=("subsets",),
        subsets=lambda declared: declared["subsets"],
        names=lambda declared: COCO_CLASSES,
        makes_masks=True,
    ),
    "demo": Kind(
        DemoDataSet,
        ("kind", "classes"),
        lambda declared, subset: [],
        subsets=lambda declared: declared["images"],
        names=lambda declared: DEMO_CLASSES,
        drawn=True,
    ),
    "folders": Kind(
        FolderDataSet,
        ("kind", "classes", "names", "images", "masks", "labels"),
        _folder_lists,
        _folder_missing,
        _listed,
        by_subset=("lists",),
        rows=_folder_rows,
    ),
}


def completed(declared: Declared) -> dict[str, Any]:
    """A declaration with the defaults of its kind for what it leaves out."""
    kind = KINDS[declared["kind"]]
    found = {f.name: f.default for f in fields(kind.declares) if f.default is not MISSING} | dict(declared)
    if declared["kind"] == "folders":
        lists = found.get("lists") or {}
        if "splits" not in declared:
            found["splits"] = {"train": "train", "val": "val" if "val" in lists else None}
        rest = {"train": None} if found["splits"]["train"] == "train" else {}
        found["lists"] = rest | lists
    train = found["splits"]["train"]
    found["splits"] = {
        "train": train,
        "scored": found["splits"].get("scored") or train,
        "val": found["splits"].get("val"),
    }
    return found


def check_names(name: str, declared: Declared) -> None:
    """Refuse a data set that names a class or a subset which it does not have.

    Raises:
        RecipeError: with the key, and the names that are near.
    """
    kind = KINDS[declared["kind"]]
    for role, subset in declared["splits"].items():
        if subset is not None:
            check_subset(declared, subset, f"datasets.{name}.splits.{role}: ")
    for one in declared["classes"] or ():
        if one not in kind.names(declared):
            raise RecipeError(f"datasets.{name}.classes: {unknown('class', one, kind.names(declared), 'there are')}")
    proposals = declared.get("proposals") or {"kind": None}
    if proposals["kind"] == "files":
        if not proposals.get("folders"):
            raise RecipeError(
                f"datasets.{name}.proposals.folders: kind files needs the folder of each subset, as in "
                f"{{{declared['splits']['train']}: data/proposals}}"
            )
        for subset in proposals["folders"]:
            check_subset(declared, subset, f"datasets.{name}.proposals.folders: ")


def check_subset(declared: Declared, subset: str, where: str = "") -> None:
    """Refuse a subset that the data set does not have."""
    known = KINDS[declared["kind"]].subsets(declared)
    if subset not in known:
        raise RecipeError(where + unknown("subset", subset, known, "the data set has"))


def deciding(declared: Declared, subset: str) -> dict[str, Any]:
    """What decides about the images of a subset and their labels; a further subset must not remake the others."""
    kind = KINDS[declared["kind"]]
    found = {key: declared[key] for key in kind.keys}
    for key in kind.by_subset:
        own = {name: part for name, part in declared[key].items() if name == subset}
        found[key] = own or declared[key]
    if declared.get("longest_side") is not None:  # a manifest without stays what it was
        found["longest_side"] = declared["longest_side"]
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
        if shared := sorted(_members(val) & _members(other)):
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


def truth_of_instances(declared: Declared) -> str | None:
    """What the true objects of a data set are: objects, annotations, components or nothing."""
    default = next(f.default for f in fields(KINDS[declared["kind"]].declares) if f.name == "instances")
    return declared.get("instances", default)


def missing_objects(declared: Declared, subset: str) -> dict[str, str]:
    """What the true objects of a subset are read from and what is not there: {path: what it is, and from where}."""
    if declared["kind"] != "voc" or truth_of_instances(declared) != "objects":
        return {}  # the demo draws them, and the others are in what a manifest needs as well
    what = f"true objects of VOC 2012, {sources.VOC}, or `instances: null`"
    found = {Path(declared["root"], "SegmentationObject"): what}
    if subset == "train_aug":
        places = [place / "inst" for place in sbd_places(declared["sbd"])] if declared["sbd"] else []
        if not any(place.is_dir() for place in places):
            found[Path(declared["sbd"] or "sbd (null)", "inst")] = f"true objects of SBD, {sources.SBD}"
    return _absent(found)


def proposals_declared(declared: Declared) -> dict[str, Any]:
    """What decides about the proposals of a data set beside its images and the files; empty where it has none."""
    if not declared.get("proposals"):
        return {}
    found = made(ProposalSettings, declared["proposals"])
    own = {field.name for field in fields(GroupingSettings)} if found.kind == "grouping" else {"limit", "supervision"}
    return {"kind": found.kind, **{key: value for key, value in identity(found).items() if key in own}}


def has_masks(declared: Declared) -> bool:
    """Whether a data set has true masks, its own or made by the pipeline."""
    return declared["kind"] != "folders" or declared["masks"] is not None
