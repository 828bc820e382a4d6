"""Means, and the algorithms for the variance: one function each, the same mathematics, different roundings."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from normcheck.arithmetic.values import Elements, PerRow

if TYPE_CHECKING:
    from collections.abc import Callable

    from normcheck.arithmetic.arithmetic import Arithmetic
    from normcheck.norms.implementations import Division, Implementation

_OF_MEAN = ("sum-mean", "grad-sum-mean")
"""Sums that a mean of elements is formed of."""


class Moments(NamedTuple):
    """What an algorithm leaves: `square` is the mean square of the centred elements.

    mean: None where not centred. c: centred elements, None where not at hand. total: the sum that the mean square is
    formed of, as it is divided; None where there is no such sum.
    """

    mean: PerRow | None
    c: Elements | None
    square: PerRow
    total: PerRow | None = None


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
    return _mean_and_total(a, x, sum_step, mean_step, how, y=y, n=n)[0]


def _mean_and_total(
    a: Arithmetic,
    x: Elements,
    sum_step: str,
    mean_step: str,
    how: Implementation,
    *,
    y: Elements | None = None,
    n: int | None = None,
) -> tuple[PerRow, PerRow | None]:
    """The mean, and the sum that was divided, where one was."""
    if a.yields_mean(sum_step):
        return a.convert(mean_step, a.sum(sum_step, x, y)), None
    division = _division(how, sum_step)
    if division.startswith("prescale"):
        scaled = a.multiply(sum_step, x, inverse_count(a, how, sum_step, n))
        return a.convert(mean_step, a.sum(sum_step, scaled, y)), None
    total, within = _total(a, x, sum_step, how, y)
    if division == "multiply":
        inverse = inverse_count(a, how, sum_step, n)
        return a.convert(mean_step, a.multiply(within, total, inverse)), total
    return divided(a, mean_step, total, how, sum_step, n), total


def _total(
    a: Arithmetic, x: Elements, sum_step: str, how: Implementation, y: Elements | None = None
) -> tuple[PerRow, str]:
    """The sum as it is divided, and the step that it was last rounded in."""
    total, of_mean = a.sum(sum_step, x, y), sum_step in _OF_MEAN
    if (how.mean_total if of_mean else how.total) is None:
        return total, sum_step
    step = _total_step(sum_step)
    return a.convert(step, total), step


def _total_step(sum_step: str) -> str:
    return "total-mean" if sum_step in _OF_MEAN else "total"


def _division(how: Implementation, sum_step: str) -> Division:
    """How a sum becomes a mean."""
    return how.mean_division if how.mean_division is not None and sum_step in _OF_MEAN else how.division


def divided(
    a: Arithmetic, step: str, total: PerRow, how: Implementation, sum_step: str = "sum", n: int | None = None
) -> PerRow:
    """total / n, formed in the format of the sum as it is divided, and then rounded to the step's."""
    return a.divide(step, total, _count(a, how, sum_step, n), within=_total_step(sum_step))


def inverse_count(a: Arithmetic, how: Implementation, sum_step: str = "sum", n: int | None = None) -> PerRow:
    """1/n, formed in the format of the count."""
    step = _count_step(how, sum_step)
    first = _division(how, sum_step).startswith("prescale")
    n_rounded = a.constant(step, _number(a, n)) if first else _count(a, how, sum_step, n)
    one = a.constant(step, 1.0)
    if how.inverse_count is None:
        return a.divide(step, one, n_rounded)
    return a.divide("inverse", one, n_rounded, within=step)


def _count(a: Arithmetic, how: Implementation, sum_step: str, n: int | None) -> PerRow:
    """N as it is divided by."""
    return a.convert(_count_step(how, sum_step), PerRow(np.full((1, 1), _number(a, n)), None, 0))


def _number(a: Arithmetic, n: int | None) -> float:
    return float(a.n if n is None else n)


def _count_step(how: Implementation, sum_step: str) -> str:
    return "count-mean" if how.mean_count is not None and sum_step in _OF_MEAN else "count"


def _two_pass(a: Arithmetic, x: Elements, centred: bool, how: Implementation) -> Moments:
    """mean((x - mean)^2)."""
    mean = mean_of(a, x, "sum-mean", "mean", how) if centred else None
    if mean is not None and how.own_mean:
        again = mean_of(a, x, "sum", "mean", how)
        return Moments(mean, None, *_mean_square(a, a.subtract("center", x, again), "variance", how))
    c = x if mean is None else a.subtract("center", x, mean)
    return Moments(mean, c, *_mean_square(a, c, "variance", how))


def _mean_square(a: Arithmetic, c: Elements, step: str, how: Implementation) -> tuple[PerRow, PerRow | None]:
    """mean(c^2), rounded to the format of a step, and the sum of squares that was divided, where one was."""
    fused = "sum" in how.contracted
    if how.division == "prescale-operand" and not a.yields_mean("sum"):
        scaled = a.multiply("square", c, inverse_count(a, how))
        total = a.sum("sum", scaled, c) if fused else a.sum("sum", a.multiply("square", scaled, c))
        return a.convert(step, total), None
    if fused:
        return _mean_and_total(a, c, "sum", step, how, y=c)
    return _mean_and_total(a, a.multiply("square", c, c), "sum", step, how)


def _one_pass(a: Arithmetic, x: Elements, centred: bool, how: Implementation) -> Moments:
    """mean(x^2) - mean(x)^2, which may come out negative.

    Both terms and their difference are formed in the wider of the sum's format and the statistic's, or in the one that
    the implementation has for them.
    """
    if not centred:
        return Moments(None, x, *_mean_square(a, x, "variance", how))
    step = "variance" if a.form_of("moment") == a.form_of("variance") else "moment"
    contracted = "variance" in how.contracted
    if contracted and how.division == "multiply" and not a.yields_mean("sum"):
        fused = "sum" in how.contracted
        total, _ = _total(a, x if fused else a.multiply("square", x, x), "sum", how, x if fused else None)
        mean = mean_of(a, x, "sum-mean", "mean", how)
        squared_mean = a.multiply(step, mean, mean)
        difference = a.fma(step, total, inverse_count(a, how), negated(squared_mean))
    else:
        square, _ = _mean_square(a, x, step, how)
        mean = mean_of(a, x, "sum-mean", "mean", how)
        difference = (
            a.fma(step, negated(mean), mean, square)
            if contracted
            else a.subtract(step, square, a.multiply(step, mean, mean))
        )
    return Moments(mean, None, difference if step == "variance" else a.convert("variance", difference))


def _one_pass_clamped(a: Arithmetic, x: Elements, centred: bool, how: Implementation) -> Moments:
    """max(mean(x^2) - mean(x)^2, 0)."""
    mean, c, variance, total = _one_pass(a, x, centred, how)
    data = np.where(variance.data < 0.0, 0.0, variance.data)
    return Moments(mean, c, PerRow(data, variance.form, variance.degree), total)


def _shifted(a: Arithmetic, x: Elements, centred: bool, how: Implementation) -> Moments:
    """One pass over x - x_0: mean = x_0 + mean(x - x_0); the first element serves as the shift."""
    if not centred:
        return Moments(None, x, *_mean_square(a, x, "variance", how))
    first = PerRow(np.array(x.part(0)[:, :1], dtype=np.float64), x.form, x.degree)
    d = a.subtract("center", x, first)
    moments = _one_pass(a, d, True, how)
    assert moments.mean is not None  # noqa: S101  # centred
    return Moments(a.add("mean", first, moments.mean), None, moments.square)


def _welford(a: Arithmetic, x: Elements, centred: bool, how: Implementation) -> Moments:
    """Online: for element i (from 1), d = x - m; m += d / i; M += d * (x - m); variance M / n."""
    return _online(a, x, centred, how, chunk=0)


def _chunked_welford(a: Arithmetic, x: Elements, centred: bool, how: Implementation) -> Moments:
    """Welford in lanes and chunks, merged by Chan, Golub and LeVeque's formula."""
    return _online(a, x, centred, how, chunk=how.chunk)


def _online(a: Arithmetic, x: Elements, centred: bool, how: Implementation, chunk: int) -> Moments:
    mean, total = a.moments("mean", "sum", x, a.order_of("moments", how.order), chunk, how.recurrence)
    if how.total is not None:
        total = a.convert("total", total)
    if how.division == "multiply":
        variance = a.convert("variance", a.multiply("total" if how.total else "sum", total, inverse_count(a, how)))
    else:
        variance = divided(a, "variance", total, how)
    if centred:
        return Moments(mean, None, variance, total)
    # mean square = variance + mean^2
    if "variance" in how.contracted:
        return Moments(None, x, a.fma("variance", mean, mean, variance))
    return Moments(None, x, a.add("variance", variance, a.multiply("variance", mean, mean)))


VARIANCES: dict[str, Callable[[Arithmetic, Elements, bool, Implementation], Moments]] = {
    "two-pass": _two_pass,
    "one-pass": _one_pass,
    "one-pass-clamped": _one_pass_clamped,
    "shifted": _shifted,
    "welford": _welford,
    "chunked-welford": _chunked_welford,
}


def negated(x: PerRow) -> PerRow:
    """-x: a change of sign, no operation."""
    return PerRow(-x.data, x.form, x.degree)
