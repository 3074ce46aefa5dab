"""The sparse random walk against squarings of the dense transition matrix, and against SciPy's CSR matrices."""

from collections.abc import Iterator
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from scipy.sparse import coo_array, eye_array
from torch import Tensor

from benchmarks.harness import Comparison, Growth, Options, compare, growth, relative_difference
from wsss_core.affinity.pairs import pair_affinities, pair_offsets
from wsss_core.affinity.random_walk import random_walk, random_walks

RADIUS, BETA, SQUARINGS = 5, 10, 8
PHOTO, LARGE = (94, 125), (256, 256)  # stride 4 of VOC's 375 x 500 pixels, and of 1024 x 1024
STAGE = "random walk"


def run(options: Options) -> Iterator[Comparison | Growth]:
    for size, pairs in ((PHOTO, 1), ((40, 50), 3)):
        cams, edge = maps(2, size, options)
        yield compare(
            STAGE,
            f"map of {size[0]} x {size[1]}, 2 classes, {SQUARINGS} squarings",
            usual="dense matrix in single precision, squared",
            usual_way=partial(squared, cams, edge),
            our_way=partial(random_walk, cams, edge, RADIUS, BETA, SQUARINGS),
            agreement=partial(against_double, cams, edge),
            pairs=pairs,
            warm_up=pairs > 1,  # the dense way takes minutes on a photo
        )
    cams, edge = maps(2, LARGE, options)
    yield compare(
        STAGE,
        f"map of {LARGE[0]} x {LARGE[1]}, 2 classes, {SQUARINGS} squarings",
        usual="SciPy CSR matrix on the CPU, products class by class",
        usual_way=partial(csr_walk, cams.cpu().numpy(), edge.cpu()),
        our_way=partial(random_walk, cams, edge, RADIUS, BETA, SQUARINGS),
        agreement=relative_difference,
        pairs=3,
    )
    many = photos(16, options)
    yield compare(
        STAGE,
        "16 photos of 1 to 3 classes",
        usual="random_walk, one image after the other",
        usual_way=lambda: [random_walk(cams, edge) for cams, edge in zip(*many, strict=True)],
        our_way=lambda: random_walks(*many),
        agreement=lambda one, all_: relative_difference(*(torch.cat([m.flatten() for m in w]) for w in (one, all_))),
        pairs=3,
    )

    def of(classes: int, size: tuple[int, int], squarings: int = SQUARINGS):
        return partial(random_walk, *maps(classes, size, options), RADIUS, BETA, squarings)

    sides = {side * side: side for side in (32, 64, 128, 256)}
    yield growth(STAGE, "pixels", list(sides), lambda pixels: of(2, (sides[pixels], sides[pixels])))
    yield growth(STAGE, "classes", [1, 2, 4, 8], lambda classes: of(classes, PHOTO))
    yield growth(STAGE, "steps", [32, 128, 512], lambda steps: of(2, PHOTO, steps.bit_length() - 1))
    yield growth(STAGE, "images in one call", [2, 4, 8, 16], lambda n: partial(random_walks, *photos(n, options)))


def maps(classes: int, size: tuple[int, int], options: Options, seed: int = 0) -> tuple[Tensor, Tensor]:
    """CAMs (classes, h, w), and edges (h, w) that are mostly low."""
    generator = torch.Generator().manual_seed(seed)
    cams, edge = torch.rand(classes, *size, generator=generator), torch.rand(size, generator=generator) ** 3
    return cams.to(options.device), edge.to(options.device)


def photos(count: int, options: Options) -> tuple[list[Tensor], list[Tensor]]:
    """CAMs and edges of upright and lying photos with 1, 2, 1, 3, 1, 2, ... classes."""
    images = [maps((1, 2, 1, 3)[i % 4], PHOTO[:: 1 if i % 3 else -1], options, seed=i) for i in range(count)]
    return [cams for cams, _ in images], [edge for _, edge in images]


def pairs_inside(edge: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Sources, targets and affinities to the power of beta of all pairs of a map, by index arrays."""
    height, width = edge.shape
    reach = RADIUS - 1
    padded = F.pad(edge, (reach, reach, 0, reach), value=1.0)
    dy, dx = torch.tensor(pair_offsets(RADIUS), device=edge.device).T[:, :, None]
    pixels = torch.arange(height * width, device=edge.device)
    y, x = pixels // width + dy, pixels % width + dx
    inside = (y < height) & (x >= 0) & (x < width)
    affinities = pair_affinities(padded, RADIUS) ** BETA
    return pixels.expand_as(y)[inside], (y * width + x)[inside], affinities[inside]


def dense_transitions(edge: Tensor) -> Tensor:
    source, target, affinities = pairs_inside(edge)
    transitions = torch.eye(edge.numel(), dtype=edge.dtype, device=edge.device)
    transitions[source, target] = affinities
    transitions[target, source] = affinities
    return transitions.div_(transitions.sum(dim=0))


def squared(cams: Tensor, edge: Tensor) -> Tensor:
    """The usual way."""
    transitions = dense_transitions(edge)
    for _ in range(SQUARINGS):
        transitions = transitions @ transitions
    return ((cams * (1 - edge)).flatten(1) @ transitions).reshape(cams.shape)


def csr_walk(cams: np.ndarray, edge: Tensor) -> np.ndarray:
    """What one writes first with SciPy."""
    source, target, affinities = (part.numpy() for part in pairs_inside(edge.double()))
    pixels = edge.numel()
    ahead = coo_array((affinities, (source, target)), shape=(pixels, pixels))
    matrix = (ahead + ahead.T + eye_array(pixels)).tocsr()
    sums = matrix.sum(axis=0)
    walked = []
    for row in (cams * (1 - edge.double().numpy())).reshape(len(cams), pixels):
        for _ in range(2**SQUARINGS):
            row = matrix @ row / sums
        walked.append(row)
    return np.array(walked, np.float32).reshape(cams.shape)


def against_double(cams: Tensor, edge: Tensor, theirs: Tensor, ours: Tensor) -> str:
    """Both against products with the dense matrix in double precision, which take less time than its squarings."""
    edge = edge.double()
    transitions = dense_transitions(edge)
    exact = (cams * (1 - edge)).flatten(1)
    for _ in range(2**SQUARINGS):
        exact = exact @ transitions
    usual, here = (relative_difference(exact.reshape(cams.shape), walked) for walked in (theirs, ours))
    return f"from {2**SQUARINGS} products with the dense matrix in double precision: {here}; the usual way {usual}"
