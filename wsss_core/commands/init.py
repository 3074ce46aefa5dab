"""``wsss init``: what a data set of one's own photos needs, from class folders or from a table of labels."""

import csv
import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from wsss_core.base.files import whole
from wsss_core.commands.printing import CommandError
from wsss_core.commands.project import Project
from wsss_core.data.classes import make_classes
from wsss_core.data.kinds.folders import folder_manifest
from wsss_core.recipes.label_table import IMAGE_SUFFIXES
from wsss_core.recipes.recipes import NAME

TEMPLATE, RUN = "config/own-data.yaml", "own"
BEGIN, END = "  mine:\n", "    # From here on"  # what is between them is the user's
IDS = ("image_id", "image", "id", "file", "filename", "file_name", "name", "path")
CLASSES = ("classes", "class", "labels", "label", "category", "categories")
FEW, MANY = 100, 1000  # photos from which the epochs of the template suit; at many, half of them do

Labels = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Made:
    """What was written, and how many photos of each class there are to train with and to hold back."""

    config: Path
    folder: Path
    names: Sequence[str]
    train: Counter[str]
    val: Counter[str]
    photos: tuple[int, int]


def init(
    project: Project,
    photos: Path,
    *,
    name: str = "mine",
    table: Path | None = None,
    masks: Path | None = None,
    new: Path | None = None,
    held_back: float = 0.2,
    seed: int = 0,
    overwrite: bool = False,
) -> Made:
    """Write ``<name>.yaml``, and a folder ``<name>`` with the lists and, from a table, with ``labels.csv``.

    Every photo is opened once, so that what is wrong with one is known now.

    Args:
        photos: a folder with a folder of photos for each class; or, with a table, a folder of photos.
        table: a CSV with a column of file names or ids and one of classes, several of them with a ``;`` between them.
        masks: a folder of true masks, for scores.
        new: a folder of photos without labels, to be predicted.
        held_back: share of the photos of each combination of classes that is kept from training, as subset ``val``.
        seed: of that choice.

    Raises:
        CommandError: files that are there already, a name that is taken, no labels.
        DataError, RecipeError: photos or labels that cannot be used.
    """
    config, folder = Path(f"{name}.yaml"), Path(name)
    _check(project, name, [config, folder], overwrite)
    if not photos.is_dir():
        raise CommandError(f"{photos}: there is no such folder of photos")
    labels, names = _from_folders(photos) if table is None else _from_table(table, photos)
    train, val = _split(labels, held_back, random.Random(seed))
    source = "folders" if table is None else f"{folder}/labels.csv"
    lists = {"train": f"{folder}/train.txt", **({"val": f"{folder}/val.txt"} if val else {})}
    if new is not None:
        lists["new"] = str(new)
    declared = {"kind": "folders", "images": str(photos), "labels": source, "names": list(names), "lists": lists}
    if masks is not None:
        declared["masks"] = str(masks)
    text = _config(project.root, name, declared, len(labels))
    with whole(folder) as partial:
        partial.mkdir()
        (partial / "train.txt").write_text("".join(f"{id}\n" for id in train), encoding="utf-8")
        if val:
            (partial / "val.txt").write_text("".join(f"{id}\n" for id in val), encoding="utf-8")
        if table is not None:
            _write_table(partial / "labels.csv", labels)
        folder_manifest(  # refuses what the pipeline would
            images=photos, masks=masks, split=None, labels="folders" if table is None else partial / "labels.csv",
            classes=make_classes(names), drop_unlabelled=False,
        )  # fmt: skip
    with whole(config) as partial:
        partial.write_text(text, encoding="utf-8")
    trained, held = (Counter(one for id in part for one in labels[id]) for part in (train, val))
    return Made(config, folder, names, trained, held, (len(train), len(val)))


def _check(project: Project, name: str, paths: Sequence[Path], overwrite: bool) -> None:
    if not re.fullmatch(NAME, name):
        raise CommandError(f"--name {name}: use letters, digits, - and _")
    if name in project.recipes.datasets:
        raise CommandError(f"--name {name}: config.yaml has a data set of this name; choose another one")
    for path in paths:
        if path.exists() and not overwrite:
            raise CommandError(f"{path} is there already: choose another --name, or add --overwrite to replace it")
        if path.is_dir() and any(child.name not in ("train.txt", "val.txt", "labels.csv") for child in path.iterdir()):
            raise CommandError(f"{path} holds more than lists of wsss init: choose another --name")


def _from_folders(photos: Path) -> tuple[dict[str, list[str]], list[str]]:
    """Labels by image id, and the names of the classes, from folders."""
    labels: dict[str, list[str]] = {}
    for path in sorted(photos.glob("*/*")):
        if path.suffix.lower() in IMAGE_SUFFIXES and path.parent.name[0] != ".":
            labels.setdefault(path.stem, []).append(path.parent.name)
    if not labels:
        flat = any(path.suffix.lower() in IMAGE_SUFFIXES for path in photos.iterdir())
        way_out = "name the CSV of their classes with --labels" if flat else f"such as {photos}/cat/*.jpg"
        raise CommandError(f"{photos}: there is no photo in a folder of a class: {way_out}")
    return labels, sorted({name for names in labels.values() for name in names})


def _from_table(table: Path, photos: Path) -> tuple[dict[str, list[str]], list[str]]:
    """As ``_from_folders``, from a table; names are in the order of the alphabet."""
    try:
        with open(table, newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file, strict=True))
    except (OSError, ValueError, csv.Error) as error:
        raise CommandError(f"{table}: cannot be read as a table of labels: {error}") from error
    head = {str(key).strip().lower(): key for row in rows[:1] for key in row}
    id_column, class_column = (next((head[one] for one in known if one in head), None) for known in (IDS, CLASSES))
    if id_column is None or class_column is None:
        raise CommandError(
            f"{table} needs a column of images ({', '.join(IDS[:4])}, ...) and one of classes "
            f"({', '.join(CLASSES[:4])}, ...); it has {', '.join(head) or 'no rows'}"
        )
    there = {path.name: path.stem for path in photos.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES}
    stems = set(there.values())
    labels: dict[str, list[str]] = {}
    for line, row in enumerate(rows, start=2):
        said = Path((row[id_column] or "").strip()).name
        id = there.get(said, said)
        if id not in stems:
            raise CommandError(f"{table}, line {line}: there is no photo {said or '(empty)'} in {photos}")
        own = labels.setdefault(id, [])  # a row a class is another usual form
        own += [one for part in (row[class_column] or "").split(";") if (one := part.strip()) and one not in own]
    return labels, sorted({name for names in labels.values() for name in names})


def _split(labels: Labels, share: float, rng: random.Random) -> tuple[list[str], list[str]]:
    """Ids to train with and to hold back: of each combination of classes the same share, rounded."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for id in sorted(labels):
        groups.setdefault(tuple(sorted(labels[id])), []).append(id)
    held: set[str] = set()
    for _, ids in sorted(groups.items()):
        held |= set(rng.sample(ids, min(round(share * len(ids)), len(ids) - 1)))
    return [id for id in sorted(labels) if id not in held], sorted(held)


def _write_table(path: Path, labels: Labels) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["image_id", "classes"])
        table.writerows((id, ";".join(names)) for id, names in sorted(labels.items()))


def _config(root: Path, name: str, declared: Mapping[str, object], photos: int) -> str:
    """The template with these keys in place of its own, and epochs for so many photos."""
    text = (root / TEMPLATE).read_text(encoding="utf-8")
    _, begin, rest = text.partition(BEGIN)
    _, end, rest = rest.partition(END)
    own = yaml.safe_dump(dict(declared), sort_keys=False, default_flow_style=None, allow_unicode=True, width=100)
    head = f"# Photos of your own, {photos} of them, as wsss init found them (docs/own-photos.md).\ndatasets:\n"
    indented = "".join(f"    {line}\n" for line in own.splitlines())
    times = 2.0 if photos < FEW else 0.5 if photos >= MANY else 1.0
    further = re.sub(r"\bepochs: (\d+)", lambda found: f"epochs: {round(times * int(found[1]))}", rest)
    return f"{head}{begin.replace('mine', name)}{indented}{end}{further}"


def words_of(made: Made, new: Path | None) -> list[str]:
    """What was made, and what to type next."""
    name, target = made.folder.name, f"results/{made.folder.name}/{RUN}"
    width = max(map(len, made.names))
    lines = [f"{made.photos[0]} photos to train with, {made.photos[1]} held back:"]
    lines += [f"  {one:{width}}  {made.train[one]:5d}  {made.val[one]:5d}" for one in made.names]
    rare = [one for one in made.names if made.train[one] < 10]
    if rare:
        lines.append(f"few photos of {', '.join(rare)}: some dozens a class are better")
    shown = new if new is not None else "FOLDER_OF_PHOTOS"
    return [
        *lines,
        f"written: {made.config} and {made.folder}/. Next:",
        f"  snakemake --cores all --configfile {made.config} -- {target}/health.json {target}/pictures.png",
        f"  wsss show {name} {RUN} --random 3 --configfile {made.config}",
        f"  snakemake --cores all --configfile {made.config} -- {target}/segmentation.pt",
        f"  wsss predict {target}/segmentation.pt {shown} -o predicted --overlay",
    ]
