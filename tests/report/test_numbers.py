"""Numbers as people read them."""

from __future__ import annotations

import pytest

from diffdet.report.numbers import common_power, count, decimals_for, duration, fixed, power_label, significant


@pytest.mark.parametrize(
    ("values", "power"),
    [
        ([0.04, 0.00086], -3),
        ([0.178, 0.0201], -3),
        ([8.0, 7.7], 0),
        ([392.0, 2.5], 0),
        ([12345.0], 3),
        ([], 0),
        ([None, 0.0], 0),
        ([5e-8], -9),
    ],
)
def test_the_common_power_brings_the_smallest_between_a_tenth_and_a_hundred(values, power):
    assert common_power(values) == power
    smallest = min((abs(v) for v in values if v), default=1.0)
    assert not values or 0.1 <= smallest / 10**power < 100


def test_labels_of_powers():
    assert power_label(-3) == "10⁻³"
    assert power_label(12) == "10¹²"
    assert power_label(0) == ""


def test_two_digits_of_the_smallest_error_are_shown():
    assert decimals_for([3.9e-3, 8.9e-5], -3) == 3
    assert fixed(6.91e-4, 3, -3) == "0.691"
    assert decimals_for([12.0, 0.5], 0) == 2
    assert decimals_for([None, 0.0], 0) == 2
    assert decimals_for([40.0], 0) == 0


def test_what_is_not_there_is_a_dash():
    for value in (None, float("nan"), float("inf")):
        assert fixed(value, 2) == "–"
        assert significant(value) == "–"
    assert count(None) == duration(None) == "–"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (1.234, "1.23"),
        (-0.5, "−0.500"),
        (65.04, "65.0"),
        (123456.0, "123\u202f456"),
        (9.996, "10.0"),
        (1.5e-7, "1.50 × 10⁻⁷"),
        (2e9, "2.00 × 10⁹"),
    ],
)
def test_significant_digits(value, text):
    assert significant(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.25, "0.2 s"), (83.2, "83 s"), (119.6, "2 min 0 s"), (984.0, "16 min 24 s"), (7260.0, "2 h 1 min")],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_counts_are_grouped():
    assert count(4_736_000) == "4\u202f736\u202f000"
