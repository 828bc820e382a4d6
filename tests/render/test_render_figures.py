from __future__ import annotations

from math import inf, nan

import pytest

from normcheck.render.figures import bits, count, figure, interval, multiple, number, of


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (nan, "nan"),
        (inf, "inf"),
        (-inf, "-inf"),
        (0.0, "0"),
        (-0.0, "0"),
        (1.0, "1"),
        (100.0, "100"),
        (1234.0, "1230"),
        (9994.0, "9990"),
        (9996.0, "1e4"),
        (65504.0, "6.55e4"),
        (1.5, "1.5"),
        (-0.0217, "-0.0217"),
        (99.96, "100"),
        (0.000234, "0.000234"),
        (0.0000999, "9.99e-5"),
        (5e-324, "4.94e-324"),
        (1.7976931348623157e308, "1.8e308"),
    ],
)
def test_figures_have_three_digits(value, text):
    assert figure(value) == text


@pytest.mark.parametrize("value", [10.0**e * m for e in range(-320, 308, 7) for m in (1, 1.2345, 9.9951)])
def test_figures_are_within_half_a_unit_of_the_third_digit(value):
    assert abs(float(figure(value)) - value) <= 0.00501 * value + 5e-324


@pytest.mark.parametrize(("value", "text"), [(0, "0"), (999_999, "999999"), (1_000_000, "1e6"), (19_267_584, "1.93e7")])
def test_counts_are_exact_below_a_million(value, text):
    assert count(value) == text


@pytest.mark.parametrize("value", [65504.0, 6.103515625e-05, 1e-5, 0.1, 1.7976931348623157e308, 448.0, inf])
def test_numbers_read_back_as_themselves(value):
    assert float(number(value)) == value


def test_numbers_are_short():
    assert [number(v) for v in (65504.0, 1e-05, 0.1)] == ["65504", "1e-5", "0.1"]


@pytest.mark.parametrize(
    ("value", "ideal", "text"),
    [
        (0.5, 0.25, "2 x ideal"),
        (0.5, 0.0, "ideal is 0"),
        (0.0, 0.0, "as ideal"),
        (None, 0.5, "-"),
        (0.5, None, "-"),
        (inf, 0.5, "inf x ideal"),
    ],
)
def test_multiples_of_the_ideal(value, ideal, text):
    assert multiple(value, ideal) == text


def test_counts_carry_their_denominator():
    assert of(51, 64) == "51 of 64"


def test_headroom_names_its_step():
    assert bits(-0.634, "square") == ["-0.634 bits", "at square"]
    assert bits(None, None) == ["-", ""]


def test_intervals():
    assert interval((0.0, inf)) == "0 to inf"
    assert interval(None) == "none"
