"""The picture of magnitudes: what stands in which column, at any width, and what it does without figures."""

from __future__ import annotations

import dataclasses
import re
from math import inf, log2, nan

import pytest
from hand_built import COLLAPSED, REPORT
from hand_built_ranges import DOUBLE, EXPONENTS, HALF, PICTURED, STEPS, WITH_RANGES, step
from hypothesis import assume, given
from hypothesis import strategies as st

from normcheck.render import strip, table
from normcheck.results import Exponents

WIDTHS = [60, 72, 80, 100, 120, 160, 200, 300]
FORMATS = {HALF.name: HALF, DOUBLE.name: DOUBLE}


def picture(result=PICTURED, formats=FORMATS, width=80):
    """The lines of a picture: the head, the axis, a rule, and a row for the input and each step."""
    return [line.plain for line in strip.lines(result, "title", formats, width=width)]


def rows(result=PICTURED, formats=FORMATS, width=80):
    """The picture of each row by its name, and the axis as that of "step"; all without the other columns."""
    lines = picture(result, formats, width)
    rule = next(line for line in lines if line.startswith("---"))
    start, end = [(m.start(), m.end()) for m in re.finditer("-+", rule)][2]
    return {line.split()[0]: line[start:end] for line in lines[lines.index(rule) - 1 :] if line != rule}


def of_step(one, formats=FORMATS, width=80):
    return rows(dataclasses.replace(PICTURED, steps=(*STEPS, one)), formats, width)[one.step]


@pytest.mark.parametrize("width", WIDTHS)
def test_a_picture_fits_the_width_and_is_whole(width):
    lines = picture(width=width)
    assert max(map(len, lines)) <= width
    assert [line.split()[0] for line in lines[-len(STEPS) - 1 :]] == ["input", *(one.step for one in STEPS)]


@pytest.mark.parametrize("width", [40, 45])
def test_where_there_is_no_room_there_is_no_picture(width):
    assert picture(width=width) == []
    text = table.render(WITH_RANGES, width=width, with_steps=True)
    assert "ranges of" not in text
    assert "subnormal, x over" not in text


def test_more_room_is_used():
    lengths = [len(rows(width=width)["step"]) for width in (60, 80, 120, 200)]
    assert lengths == sorted(lengths)
    assert lengths[-1] > 3 * lengths[1]


@pytest.mark.parametrize("width", WIDTHS)
def test_a_magnitude_stands_under_its_power_of_two(width):
    shown = rows(width=width)
    assert shown["mean"].index("█") == shown["step"].index("|2^0")
    assert shown["mean"].count("█") == 1


@pytest.mark.parametrize("width", [120, 160, 200])
def test_the_parts_of_a_format_begin_at_its_limits(width):
    shown = rows(width=width)
    axis, zones = shown["step"], shown["reciprocal"]  # of which no magnitude is known
    column = axis.index("|2^-16") - axis.index("|2^-24")
    assert column % 8 == 0
    assert zones.index(".") == axis.index("|2^-24")
    assert zones.count(".") == 10 * column // 8
    assert zones.index("x") == axis.index("|2^16")
    assert re.fullmatch(r" +\.+-+x+", zones)


def test_values_out_of_range_are_marked_on_both_sides():
    shown = rows(width=120)
    assert re.fullmatch(r" +0+▒+█+!+x*", shown["square"])
    assert re.fullmatch(r" +0+▒+█+!+", shown["variance"])
    assert re.fullmatch(r" +\.+-+x+!", shown["root"])
    assert re.fullmatch(r" +\.+▒+\.+-+x+", shown["gain"])


def test_a_magnitude_just_below_the_threshold_is_in_range():
    below, at = (of_step(step("last", value, value), width=200) for value in (65519.0, 65520.0))
    assert "!" not in below
    assert "█" in below
    assert at.count("!") == 1


@pytest.mark.parametrize(("low", "high"), [(nan, nan), (0.0, 0.0), (nan, 0.0)])
def test_without_a_magnitude_there_is_the_range_alone(low, high):
    assert not set(of_step(step("last", low, high))) & set("█▒!0")


def test_a_step_that_rounds_nothing_says_so():
    idle = dataclasses.replace(step("last", 0.0, 0.0), operations=0)
    assert of_step(idle).strip() == "no rounding"
    assert "no rounding" not in of_step(step("last", 0.0, 0.0))
    text = table.render(
        dataclasses.replace(WITH_RANGES, results=(dataclasses.replace(PICTURED, steps=(idle,)),)), with_steps=True
    )
    (row,) = [line.split() for line in text.splitlines() if line.startswith("last") and "no rounding" not in line]
    assert row[-1] == "-"  # neither a largest nor a smallest magnitude


def test_without_a_smallest_magnitude_there_is_the_largest():
    assert of_step(step("last", 0.0, 1.0)).count("█") == 1


def test_a_format_whose_range_is_unknown_has_bars_alone():
    shown = rows()["store"]
    assert set(shown) == {" ", "█"}
    old = rows(COLLAPSED, {})  # as read from a report of an older version
    assert all(set(text) <= set(" █!") for name, text in old.items() if name != "step")
    assert old["sum"].endswith("!")  # infinite
    assert "input" not in old


def test_the_headroom_is_told_in_bits_where_a_step_grows_with_the_input():
    told = {line.split()[0]: line.split()[-2:] for line in picture()[-len(STEPS) :]}
    assert told["load"] == [f"{log2(65520 / 1000):.2f}", "bits"]
    assert told["square"] == ["-2", "bits"]
    assert told["sum"] == ["504", "bits"]
    assert [name for name, (_, last) in told.items() if last != "bits"] == [
        *("variance", "root", "reciprocal", "normalize", "gain", "store")
    ]


def test_a_format_is_told_by_its_label():
    lines = {line.split()[0]: line.split()[1] for line in picture()[-len(STEPS) :]}
    assert (lines["load"], lines["sum"], lines["store"]) == ("fp16", "fp64", "e5m10")


@pytest.mark.parametrize("width", [120, 200])
def test_the_histogram_shows_all_that_is_not_empty(width):
    shown = rows(width=width)
    first = shown["input"].index("▁")
    columns = (shown["step"].index("|2^0") - shown["step"].index("|2^-8")) // 8
    assert first == shown["step"].index("|2^-8") + columns
    powers = [shown["input"][first + columns * i] for i in range(len(EXPONENTS.counts))]
    assert powers == list("▁ ▁▁▁█▂")


def test_elements_without_a_power_of_two_are_counted():
    told = "ranges of title (of the input's elements 2 of 8192 are 0 and 1 of 8192 are not finite)"
    assert picture(width=200)[0] == told
    clean = dataclasses.replace(EXPONENTS, zeros=0, nonfinite=0)
    head = picture(dataclasses.replace(PICTURED, input=dataclasses.replace(PICTURED.input, exponents=clean)))[0]
    assert head == "ranges of title"


def test_without_any_magnitude_there_is_no_picture():
    unknown = (step("load", 0.0, 0.0), step("square", nan, inf))
    for exponents in (None, Exponents(lowest=0, counts=(), zeros=8192)):
        source = dataclasses.replace(PICTURED.input, exponents=exponents)
        assert picture(dataclasses.replace(PICTURED, input=source, steps=unknown)) == []


def test_the_input_alone_has_a_picture():
    assert "█" in rows(dataclasses.replace(PICTURED, steps=()))["input"]


def test_the_legend_stands_once_under_the_last_picture_in_one_line():
    several = dataclasses.replace(WITH_RANGES, results=(PICTURED, dataclasses.replace(PICTURED, precision="bf16")))
    parts = table.render(several, with_steps=True).split("\n\n")
    legend = "values █, ▒ subnormal, 0 too small, ! over; range - normal, . subnormal, x over"
    assert [index for index, part in enumerate(parts) if part == legend] == [
        max(index for index, part in enumerate(parts) if part.startswith("ranges of")) + 1
    ]
    assert "ranges of" not in table.render(REPORT)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_where_the_encoding_has_no_blocks_the_picture_is_drawn_in_ascii(encoding):
    text = table.render(WITH_RANGES, with_steps=True)
    drawn = strip.legible(text, encoding)
    drawn.encode("ascii")
    assert list(map(len, drawn.splitlines())) == list(map(len, text.splitlines()))
    assert "values #, % subnormal" in drawn
    assert strip.legible(text, "utf-8") == text


MAGNITUDES = st.floats(min_value=2.0**-40, max_value=2.0**40)


@given(MAGNITUDES, MAGNITUDES, st.integers(20, 240))
def test_marks_beyond_the_range_say_so_and_nothing_else_does(low, high, columns):
    assume(low <= high)
    result = dataclasses.replace(PICTURED, steps=(step("last", low, high),))
    axis = strip.axis_of(result, FORMATS, columns)
    text = strip._bar(result.steps[0], HALF, axis)
    assert len(text) == axis.columns <= columns
    assert ("!" in text) == (high >= HALF.overflow_threshold)
    assert ("0" in text) == (low < HALF.min_subnormal)
    assert re.fullmatch(r" *\.*-*x*0*▒*█*!* *\.*-*x*", text)


@given(st.integers(-1074, 1023), st.integers(1, 300), st.integers(20, 240))
def test_any_span_has_an_axis_with_at_least_one_mark(low, span, columns):
    source = dataclasses.replace(PICTURED.input, exponents=Exponents(lowest=low, counts=(1,) * span))
    axis = strip.axis_of(dataclasses.replace(PICTURED, input=source, steps=()), {}, columns)
    assert axis.columns <= columns
    assert axis.power(0) <= low - 1
    assert axis.power(axis.columns) >= low + span + 1
    assert len(strip._ticks(axis)) == axis.columns
    assert "|2^" in strip._ticks(axis)
