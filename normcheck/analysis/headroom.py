"""Headroom: how many bits the input's scale may grow before a step overflows."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from normcheck.results import Headroom

if TYPE_CHECKING:
    from normcheck.analysis.totals import StepTotal, Totals
    from normcheck.arithmetic.formats import Format


_BEFORE_EPS = ("constant", "variance", "statistic", "root", "maximum", "sum")
"""Steps that may yield the statistic before eps: the first of these that a norm has does."""


def _threshold(form: Format) -> float:
    """Magnitude from which rounding overflows; float64's is its largest finite number."""
    return min(form.overflow_threshold, form.max_finite * 1.0 if form.name == "float64" else math.inf)


def _bits(total: StepTotal) -> float:
    assert total.degree is not None  # noqa: S101  # the caller asks of steps that have one
    return math.log2(_threshold(total.form) / total.largest) / total.degree


def headroom(totals: Totals) -> Headroom:
    """Return the bits of room on both sides, and the steps that bound them.

    Overflow: min over steps of degree > 0 of log2(T / U) / degree; T the magnitude from which rounding overflows, U
    the step's largest magnitude, run in the same order with unbounded exponents. Underflow: log2 of the least exact
    statistic before eps over the smallest normal number of its format, by its degree.
    """
    growing = {
        name: total
        for name, total in totals.steps.items()
        if total.degree is not None and total.degree > 0 and 0 < total.largest < math.inf
    }
    step = min(growing, key=lambda name: _bits(growing[name]), default=None)
    overflow = None if step is None else _bits(growing[step])
    form, degree, least = totals.statistic_form, totals.statistic_degree, totals.least_statistic
    under = None
    if form is not None and degree is not None and degree > 0 and 0 < least < math.inf:
        under = math.log2(least / form.min_normal) / degree
    step_under = next((name for name in _BEFORE_EPS if name in totals.steps), None)
    return Headroom(
        overflow_bits=overflow,
        overflow_step=step,
        underflow_bits=under,
        underflow_step=None if under is None else step_under,
    )
