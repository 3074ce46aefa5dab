"""``wsss info``: what a file or a store that the pipeline wrote is, and whether it is sound."""

import csv
import json
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from wsss_core.commands.printing import CommandError, megabytes, per_cent, size_of, told

Lines = list[tuple[str, ...]]  # a name, what there is to say of it, and sometimes more columns
CHECKED = "checked"


def info(path: Path, *, check: bool = False) -> Lines:
    """What a file or a store is: its form, sizes, what it was made with, counts by label.

    Args:
        path: a store (maps, instances, scores of proposals), a checkpoint, a result file, a manifest, a table of
            classes.
        check: read every image of a store, not its tables and marks alone.

    Raises:
        CommandError: nothing is there, or it is none of these.
        StoreError, CheckpointError, DataError: it is damaged, with the way out.
    """
    if not path.exists():
        raise CommandError(f"{path}: there is no such file or folder")
    if path.is_dir():
        describe: Callable[[Path], Lines] = lambda path: _of_store(path, check)  # noqa: E731
        if not (path / "zarr.json").exists():
            raise CommandError(f"{path} is a folder and no store: name a store (.zarr) or a file")
    else:
        readers = {".pt": _of_checkpoint, ".json": _of_result, ".csv": _of_table}
        if path.suffix not in readers:
            raise CommandError(f"{path}: info reads stores (.zarr), {', '.join(readers)}, and this is none of them")
        describe = readers[path.suffix]
    return [*describe(path), ("on disk", megabytes(size_of(path)))]


def _of_store(path: Path, check: bool) -> Lines:
    from wsss_core.cim.score_store import ScoreStore
    from wsss_core.instances.store import InstanceStore
    from wsss_core.maps.shards import StoreError, layout_of
    from wsss_core.maps.store import MapStore

    kinds = {kind.layout: kind for kind in (MapStore, InstanceStore, ScoreStore)}
    layout = layout_of(path)
    if layout not in kinds:
        raise StoreError(f"{path} is a store of layout {layout}; this version reads {', '.join(kinds)}")
    store = kinds[layout](path)
    lines: Lines = [("what", f"a store of {store.holds}"), ("layout", layout), ("images", str(len(store)))]
    sides = [store.size(id) for id in store]
    if sides:
        lines.append(("pictures", f"{_range(h for h, _ in sides)} high, {_range(w for _, w in sides)} wide"))
    for name, array in store.arrays().items():
        lines.append((f"array {name}", f"{' x '.join(map(str, array.shape))} {array.dtype}"))
    if check:
        for id in store:
            store[id]
    lines.append((CHECKED, "every image" if check else "its tables and marks; --check reads every image"))
    counts = Counter(store.labels().tolist())
    if counts.keys() - {-1}:
        lines += _by_label(counts, _names_near(path))
    return lines + _made_with({key: value for key, value in store.about.items() if key not in ("layout", "complete")})


def _range(values: Any) -> str:
    found = sorted(values)
    return f"{found[0]}" if found[0] == found[-1] else f"{found[0]} to {found[-1]}"


def _by_label(counts: Mapping[int, int], names: list[str]) -> Lines:
    return [
        (f"label {label}", str(counts[label]), names[label] if 0 <= label < len(names) else "")
        for label in sorted(counts)
    ]


def _names_near(path: Path) -> list[str]:
    """Names of the classes, from the table of the data set whose results a file lies in; none if there is none."""
    from wsss_core.data.classes import Classes

    table = next((parent / "classes.csv" for parent in path.parents if (parent / "classes.csv").is_file()), None)
    return list(Classes.read(table).names) if table else []


def _made_with(about: Mapping[str, Any], name: str = "") -> Lines:
    """Plain values within one another, a line each."""
    lines: Lines = []
    for key, value in about.items():
        inner = f"{name}.{key}" if name else str(key)
        lines += _made_with(value, inner) if isinstance(value, Mapping) else [(inner, _short(value))]
    return lines


def _short(value: Any) -> str:
    text = told(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _of_checkpoint(path: Path) -> Lines:
    from wsss_core.base.checkpoints import read_checkpoint

    found = read_checkpoint(path)
    recipe = dict(found.recipe)
    names, colours = recipe.pop("names", []), recipe.pop("colours", [])
    numbers = sum(tensor.numel() for tensor in found.state.values())
    lines: Lines = [
        ("what", f"a checkpoint of a {found.kind}"),
        ("tensors", f"{len(found.state)} with {numbers / 1e6:.2f} million numbers, all finite"),
        *_made_with(recipe),
    ]
    first = len(colours) - len(names)  # colours begin with the background
    for label, name in enumerate(names):
        lines.append((f"label {label}", name, str(tuple(colours[first + label])) if first >= 0 else ""))
    return lines


def _of_result(path: Path) -> Lines:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CommandError(f"{path} is damaged ({error}): delete it and run its rule again") from error
    if not isinstance(content, dict) or "stage" not in content:
        raise CommandError(f"{path} is no result file of the pipeline: it names no stage")
    lines: Lines = [("what", f"a result file: {content['stage']}")]
    left_out = ("stage", "iou", "curve", "confusion", "made_with", "scoring", "classes_absent", "class_names")
    for key, value in content.items():
        if isinstance(value, float):
            lines.append((key, f"{value:.4f}"))
        elif key not in left_out:
            lines += _made_with({key: value})
    if isinstance(content.get("iou"), dict):
        lines += [(f"iou {name}", per_cent(value)) for name, value in content["iou"].items()]
    for artefact, made in (content.get("made_with") or {}).items():
        lines.append((f"made with {artefact}", f"of run {made.get('run', '-')}"))
    scoring = content.get("scoring", {})
    lines += [(key, _short(scoring[key])) for key in ("commit", "clean") if key in scoring]
    return lines + _made_with({"versions": scoring.get("versions", {})})


def _of_table(path: Path) -> Lines:
    from wsss_core.data.classes import COLUMNS, Classes, DataError
    from wsss_core.data.manifest import COLUMNS as OF_MANIFEST
    from wsss_core.data.manifest import Manifest

    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            head = next(csv.reader(file), [])
    except (ValueError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as a table: {error}") from error
    if head[: len(OF_MANIFEST)] == OF_MANIFEST:
        return _of_manifest(path, Manifest.read(path))
    if tuple(head) == COLUMNS:
        classes = Classes.read(path)
        colours = [str(tuple(colour)) for colour in classes.colours.tolist()[1:]]
        return [
            ("what", "a table of classes"),
            ("classes", str(len(classes))),
            ("dropped", ", ".join(other.name for other in classes.dropped) or "-"),
            *((f"label {place}", name, colours[place]) for place, name in enumerate(classes.names)),
        ]
    with open(path, encoding="utf-8-sig") as file:
        rows = sum(1 for _ in file) - 1
    return [("what", "a table"), ("rows", str(rows)), ("columns", ", ".join(head))]


def _of_manifest(path: Path, manifest: Any) -> Lines:
    rows = manifest.rows
    gone = [row.image for row in rows if not Path(row.image).is_file()]
    lines: Lines = [
        ("what", "a manifest"),
        ("images", str(len(rows)) + (f", of which {len(gone)} are not there, the first is {gone[0]}" if gone else "")),
        ("masks", str(sum(bool(row.mask) for row in rows))),
    ]
    if rows:
        heights, widths = (_range(side) for side in zip(*(row.own_size for row in rows), strict=True))
        lines.append(("pictures", f"{heights} high, {widths} wide"))
        reduced = sum(row.full is not None for row in rows)
        lines += [("worked on at less", str(reduced))] if reduced else []
    lines.append(("without a class", str(sum(not row.labels for row in rows))))
    lines.append(("digest", manifest.digest()))
    return lines + _by_label(Counter(label for row in rows for label in row.labels), _names_near(path))
