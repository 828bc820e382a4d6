"""The backward pass of every norm, written once, as steps on an `Arithmetic`.

    dx = (1/s) [ g - mean(g) - (sum_j g_j y_j) ds/dx ]      (no mean(g) where the norm is not centred)
    dx = g / s                                              (under fixed statistics)

with g = gamma * dL/d(output), y = c / s, and the derivative of the statistic

    ds/dx = (C / k) (d - mean(d))                           (no mean(d) where the norm is not centred)

    l2      d = y                                      C = 1, k = n; mean(d) = 0
    l1      d = sign(c)                                k = n
    linf    d = sign(c) at the largest |c|, else 0     k = 1
    topk    d = sign(c) at the k largest |c|, else 0
    range   d = 1 at the largest c, -1 at the least    k = 1; mean(d) = 0

Weight norms divide by a sum and not by a mean: C = 1 and k = 1 for all of them. Source: Hoffer et al., "Norm matters"
(arXiv 1803.01814) for the norms; the derivatives are checked against automatic differentiation.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from normcheck.arithmetic.orders import DEFAULT_LANES, Order
from normcheck.arithmetic.values import PART, Array, Elements, PerRow, Value
from normcheck.norms.variance import mean_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from normcheck.arithmetic.arithmetic import Arithmetic
    from normcheck.arithmetic.emulated import Machine
    from normcheck.norms.forward import Outputs, Problem
    from normcheck.norms.implementations import Implementation

T = TypeVar("T")

FOLLOWS: dict[str, str] = {
    "grad-load": "load",
    "grad-gain": "gain",
    "grad-sum-mean": "sum-mean",
    "grad-mean": "mean",
    "grad-product": "square",
    "grad-sum": "sum",
    "grad-dot": "statistic",
    "grad-constant": "constant",
    "grad-sum-sign": "sum",
    "grad-mean-sign": "statistic",
    "grad-sign": "center",
    "grad-statistic": "square",
    "grad-center": "center",
    "grad-subtract": "center",
    "grad-normalize": "normalize",
    "grad-store": "store",
    "grad-weight": "sum",
    "grad-bias": "sum-mean",
    "grad-parameter": "running-store",
}
"""The forward step whose format, and for sums whose order, a step of the backward pass has."""


def gradient_machine(machine: Machine) -> Machine:
    """The machine of a forward pass, with the steps of the backward pass as well."""
    return dataclasses.replace(
        machine, formats=with_gradient_steps(machine.formats), orders=with_gradient_orders(machine.orders)
    )


def with_gradient_orders(orders: Mapping[str, Order]) -> dict[str, Order]:
    """The orders of the forward pass, and of the sums of the backward pass.

    A kernel's own order says how its forward pass adds, and may need the layout of that: gradients are then added in
    lanes and a tree, as the generic implementations do.
    """
    plain = {step: Order("lanes", DEFAULT_LANES) if order.is_scheduled else order for step, order in orders.items()}
    return {**with_gradient_steps(plain), **orders}


def with_gradient_steps(forward_steps: Mapping[str, T]) -> dict[str, T]:
    """What each forward step has (its format; its order, where it sums), and each step of the backward pass by it."""
    follow = {step: forward_steps[like] for step, like in FOLLOWS.items() if like in forward_steps}
    return {**forward_steps, **follow}


@dataclass(frozen=True, slots=True)
class Affine:
    """Which gradients of gamma and beta are wanted, whether or not the norm has these: without, they are 1 and 0.

    channels: of one row, each with a run of its elements and a gamma and beta of its own (group norms).
    """

    weight: bool
    bias: bool
    channels: int = 1


@dataclass(frozen=True, slots=True)
class Gradients:
    """What a backward pass leaves: dL/dx, and what there is of those of gamma and beta.

    weight, bias: batch norms' and weight norms' own, one a row; None without the parameter, and where rows share one.
    weight_terms, bias_terms: what each row adds to parameters that rows share, which `SharedGradient` adds up: of layer
    norms (rows, n), its elements; of instance and group norms (rows, channels), the sums over each channel's elements.
    None where that was not asked for.
    """

    x: Elements
    weight: PerRow | None
    bias: PerRow | None
    weight_terms: Elements | None = None
    bias_terms: Elements | None = None


@dataclass(frozen=True, slots=True)
class _Saved:
    """What the forward pass left: mean, divisor and reciprocal, in the format that they are kept in."""

    mean: PerRow | None
    s: PerRow
    reciprocal: PerRow | None


def backward(
    a: Arithmetic,
    gradient: Elements,
    x: Elements,
    outputs: Outputs,
    problem: Problem,
    how: Implementation,
    affine: Affine | None = None,
) -> Gradients:
    """Run the backward pass of a norm on one block of rows under an arithmetic.

    Args:
        a: the arithmetic; decides every format (`gradient_machine` of the forward pass's).
        gradient: dL/d(output), (rows, n) in parts; degrees count in its scale.
        x: the input that the forward pass loaded.
        outputs: of the forward pass: its mean and 1/s, rounded to the format that they are saved in, if any. c and y
            are computed from them and x again, as (x - mean) * (1/s) whatever the form of the forward pass; signs and
            places of the largest elements are those of that c, the first of equal ones.
        problem, how: as in the forward pass.
        affine: which gradients of gamma and beta are wanted; without, those that belong to one row each (batch and
            weight norms) and whose parameter the norm has.

    What is held from the forward pass has degree 0. NaN and infinities in a row of g or x spread through its sums to
    the whole row. A row whose 1/s is 0 has dx = 0; one whose s is 0 has NaN or infinities.
    """
    g = given = a.convert("grad-load", gradient)
    saved, weight = _saved(a, outputs, how), problem.weight
    fixed = problem.running_statistic is not None and problem.momentum is None
    owns = problem.norm.where in ("batch", "weight")
    wanted = affine or Affine(owns and weight is not None, owns and problem.bias is not None)
    c, y = _recomputed(a, a.held(x), saved) if not fixed or wanted.weight else (None, None)
    if weight is not None:
        g = a.multiply("grad-gain", g, _gain(a, weight, problem, how))
    if not fixed and c is not None and y is not None:
        g = _projected(a, g, c, y, problem, how)
    dx = a.convert("grad-store", _over(a, "grad-normalize", g, saved))
    terms = a.multiply("grad-product", given, y) if wanted.weight and y is not None else None
    given_if_wanted = given if wanted.bias else None
    if owns:
        return Gradients(dx, _summed(a, "grad-weight", terms), _summed(a, "grad-bias", given_if_wanted))
    if problem.norm.where != "layer":
        terms = _by_channel(a, "grad-weight", terms, wanted.channels)
        given_if_wanted = _by_channel(a, "grad-bias", given_if_wanted, wanted.channels)
    return Gradients(dx, None, None, terms, given_if_wanted)


def _saved(a: Arithmetic, outputs: Outputs, how: Implementation) -> _Saved:
    def kept(value: PerRow | None) -> PerRow | None:
        if value is None:
            return None
        held = a.held(value)
        return held if how.saved is None else a.convert("saved", held)

    return _Saved(kept(outputs.mean), a.held(outputs.s), kept(outputs.reciprocal))


def _over(a: Arithmetic, step: str, x: Elements, saved: _Saved) -> Elements:
    """x / s: by its reciprocal, unless the implementation divides."""
    if saved.reciprocal is None:
        return a.divide(step, x, saved.s)
    return a.multiply(step, x, saved.reciprocal)


def _recomputed(a: Arithmetic, x: Elements, saved: _Saved) -> tuple[Elements, Elements]:
    """c and y, from what was saved."""
    c = x if saved.mean is None else a.subtract("center", x, saved.mean)
    return c, _over(a, "normalize", c, saved)


def _gain(a: Arithmetic, weight: Value, problem: Problem, how: Implementation) -> Value:
    """Gamma, with what the norm adds to it."""
    offset = problem.weight_offset or how.weight_offset
    return a.add("grad-gain", weight, a.constant("grad-gain", offset)) if offset else weight


def _projected(a: Arithmetic, g: Elements, c: Elements, y: Elements, problem: Problem, how: Implementation) -> Elements:
    """g - mean(g) - (sum of g y) ds/dx."""
    norm = problem.norm
    name = norm.statistic.name
    factor = _dot(a, g, y, _terms(a, problem), how)
    if norm.has_constant:
        factor = a.multiply("grad-constant", factor, a.constant("grad-constant", problem.scale))
    direction = y if name == "l2" else _DIRECTIONS[name](c, problem.k)
    if norm.centred:
        if name in _UNBALANCED:
            mean = mean_of(a, direction, "grad-sum-sign", "grad-mean-sign", how)
            direction = a.subtract("grad-sign", direction, mean)
        g = a.subtract("grad-center", g, mean_of(a, g, "grad-sum-mean", "grad-mean", how))
    return a.subtract("grad-subtract", g, a.multiply("grad-statistic", direction, factor))


def _terms(a: Arithmetic, problem: Problem) -> int:
    """How many elements the statistic is the mean of."""
    if problem.norm.is_weight:
        return 1
    return {"l2": a.n, "l1": a.n, "topk": problem.k}.get(problem.norm.statistic.name, 1)


def _dot(a: Arithmetic, g: Elements, y: Elements, terms: int, how: Implementation) -> PerRow:
    """(sum of g y) / terms."""
    x, factors = (g, y) if "sum" in how.contracted else (a.multiply("grad-product", g, y), None)
    if terms == a.n or (terms > 1 and not a.yields_mean("grad-sum")):
        return mean_of(a, x, "grad-sum", "grad-dot", how, y=factors, n=terms)
    total = a.sum("grad-sum", x, factors)
    if a.yields_mean("grad-sum"):
        return a.multiply("grad-dot", total, a.constant("grad-dot", a.n / terms))
    return a.convert("grad-dot", total)


def _by_channel(a: Arithmetic, step: str, x: Elements | None, channels: int) -> Elements | None:
    return None if x is None else a.sum_runs(step, x, channels)


def _summed(a: Arithmetic, step: str, x: Elements | None) -> PerRow | None:
    """The sum of each row, as it is stored for the optimizer."""
    return None if x is None else as_parameter(a, step, a.sum(step, x))


def as_parameter(a: Arithmetic, step: str, total: PerRow) -> PerRow:
    """A sum of n terms in the format of the parameters; of a mean of means, that times n.

    An n beyond the format of `count` is taken as n / 2^e and then 2^e, e half of n's bits: only the sum may overflow.
    """
    if a.yields_mean(step):
        form, count = a.form_of("count"), float(a.n)
        if form is not None and count > form.max_finite:
            power = 2.0 ** (a.n.bit_length() // 2)
            total, count = a.multiply("count", total, a.constant("count", count / power)), power
        total = a.multiply("count", total, a.constant("count", count))
    return a.convert("grad-parameter", total)


def _signs(c: Elements, k: int) -> Elements:  # noqa: ARG001
    return _made(c, lambda index: np.sign(c.part(index)))


def _signs_of_largest(c: Elements, k: int) -> Elements:
    places = _places(c, np.abs, k)
    return _made(c, lambda index: _at(c.part(index), places, index, np.sign))


def _sign_of_largest(c: Elements, k: int) -> Elements:  # noqa: ARG001
    return _signs_of_largest(c, 1)


def _ends(c: Elements, k: int) -> Elements:  # noqa: ARG001
    high, low = _places(c, np.positive, 1), _places(c, np.negative, 1)

    def compute(index: int) -> Array:
        x = c.part(index)
        return _at(x, high, index, np.ones_like) - _at(x, low, index, np.ones_like)

    return _made(c, compute)


_DIRECTIONS: dict[str, Callable[[Elements, int], Elements]] = {
    "l1": _signs,
    "linf": _sign_of_largest,
    "topk": _signs_of_largest,
    "range": _ends,
}
_UNBALANCED = ("l1", "linf", "topk")
"""Statistics whose direction has a mean other than 0."""


def _made(c: Elements, compute: Callable[[int], Array]) -> Elements:
    """Elements of -1, 0 and 1, which are numbers of every format."""
    return Elements(lambda index, _: compute(index), c.parts, c.form, 0, length=c.length)


def _places(c: Elements, rank: Callable[[Array], Array], k: int) -> Array:
    """Places (rows, k) of the elements of each row that rank highest, NaN before all, the first of equal ones."""
    ranks, places = np.empty((len(c.part(0)), 0)), np.empty((len(c.part(0)), 0), np.int64)
    for index in range(c.parts):
        ranked = np.nan_to_num(rank(c.part(index)), nan=np.inf, posinf=np.inf, neginf=-np.inf)
        here = np.broadcast_to(index * PART + np.arange(ranked.shape[1]), ranked.shape)
        ranks, places = np.concatenate([ranks, ranked], axis=1), np.concatenate([places, here], axis=1)
        best = _best(ranks, k)
        ranks, places = np.take_along_axis(ranks, best, axis=1), np.take_along_axis(places, best, axis=1)
    return places


def _best(ranks: Array, k: int) -> Array:
    """Columns (rows, k) of the k largest of each row, the first of equal ones; all, where there are no more than k."""
    rows, n = ranks.shape
    if n <= k:
        return np.broadcast_to(np.arange(n), ranks.shape)
    if k == 1:
        return np.asarray(ranks.argmax(axis=1)).reshape(rows, 1)
    least = np.partition(ranks, n - k, axis=1)[:, n - k, None]
    above, equal = ranks > least, ranks == least
    room = k - np.count_nonzero(above, axis=1, keepdims=True)
    columns: Array = np.nonzero(above | (equal & (equal.cumsum(axis=1) <= room)))[1]
    return columns.reshape(rows, k)


def _at(x: Array, places: Array, index: int, value: Callable[[Array], Array]) -> Array:
    """The value of a part's elements at those places of their rows that lie in it, 0 elsewhere."""
    out, column = np.zeros_like(x), places - index * PART
    row, which = np.nonzero((column >= 0) & (column < x.shape[1]))
    chosen = column[row, which]
    out[row, chosen] = value(x[row, chosen])
    return out
