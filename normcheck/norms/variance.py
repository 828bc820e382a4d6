"""Means, and the algorithms for the variance: one function each, the same mathematics, different roundings."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from normcheck.arithmetic.values import Elements, PerRow

if TYPE_CHECKING:
    from collections.abc import Callable

    from normcheck.arithmetic.arithmetic import Arithmetic
    from normcheck.norms.implementations import Implementation

Moments = tuple[PerRow | None, Elements | None, PerRow]
"""Mean (None where not centred), centred elements (None where not at hand), mean square of the centred elements."""


def mean_of(
    a: Arithmetic,
    x: Elements,
    sum_step: str,
    mean_step: str,
    how: Implementation,
    *,
    y: Elements | None = None,
    n: int | None = None,
) -> PerRow:
    """Mean of each row of x (of x * y, fused, where y is given), by the implementation's division.

    The quotient is formed in the sum's format and then rounded to the mean's. n: number of terms, the row's size
    unless given.
    """
    count = float(a.n if n is None else n)
    if a.yields_mean(sum_step):
        return a.convert(mean_step, a.sum(sum_step, x, y))
    if how.division == "prescale":
        inverse = a.divide("count", a.constant("count", 1.0), a.constant("count", count))
        scaled = a.multiply(sum_step, x, inverse)
        return a.convert(mean_step, a.sum(sum_step, scaled, y))
    total = a.sum(sum_step, x, y)
    n_rounded = a.convert("count", PerRow(np.full((1, 1), count), None, 0))
    if how.division == "multiply":
        inverse = a.divide("count", a.constant("count", 1.0), n_rounded)
        return a.convert(mean_step, a.multiply(sum_step, total, inverse))
    return a.divide(mean_step, total, n_rounded, within=sum_step)


def _two_pass(a: Arithmetic, x: Elements, centred: bool, how: Implementation) -> Moments:
    """mean((x - mean)^2)."""
    mean = mean_of(a, x, "sum-mean", "mean", how) if centred else None
    c = x if mean is None else a.subtract("center", x, mean)
    return mean, c, _mean_square(a, c, how)


def _mean_square(a: Arithmetic, c: Elements, how: Implementation) -> PerRow:
    if how.fused:
        return mean_of(a, c, "sum", "variance", how, y=c)
    return mean_of(a, a.multiply("square", c, c), "sum", "variance", how)


def _one_pass(a: Arithmetic, x: Elements, centred: bool, how: Implementation) -> Moments:
    """mean(x^2) - mean(x)^2, which may come out negative."""
    square = _mean_square(a, x, how)
    if not centred:
        return None, x, square
    mean = mean_of(a, x, "sum-mean", "mean", how)
    variance = a.subtract("variance", square, a.multiply("variance", mean, mean))
    return mean, None, variance


def _one_pass_clamped(a: Arithmetic, x: Elements, centred: bool, how: Implementation) -> Moments:
    """max(mean(x^2) - mean(x)^2, 0)."""
    mean, c, variance = _one_pass(a, x, centred, how)
    data = np.where(variance.data < 0.0, 0.0, variance.data)
    return mean, c, PerRow(data, variance.form, variance.degree)


def _shifted(a: Arithmetic, x: Elements, centred: bool, how: Implementation) -> Moments:
    """One pass over x - x_0: mean = x_0 + mean(x - x_0); the first element serves as the shift."""
    if not centred:
        return None, x, _mean_square(a, x, how)
    first = PerRow(np.array(x.part(0)[:, :1], dtype=np.float64), x.form, x.degree)
    d = a.subtract("center", x, first)
    offset, _, variance = _one_pass(a, d, True, how)
    assert offset is not None  # noqa: S101  # centred
    return a.add("mean", first, offset), None, variance


def _welford(a: Arithmetic, x: Elements, centred: bool, how: Implementation) -> Moments:
    """Online: for element i (from 1), d = x - m; m += d / i; M += d * (x - m); variance M / n."""
    return _online(a, x, centred, how, chunk=0)


def _chunked_welford(a: Arithmetic, x: Elements, centred: bool, how: Implementation) -> Moments:
    """Welford in lanes and chunks, merged by Chan, Golub and LeVeque's formula."""
    return _online(a, x, centred, how, chunk=how.chunk)


def _online(a: Arithmetic, x: Elements, centred: bool, how: Implementation, chunk: int) -> Moments:
    mean, total = a.moments("mean", "sum", x, max(how.order.width, 1) if chunk else 1, chunk)
    n = a.convert("count", PerRow(np.full((1, 1), float(a.n)), None, 0))
    variance = a.divide("variance", total, n, within="sum")
    if centred:
        return mean, None, variance
    return None, x, a.add("variance", variance, a.multiply("variance", mean, mean))  # mean square = variance + mean^2


VARIANCES: dict[str, Callable[[Arithmetic, Elements, bool, Implementation], Moments]] = {
    "two-pass": _two_pass,
    "one-pass": _one_pass,
    "one-pass-clamped": _one_pass_clamped,
    "shifted": _shifted,
    "welford": _welford,
    "chunked-welford": _chunked_welford,
}
