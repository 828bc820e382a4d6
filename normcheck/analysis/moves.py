"""What counts as a move of a figure from one report to the next, and in which direction it went."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from normcheck.results import SEVERITIES, VERDICTS, FigureChange

if TYPE_CHECKING:
    from collections.abc import Iterator

    from normcheck.results import Finding, Measure, Result

Trend = Literal["worse", "better"]
Kind = Literal["new", "gone"] | Trend
Figure = float | str | None

TOLERANCE = 0.05
"""A figure moved where it changed by more than this share of what it was; one in bits by more than this many bits.

The same seed gives the same figures on one type of machine, and may give other last digits on another: those are no
news. What one would act on is larger: 0.05 bit is 3.5 % of scale, and rules turn on factors of two and ten. Empirical.
"""


def trend_of(old: Finding, new: Finding) -> Trend | None:
    """Return whether a finding is graver or its figure further gone than in the old report; None where it is as it was.

    What is graver in one way and better in the other is worse.
    """
    grave = SEVERITIES.index(old.severity) - SEVERITIES.index(new.severity)
    moved = _measure_trend(old.measure, new.measure)
    if grave > 0 or moved == "worse":
        return "worse"
    return "better" if grave < 0 or moved == "better" else None


def trend_of_new(finding: Finding, before: Result | None, after: Result | None) -> Literal["new", "better"]:
    """Return "new" for a finding that the old report does not have, but "better" for what a graver verdict hid there.

    Rules are silent where graver ones fire: little headroom is no news where there was none at all. That takes a
    verdict that got better and a figure that was in the old result, no better than now.
    """
    if before is None or after is None or VERDICTS.index(before.verdict) >= VERDICTS.index(after.verdict):
        return "new"
    now, was = finding.measure, {name: value for name, _, value, _ in _of_results(before, after)}
    if now is None or now.name not in was:
        return "new"
    past = was[now.name]  # no deviation: no row was finite; no headroom: nothing overflows
    value = past if isinstance(past, int | float) else math.nan if now.worse == "higher" else math.inf
    return "new" if _measure_trend(replace(now, value=value), now) == "worse" else "better"


def _measure_trend(old: Measure | None, new: Measure | None) -> Trend | None:
    if old is None or new is None or old.name != new.name or not moved(old.value, new.value, new.unit):
        return None
    if math.isnan(old.value) or math.isnan(new.value):
        return "worse" if math.isnan(new.value) else "better"
    return "worse" if (new.value > old.value) == (new.worse == "higher") else "better"


def moved(old: Figure, new: Figure, unit: str) -> bool:
    """Return whether a figure is another one, in the tolerance of its unit; NaN is another figure than any number."""
    if old == new or old is None or new is None or isinstance(old, str) or isinstance(new, str):
        return old != new
    if not (math.isfinite(old) and math.isfinite(new)):
        return not (math.isnan(old) and math.isnan(new))
    return abs(new - old) > (TOLERANCE if unit == "bits" else TOLERANCE * abs(old))


def figures(
    before: Result | None, after: Result | None, old: Finding | None = None, new: Finding | None = None
) -> Iterator[FigureChange]:
    """Yield what moved of a finding that is in both reports, and of the result that it is about."""
    seen = set()
    of_finding = _of_findings(old, new) if old and new else ()
    of_result = _of_results(before, after) if before and after else ()
    for name, unit, one, other in (*of_finding, *of_result):
        if name not in seen and moved(one, other, unit):
            yield FigureChange(name=name, old=one, new=other, unit=unit)
        seen.add(name)


def _of_findings(old: Finding, new: Finding) -> Iterator[tuple[str, str, Figure, Figure]]:
    yield "severity", "", old.severity, new.severity
    if old.measure and new.measure and old.measure.name == new.measure.name:
        yield new.measure.name, new.measure.unit, old.measure.value, new.measure.value


def _of_results(old: Result, new: Result) -> Iterator[tuple[str, str, Figure, Figure]]:
    yield "verdict", "", old.verdict, new.verdict
    yield "rows.bad", "rows", float(old.rows.bad), float(new.rows.bad)
    yield "deviation.relative_rms", "ratio", old.deviation.relative_rms, new.deviation.relative_rms
    yield "headroom.overflow_bits", "bits", old.headroom.overflow_bits, new.headroom.overflow_bits
    yield "safe_scale.high", "ratio", _high(old), _high(new)


def _high(result: Result) -> float | None:
    return result.safe_scale[1] if result.safe_scale else None
