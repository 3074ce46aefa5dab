"""Proposals that come as files: the two layouts that COB and MCG are published in, and a user's own masks."""

import json
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as run_lengths
from scipy.io import loadmat

from wsss_core.base.files import reading
from wsss_core.data.classes import DataError
from wsss_core.instances.store import Instances, areas_of, encoded_instances, instances_of

NAMES = ("{}.mat", "COCO_train2014_{}.mat", "COCO_val2014_{}.mat", "{}.json")  # of an image's file, the first counts
LAYOUTS = "`superpixels`, `labels` and `scores` (COB and MCG as released), or `maskmat` (as released with CIM)"
WAY_OUT = "get the file again, or leave its image out of the split"
BLOCK = 64  # masks that are dense at a time
Found = Iterator[tuple[list[dict[str, Any]], list[float]]]


def find_file(folder: str | Path, image_id: str) -> Path:
    """The file with an image's proposals.

    Raises:
        DataError: there is none.
    """
    paths = [Path(folder) / name.format(image_id) for name in NAMES]
    for path in paths:
        if path.is_file():
            return path
    raise DataError(
        f"{folder} has no proposals of image {image_id} ({image_id}.mat with {LAYOUTS}, or {image_id}.json with COCO's "
        "run lengths): complete the folder, or take proposals of `kind: grouping`, which need no files"
    )


def read_proposals(path: str | Path, size: tuple[int, int], limit: int) -> Instances:
    """The first proposals of a file, the best first, as instances of no class; empty masks do not count.

    A .mat has one of the two layouts that are published: ``superpixels`` (H, W) from 1, ``labels`` (a cell a proposal)
    and ``scores``; or ``maskmat``, a cell of masks (VOC) or an array (N, H, W) (COCO), without scores. A .json has a
    list of masks, or has one under ``annotations`` as SAM's files do: each with ``segmentation`` in COCO's run lengths,
    compressed or not, and a ``score`` or ``predicted_iou`` if any. They may be in any order, unlike those of a .mat,
    which has the best first.

    Args:
        size: height and width of the picture.
        limit: most proposals; published files have thousands.

    Raises:
        DataError: a damaged file, one of another layout, or masks of another size than the picture's.
        OSError: the file cannot be read, whatever is in it.
    """
    path = Path(path)
    blocks = _of_json(path) if path.suffix == ".json" else _of_mat(path, size)
    masks: list[dict[str, Any]] = []
    scores: list[float] = []
    for some, said in _checked(blocks, path, size):
        there = areas_of(some) > 0
        masks += [mask for mask, pixels in zip(some, there, strict=True) if pixels]
        scores += [score for score, pixels in zip(said, there, strict=True) if pixels]
        if len(masks) >= limit:
            break
    return encoded_instances(masks[:limit], [-1] * min(limit, len(masks)), scores[:limit])


def _checked(blocks: Found, path: Path, size: tuple[int, int]) -> Found:
    """The same blocks; what goes wrong on the way, or does not fit the picture, names the file."""
    while True:
        try:
            with reading(path, "cannot be read as proposals", WAY_OUT):
                block = next(blocks, None)
        except DataError:
            raise
        except ValueError as error:
            if isinstance(error.__cause__, DataError):  # it says more
                raise error.__cause__  # noqa: B904
            raise DataError(" ".join(str(error).split())) from error.__cause__
        if block is None:
            return
        masks, scores = block
        if other := [mask["size"] for mask in masks if tuple(mask["size"]) != size]:
            height, width = other[0]
            raise DataError(
                f"{path}: a mask has {width} x {height} pixels, its picture {size[1]} x {size[0]}: these are proposals "
                "of another picture or of another size of it"
            )
        if not np.isfinite(scores).all():
            raise DataError(f"{path}: a score is no number; {WAY_OUT}")
        yield block


def _of_mat(path: Path, size: tuple[int, int]) -> Found:
    file = BytesIO(path.read_bytes())  # so that what fails from here on is the content's fault
    try:
        # some of COCO's files in circulation do not have the checksums that they should have
        content = loadmat(file, verify_compressed_data_integrity=False)
    except OSError as error:
        raise DataError(f"{path} is cut short or damaged ({error}): {WAY_OUT}") from error
    except NotImplementedError as error:  # SciPy says so of HDF5
        raise DataError(f"{path} is a file of MATLAB 7.3: save it in the older form, `save(..., '-v7')`") from error
    if "maskmat" in content:
        yield from _of_masks(content["maskmat"])
    elif "superpixels" in content and "labels" in content:
        yield from _of_superpixels(path, content["superpixels"], content["labels"], content.get("scores"), size)
    else:
        names = ", ".join(sorted(name for name in content if not name.startswith("__"))) or "nothing"
        raise DataError(f"{path} holds {names}, not {LAYOUTS}")


def _of_masks(masks: np.ndarray) -> Found:
    cells = masks[:, 0] if masks.dtype == object else masks
    for begin in range(0, len(cells), BLOCK):
        dense = np.stack([np.asarray(cell) for cell in cells[begin : begin + BLOCK]]) != 0
        yield instances_of(dense, [-1] * len(dense)).masks, [1.0] * len(dense)


def _of_superpixels(
    path: Path, superpixels: np.ndarray, labels: np.ndarray, scores: np.ndarray | None, size: tuple[int, int]
) -> Found:
    if superpixels.shape != size:
        raise DataError(
            f"{path}: its superpixels have {superpixels.shape[1]} x {superpixels.shape[0]} pixels, its picture "
            f"{size[1]} x {size[0]}: these are proposals of another picture or of another size of it"
        )
    number, members = int(superpixels.max()), [np.asarray(cell).ravel().astype(np.int64) for cell in labels.ravel()]
    values = np.ones(len(members)) if scores is None else np.asarray(scores, np.float64).ravel()
    if len(values) != len(members):
        raise DataError(f"{path} has {len(members)} proposals and {len(values)} scores; {WAY_OUT}")
    for begin in range(0, len(members), BLOCK):
        some = members[begin : begin + BLOCK]
        inside = np.zeros((len(some), number + 1), bool)
        for row, own in zip(inside, some, strict=True):
            if ((own < 1) | (own > number)).any():
                raise DataError(f"{path}: a proposal names a superpixel that is not from 1 to {number}; {WAY_OUT}")
            row[own] = True
        yield instances_of(inside[:, superpixels], [-1] * len(some)).masks, values[begin : begin + BLOCK].tolist()


def _of_json(path: Path) -> Found:
    content = json.loads(path.read_text(encoding="utf-8"))
    listed = content["annotations"] if isinstance(content, dict) else content
    scores = np.array([float(mask.get("score", mask.get("predicted_iou", 1.0))) for mask in listed])
    order = np.argsort(-scores, kind="stable")
    for begin in range(0, len(listed), BLOCK):
        some = order[begin : begin + BLOCK]
        yield [_compressed(listed[place]["segmentation"]) for place in some], scores[some].tolist()


def _compressed(lengths: dict[str, Any]) -> dict[str, Any]:
    """COCO's run lengths in the form that pycocotools computes with."""
    height, width = (int(side) for side in lengths["size"])
    counts = lengths["counts"]
    if isinstance(counts, list):
        if sum(counts) != height * width or min(counts) < 0:
            raise ValueError(f"its run lengths do not have the sum {height} x {width}")
        return run_lengths.frPyObjects(lengths, height, width)
    return {"size": [height, width], "counts": counts.encode() if isinstance(counts, str) else counts}
