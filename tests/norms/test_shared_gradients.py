"""Gradients of gamma and beta that rows share: automatic differentiation, a model of single numbers, and any blocks."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from normcheck.arithmetic.emulated import Emulated
from normcheck.arithmetic.exact import Exact
from normcheck.arithmetic.formats import format_named
from normcheck.arithmetic.orders import order_named
from normcheck.arithmetic.rounding import Rounding
from normcheck.arithmetic.values import PART, Elements, PerRow
from normcheck.norms.backward import Affine, as_parameter, backward, gradient_machine
from normcheck.norms.forward import Problem, forward
from normcheck.norms.implementations import IMPLEMENTATIONS
from normcheck.norms.parameters import Parameters
from normcheck.norms.shared_gradients import SharedGradient
from normcheck.norms.table import NORMS, grouping

sys.path.append(str(Path(__file__).resolve().parent))
import test_backward as of_rows  # its model and its torch serve here too
import test_emulated as model_of

SHARING = [name for name, norm in NORMS.items() if norm.where in ("layer", "instance", "group")]
SHAPES = {"layer": (23, 7), "instance": (5, 4, 11), "group": (7, 6, 4)}
STEPS = {"weight": "grad-weight", "bias": "grad-bias"}


def setting(name, shape, parameters, form):
    """A norm's grouping, problem by rows, and how many channels a row has."""
    norm = NORMS[name]
    group = grouping(norm, shape, 2)
    scale, k = of_rows.scale_and_k(norm, group.size)

    def problem(start, stop):
        values = parameters.values(norm, group, start, stop, form)
        return Problem(norm=norm, eps=0.01, scale=scale, k=k, **values)

    channels = group.channels // group.groups_per_sample if norm.where == "group" else 1
    columns = group.size if norm.where == "layer" else group.channels
    return group, problem, channels, columns


def summed(name, shape, x, g, machine, *, weight, bias, how, block):
    """Gradients of gamma and beta over blocks of rows, under float64 or a machine; and the steps of the sums."""
    form = machine and machine.formats["load"]
    group, problem, channels, columns = setting(name, shape, Parameters(weight, bias), form)
    rows, given = (of_rows.rows_of(torch.tensor(v), NORMS[name].where).numpy() for v in (x, g))
    elements = rows.size // columns

    def arithmetic(count, n, first=0, *, after=False):
        if machine is None:
            return Exact(count, n)
        return Emulated(gradient_machine(machine) if after else machine, count, n, first)

    totals = {}
    for start in range(0, len(rows), block):
        stop = min(start + block, len(rows))
        before, after = (arithmetic(stop - start, group.size, start, after=after) for after in (False, True))
        loaded = before.load(Elements.of(rows[start:stop].copy()))
        outputs = forward(before, loaded, problem(start, stop), how)
        out = backward(
            after, Elements.of(given[start:stop].copy()), loaded, outputs, problem(start, stop), how,
            Affine(weight=True, bias=True, channels=channels),
        )  # fmt: skip
        assert out.weight is None
        assert out.bias is None
        for kind, terms in (("weight", out.weight_terms), ("bias", out.bias_terms)):
            if kind not in totals:
                a = arithmetic(columns, elements, len(rows), after=True)
                count = len(rows) if NORMS[name].where == "layer" else len(rows) * channels // columns
                totals[kind] = a, SharedGradient(a, STEPS[kind], terms, count)
            totals[kind][1].add(of_rows.whole(terms))
    return {kind: (total.finish().data[:, 0], getattr(a, "steps", None)) for kind, (a, total) in totals.items()}


@pytest.mark.parametrize("block", [1, 3, 100])
@pytest.mark.parametrize("name", SHARING)
def test_they_are_what_automatic_differentiation_gives(name, block):
    norm = NORMS[name]
    shape = SHAPES[norm.where]
    x, g = of_rows.noise(*shape, seed=1, mean=0.7, std=2.5), of_rows.noise(*shape, seed=2, mean=0.3)
    weight, bias = of_rows.parameters_of(norm, shape)
    scale, k = of_rows.scale_and_k(norm, grouping(norm, shape, 2).size)
    _, *want = of_rows.by_torch(x, g, norm, 0.01, scale, k, weight, bias)
    got = summed(name, shape, x, g, None, weight=weight, bias=bias, how=of_rows.WIDE, block=block)
    for mine, theirs in zip(got.values(), want, strict=True):
        np.testing.assert_allclose(mine[0], theirs, **of_rows.TIGHT)


@pytest.mark.parametrize("implementation", ["pure", "pure-scaled", "pure-sequential", "wide"])
@pytest.mark.parametrize("name", ["layer-l2", "rms", "instance-l1", "group-linf"])
def test_no_order_of_summation_changes_what_they_are(name, implementation):
    norm, shape = NORMS[name], {"layer": (131, 3), "instance": (70, 2, 9), "group": (67, 4, 3)}[NORMS[name].where]
    x, g = of_rows.noise(*shape, seed=1, mean=0.7, std=2.5), of_rows.noise(*shape, seed=2, mean=0.3)
    weight, bias = of_rows.parameters_of(norm, shape)
    scale, k = of_rows.scale_and_k(norm, grouping(norm, shape, 2).size)
    _, *want = of_rows.by_torch(x, g, norm, 0.01, scale, k, weight, bias)
    how, form = IMPLEMENTATIONS[implementation], format_named("fp64")
    machine = how.machine(form, form, Rounding())
    got = summed(name, shape, x, g, machine, weight=weight, bias=bias, how=how, block=5)
    for mine, theirs in zip(got.values(), want, strict=True):
        np.testing.assert_allclose(mine[0], theirs, **of_rows.TIGHT)


# ------------------------------------------------------------------------------- emulated: one number at a time


@pytest.mark.parametrize("io", ["fp16", "bf16"])
@pytest.mark.parametrize("implementation", model_of.GENERIC)
@pytest.mark.parametrize(("name", "shape"), [("layer-l2", (75, 3)), ("rms", (2, 5)), ("layer-l1", (33, 2))])
def test_sums_down_elements_are_bit_equal_to_the_model(name, shape, implementation, io):
    x, g, model, products, given = emulated_rows(name, shape, implementation, io)
    how, form = IMPLEMENTATIONS[implementation], format_named(io)
    machine = how.machine(form, form, Rounding())
    got = summed(name, shape, x, g, machine, weight=None, bias=None, how=how, block=4)
    for kind, terms in (("weight", products), ("bias", given)):
        model.after.steps.clear()
        want = []
        for column in range(shape[1]):
            model.a, model.after.row = model.after, column
            want.append(model.total(STEPS[kind], terms[:, column].astype(float).tolist()))
        values, steps = got[kind]
        of_rows.oracle.assert_same(values, np.array(want), label=f"{name} {kind}")
        of_rows.assert_steps(steps, model.after.steps)


@pytest.mark.parametrize("implementation", ["pure", "pure-scaled", "wide-sum"])
@pytest.mark.parametrize(("name", "shape"), [("instance-l2", (37, 2, 9)), ("group-l1", (6, 4, 5))])
def test_sums_over_a_channel_and_then_over_samples_are_bit_equal_to_the_model(name, shape, implementation):
    x, g, model, products, given = emulated_rows(name, shape, implementation, "fp16")
    how, form = IMPLEMENTATIONS[implementation], format_named("fp16")
    got = summed(name, shape, x, g, how.machine(form, form, Rounding()), weight=None, bias=None, how=how, block=3)
    samples, channels, spatial = shape
    for kind, terms in (("weight", products), ("bias", given)):
        by_channel = terms.astype(float).reshape(samples, channels, spatial)
        model.a, order = model.after, model.orders[STEPS[kind]]
        want = []
        for channel in range(channels):
            inner = [model.a.sum(STEPS[kind], by_channel[i, channel].tolist(), order) for i in range(samples)]
            total, source = model.a.sum(STEPS[kind], inner, order), STEPS[kind]
            if order.is_mean:
                count = model.a.constant("count", float(samples * spatial))
                total, source = model.a.operate("count", "multiply", total, count), "count"
            want.append(model.a.convert("grad-parameter", total, source))
        of_rows.oracle.assert_same(got[kind][0], np.array(want), label=f"{name} {kind}")


def emulated_rows(name, shape, implementation, io):
    """Input and gradient, a model whose backward pass can be asked, and the terms: products with y, and g as loaded."""
    norm = NORMS[name]
    x, g = (of_rows.noise(*shape, seed=seed).astype(np.float32) for seed in (3, 4))
    rows, given = (of_rows.rows_of(torch.tensor(v), norm.where).numpy() for v in (x, g))
    how, form = IMPLEMENTATIONS[implementation], format_named(io)
    machine = how.machine(form, form, Rounding())
    scale, k = of_rows.scale_and_k(norm, rows.shape[1])
    problem = Problem(norm=norm, eps=0.01, scale=scale, k=k)
    before, after = (Emulated(m, *rows.shape) for m in (machine, gradient_machine(machine)))
    loaded = before.load(Elements.of(rows))
    by_element = norm if name == "rms" else NORMS[name.replace(norm.where, "layer")]
    layer = Problem(norm=by_element, eps=0.01, scale=scale, k=k)
    out = backward(
        after,
        Elements.of(given),
        loaded,
        forward(before, loaded, problem, how),
        layer,
        how,
        Affine(weight=True, bias=True),
    )
    model = of_rows.Model(form.name, model_of.GENERIC[implementation])
    return x, g, model, of_rows.whole(out.weight_terms), of_rows.whole(out.bias_terms)


@pytest.mark.parametrize(
    "order", ["sequential", "lanes(32)", "lanes(8, serial)", "tree", "pairwise", "blocks(8)", "kahan"]
)
def test_the_pieces_that_terms_come_in_change_no_bit(order):
    """2500 terms of 3 parameters: more than are added at once."""
    form, how = format_named("fp16"), IMPLEMENTATIONS["pure"]
    machine = gradient_machine(how.machine(form, form, Rounding(), order_named(order)))
    terms = np.random.default_rng(0).standard_normal((2500, 3)).astype(np.float16).astype(np.float32)
    like = Elements.of(terms[:1], form, 1)

    def total(pieces):
        a = Emulated(machine, 3, 2500)
        shared = SharedGradient(a, "grad-bias", like, 2500)
        for piece in np.split(terms.reshape(-1), pieces):
            shared.add(piece)
        got = shared.finish().data[:, 0]
        return got, {name: record.events.counts.tolist() for name, record in a.steps.items()}

    whole, events = total([])
    for pieces in ([1, 2, 7400], list(range(0, 7500, 61)), [3072, 6144]):
        again, same = total(pieces)
        assert np.array_equal(whole, again)
        assert events == same
    a = Emulated(machine, 3, 2500)
    columns = Elements.of(np.ascontiguousarray(terms.T), form, 1)
    assert np.array_equal(whole, as_parameter(a, "grad-bias", a.sum("grad-bias", columns)).data[:, 0])


def test_a_count_beyond_the_format_makes_no_infinity_of_a_sum_that_fits():
    form, how = format_named("fp16"), IMPLEMENTATIONS["pure-scaled"]
    a = Emulated(gradient_machine(how.machine(form, form, Rounding())), 2, 100_000)
    mean = PerRow(np.array([[0.25], [2.0]]), form, 1)
    assert as_parameter(a, "grad-bias", mean).data[:, 0].tolist() == [24992.0, np.inf]  # 100000 / 256 is 390.5
    assert a.steps["count"].events.counts[0] == 1


@pytest.mark.parametrize("runs", [1, 2, 5, 640])
def test_runs_of_a_row_in_parts_are_rows_of_their_own(runs):
    n = 5 * PART // 2
    x = np.random.default_rng(1).standard_normal((1, n)).astype(np.float16).astype(np.float32)
    form, how = format_named("fp16"), IMPLEMENTATIONS["pure"]
    machine = gradient_machine(how.machine(form, form, Rounding()))
    a, b = Emulated(machine, 1, n), Emulated(machine, runs, n // runs)
    got = a.sum_runs("grad-bias", Elements.of(x, form, 1), runs)
    want = b.sum("grad-bias", Elements.of(x.reshape(runs, -1), form, 1))
    assert np.array_equal(of_rows.whole(got)[0], want.data[:, 0])
    mine, theirs = (each.steps["grad-bias"].events for each in (a, b))
    assert mine.counts.tolist() == theirs.counts.tolist()
    assert (mine.operations, mine.lost_mass) == (theirs.operations, theirs.lost_mass)
    assert mine.extremes.tolist() == theirs.extremes.tolist()
