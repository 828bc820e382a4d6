"""The forward pass of every norm, written once, as steps on an `Arithmetic`.

    c = x - mean(x)           (c = x where the norm is not centred)
    s = statistic(c), with eps
    y = gamma * c / s + beta

Source of the formulas: Hoffer et al., "Norm matters" (arXiv 1803.01814); range: Banner et al. (arXiv 1805.11046).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from normcheck.arithmetic.values import Elements, PerRow, Value
from normcheck.norms.affine import apply
from normcheck.norms.running import updated
from normcheck.norms.variance import VARIANCES, Moments, inverse_count, mean_of

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
    statistic; s: the divisor, with eps. mean, reciprocal: as the elements are normalised with them. saved: these two as
    a kernel returns them. effective_eps: eps as the kernel adds it, rounded, clamped or scaled with its row; None for
    weight norms, which have none. All are in units of the input.
    """

    y: Elements
    normalized: Elements | None
    mean: PerRow | None
    before_eps: PerRow
    s: PerRow
    reciprocal: PerRow | None
    running: tuple[PerRow | None, PerRow] | None = None
    saved: tuple[PerRow | None, PerRow | None] = (None, None)
    effective_eps: PerRow | None = None


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
    if how.rescale == "max":
        largest = a.maximum("rescale", a.absolute("rescale", x))
        return _in_units(_forward(a, a.divide("rescale", x, largest), problem, how), largest, problem)
    return _forward(a, x, problem, how)


def _forward(a: Arithmetic, x: Elements, problem: Problem, how: Implementation) -> Outputs:
    moments = _statistics(a, x, problem, how)
    mean, before_eps = moments.mean if problem.norm.centred else None, moments.square
    needs_root = problem.norm.statistic.eps_on == "variance"
    eps = _eps(a, problem, how)
    s, reciprocal = _divisor(a, _with_eps(a, moments, eps, how), how, needs_root=needs_root)
    mean, reciprocal = _rounded(a, "kept", how.kept, mean, reciprocal)
    saved = _rounded(a, "saved", how.saved, mean, reciprocal)
    weight = problem.weight
    offset = problem.weight_offset or how.weight_offset
    if weight is not None and offset:
        weight = a.add("gain", weight, a.constant("gain", offset))
    updates = problem.momentum is not None and problem.running_statistic is not None
    running = updated(a, moments, problem, how) if updates else None
    centred_x = moments.c if how.kept is None and how.recentred is None else None
    c = centred_x if problem.norm.centred else x
    y, normalized = apply(a, x, c, mean, s, reciprocal, weight, problem.bias, how)
    return Outputs(a.convert("store", y), normalized, mean, before_eps, s, reciprocal, running, saved, eps)


def _eps(a: Arithmetic, problem: Problem, how: Implementation) -> PerRow:
    """Eps as it is added."""
    eps = problem.eps
    if how.eps_rounded is not None:
        eps = float(a.constant("eps-rounded", eps).data[0, 0])
    return a.constant("eps", max(eps, how.eps_min))


def _with_eps(a: Arithmetic, moments: Moments, eps: PerRow, how: Implementation) -> PerRow:
    """The statistic + eps; contracted, sum * (1/n) + eps, where no rounding to another format comes in between."""
    in_one_format = a.form_of("variance") == a.form_of("total")
    if "eps" in how.contracted and how.division == "multiply" and moments.total is not None and in_one_format:
        return a.fma("eps", moments.total, inverse_count(a, how), eps)
    return a.add("eps", moments.square, eps)


def _rounded(a: Arithmetic, step: str, role: str | None, *values: PerRow | None) -> tuple[PerRow | None, PerRow | None]:
    """Mean and reciprocal, rounded to the step's format where the implementation has one for it."""
    if role is not None:
        values = tuple(None if value is None else a.convert(step, value) for value in values)
    mean, reciprocal = values
    return mean, reciprocal


def _in_units(outputs: Outputs, largest: PerRow, problem: Problem) -> Outputs:
    """The outputs of a row that was divided by its largest magnitude, as figures in units of that row."""
    degree = 2 if problem.norm.statistic.eps_on == "variance" else 1

    def times(value: PerRow | None, power: int) -> PerRow | None:
        if value is None:
            return None
        with np.errstate(all="ignore"):
            return PerRow(
                value.data * largest.data**power, None, None if value.degree is None else value.degree + power
            )

    before, s = times(outputs.before_eps, degree), times(outputs.s, 1)
    assert before is not None  # noqa: S101  # as they are given
    assert s is not None  # noqa: S101
    return replace(
        outputs,
        mean=times(outputs.mean, 1),
        before_eps=before,
        s=s,
        reciprocal=times(outputs.reciprocal, -1),
        effective_eps=times(outputs.effective_eps, degree),
    )


def _statistics(a: Arithmetic, x: Elements, problem: Problem, how: Implementation) -> Moments:
    """Mean, centred elements where they are at hand, and the statistic before eps."""
    if problem.running_statistic is not None and problem.momentum is None:
        return Moments(problem.running_mean, None, problem.running_statistic)
    centred = problem.norm.centred or how.statistic_centred
    if problem.norm.statistic.name == "l2":
        moments = VARIANCES[how.variance](a, x, centred, how)
        return moments._replace(square=_clipped(a, moments.square)) if how.clip else moments
    mean = mean_of(a, x, "sum-mean", "mean", how) if centred else None
    c = x if mean is None else a.subtract("center", x, mean)
    return Moments(mean, c, _ESTIMATES[problem.norm.statistic.name](a, c, problem, how))


def _clipped(a: Arithmetic, x: PerRow) -> PerRow:
    """The numbers within those of the run's io format; NaN stays."""
    form = a.form_of("clip")
    if form is None:
        return x
    return PerRow(np.clip(x.data, -form.max_finite, form.max_finite), x.form, x.degree)


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
        reciprocal = a.rsqrt("reciprocal", with_eps, within="root")
        return _inverse(reciprocal), reciprocal
    if needs_root and how.root_form == "reciprocal-root":
        inverse = a.divide("root", a.constant("root", 1.0), with_eps)
        reciprocal = a.sqrt("reciprocal", inverse)
        return _inverse(reciprocal), reciprocal
    s = a.sqrt("root", with_eps) if needs_root else with_eps
    if how.root_form == "divide":
        return s, None
    within = "root" if needs_root else None
    return s, a.divide("reciprocal", a.constant("reciprocal", 1.0), s, within=within)


def _inverse(x: PerRow) -> PerRow:
    """1/x as a figure to report: no step of the norm."""
    with np.errstate(all="ignore"):
        return PerRow(1.0 / x.data, None, None if x.degree is None else -x.degree)


def _weight_norm(a: Arithmetic, v: Elements, problem: Problem) -> Outputs:
    """w = g * v / ||v||_p with g per output channel, or one fixed rho for all (bounded weight norm).

    A vector of zeros has no direction: 0 / 0, NaN. Callers that can name it refuse it.
    """
    norm = _P_NORMS[problem.norm.statistic.name](a, v)
    reciprocal = a.divide("reciprocal", a.constant("reciprocal", 1.0), norm)
    normalized = a.multiply("normalize", v, reciprocal)
    scaled = normalized if problem.weight is None else a.multiply("gain", normalized, problem.weight)
    w = a.convert("store", scaled)
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
