"""The forward pass of every norm, written once, as steps on an `Arithmetic`.

    c = x - mean(x)           (c = x where the norm is not centred)
    s = statistic(c), with eps
    y = gamma * c / s + beta

Source of the formulas: Hoffer et al., "Norm matters" (arXiv 1803.01814); range: Banner et al. (arXiv 1805.11046).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from normcheck.arithmetic.values import Elements, PerRow, Value
from normcheck.norms.variance import VARIANCES, mean_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from normcheck.arithmetic.arithmetic import Arithmetic
    from normcheck.norms.implementations import Implementation
    from normcheck.norms.table import Norm


@dataclass(frozen=True, slots=True)
class Problem:
    """What is to be computed, apart from the arithmetic.

    eps: as given, in the units of what it is added to. scale: the constant C of the statistic. weight, bias: gamma
    and beta, per row or per element; None for 1 and 0. running_mean, running_statistic: fixed statistics of eval
    mode, or, with a momentum, the old ones that a batch's are mixed into; the latter is the variance for l2, else the
    statistic itself. momentum: weight of the batch's statistics; None in eval mode and where none are kept.
    residual: added to the input first. weight_offset: what the norm adds to gamma before it multiplies.
    """

    norm: Norm
    eps: float
    scale: float = 1.0
    k: int = 1
    weight: Value | None = None
    bias: Value | None = None
    running_mean: PerRow | None = None
    running_statistic: PerRow | None = None
    momentum: float | None = None
    residual: Elements | None = None
    weight_offset: float = 0.0


@dataclass(frozen=True, slots=True)
class Outputs:
    """What a forward pass leaves: y, its value before the affine step, and the row statistics on the way.

    normalized: None where the affine step is folded into one scale and shift. before_eps: the variance (l2) or the
    statistic; s: the divisor, with eps.
    """

    y: Elements
    normalized: Elements | None
    mean: PerRow | None
    before_eps: PerRow
    s: PerRow
    reciprocal: PerRow | None
    running: tuple[PerRow | None, PerRow] | None = None


def forward(a: Arithmetic, x: Elements, problem: Problem, how: Implementation) -> Outputs:
    """Run a norm on one block of rows under an arithmetic.

    Args:
        a: the arithmetic; decides every format.
        x: input elements, (rows, n) in parts.
        problem: the norm, its eps and its parameters.
        how: algorithm, order of operations and forms; formats in it concern the arithmetic only.

    NaN and infinities in a row spread through its statistic to the whole row, as the formulas say. A row without
    variance gives c = 0 and y = beta, unless s is 0 too: 0 / 0 is NaN.
    """
    if problem.norm.is_weight:
        return _weight_norm(a, a.load(x), problem)
    if problem.residual is not None:
        x = a.add("residual", x, problem.residual)
    x = a.load(x)
    mean, c, before_eps = _statistics(a, x, problem, how)
    on_variance = problem.norm.statistic.eps_on == "variance"
    with_eps = a.add("eps", before_eps, a.constant("eps", max(problem.eps, how.eps_min)))
    s, reciprocal = _divisor(a, with_eps, how, needs_root=on_variance)
    if how.saved is not None:
        for row in (mean, reciprocal):
            if row is not None:
                a.convert("saved", row)
    weight = problem.weight
    offset = problem.weight_offset or how.weight_offset
    if weight is not None and offset:
        weight = a.add("gain", weight, a.constant("gain", offset))
    running = _updated(a, mean, before_eps, problem)
    if how.normalize_form == "fold" and reciprocal is not None:
        y = _folded(a, x, mean, reciprocal, weight, problem.bias)
        return Outputs(a.convert("store", y), None, mean, before_eps, s, reciprocal, running)
    normalized = _normalize(a, x, c, mean, s, reciprocal, how)
    if how.normalized is not None:
        normalized = a.convert("cast", normalized)
    y = _affine(a, normalized, weight, problem.bias)
    return Outputs(a.convert("store", y), normalized, mean, before_eps, s, reciprocal, running)


def _updated(
    a: Arithmetic, mean: PerRow | None, statistic: PerRow, problem: Problem
) -> tuple[PerRow | None, PerRow] | None:
    """running = (1 - m) running + m batch; the batch's variance with n - 1 in place of n (torch's BatchNorm)."""
    if problem.momentum is None or problem.running_statistic is None:
        return None
    if problem.norm.statistic.name == "l2" and a.n > 1:
        statistic = a.multiply("running-update", statistic, a.constant("running-update", a.n / (a.n - 1)))
    old_mean = problem.running_mean
    new_mean = None if mean is None or old_mean is None else _mixed(a, old_mean, mean, problem.momentum)
    return new_mean, _mixed(a, problem.running_statistic, statistic, problem.momentum)


def _mixed(a: Arithmetic, old: PerRow, new: PerRow, momentum: float) -> PerRow:
    kept = a.multiply("running-update", old, a.constant("running-update", 1.0 - momentum))
    added = a.multiply("running-update", new, a.constant("running-update", momentum))
    return a.add("running-update", kept, added)


def _statistics(
    a: Arithmetic, x: Elements, problem: Problem, how: Implementation
) -> tuple[PerRow | None, Elements | None, PerRow]:
    """Mean, centred elements where they are at hand, and the statistic before eps."""
    if problem.running_statistic is not None and problem.momentum is None:
        return problem.running_mean, None, problem.running_statistic
    if problem.norm.statistic.name == "l2":
        return VARIANCES[how.variance](a, x, problem.norm.centred, how)
    mean = mean_of(a, x, "sum-mean", "mean", how) if problem.norm.centred else None
    c = x if mean is None else a.subtract("center", x, mean)
    return mean, c, _ESTIMATES[problem.norm.statistic.name](a, c, problem, how)


def _absolute_mean(a: Arithmetic, c: Elements, problem: Problem, how: Implementation) -> PerRow:
    return _scaled(a, mean_of(a, a.absolute("absolute", c), "sum", "statistic", how), problem)


def _largest(a: Arithmetic, c: Elements, problem: Problem, how: Implementation) -> PerRow:  # noqa: ARG001
    return _scaled(a, a.maximum("maximum", a.absolute("absolute", c)), problem)


def _mean_of_largest(a: Arithmetic, c: Elements, problem: Problem, how: Implementation) -> PerRow:
    largest = a.largest("topk", a.absolute("absolute", c), problem.k)
    return _scaled(a, mean_of(a, largest, "sum", "statistic", how, n=problem.k), problem)


def _span(a: Arithmetic, c: Elements, problem: Problem, how: Implementation) -> PerRow:  # noqa: ARG001
    return _scaled(a, a.subtract("statistic", a.maximum("maximum", c), a.minimum("maximum", c)), problem)


_ESTIMATES: dict[str, Callable[[Arithmetic, Elements, Problem, Implementation], PerRow]] = {
    "l1": _absolute_mean,
    "linf": _largest,
    "topk": _mean_of_largest,
    "range": _span,
}


def _scaled(a: Arithmetic, statistic: PerRow, problem: Problem) -> PerRow:
    return a.multiply("constant", statistic, a.constant("constant", problem.scale))


def _divisor(a: Arithmetic, with_eps: PerRow, how: Implementation, *, needs_root: bool) -> tuple[PerRow, PerRow | None]:
    """The divisor s, and 1/s unless the elements are divided by s themselves."""
    if needs_root and how.root_form == "rsqrt":
        reciprocal = a.rsqrt("reciprocal", with_eps)
        return _inverse(reciprocal), reciprocal
    s = a.sqrt("root", with_eps) if needs_root else with_eps
    if how.root_form == "divide":
        return s, None
    return s, a.divide("reciprocal", a.constant("reciprocal", 1.0), s)


def _inverse(x: PerRow) -> PerRow:
    """1/x as a figure to report: no step of the norm."""
    with np.errstate(all="ignore"):
        return PerRow(1.0 / x.data, None, None if x.degree is None else -x.degree)


def _normalize(
    a: Arithmetic,
    x: Elements,
    c: Elements | None,
    mean: PerRow | None,
    s: PerRow,
    reciprocal: PerRow | None,
    how: Implementation,
) -> Elements:
    """(x - mean) / s in the implementation's form."""
    if how.normalize_form == "shift" and mean is not None and reciprocal is not None:
        shift = a.multiply("fold", _negated(mean), reciprocal)
        return a.add("normalize", a.multiply("normalize", x, reciprocal), shift)
    if c is None:
        c = x if mean is None else a.subtract("center", x, mean)
    if reciprocal is None:
        return a.divide("normalize", c, s)
    return a.multiply("normalize", c, reciprocal)


def _folded(
    a: Arithmetic, x: Elements, mean: PerRow | None, reciprocal: PerRow, weight: Value | None, bias: Value | None
) -> Elements:
    """x * scale + shift with scale = gamma / s and shift = beta - mean * scale."""
    scale = reciprocal if weight is None else a.multiply("fold", weight, reciprocal)
    y = a.multiply("gain", x, scale)
    if mean is None:
        return y if bias is None else a.add("bias", y, bias)
    shift = a.multiply("fold", scale, _negated(mean))
    if bias is not None:
        shift = a.add("fold", shift, bias)
    return a.add("bias", y, shift)


def _affine(a: Arithmetic, y: Elements, weight: Value | None, bias: Value | None) -> Elements:
    if weight is not None:
        y = a.multiply("gain", y, weight)
    return y if bias is None else a.add("bias", y, bias)


def _weight_norm(a: Arithmetic, v: Elements, problem: Problem) -> Outputs:
    """w = g * v / ||v||_p with g per output channel, or one fixed rho for all (bounded weight norm).

    A vector of zeros has no direction: 0 / 0, NaN. Callers that can name it refuse it.
    """
    norm = _P_NORMS[problem.norm.statistic.name](a, v)
    reciprocal = a.divide("reciprocal", a.constant("reciprocal", 1.0), norm)
    normalized = a.multiply("normalize", v, reciprocal)
    w = a.convert("store", _affine(a, normalized, problem.weight, None))
    return Outputs(w, normalized, None, norm, norm, reciprocal)


def _euclidean(a: Arithmetic, v: Elements) -> PerRow:
    """||v||_2 = sqrt(sum v^2); where sums are means, sqrt(mean v^2) * sqrt(n)."""
    total = a.sum("sum", a.multiply("square", v, v))
    root = a.sqrt("root", total)
    return _times_count(a, root, math.sqrt(a.n))


def _absolute_sum(a: Arithmetic, v: Elements) -> PerRow:
    """||v||_1 = sum |v|."""
    return _times_count(a, a.sum("sum", a.absolute("absolute", v)), float(a.n))


def _times_count(a: Arithmetic, x: PerRow, count: float) -> PerRow:
    return a.multiply("count", x, a.constant("count", count)) if a.yields_mean("sum") else x


_P_NORMS: dict[str, Callable[[Arithmetic, Elements], PerRow]] = {
    "l2": _euclidean,
    "l1": _absolute_sum,
    "linf": lambda a, v: a.maximum("maximum", a.absolute("absolute", v)),
}


def _negated(x: PerRow) -> PerRow:
    return PerRow(-x.data, x.form, x.degree)
