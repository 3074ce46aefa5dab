"""Schedules at their ends, in their middle and beyond."""

import pytest

from wsss_core.fitting.schedules import linear, poly, ramp
from wsss_core.recipes.settings import Ramp


@pytest.mark.parametrize(
    ("step", "weight"), [(0, 0.5), (25, 1.25), (50, 2.0), (75, 2.0), (100, 2.0)], ids=lambda value: str(value)
)
def test_linear_reaches_its_end_after_the_fraction(step, weight):
    assert linear(step, 100, 0.5, 2.0, 0.5) == pytest.approx(weight)


def test_linear_over_the_whole_training():
    assert [linear(t, 4, 0.3, 1.0, 1.0) for t in range(5)] == pytest.approx([0.3, 0.475, 0.65, 0.825, 1.0])


def test_a_fraction_of_zero_is_the_end_from_the_start():
    assert [linear(t, 10, 0.3, 1.0, 0.0) for t in (0, 5, 10)] == [1.0, 1.0, 1.0]


def test_a_fraction_above_one_is_never_reached():
    assert linear(10, 10, 0.0, 1.0, 2.0) == pytest.approx(0.5)


def test_falling_schedules_are_impossible_as_in_the_published_code():
    assert linear(0, 10, 1.0, 0.0, 1.0) == 0.0


def test_a_ramp_is_what_the_settings_say_of_it():
    weight = Ramp(start=0.5, end=2.0, fraction=0.25)
    assert [ramp(weight, t, 40) for t in (0, 4, 10, 39)] == pytest.approx([0.5, 1.1, 2.0, 2.0])


def test_poly_falls_with_the_power_of_nine_tenths():
    assert poly(0, 100) == 1.0
    assert poly(50, 100) == pytest.approx(0.5**0.9)
    assert poly(99, 100) == pytest.approx(0.01**0.9)
    assert poly(50, 100, power=1) == pytest.approx(0.5)


def test_poly_stays_at_its_last_value():
    assert poly(100, 100) == poly(250, 100) == poly(99, 100)
    assert poly(0, 1) == poly(5, 1) == 1.0
