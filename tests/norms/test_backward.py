"""The backward pass: torch's automatic differentiation in float64, and a model that computes one number at a time."""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from normcheck.arithmetic.emulated import Emulated
from normcheck.arithmetic.exact import Exact
from normcheck.arithmetic.formats import format_named
from normcheck.arithmetic.orders import Order
from normcheck.arithmetic.rounding import Rounding
from normcheck.arithmetic.values import PART, Elements, PerRow
from normcheck.norms.backward import FOLLOWS, backward, gradient_machine
from normcheck.norms.constants import constant, effective_k
from normcheck.norms.forward import Problem, forward
from normcheck.norms.implementations import CONTRACTED, IMPLEMENTATIONS, Implementation
from normcheck.norms.parameters import Parameters
from normcheck.norms.table import NORMS, grouping, norm_named

sys.path.append(str(Path(__file__).resolve().parent))
sys.path.append(str(Path(__file__).resolve().parents[1] / "arithmetic"))
import oracle  # lives beside the tests of arithmetic
import test_emulated as model_of  # the model of the forward pass

SHAPES = {"batch": (4, 3, 5), "layer": (5, 12), "instance": (2, 3, 11), "group": (3, 6, 4)}
TIGHT = {"rtol": 1e-10, "atol": 1e-10}
WIDE = IMPLEMENTATIONS["wide"]
FLOAT16, K = format_named("fp16"), 4


def noise(*shape, seed=0, mean=0.0, std=1.0):
    return np.random.default_rng(seed).normal(mean, std, shape)


# ------------------------------------------------------------------------------ exact: automatic differentiation


def rows_of(x, where, groups=2):
    """Rows that share a statistic, of a torch tensor."""
    if where == "batch":
        return x.transpose(0, 1).reshape(x.shape[1], -1)
    if where == "group":
        return x.reshape(x.shape[0] * groups, -1)
    if where == "instance":
        return x.reshape(x.shape[0] * x.shape[1], -1)
    return x.reshape(-1, x.shape[-1]) if where == "layer" else x.reshape(x.shape[0], -1)


def statistic_of(c, norm, eps, scale, k):
    """The divisor of rows, by the formulas of docs/numerics.md."""
    name = norm.statistic.name
    if norm.is_weight:
        return torch.linalg.vector_norm(c, {"l2": 2, "l1": 1, "linf": math.inf}[name], dim=1, keepdim=True)
    if name == "l2":
        return torch.sqrt((c * c).mean(1, keepdim=True) + eps)
    if name == "range":
        plain = c.max(1, keepdim=True).values - c.min(1, keepdim=True).values
    else:
        terms = {"l1": c.shape[1], "linf": 1, "topk": k}[name]
        plain = torch.topk(c.abs(), terms, dim=1).values.mean(1, keepdim=True)
    return scale * plain + eps


def by_torch(x, g, norm, eps, scale, k, weight, bias, running=(None, None)):
    """Gradients of the sum of g * output, as rows: x's, gamma's and beta's."""
    leaves = {"x": x, "weight": weight, "bias": bias}
    leaf = {n: torch.tensor(v, requires_grad=True) for n, v in leaves.items() if v is not None}
    rows = rows_of(leaf["x"], norm.where)
    mean, fixed = (None if r is None else torch.tensor(r).reshape(-1, 1) for r in running)
    c = rows - (rows.mean(1, keepdim=True) if fixed is None else mean) if norm.centred else rows
    s = statistic_of(c, norm, eps, scale, k)
    if fixed is not None:
        s = torch.sqrt(fixed + eps) if norm.statistic.name == "l2" else fixed + eps
    y = c / s

    def spread(p):
        if norm.where == "layer":
            return p.reshape(1, -1)
        if norm.where == "group":
            return rows_of(p.reshape(1, -1, 1).expand(x.shape), "group")
        return p.repeat(len(rows) // len(p)).reshape(-1, 1)

    for name in leaf.keys() - {"x"}:
        y = y * spread(leaf[name]) if name == "weight" else y
    if "bias" in leaf:
        y = y + spread(leaf["bias"])
    y.backward(rows_of(torch.tensor(g), norm.where))
    got = {n: v.grad.numpy() for n, v in leaf.items()}
    return rows_of(torch.tensor(got["x"]), norm.where).numpy(), got.get("weight"), got.get("bias")


def scale_and_k(norm, n, kind="exact"):
    k = effective_k(n, K) if norm.statistic.name == "topk" else 1
    return (constant(norm.statistic.name, kind, n, k) if norm.has_constant else 1.0), k


def exactly(x, g, name, *, eps=0.01, weight=None, bias=None, running=(None, None), how=WIDE, offset=0.0):
    """Gradients under `Exact`: rows of dx, gamma's, beta's."""
    norm = norm_named(name)
    group = grouping(norm, x.shape, 2)
    scale, k = scale_and_k(norm, group.size)
    values = Parameters(weight, bias, *running).values(norm, group, 0, group.groups, None)
    problem = Problem(norm=norm, eps=0.0 if norm.is_weight else eps, scale=scale, k=k, weight_offset=offset, **values)
    a = Exact(group.groups, group.size)
    rows, given = (Elements.of(rows_of(torch.tensor(v), norm.where).numpy().copy()) for v in (x, g))
    out = backward(a, given, rows, forward(a, rows, problem, how), problem, how)
    return whole(out.x), *(None if v is None else v.data[:, 0] for v in (out.weight, out.bias))


def in_float64(x, g, name, implementation, *, eps=0.01, weight=None, bias=None, running=(None, None)):
    """As `exactly`, every operation rounded to float64, sums in the implementation's order."""
    norm, form, how = norm_named(name), format_named("fp64"), IMPLEMENTATIONS[implementation]
    group = grouping(norm, x.shape, 2)
    scale, k = scale_and_k(norm, group.size)
    values = Parameters(weight, bias, *running).values(norm, group, 0, group.groups, form)
    problem = Problem(norm=norm, eps=0.0 if norm.is_weight else eps, scale=scale, k=k, **values)
    machine = how.machine(form, form, Rounding())
    before, after = (Emulated(m, group.groups, group.size) for m in (machine, gradient_machine(machine)))
    rows, given = (Elements.of(rows_of(torch.tensor(v), norm.where).numpy().copy()) for v in (x, g))
    loaded = before.load(rows)
    out = backward(after, given, loaded, forward(before, loaded, problem, how), problem, how)
    return whole(out.x), *(None if v is None else v.data[:, 0] for v in (out.weight, out.bias))


def whole(x):
    return np.concatenate([x.part(index) for index in range(x.parts)], axis=1)


def parameters_of(norm, shape, seed=8):
    """Gamma and beta that the norm has; bounded weight norm has one fixed rho, weight norm no beta."""
    count = (
        1 if norm.where == "bounded-weight" else shape[-1] if norm.where == "layer" else shape[norm.where != "weight"]
    )
    weight, bias = noise(count, seed=seed, mean=1.0, std=0.5), noise(count, seed=seed + 1)
    return weight, None if norm.is_weight else bias


@pytest.mark.parametrize("implementation", ["pure", "pure-scaled", "pure-sequential"])
@pytest.mark.parametrize("name", NORMS)
def test_no_order_of_summation_changes_what_it_is(name, implementation):
    norm = NORMS[name]
    shape = SHAPES.get(norm.where, (5, 72)) if norm.where != "layer" else (5, 72)  # rows of more than one block of 64
    x, g = noise(*shape, seed=1, mean=0.7, std=2.5), noise(*shape, seed=2, mean=0.3)
    weight, bias = parameters_of(norm, shape)
    scale, k = scale_and_k(norm, grouping(norm, shape, 2).size)
    want = by_torch(x, g, norm, 0.01, scale, k, weight, bias)
    got = in_float64(x, g, name, implementation, weight=weight, bias=bias)
    np.testing.assert_allclose(got[0], want[0], **TIGHT)
    for mine, theirs in zip(got[1:], want[1:], strict=True):
        if mine is not None:
            np.testing.assert_allclose(mine, theirs, **TIGHT)


@pytest.mark.parametrize("affine", [False, True], ids=["plain", "affine"])
@pytest.mark.parametrize("name", NORMS)
def test_it_is_what_automatic_differentiation_gives(name, affine):
    norm = NORMS[name]
    shape = SHAPES.get(norm.where, (5, 12))
    x, g = noise(*shape, seed=1, mean=0.7, std=2.5), noise(*shape, seed=2, mean=0.3)
    weight, bias = parameters_of(norm, shape) if affine else (None, None)
    scale, k = scale_and_k(norm, grouping(norm, shape, 2).size)
    want = by_torch(x, g, norm, 0.01, scale, k, weight, bias)
    got = exactly(x, g, name, weight=weight, bias=bias)
    np.testing.assert_allclose(got[0], want[0], **TIGHT)
    owns = norm.where in ("batch", "weight")
    for mine, theirs in zip(got[1:], want[1:], strict=True):
        assert (mine is not None) == (owns and theirs is not None)
        if mine is not None:
            np.testing.assert_allclose(mine, theirs, **TIGHT)


@pytest.mark.parametrize("affine", [False, True], ids=["plain", "affine"])
@pytest.mark.parametrize("name", [name for name, norm in NORMS.items() if norm.where == "batch"])
def test_under_fixed_statistics_nothing_flows_through_them(name, affine):
    norm, shape = NORMS[name], SHAPES["batch"]
    x, g = noise(*shape, seed=1), noise(*shape, seed=2)
    running = (noise(3, seed=3) if norm.centred else None, np.abs(noise(3, seed=4)) + 0.1)
    weight, bias = parameters_of(norm, shape) if affine else (None, None)
    scale, k = scale_and_k(norm, 20)
    want = by_torch(x, g, norm, 0.01, scale, k, weight, bias, running)
    got = exactly(x, g, name, weight=weight, bias=bias, running=running)
    for mine, theirs in zip(got, want, strict=True):
        assert (mine is None) == (theirs is None)
        if mine is not None:
            np.testing.assert_allclose(mine, theirs, **TIGHT)


@pytest.mark.parametrize("name", ["layer-l2", "rms", "layer-l1", "layer-linf", "layer-topk", "layer-range"])
def test_it_is_the_limit_of_differences(name):
    """A check that shares nothing with either formula: central differences of the forward pass itself."""
    norm = NORMS[name]
    x, g = noise(2, 9, seed=5), noise(2, 9, seed=6)
    scale, k = scale_and_k(norm, 9)
    problem = Problem(norm=norm, eps=0.01, scale=scale, k=k)

    def loss(at):
        return float((whole(forward(Exact(2, 9), Elements.of(at), problem, WIDE).y) * g).sum())

    step, want = 1e-6, np.zeros_like(x)
    for place in np.ndindex(*x.shape):
        moved = np.zeros_like(x)
        moved[place] = step
        want[place] = (loss(x + moved) - loss(x - moved)) / (2 * step)
    np.testing.assert_allclose(exactly(x, g, name)[0], want, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("name", ["layer-l2", "layer-l1", "layer-linf", "layer-topk", "layer-range"])
def test_a_row_in_parts_is_the_same_row(name):
    n = PART + 777
    x, g = noise(1, n, seed=1), noise(1, n, seed=2)
    x[0, PART + 5], x[0, 3] = 30.0, -20.0  # the largest in the second part, the least in the first
    norm = NORMS[name]
    scale, k = scale_and_k(norm, n)
    want = by_torch(x, g, norm, 0.01, scale, k, None, None)[0]
    np.testing.assert_allclose(exactly(x, g, name)[0], want, **TIGHT)


@pytest.mark.parametrize(
    "how", ["one-pass", "fold", "shift", "divide", "rsqrt", "fused", "prescale", "multiply", "offset"]
)
def test_the_forms_of_the_forward_pass_change_nothing_exactly(how):
    field = {"one-pass": "variance", "fold": "normalize_form", "shift": "normalize_form", "divide": "root_form",
             "rsqrt": "root_form", "prescale": "division", "multiply": "division"}.get(how)  # fmt: skip
    changed = replace(
        WIDE, **({field: how} if field else {"contracted": ("sum",)} if how == "fused" else {"weight_offset": 1.0})
    )
    x, g, weight = noise(3, 12, seed=1), noise(3, 12, seed=2), noise(12, seed=3)
    for name in ("layer-l2", "layer-l1", "layer-topk"):
        scale, k = scale_and_k(NORMS[name], 12)
        gamma = weight + 1.0 if how == "offset" else weight
        want = by_torch(x, g, NORMS[name], 0.01, scale, k, gamma, None)[0]
        np.testing.assert_allclose(exactly(x, g, name, weight=weight, how=changed)[0], want, **TIGHT)


def test_an_offset_of_the_norm_itself_counts_too():
    x, g, weight = noise(3, 12, seed=1), noise(3, 12, seed=2), noise(12, seed=3)
    want = by_torch(x, g, NORMS["rms"], 0.01, 1.0, 1, weight + 1.0, None)[0]
    np.testing.assert_allclose(exactly(x, g, "rms", weight=weight, offset=1.0)[0], want, **TIGHT)


# -------------------------------------------------------------------------------------- what the rows do


def test_the_gradient_of_a_centred_norm_has_no_mean_and_moves_no_row_along_itself():
    """dx is orthogonal to 1, and to x where eps is 0: the output does not depend on the input's mean and scale."""
    x, g = noise(4, 32, seed=1, mean=3.0), noise(4, 32, seed=2, mean=1.0)
    for name in ("layer-l2", "layer-l1", "layer-linf", "layer-topk", "layer-range"):
        dx = exactly(x, g, name, eps=0.0)[0]
        assert np.abs(dx.sum(1)).max() < 1e-12
        assert np.abs((dx * x).sum(1)).max() < 1e-12
        assert np.abs(dx).max() > 0.1


def test_of_equal_elements_the_first_is_the_largest():
    x, g = np.array([[3.0, -3.0, 1.0, 3.0]]), np.array([[1.0, 0.0, 0.0, 0.0]])
    problem = Problem(norm=NORMS["layer-linf-uncentred"], eps=0.0, scale=1.0)
    a = Exact(1, 4)
    rows = Elements.of(x)
    dx = whole(backward(a, Elements.of(g), rows, forward(a, rows, problem, WIDE), problem, WIDE).x)
    np.testing.assert_allclose(dx, [[0.0, 0.0, 0.0, 0.0]], atol=1e-15)  # all of 1/3 is taken back at the first
    g = np.array([[0.0, 0.0, 0.0, 1.0]])
    dx = whole(backward(a, Elements.of(g), rows, forward(a, rows, problem, WIDE), problem, WIDE).x)
    np.testing.assert_allclose(dx, [[-1 / 3, 0.0, 0.0, 1 / 3]], atol=1e-15)


def test_nan_in_a_row_stays_in_it():
    x, g = noise(3, 8, seed=1), noise(3, 8, seed=2)
    for name in ("layer-l2", "layer-l1", "layer-linf", "layer-topk", "layer-range"):
        clean = exactly(x, g, name)[0]
        for bad in ("x", "g"):
            spoiled = {"x": x.copy(), "g": g.copy()}
            spoiled[bad][1, 4] = np.nan
            dx = exactly(spoiled["x"], spoiled["g"], name)[0]
            assert np.isnan(dx[1]).all()
            assert np.array_equal(dx[[0, 2]], clean[[0, 2]])


def test_a_row_without_variance_has_a_gradient_by_eps():
    x, g = np.full((1, 6), 2.0), noise(1, 6, seed=2)
    for name, s in (("layer-l2", math.sqrt(0.01)), ("layer-l1", 0.01), ("layer-linf", 0.01), ("layer-range", 0.01)):
        np.testing.assert_allclose(exactly(x, g, name)[0], (g - g.mean()) / s, **TIGHT)


# ------------------------------------------------------------------------------- emulated: one number at a time


LIKE = {
    "load": ["grad-load"], "gain": ["grad-gain"], "mean_sum": ["grad-sum-mean", "grad-bias"], "mean": ["grad-mean"],
    "product": ["grad-product", "grad-statistic"], "sum": ["grad-sum", "grad-sum-sign", "grad-weight"],
    "statistic": ["grad-dot", "grad-constant", "grad-mean-sign"],
    "center": ["grad-sign", "grad-center", "grad-subtract"],
    "normalize": ["grad-normalize"], "store": ["grad-store"], "running": ["grad-parameter"],
}  # fmt: skip
"""The field of an implementation that holds the format of each step of the backward pass."""


class Model(model_of.Model):
    """The model of the forward pass, continued: the gradient of a row by an implementation's fields."""

    def __post_init__(self):
        super().__post_init__()
        roles = {
            step: self.how.get(f, "param" if f == "running" else "io") for f, steps in LIKE.items() for step in steps
        }
        formats = self.a.formats | {step: self.format(role) for step, role in roles.items()}
        self.after = model_of.Scalar(formats, self.rounding, self.careful)
        self.orders |= dict.fromkeys(("grad-sum", "grad-sum-sign", "grad-weight"), self.orders["sum"])
        self.orders |= dict.fromkeys(("grad-sum-mean", "grad-bias"), self.orders["sum-mean"])

    def forward_state(self, index, x, statistic, *, centred, eps, scale, k):
        """Mean, s and 1/s of a row, as the forward pass computes them."""
        self.a.row = index
        x = [self.a.operate("load", "copy", v) for v in x]
        mean, _, before = self.statistics(x, statistic, centred, scale, k)
        total = self.a.operate("eps", "add", before, self.a.constant("eps", eps))
        s, reciprocal = self.divisor(total, statistic)
        if self.how.get("kept"):
            mean = mean if mean is None else self.a.convert("kept", mean, "mean")
            reciprocal = reciprocal if reciprocal is None else self.a.convert("kept", reciprocal, "reciprocal")
        return x, mean, s, reciprocal

    def gradient(self, index, x, g, statistic, *, centred, eps, scale=1.0, k=1, weight=None, bias=None, offset=0.0):
        """Return dx of a row, and the gradients of its own gamma and beta."""
        x, mean, s, reciprocal = self.forward_state(index, x, statistic, centred=centred, eps=eps, scale=scale, k=k)
        self.a, forwards = self.after, self.a
        try:
            return self.backwards(index, x, g, mean, s, reciprocal, statistic, centred, scale, k, weight, bias, offset)
        finally:
            self.a = forwards

    def backwards(self, index, x, g, mean, s, reciprocal, statistic, centred, scale, k, weight, bias, offset):
        a, n = self.a, len(x)
        a.row = index
        o = a.operate
        g = given = [o("grad-load", "copy", v) for v in g]
        if self.how.get("saved"):
            sources = ("kept", "kept") if self.how.get("kept") else ("mean", "reciprocal")
            mean = mean if mean is None else a.convert("saved", mean, sources[0])
            reciprocal = reciprocal if reciprocal is None else a.convert("saved", reciprocal, sources[1])

        def over(step, values):
            if reciprocal is None:
                return [o(step, "divide", v, s) for v in values]
            return [o(step, "multiply", v, reciprocal) for v in values]

        c = self.centred(x, mean) if mean is not None else x
        y = over("normalize", c)
        if weight is not None:
            weight = weight if isinstance(weight, list) else [weight]
            g = self.gained(g, weight, offset)
        terms = {"l2": n, "l1": n, "topk": k}.get(statistic, 1)
        q = self.dot(g, y, terms)
        if statistic != "l2":
            q = o("grad-constant", "multiply", q, a.constant("grad-constant", scale))
        d = y if statistic == "l2" else self.direction(c, statistic, k)
        if centred:
            if statistic in ("l1", "linf", "topk"):
                middle = self.mean(d, "grad-sum-sign", "grad-mean-sign")
                d = self.less("grad-sign", d, middle)
            g = self.less("grad-center", g, self.mean(g, "grad-sum-mean", "grad-mean"))
        taken = [o("grad-statistic", "multiply", v, q) for v in d]
        kept = [o("grad-subtract", "subtract", v, t) for v, t in zip(g, taken, strict=True)]
        a.cancel("grad-subtract", [*g, *taken], kept)
        dx = [a.convert("grad-store", v, "grad-normalize") for v in over("grad-normalize", kept)]
        return dx, *self.own(given, y, weight, bias)

    def own(self, given, y, weight, bias):
        """Gradients of the row's gamma and beta."""
        o, own = self.a.operate, [None, None]
        if weight is not None and len(weight) == 1:
            own[0] = self.total(
                "grad-weight", [o("grad-product", "multiply", v, w) for v, w in zip(given, y, strict=True)]
            )
        if bias is not None:
            own[1] = self.total("grad-bias", given)
        return own

    def gained(self, g, weight, offset):
        o = self.a.operate
        if offset:
            weight = [o("grad-gain", "add", w, self.a.constant("grad-gain", offset)) for w in weight]
        return [o("grad-gain", "multiply", v, w) for v, w in model_of.spread(g, weight)]

    def less(self, step, values, one):
        out = [self.a.operate(step, "subtract", v, one) for v in values]
        self.a.cancel(step, [*values, one], out)
        return out

    def dot(self, g, y, terms):
        """(sum of g y) / terms: a mean of the row, one of k elements, or the sum itself."""
        a, order, division = self.a, self.orders["grad-sum"], self.how.get("division", "divide")
        x, y = g, list(y)
        if "sum" not in self.how.get("contracted", ()):
            x, y = [a.operate("grad-product", "multiply", v, w) for v, w in zip(g, y, strict=True)], None
        if terms == len(g):
            return self.mean(x, "grad-sum", "grad-dot", y)
        if order.is_mean:
            total = a.sum("grad-sum", x, order, y)
            return a.operate("grad-dot", "multiply", total, a.constant("grad-dot", len(g) / terms))
        if terms > 1 and division == "prescale":
            inverse = a.operate("count", "divide", 1.0, a.constant("count", float(terms)))
            x = [a.operate("grad-sum", "multiply", v, inverse) for v in x]
        if terms == 1 or division == "prescale":
            return a.convert("grad-dot", a.sum("grad-sum", x, order, y), "grad-sum")
        total, last = self.whole_sum(x, "grad-sum", y)
        count = a.operate("count", "copy", float(terms))
        if division == "multiply":
            return a.convert("grad-dot", a.operate(last, "multiply", total, self.inverse(count, "count")), last)
        return self.quotient("grad-dot", last, total, count)

    def direction(self, c, statistic, k):
        def sign(v):
            return float((v > 0) - (v < 0))

        if statistic == "range":
            high, low = c.index(max(c)), c.index(min(c))
            return [float(i == high) - float(i == low) for i in range(len(c))]
        count = {"l1": len(c), "linf": 1, "topk": k}[statistic]
        chosen = set(sorted(range(len(c)), key=lambda i: (-abs(c[i]), i))[:count])
        return [sign(v) if i in chosen else 0.0 for i, v in enumerate(c)]

    def total(self, step, terms):
        a = self.a
        total, source = a.sum(step, terms, self.orders[step]), step
        if self.orders[step].is_mean:
            total, source = a.operate("count", "multiply", total, a.constant("count", float(len(terms)))), "count"
        return a.convert("grad-parameter", total, source)


def emulated(x, g, name, io, how, *, eps=1e-5, weight=None, bias=None, rounding=None, offset=0.0):
    """Run rows through both passes; return the outcome and the backward pass's steps."""
    norm, form = norm_named(name), format_named(io)
    rows, n = x.shape
    scale, k = scale_and_k(norm, n)
    machine = how.machine(form, form, rounding or Rounding())

    def value(p):
        if p is None:
            return None
        p = np.array([model_of.rounded(float(v), oracle.target(form.name))[0] for v in p])
        return PerRow(p.reshape(-1, 1), form, 0) if norm.where == "batch" else Elements.of(p.reshape(1, -1), form, 0)

    problem = Problem(
        norm=norm, eps=eps, scale=scale, k=k, weight=value(weight), bias=value(bias), weight_offset=offset
    )
    before, after = (Emulated(m, rows, n) for m in (machine, gradient_machine(machine)))
    loaded = before.load(Elements.of(x))
    outputs = forward(before, loaded, problem, how)
    return backward(after, Elements.of(g), loaded, outputs, problem, how), after.steps, problem


def compare(x, g, name, io, how, fields, *, weight=None, bias=None, eps=1e-5, offset=0.0, careful=False):
    """Run the code and the model on the same rows; compare dx, parameters' gradients, and the record of each step."""
    norm = norm_named(name)
    got, steps, _ = emulated(x, g, name, io, how, eps=eps, weight=weight, bias=bias, offset=offset)
    model = Model(format_named(io).name, fields, careful=careful)
    scale, k = scale_and_k(norm, x.shape[1])
    cast = [
        None if p is None else [model_of.rounded(float(v), oracle.target(model.io))[0] for v in p]
        for p in (weight, bias)
    ]
    want = []
    for index, (row, gradient) in enumerate(zip(x.astype(float).tolist(), g.astype(float).tolist(), strict=True)):
        w, b = (p if p is None or norm.where != "batch" else p[index] for p in cast)
        owned = {"weight": w, "bias": b if norm.where == "batch" else None}
        settings = {"centred": norm.centred, "eps": eps, "scale": scale, "k": k, "offset": offset}
        want.append(model.gradient(index, row, gradient, norm.statistic.name, **settings, **owned))
    oracle.assert_same(whole(got.x).astype(float).ravel(), np.array([w[0] for w in want]).ravel(), label=f"{name} {io}")
    for place, mine in ((1, got.weight), (2, got.bias)):
        if mine is not None:
            oracle.assert_same(mine.data[:, 0], np.array([w[place] for w in want]), label=f"{name} parameter {place}")
    assert_steps(steps, model.after.steps)
    return steps


def assert_steps(steps, want):
    """Every event, magnitude, lost mass and cancelled bit of every step."""
    assert sorted(steps) == sorted(want)
    for name, record in steps.items():
        model, events = want[name], record.events
        assert record.form.name == model.format, name
        overflow, underflow, subnormal, invalid, absorbed = (int(c) for c in events.counts[:5])
        counted = (
            events.operations,
            overflow,
            underflow,
            subnormal,
            invalid,
            absorbed,
            int(np.count_nonzero(events.flags)),
        )
        assert counted == tuple(getattr(model, e) for e in model_of.EVENTS), name
        assert events.extremes[0] == pytest.approx(model.largest, rel=2e-7), name
        assert events.extremes[1] == pytest.approx(model.least, rel=2e-7), name
        assert events.cancelled_bits == pytest.approx(model.cancelled, rel=2e-7, abs=2e-7), name
        if model.lost_mass is None:
            assert events.lost_mass is None, name
        else:
            assert events.lost_mass == pytest.approx(model.lost_mass, rel=1e-9, abs=1e-12), name


def inputs(n, seed=0):
    """Rows and gradients, one of which is so small that much of it is lost in float16."""
    x = model_of.inputs(n, seed)
    g = np.random.default_rng((seed, n, 7)).standard_normal((3, n)) * [[1.0], [0.01], [3e-6]]
    return x, g.astype(np.float32)


STATISTICS = ("layer-l2", "rms", "layer-l1", "layer-linf", "layer-topk", "layer-range", "layer-l1-uncentred")


@pytest.mark.parametrize("io", ["fp16", "bf16"])
@pytest.mark.parametrize("implementation", model_of.GENERIC)
@pytest.mark.parametrize("name", STATISTICS)
def test_generic_implementations_are_bit_equal_to_the_model(name, implementation, io):
    for n in (2, 9, 33, 65, 130):
        x, g = inputs(n)
        compare(x, g, name, io, IMPLEMENTATIONS[implementation], model_of.GENERIC[implementation])


@pytest.mark.parametrize("implementation", ["pure", "pure-scaled", "wide-sum", "wide"])
@pytest.mark.parametrize("name", ["batch-l2", "batch-l1", "batch-topk", "layer-l2", "layer-l1"])
def test_affine_parameters_and_their_gradients(name, implementation):
    x, g = inputs(40)
    count = 3 if name.startswith("batch") else 40
    weight, bias = noise(count, seed=4, mean=1.0), noise(count, seed=5)
    how, fields = IMPLEMENTATIONS[implementation], model_of.GENERIC[implementation]
    steps = compare(x, g, name, "fp16", how, fields, weight=weight, bias=bias, careful=True)
    assert ("grad-parameter" in steps) == (count == 3)
    compare(x, g, name, "fp16", how, fields, weight=weight, offset=1.0, careful=True)


@pytest.mark.parametrize(
    "fields",
    [
        {"root_form": "divide"},
        {"division": "multiply"},
        {"division": "prescale"},
        {"contracted": ("sum",)},
        {"contracted": ("sum",), "division": "prescale"},
        {"contracted": CONTRACTED},
        {"contracted": ("bias", "fold"), "normalize_form": "fold"},
        {"normalize_form": "gain-first", "absent_bias": "zero"},
        {"sum": "float32", "total": "bfloat16", "mean_sum": "float32", "mean_total": "bfloat16"},
        {"kept": "bfloat16", "saved": "float8_e5m2"},
        {"division": "multiply", "inverse_count": "bfloat16"},
        {"saved": "bfloat16"},
        {"recentred": "float32", "contracted": ("eps",), "division": "multiply"},
        {"order": Order("sequential")},
        {"order": Order("blocks", 8), "mean_order": Order("lanes", 4)},
        {"center": "float32", "normalize": "bfloat16"},
        {"statistic": "float32", "product": "bfloat16"},
    ],
    ids=str,
)
def test_fields_of_an_implementation_mean_in_the_backward_pass_what_they_mean_in_the_forward_pass(fields):
    x, g = inputs(37)
    how = replace(IMPLEMENTATIONS["pure"], name="changed", **fields)
    for name in ("layer-l2", "layer-l1", "layer-topk"):
        compare(x, g, name, "fp16", how, fields, eps=0.01, careful=True)


@pytest.mark.parametrize("io", ["fp16", "bf16", "tf32"])
@pytest.mark.parametrize("row", [0, 1, 2], ids=["load", "sum", "product"])
def test_what_overflows(row, io):
    """A gradient beyond float16, one whose sum is, and one whose product with a peak of y is."""
    g = np.array([[7e4] + [1.0] * 39, [9000.0] * 40, [0.0] * 39 + [6e4]], np.float32)[[row, row]]
    g[1] /= 1e5
    x = np.stack([[0.0] * 39 + [1.0]] * 2).astype(np.float32)
    for implementation in ("pure", "wide-sum", "wide"):
        for name in ("layer-l2", "layer-linf"):
            how, fields = IMPLEMENTATIONS[implementation], model_of.GENERIC[implementation]
            steps = compare(x, g, name, io, how, fields, careful=True)
            if io == "fp16" and implementation == "pure":
                step = ("grad-load", "grad-sum-mean", "grad-product")[row]
                assert steps[step].events.counts[0] >= 1


def test_every_step_has_a_degree_in_the_scale_of_the_gradient():
    x, g = inputs(40)
    one = {"grad-load", "grad-sum-mean", "grad-mean", "grad-product", "grad-sum", "grad-dot", "grad-constant",
           "grad-statistic", "grad-center", "grad-subtract", "grad-normalize", "grad-store"}  # fmt: skip
    for name in STATISTICS:
        _, steps, _ = emulated(x, g, name, "fp16", IMPLEMENTATIONS["pure"])
        degrees = {step: record.degree for step, record in steps.items()}
        assert degrees == {step: int(step in one) for step in degrees}, name
        _, larger, _ = emulated(x, g * 4, name, "fp16", IMPLEMENTATIONS["pure"])
        for step, record in steps.items():  # the third row underflows, so only the largest magnitudes are compared
            assert larger[step].events.extremes[0] == record.events.extremes[0] * 4 ** degrees[step], (name, step)


def test_a_gradient_machine_adds_steps_and_changes_none():
    how = IMPLEMENTATIONS["wide-sum"]
    machine = how.machine(FLOAT16, FLOAT16, Rounding())
    got = gradient_machine(machine)
    assert {step: got.formats[step] for step in machine.formats} == machine.formats
    assert set(got.formats) - set(machine.formats) == set(FOLLOWS)
    wide = {step for step in FOLLOWS if got.formats[step].name == "float32"}
    assert wide == {"grad-sum", "grad-sum-mean", "grad-sum-sign", "grad-weight", "grad-bias"}
    kept = gradient_machine(how.machine(FLOAT16, format_named("fp32"), Rounding()))
    assert kept.formats["grad-parameter"].name == "float32"  # beside the parameters
    pure = gradient_machine(Implementation(name="plain", title="plain").machine(FLOAT16, FLOAT16, Rounding()))
    assert {form.name for form in pure.formats.values()} == {"float16"}


def test_a_saved_reciprocal_that_overflows_makes_an_infinite_gradient():
    x, g = np.ones((2, 16), np.float32), inputs(16)[1][:2]
    got, steps, _ = emulated(x, g, "layer-l2", "fp16", IMPLEMENTATIONS["wide-saved-io"], eps=1e-10)
    assert steps["saved"].events.counts[0] == 2  # 1 / sqrt(1e-10) is beyond float16
    assert not np.isfinite(whole(got.x)).all()
    clean, _, _ = emulated(x, g / 16, "layer-l2", "fp16", IMPLEMENTATIONS["wide"], eps=1e-10)
    assert np.isfinite(whole(clean.x)).any()
