"""The sparse random walk against eight squarings of the dense transition matrix, in one run.

The dense way is timed at a size that takes seconds; its time at the full size is scaled by the cube of the number
of pixels, unless ``--dense-at-full-size`` asks for the real thing (minutes, and three matrices of 0.55 GB).
"""

import argparse
import time

import torch

from wsss_core.random_walk import random_walk, transition_diagonals


def dense_walk(cams, edge, radius, beta, squarings):
    """The usual way: a dense matrix in single precision, squared."""
    pixels = edge.numel()
    weights, steps = transition_diagonals(edge, radius, beta)
    transitions = torch.zeros(pixels, pixels)
    for row, step in zip(weights, steps, strict=True):
        inside = row[-step:] if step < 0 else row[: pixels - step]
        transitions.diagonal(step).copy_(inside)
    transitions /= transitions.sum(dim=0)
    for _ in range(squarings):
        transitions = transitions @ transitions
    start = (cams * (1 - edge)).flatten(1)
    return (start @ transitions).reshape(cams.shape)


def fastest(function, repeats):
    """Result and shortest time in seconds."""
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        result = function()
        seconds.append(time.perf_counter() - started)
    return result, min(seconds)


def compare(size, dense, options):
    """Seconds of the dense way (None if left out), seconds of ours, largest relative difference (None too)."""
    generator = torch.Generator().manual_seed(options.seed)
    cams = torch.rand(options.classes, *size, generator=generator)
    edge = torch.rand(*size, generator=generator)
    settings = (options.radius, options.beta, options.squarings)
    ours, our_seconds = fastest(lambda: random_walk(cams, edge, *settings), options.repeats)
    if not dense:
        return None, our_seconds, None
    theirs, dense_seconds = fastest(lambda: dense_walk(cams, edge, *settings), 1)
    return dense_seconds, our_seconds, ((ours - theirs).abs() / theirs).max().item()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", type=int, nargs=2, default=(40, 50), help="height and width for both ways")
    parser.add_argument("--full", type=int, nargs=2, default=(94, 125), help="height and width for the walk")
    parser.add_argument("--dense-at-full-size", action="store_true")
    parser.add_argument("--classes", type=int, default=2)
    parser.add_argument("--radius", type=int, default=5)
    parser.add_argument("--beta", type=float, default=10)
    parser.add_argument("--squarings", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    small, ours_small, apart = compare(options.small, True, options)
    full, ours_full, apart_full = compare(options.full, options.dense_at_full_size, options)
    growth = (options.full[0] * options.full[1] / (options.small[0] * options.small[1])) ** 3
    full_seconds = full or small * growth
    full_text = f"{full_seconds:.1f} s" if full else f"{full_seconds:.0f} s (scaled)"
    apart_full = f"{apart_full:.1e}" if full else "-"
    print("| map | dense | sparse | ratio | largest relative difference |")
    print("|---|---|---|---|---|")
    row = "| {} x {} | {} | {:.3f} s | {:,.0f} | {} |"
    print(row.format(*options.small, f"{small:.2f} s", ours_small, small / ours_small, f"{apart:.1e}"))
    print(row.format(*options.full, full_text, ours_full, full_seconds / ours_full, apart_full))


if __name__ == "__main__":
    main()
