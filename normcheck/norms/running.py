"""Running statistics: what a batch's mean and variance leave in them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from normcheck.arithmetic.formats import wider
from normcheck.norms.variance import divided

if TYPE_CHECKING:
    from normcheck.arithmetic.arithmetic import Arithmetic
    from normcheck.arithmetic.values import PerRow
    from normcheck.norms.forward import Problem
    from normcheck.norms.implementations import Implementation
    from normcheck.norms.variance import Moments

_STEP = "running-update"


def updated(a: Arithmetic, moments: Moments, problem: Problem, how: Implementation) -> tuple[PerRow | None, PerRow]:
    """running = (1 - m) running + m batch, stored as parameters are; of l2 the variance, else the statistic itself.

    The batch's variance is what `bessel` says; of one element, it is taken as it is.
    """
    assert problem.running_statistic is not None  # noqa: S101  # callers ask only where there are running statistics
    of_mean = _STEP if how.running_batch is None else "running-batch"
    of_variance = of_mean if how.running_variance is None else "running-variance"
    new = moments.square
    if problem.norm.statistic.name == "l2" and a.n > 1:
        new = _unbiased(a, moments, how, of_variance)
    variance = _mixed(a, problem.running_statistic, new, problem, how, of_variance)
    if moments.mean is None or problem.running_mean is None:
        return None, variance
    mean = moments.mean if how.running_mean is None else a.convert("running-mean", moments.mean)
    return _mixed(a, problem.running_mean, mean, problem, how, of_mean), variance


def _unbiased(a: Arithmetic, moments: Moments, how: Implementation, step: str) -> PerRow:
    if how.bessel == "none":
        return moments.square
    if how.bessel == "sum" and moments.total is not None:
        return divided(a, "variance", moments.total, how, n=a.n - 1)
    return a.multiply(step, moments.square, a.constant(step, a.n / (a.n - 1)))


def _mixed(a: Arithmetic, old: PerRow, new: PerRow, problem: Problem, how: Implementation, step: str) -> PerRow:
    """(1 - m) old, in the format of the update, and m new, in that of `step`; the sum is in the wider of both."""
    rest, momentum = _weights(a, problem, how, step)
    kept, added = a.multiply(_STEP, old, rest), a.multiply(step, new, momentum)
    running, batch = a.form_of(_STEP), a.form_of(step)
    wide = running is None or batch is None or wider(batch, running) == batch
    mixed = a.add(step if wide else _STEP, kept, added)
    return mixed if mixed.form == a.form_of("running-store") else a.convert("running-store", mixed)


def _weights(a: Arithmetic, problem: Problem, how: Implementation, step: str) -> tuple[PerRow, PerRow]:
    """1 - m and m."""
    m = problem.momentum
    assert m is not None  # noqa: S101  # as above
    if how.momentum_of == "batch":
        momentum = a.constant(_STEP, m)
        return a.constant(_STEP, 1.0 - _float(momentum)), momentum
    rest = a.constant(_STEP, 1.0 - m)
    return rest, a.constant(step, 1.0 - _float(rest) if how.momentum_of == "running" else m)


def _float(constant: PerRow) -> float:
    return float(constant.data[0, 0])
