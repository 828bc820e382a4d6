"""The modules' backward pass in float64 is the engine's own under exact arithmetic, for every statistic and where."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from norm_modules import PAIRS, STATISTICS, build, input_of

from normcheck import nn as ours
from normcheck.arithmetic.exact import Exact
from normcheck.arithmetic.values import Elements
from normcheck.norms.backward import Affine, backward
from normcheck.norms.constants import scale_of
from normcheck.norms.forward import Problem, forward
from normcheck.norms.implementations import IMPLEMENTATIONS
from normcheck.norms.parameters import Parameters
from normcheck.norms.shared_gradients import SharedGradient
from normcheck.norms.table import grouping, norm_named

TIGHT = {"rtol": 1e-10, "atol": 1e-10}
STEPS = {"weight": "grad-weight", "bias": "grad-bias"}


def by_torch(module, x, g):
    """The gradients of x, gamma and beta, of which there may be none."""
    x = x.clone().requires_grad_()
    module(x).backward(g)
    return [None if v is None else v.grad.numpy() for v in (x, module.weight, module.bias)]


def rows_of(norm, group, x):
    """The rows that share a statistic, and back."""
    if norm.where != "batch":
        return x.reshape(group.groups, group.size)
    return x.reshape(x.shape[0], x.shape[1], -1).transpose(1, 0, 2).reshape(group.groups, group.size)


def plain(parameter):
    return None if parameter is None else parameter.detach().numpy().reshape(-1)


def by_engine(module, x, g):
    """The same of the norm that the module says it is, by normcheck.norms under float64."""
    norm, facts = module.norm, module.normcheck_facts()
    weight, bias = plain(module.weight), plain(module.bias)
    shape = (x.numel() // math.prod(facts["normalized_shape"]), -1) if norm.where == "layer" else x.shape
    shape = tuple(x.reshape(shape).shape)
    group = grouping(norm, shape, facts.get("num_groups"))
    scale, k = scale_of(norm, module.constant, group.size, module.k)
    running = {}
    if not module.training and getattr(module, "running_mean", None) is not None:
        fixed = next(
            value for key, value in module.named_buffers() if key not in ("running_mean", "num_batches_tracked")
        )
        running = {"running_mean": plain(module.running_mean), "running_statistic": plain(fixed)}
    values = Parameters(weight, bias, **running).values(norm, group, 0, group.groups, None)
    problem = Problem(norm=norm, eps=module.eps, scale=scale, k=k or 1, **values)
    channels = group.channels // group.groups_per_sample if norm.where == "group" else 1
    a, how = Exact(group.groups, group.size), IMPLEMENTATIONS["wide"]
    rows, given = (Elements.of(rows_of(norm, group, v.numpy().reshape(shape)).copy()) for v in (x, g))
    out = backward(
        a,
        given,
        rows,
        forward(a, rows, problem, how),
        problem,
        how,
        Affine(weight is not None, bias is not None, channels),
    )
    dx = np.concatenate([out.x.part(index) for index in range(out.x.parts)], axis=1)
    return dx, group, {"weight": _whole(out, "weight", weight), "bias": _whole(out, "bias", bias)}


def _whole(out, name, parameter):
    """The gradient of a parameter, summed over the rows that share it."""
    own, terms = getattr(out, name), getattr(out, f"{name}_terms")
    if terms is None:
        return None if own is None else own.data[:, 0]
    flat, columns = terms.part(0), len(parameter)
    total = SharedGradient(Exact(columns, flat.size // columns), STEPS[name], terms, flat.size // columns)
    total.add(flat)
    return total.finish().data[:, 0]


def compare(module, x):
    torch.manual_seed(5)
    g = torch.randn_like(x)
    dx, *parameters = by_torch(module, x, g)
    rows, group, mine = by_engine(module, x, g)
    np.testing.assert_allclose(rows, rows_of(module.norm, group, dx), **TIGHT)
    for got, want in zip(mine.values(), parameters, strict=True):
        assert (got is None) == (want is None)
        if want is not None:
            np.testing.assert_allclose(got, want.reshape(-1), **TIGHT)


@pytest.mark.parametrize("kind", ["exact", "paper"])
@pytest.mark.parametrize("statistic", STATISTICS)
@pytest.mark.parametrize("name", PAIRS)
def test_the_backward_pass_is_the_engines_own(name, statistic, kind):
    compare(build(name, statistic, constant=kind), input_of(name))


@pytest.mark.parametrize("statistic", STATISTICS)
@pytest.mark.parametrize("name", [name for name in PAIRS if name.startswith("batch")])
def test_under_running_statistics_too(name, statistic):
    module = build(name, statistic)
    module(input_of(name, seed=3))  # which it then keeps
    compare(module.eval(), input_of(name))


@pytest.mark.parametrize("p", [1, 2, math.inf])
def test_that_of_bounded_weight_norm_too(p):
    torch.manual_seed(1)
    v, g = torch.randn(2, 5, 3, 4, dtype=torch.float64).unbind(0)
    module = ours.BoundedWeightNorm(v, p)
    leaf = v.clone().requires_grad_()
    module(leaf).backward(g)
    norm = norm_named({1: "bounded-weight-l1", 2: "bounded-weight-l2", math.inf: "bounded-weight-linf"}[p])
    group = grouping(norm, tuple(v.shape))
    values = Parameters(weight=module.rho.numpy().reshape(1)).values(norm, group, 0, 5, None)
    problem, a, how = Problem(norm=norm, eps=0.0, **values), Exact(5, 12), IMPLEMENTATIONS["wide"]
    rows, given = (Elements.of(t.numpy().reshape(5, 12).copy()) for t in (v, g))
    out = backward(a, given, rows, forward(a, rows, problem, how), problem, how)
    np.testing.assert_allclose(out.x.part(0), leaf.grad.numpy().reshape(5, 12), **TIGHT)
