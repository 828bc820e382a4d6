"""The magnitudes of the input and of each step on one axis of powers of two, against the range of each format."""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from rich.cells import cell_len

from normcheck.render.figures import ABSENT, figure, of
from normcheck.render.layout import Column, Layout, Lines, paragraph, table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from normcheck.results import Exponents, FormatFacts, Report, Result, Step

_NARROWEST, _GAP = 20, 2
"""Columns that a picture takes at least, and between two columns of a table."""

_SPAN = 48
"""Powers of two up to which the axis is lengthened for the limits of formats, where that makes the bars shrink."""

_MOST_COLUMNS = 8
"""Columns of a power of two, at most."""

_ROUND = (1, 2, 4, 5, 8, 10, 16, 20, 32)
"""Distances of the marks on the axis, in columns or powers of two: the least that leaves room for the powers."""

_LEVELS, _NORMAL, _SUBNORMAL, _OVER, _UNDER = "▁▂▃▄▅▆▇█", "█", "▒", "!", "0"
"""Levels of a histogram; values within the two parts of a format's range, and beyond it on either side."""

_PARTS = ("under", "subnormal", "normal", "over")
_VALUES = {"under": _UNDER, "subnormal": _SUBNORMAL, "normal": _NORMAL, "over": _OVER, "unknown": _NORMAL}
_ZONES = {"under": " ", "subnormal": ".", "normal": "-", "over": "x", "unknown": " "}
"""What stands in the parts of a format's range, and where there are no values."""

_UNROUNDED = "no rounding"
"""What stands instead of a range where a step does nothing: its result is in its format already."""

_PLAIN = str.maketrans(f"{_LEVELS}{_SUBNORMAL}", "_.:-=+*#%")
"""What is drawn instead of blocks."""


@dataclass(frozen=True, slots=True)
class Axis:
    """Powers of two from `low` on: `per` columns each, or `step` of them a column."""

    low: int
    columns: int
    per: int
    step: int

    def at(self, power: float) -> int:
        """Return the column of a power of two, the first or last for those beyond the axis."""
        return int(min(max((power - self.low) * self.per / self.step, 0), self.columns - 1))

    def power(self, column: float) -> float:
        """Return the power of two at which a column begins."""
        return self.low + column * self.step / self.per


class _Row(NamedTuple):
    """A row of the picture, as text."""

    name: str
    format: str
    picture: str
    room: str


def ranges(report: Report) -> dict[str, FormatFacts]:
    """Return the formats of a report by the names that steps have for them; none of a report that has no formats."""
    return {facts.name: facts for facts in report.formats}


def lines(result: Result, title: str, formats: Mapping[str, FormatFacts], *, width: int) -> Lines:
    """Return the picture of a result; none where nothing has a magnitude, or the width has no room for it."""
    labels = [_label(step, formats) for step in result.steps]
    rooms = [_room(step, formats.get(step.format)) for step in result.steps]
    taken = [("step", "input", *(step.step for step in result.steps)), ("format", *labels), ("headroom", *rooms)]
    columns = width - sum(max(map(cell_len, texts)) + _GAP for texts in taken)
    axis = axis_of(result, formats, columns) if columns >= _NARROWEST else None
    if axis is None:
        return []
    rows = [_Row("input", "", _histogram(result.input.exponents, axis), "")] if result.input.exponents else []
    for step, label, room in zip(result.steps, labels, rooms, strict=True):
        rows.append(_Row(step.step, label, _bar(step, formats.get(step.format), axis), room))
    return [
        *paragraph(f"{title}{_left_out(result)}", width=width, hanging=2, head="ranges of"),
        *table(rows, [_layout(axis)], width=width),
    ]


def legend(width: int) -> Lines:
    """Return what the marks of a picture stand for."""
    values = f"values {_NORMAL}, {_SUBNORMAL} subnormal, {_UNDER} too small, {_OVER} over"
    return paragraph(f"{values}; range - normal, . subnormal, x over", width=width)


def legible(text: str, encoding: str) -> str:
    """Return text whose pictures are drawn in ASCII if the encoding has no blocks: escaped, they would tear lines."""
    try:
        _LEVELS.encode(encoding)
    except UnicodeEncodeError:
        return text.translate(_PLAIN)
    return text


def _layout(axis: Axis) -> Layout[_Row]:
    return Layout(
        (
            Column("step", lambda row: row.name),
            Column("format", lambda row: row.format),
            Column(_ticks(axis), lambda row: row.picture),
            Column("headroom", lambda row: row.room, right=True),
        )
    )


def _label(step: Step, formats: Mapping[str, FormatFacts]) -> str:
    return formats[step.format].label if step.format in formats else step.format


def _room(step: Step, facts: FormatFacts | None) -> str:
    """Return by how many bits the input's scale may grow before the step overflows, where its magnitude says that."""
    if facts is None or not step.degree or step.degree < 0 or not 0 < step.max_abs < math.inf:
        return ABSENT
    room = (math.log2(_threshold(facts)) - math.log2(step.max_abs)) / step.degree
    return f"{figure(room)} bits"


def _left_out(result: Result) -> str:
    """Return which elements of the input have no power of two."""
    exponents = result.input.exponents
    if exponents is None or not (exponents.zeros or exponents.nonfinite):
        return ""
    kinds = [(exponents.zeros, "0"), (exponents.nonfinite, "not finite")]
    told = " and ".join(f"{of(many, result.input.elements)} are {kind}" for many, kind in kinds if many)
    return f" (of the input's elements {told})"


# ------------------------------------------------------------------------------------------------------- the axis


def axis_of(result: Result, formats: Mapping[str, FormatFacts], columns: int) -> Axis | None:
    """Return an axis that has room for all magnitudes, and for those limits of formats that are near them."""
    low, high = _extent(result)
    if low > high:
        return None
    low, high = low - 1, high + 1
    named = dict.fromkeys(step.format for step in result.steps if step.format in formats)
    limits = [round(edge) for name in named for edge in edges(formats[name])]
    step = -(-(high - low) // columns)
    room = min(_SPAN, columns) if step == 1 else (columns - 1) * step
    for limit in sorted(limits, key=lambda limit: max(low - limit, limit - high)):
        longer = min(low, limit - 2), max(high, limit + 2)
        if longer[1] - longer[0] <= room:
            low, high = longer
    return _fitted(low, high, columns)


def _fitted(low: int, high: int, columns: int) -> Axis:
    """Return an axis of at most so many columns; where a column is several powers of two, it begins at a multiple."""
    step = -(-(high - low) // columns)
    while -(-high // step) - low // step > columns:
        step += 1
    first = low // step * step
    per = max(min(columns // (high - low), _MOST_COLUMNS), 1)
    return Axis(low=first, columns=-(-(high - first) // step) * per, per=per, step=step)


def _extent(result: Result) -> tuple[int, int]:
    """Return the whole powers of two between which all magnitudes are; the first is the larger where there are none."""
    powers = [_power(magnitude) for step in result.steps for magnitude in (step.min_abs, step.max_abs)]
    finite = [power for power in powers if power is not None and math.isfinite(power)]
    exponents = result.input.exponents
    if exponents and exponents.counts:
        finite += [exponents.lowest, exponents.lowest + len(exponents.counts)]
    return (math.floor(min(finite)), math.ceil(max(finite))) if finite else (1, 0)


def _power(magnitude: float) -> float | None:
    """Return the logarithm of a magnitude; infinite for infinity, None for 0 and NaN."""
    return math.log2(magnitude) if magnitude > 0 else None


def edges(facts: FormatFacts) -> list[float]:
    """Return the powers of two where the parts of a format's range meet, the least first."""
    return [math.log2(limit) for limit in (facts.min_subnormal, facts.min_normal, _threshold(facts))]


def _threshold(facts: FormatFacts) -> float:
    """Return the magnitude from which rounding overflows: float64's own is no float64."""
    return facts.max_finite if math.isinf(facts.overflow_threshold) else facts.overflow_threshold


def _ticks(axis: Axis) -> str:
    """Return the scale: a mark at the column where a power of two begins, and after it the power."""
    end = math.ceil(axis.power(axis.columns))
    least = max(len(f"|2^{power} ") for power in (axis.low, end)) / axis.per
    every = next(axis.step * n for n in _ROUND if n >= least)
    text = ""
    for power in range(-(-axis.low // every) * every, end, every):
        column, mark = axis.at(power), f"|2^{power}"
        if column + len(mark) <= axis.columns:
            text = f"{text:{column}}{mark}"
    return f"{text or f'|2^{axis.low}':{axis.columns}}"


# ------------------------------------------------------------------------------------------------------- the rows


def _histogram(exponents: Exponents, axis: Axis) -> str:
    """Return a column for the elements of its powers of two, the highest for the most; the least for a single one."""
    heights = [0] * axis.columns
    for place, many in enumerate(exponents.counts):
        first = axis.at(exponents.lowest + place)
        for column in range(first, first + axis.per):
            heights[column] += many
    most = max(heights)
    return "".join(_LEVELS[-(-height * len(_LEVELS) // most) - 1] if height else " " for height in heights)


def _bar(step: Step, facts: FormatFacts | None, axis: Axis) -> str:
    """Return the range of the step's format, and over it the magnitudes that the step had before rounding."""
    if not step.operations:
        return f"{_UNROUNDED:{axis.columns}}"
    ends = edges(facts) if facts else []
    picture = [_ZONES[_zone(axis.power(column + 0.5), ends)] for column in range(axis.columns)]
    high = _power(step.max_abs)
    if high is None:
        return "".join(picture)
    low = _power(step.min_abs)
    low = high if low is None else low
    first, last = axis.at(low), axis.at(high)
    for column in range(first, last + 1):
        inside = max(axis.power(column), low), min(axis.power(column + 1), high)
        picture[column] = _VALUES[_zone(sum(inside) / 2, ends)]
    if _zone(low, ends) == "under":
        picture[first] = _UNDER
    if math.isinf(high) or _zone(high, ends) == "over":
        picture[last] = _OVER
    return "".join(picture)


def _zone(power: float, ends: Sequence[float]) -> str:
    """Return in which part of a format's range a power of two is; unknown where the ends of the parts are."""
    if not ends:
        return "unknown"
    return _PARTS[bisect_right(ends, power)]
