"""Schedules of loss weights and learning rates."""

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


def poly(update: int, updates: int, power: float = 0.9) -> float:
    """Factor of the learning rate before optimiser update ``update`` (from 0); constant after the last one."""
    return (1 - min(update, updates - 1) / updates) ** power
