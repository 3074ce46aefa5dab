"""Schedules of loss weights and learning rates."""

from collections.abc import Sequence

from wsss_core.recipes.settings import Ramp


def linear(step: int, steps: int, start: float, end: float, fraction: float) -> float:
    """Weight of a loss term at micro-step ``step`` of ``steps``: from start to end, reached after ``fraction``.

    ``min(start + (end - start) * step / (fraction * steps), end)``; a fraction of 0 means constantly ``end``.
    The minimum, as in the published code of P-NOC, makes falling schedules impossible.
    """
    if fraction == 0:
        return end
    return min(start + (end - start) * step / (fraction * steps), end)


def ramp(weight: Ramp, step: int, steps: int) -> float:
    """``linear`` as the settings have it."""
    return linear(step, steps, weight.start, weight.end, weight.fraction)


def stepped(update: int, *, decay_at: Sequence[int], warmup: int, start: float) -> float:
    """Factor of the learning rate before optimiser update ``update`` (from 0): 0.1 to the number of decays so far.

    Over the first ``warmup`` updates the factor also rises linearly from ``start``.
    """
    rise = 1.0 if update >= warmup else start + (1 - start) * update / warmup
    return rise * 0.1 ** sum(update >= at for at in decay_at)


def poly(update: int, updates: int, power: float = 0.9) -> float:
    """Factor of the learning rate before optimiser update ``update`` (from 0); constant after the last one."""
    return (1 - min(update, updates - 1) / updates) ** power
