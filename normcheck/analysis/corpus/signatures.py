"""Signatures: how a norm fails, decided from a result and its findings alone."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from normcheck.results import Finding, Result
    from normcheck.results.cases import Signature

MEANINGS: dict[str, str] = {
    "OVF->0": "a step overflows, the divisor is infinite, and rows become 0 or beta; every output is finite",
    "OVF->NaN": "a step overflows, and infinities meet: inf - inf or 0 * inf",
    "NEG->NaN": "a one-pass variance comes out negative, and its root is NaN; nothing overflows",
    "CANCEL": "a one-pass variance has lost its leading bits (NC303), and every output is finite",
    "CANCEL+AMP": "so many of them that rounding noise is multiplied by up to 1/sqrt(eps): the divisor is under half "
    "of what it should be",
    "EPS0->NaN": "eps is 0 in its format, or lost, and a variance is 0: 0/0",
    "IO-INF": "the input was infinite or NaN once it was loaded: not the norm's fault",
    "UFLOW": "squares or the variance are flushed to 0 where they are not 0, every output is finite",
}
"""What each signature means; the first that matches is a result's, in the order of `signature_of`."""


def signature_of(result: Result, findings: Iterable[Finding]) -> Signature:
    """Return how a norm failed: the first of these that holds, empty where none does.

    1. ``IO-INF``: rows are bad, and all of them had infinite or NaN input once it was loaded.
    2. Of rows whose outputs are not finite though their input was: ``EPS0->NaN`` where the divisor of the worst is 0,
       ``OVF->NaN`` where a step overflowed, ``NEG->NaN`` where none did and a variance is negative.
    3. Of rows that collapsed to beta: ``OVF->0`` where a step overflowed, else ``UFLOW``.
    4. ``CANCEL`` where NC303 fired, ``CANCEL+AMP`` where rows are amplified too.
    5. ``UFLOW``: a statistic is 0 where the exact one is not, or rows are amplified.

    A division by zero counts as an overflow of the step that divides, so that eps comes first.
    """
    rows = result.rows
    if rows.infinite_input and rows.infinite_input == rows.bad:
        return "IO-INF"
    if rows.nonfinite > rows.infinite_input:
        return _not_finite(result)
    overflowed = any(step.overflow for step in result.steps)
    if rows.collapsed:
        return "OVF->0" if overflowed else "UFLOW"
    if any(finding.rule == "NC303" for finding in findings):
        return "CANCEL+AMP" if rows.amplified else "CANCEL"
    return "UFLOW" if result.statistic.flushed_rows or rows.amplified else ""


def _not_finite(result: Result) -> Signature:
    divisors = [row.s_emulated for row in result.worst_rows if row.kind == "nonfinite"]
    if 0.0 in divisors:
        return "EPS0->NaN"
    if any(step.overflow for step in result.steps):
        return "OVF->NaN"
    return "NEG->NaN" if result.statistic.negative_rows and any(map(math.isnan, divisors)) else ""
