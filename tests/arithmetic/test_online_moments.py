"""Online moments: every recurrence against a model written from the kernels' formulas, one operation at a time."""

from __future__ import annotations

import math

import numpy as np
import oracle
import pytest
from oracle import target
from test_sums import EVENTS, Model, terms

from normcheck.arithmetic.counting import Counting
from normcheck.arithmetic.emulated import Emulated, Machine
from normcheck.arithmetic.exact import Exact
from normcheck.arithmetic.formats import format_named
from normcheck.arithmetic.orders import order_named
from normcheck.arithmetic.recurrences import RECURRENCES
from normcheck.arithmetic.rounding import Rounding
from normcheck.arithmetic.values import Elements


class Steps:
    """Operations of the mean's step and of the sum's, each with its own counts."""

    def __init__(self, mean, total, settings):
        self.mean, self.total = Model(target(mean), settings), Model(target(total), settings)

    def add(self, model, a, b):
        return model.add(a, b)

    def fma(self, model, a, b, c):
        """a * b + c, one rounding; absorbed where the sum stays as it was."""
        r = model.operate("fma", a, b, c)
        model.counts["absorbed"] += a * b != 0 and r == c and math.isfinite(c)
        return r


def rounded(form, x):
    return oracle.round_exact(oracle.exact(x), target(form), "nearest-even", "ieee")


# ------------------------------------------------------------------------- an element, as each kernel takes it


def take_divided(s, state, x, *, fused):
    m, total, n = state
    n += 1
    d = s.mean.operate("subtract", x, m)
    m = s.add(s.mean, m, s.mean.operate("divide", d, float(n)))
    rest = s.mean.operate("subtract", x, m)
    if fused:
        return m, s.fma(s.total, d, rest, total), n
    return m, s.add(s.total, total, s.total.operate("multiply", d, rest)), n


def take_reciprocal(s, state, x, *, fused):
    m, total, n = state
    n += 1
    share = rounded("float32", 1.0 / n)
    d = s.mean.operate("subtract", x, m)
    m = s.fma(s.mean, d, share, m) if fused else s.add(s.mean, m, s.mean.operate("multiply", d, share))
    rest = s.mean.operate("subtract", x, m)
    if fused:
        return m, s.fma(s.total, d, rest, total), n
    return m, s.add(s.total, total, s.total.operate("multiply", d, rest)), n


# ----------------------------------------------------------------------------- two sets, as each kernel merges


def merge_chan(s, a, b):
    if a[2] == 0 or b[2] == 0:
        return b if a[2] == 0 else a
    n = a[2] + b[2]
    c = s.mean.operate("divide", float(b[2]), float(n))
    d = s.mean.operate("subtract", b[0], a[0])
    m = s.add(s.mean, a[0], s.mean.operate("multiply", d, c))
    both = s.add(s.total, a[1], b[1])
    dd, weight = s.total.operate("multiply", d, d), s.total.operate("multiply", float(a[2]), c)
    return m, s.add(s.total, both, s.total.operate("multiply", dd, weight)), n


def merge_vectors(s, a, b, *, fused=True):
    """AddMomentsVec."""
    n = a[2] + b[2]
    c = s.mean.operate("divide", float(b[2]), float(n)) if n else 0.0
    d = s.mean.operate("subtract", b[0], a[0])
    m = s.add(s.mean, a[0], s.mean.operate("multiply", d, c)) if not fused else None
    both = s.add(s.total, a[1], b[1])
    if fused:
        m = s.add(s.mean, a[0], s.mean.operate("multiply", d, c))
    scaled, shifted = s.total.operate("multiply", d, float(a[2])), s.total.operate("multiply", c, d)
    if fused:
        return m, s.fma(s.total, scaled, shifted, both), n
    return m, s.add(s.total, both, s.total.operate("multiply", scaled, shifted)), n


def merge_scalars(s, a, b, *, fused=True):
    """AddMoments, as compilers contract it."""
    n = a[2] + b[2]
    c = s.mean.operate("divide", float(b[2]), float(n)) if n else 0.0
    d = s.mean.operate("subtract", b[0], a[0])
    m = s.fma(s.mean, d, c, a[0]) if fused else s.add(s.mean, a[0], s.mean.operate("multiply", d, c))
    ddc = s.total.operate("multiply", s.total.operate("multiply", d, d), c)
    if fused:
        return m, s.add(s.total, a[1], s.fma(s.total, ddc, float(a[2]), b[1])), n
    term = s.total.operate("multiply", ddc, float(a[2]))
    return m, s.add(s.total, a[1], s.add(s.total, b[1], term)), n


def merge_cuda(s, own, other):
    """cuWelfordCombine(own, other), whose parameters are named dataB, dataA."""
    a, b = other, own
    n = a[2] + b[2]
    if n:
        r = s.mean.operate("divide", 1.0, float(n))
        wa, wb = s.mean.operate("multiply", float(a[2]), r), s.mean.operate("multiply", float(b[2]), r)
    else:
        wa = wb = 0.0
    d = s.mean.operate("subtract", b[0], a[0])
    m = s.fma(s.mean, a[0], wa, s.mean.operate("multiply", wb, b[0]))
    both = s.add(s.total, own[1], other[1])
    dda = s.total.operate("multiply", s.total.operate("multiply", d, d), float(a[2]))
    return m, s.fma(s.total, dda, wb, both), n


def merge_ops(s, a, b):
    """WelfordOps::combine."""
    if a[2] == 0 or b[2] == 0:
        return b if a[2] == 0 else a
    n = a[2] + b[2]
    c = s.mean.operate("divide", float(b[2]), float(n))
    d = s.mean.operate("subtract", b[0], a[0])
    m = s.fma(s.mean, d, c, a[0])
    both = s.add(s.total, a[1], b[1])
    dda = s.total.operate("multiply", s.total.operate("multiply", d, d), float(a[2]))
    return m, s.fma(s.total, dda, c, both), n


def merge_batch(s, a, b):
    """Of batch_norm_collect_statistics_kernel."""
    if a[2] == 0 or b[2] == 0:
        return b if a[2] == 0 else a
    n = a[2] + b[2]
    r = s.mean.operate("divide", 1.0, float(n))
    d = s.mean.operate("subtract", b[0], a[0])
    scaled = s.fma(s.mean, a[0], float(a[2]), s.mean.operate("multiply", float(b[2]), b[0]))
    m = s.mean.operate("multiply", scaled, r)
    product = s.total.operate("multiply", d, d)
    for count in (a[2], b[2]):
        product = s.total.operate("multiply", product, float(count))
    return m, s.add(s.total, a[1], s.fma(s.total, product, r, b[1])), n


def merge_apex(s, a, b):
    """cuChanOnlineSum."""
    n = a[2] + b[2]
    wa, wb = (s.mean.operate("divide", float(x[2]), float(n)) if n else 0.0 for x in (a, b))
    d = s.mean.operate("subtract", b[0], a[0])
    m = s.fma(s.mean, a[0], wa, s.mean.operate("multiply", wb, b[0]))
    both = s.add(s.total, a[1], b[1])
    product = s.total.operate("multiply", d, d)
    for share in (wa, wb):
        product = s.total.operate("multiply", product, share)
    return m, s.fma(s.total, product, float(n), both), n


def portable(rule):
    return lambda s, a, b: rule(s, a, b, fused=False)


FUSED = {"fused": True}
RULES = {  # take, merge, and the scalar code's
    "chan": ((take_divided, False), merge_chan, None, None),
    "aten-cpu": ((take_reciprocal, True), merge_vectors, (take_divided, False), merge_scalars),
    "aten-cpu-half-tail": ((take_reciprocal, True), merge_vectors, (take_divided, True), merge_scalars),
    "aten-cpu-portable": (
        (take_reciprocal, False),
        portable(merge_vectors),
        (take_divided, False),
        portable(merge_scalars),
    ),
    "aten-cuda": ((take_reciprocal, True), merge_cuda, None, None),
    "welford-ops": ((take_divided, True), merge_ops, None, None),
    "aten-cuda-batch": ((take_divided, True), merge_batch, None, None),
    "apex": ((take_divided, True), merge_apex, None, None),
}
NOTHING = (0.0, 0.0, 0)


class Rules:
    """A recurrence's four operations on (mean, sum, count)."""

    def __init__(self, steps, name):
        (take, fused), merge, tail, tail_merge = RULES[name]
        self.take = lambda state, x: take(steps, state, x, fused=fused)
        self.merge = lambda a, b: merge(steps, a, b)
        tail = tail or (take, fused)
        self.take_tail = lambda state, x: tail[0](steps, state, x, fused=tail[1])
        self.merge_tail = lambda a, b: (tail_merge or merge)(steps, a, b)


# ------------------------------------------------------------------------------------------------- the orders


def chunked(r, x, lanes, chunk):
    """As `chunked-welford` has been from the start."""
    whole = NOTHING
    for lane in range(lanes):
        mine, part = NOTHING, NOTHING
        for term in x[lane::lanes]:
            part = r.take(part, term)
            if part[2] == chunk:
                mine, part = r.merge(mine, part), NOTHING
        whole = r.merge(whole, r.merge(mine, part))
    return whole


def rowwise(r, x, lanes, halves):
    """RowwiseMomentsImpl."""
    width = lanes * halves
    vectors = len(x) // width
    chunks = -(-vectors // 16)
    depth = math.ceil(math.log2(chunks)) if chunks > 1 else 0
    sums = []
    for lane in range(lanes):
        stack = [NOTHING] * max(depth, 1)
        for index in range(chunks):
            for half in range(halves):
                part = NOTHING
                for vector in range(16 * index, min(vectors, 16 * index + 16)):
                    part = r.take(part, x[vector * width + half * lanes + lane])
                stack[0] = r.merge(stack[0], part)
            level, mask = 1, index + 1
            while level < depth and mask % 2 == 0:
                stack[level], stack[level - 1] = r.merge(stack[level], stack[level - 1]), NOTHING
                level, mask = level + 1, mask // 2
        for level in range(1, depth):
            stack[0] = r.merge(stack[0], stack[level])
        sums.append(stack[0])
    whole = NOTHING
    for term in x[vectors * width :]:
        whole = r.take_tail(whole, term)
    for part in sums:
        whole = r.merge_tail(whole, part)
    return whole


def block(r, x, threads, vector):
    sets = [NOTHING] * threads
    for place, term in enumerate(x):
        thread = place // vector % threads
        sets[thread] = r.take(sets[thread], term)
    for size in (min(32, threads), max(1, threads // 32)):
        merged = []
        for start in range(0, len(sets), size):
            part = sets[start : start + size]
            while len(part) > 1:
                half = len(part) // 2
                part = [r.merge(part[i], part[i + half]) for i in range(half)]
            merged += part
        sets = merged
    return sets[0]


ORDERS = {
    "sequential": (lambda r, x: chunked(r, x, 1, 0), 0, (1, 5, 40)),
    "lanes(4)": (lambda r, x: chunked(r, x, 4, 3), 3, (1, 3, 4, 12, 13, 30, 47)),
    "rowwise(2)": (lambda r, x: rowwise(r, x, 2, 1), 0, (1, 2, 3, 31, 32, 33, 65, 130, 171, 300)),
    "rowwise(2, 2)": (lambda r, x: rowwise(r, x, 2, 2), 0, (1, 3, 4, 63, 64, 67, 129, 261)),
    "block(64, 2)": (lambda r, x: block(r, x, 64, 2), 0, (1, 127, 200)),
    "block(8)": (lambda r, x: block(r, x, 8, 1), 0, (1, 7, 8, 40)),
}


def engine(x, order, chunk, recurrence, mean="float32", total="float32", **settings):
    """Mean, sum and events of the rows of x, elements in float32."""
    formats = {"mean": format_named(mean), "sum": format_named(total)}
    a = Emulated(Machine(formats, {}, Rounding(**settings)), len(x), x.shape[1])
    out = a.moments("mean", "sum", Elements.of(x, format_named("float32")), order_named(order), chunk, recurrence)
    return (*(value.data[:, 0] for value in out), a.steps["mean"].events, a.steps["sum"].events)


def compare(x, order, recurrence, mean, total, **settings):
    rule, chunk, _ = ORDERS[order]
    m, sums, *events = engine(x, order, chunk, recurrence, mean, total, **settings)
    all_steps = [Steps(mean, total, {}) for _ in x]
    expected = [rule(Rules(s, recurrence), row) for s, row in zip(all_steps, x.tolist(), strict=True)]
    label = f"{order} {recurrence} {mean} {total} n={x.shape[1]}"
    oracle.assert_same(m, [e[0] for e in expected], label=label)
    oracle.assert_same(sums, [e[1] for e in expected], label=label)
    for step, seen in zip(("mean", "total"), events, strict=True):
        counted = {event: sum(getattr(s, step).counts[event] for s in all_steps) for event in EVENTS}
        assert {event: getattr(seen, event) for event in EVENTS} == counted, (label, step)


@pytest.mark.parametrize("recurrence", RECURRENCES)
@pytest.mark.parametrize("order", ORDERS)
def test_moments_and_their_events_are_the_models(order, recurrence):
    rng = np.random.default_rng(95)
    for index, n in enumerate(ORDERS[order][2]):
        kind = ("normal", "wild", "huge", "positive", "sparse", "tiny")[index % 6]
        compare(terms(target("float32"), rng, 2, n, kind), order, recurrence, "float32", "float32")


@pytest.mark.parametrize("recurrence", ["chan", "aten-cpu", "apex"])
def test_moments_of_narrow_formats(recurrence):
    rng = np.random.default_rng(96)
    for order, mean, total in (("lanes(4)", "float16", "float16"), ("block(8)", "bfloat16", "float32")):
        if recurrence == "chan" or total == "float32":
            compare(terms(target("float16"), rng, 2, 30, "normal"), order, "chan", mean, total)


def test_the_recurrences_are_all_tested():
    assert set(RULES) == set(RECURRENCES)


@pytest.mark.parametrize("order", ["rowwise(8)", "rowwise(8, 2)", "block(64, 4)", "lanes(8)"])
@pytest.mark.parametrize("recurrence", ["aten-cpu", "aten-cuda", "aten-cuda-batch", "chan"])
def test_rows_of_the_fast_kernel_that_go_wrong_run_in_the_general_one(order, recurrence):
    x = terms(target("float32"), np.random.default_rng(97), 70, 300, "normal")
    x[3], x[4], x[5, 7], x[6, 9], x[7] = x[3] * 1e30, x[4] * 1e-30, np.inf, np.nan, 0.0
    x = x.astype(np.float32).astype(np.float64)
    together = engine(x, order, 16, recurrence)
    # with flush-to-zero the general kernel is the only one, and rows without subnormals are the same
    plain = [row for row in range(70) if row != 4]
    flushed = engine(x[plain], order, 16, recurrence, ftz=True)
    again = engine(x[plain], order, 16, recurrence)
    for fast, slow in zip(again[:2], flushed[:2], strict=True):
        oracle.assert_same(fast, slow.tolist(), label=order)
    for fast, slow in zip(again[2:], flushed[2:], strict=True):
        assert [getattr(fast, event) for event in EVENTS] == [getattr(slow, event) for event in EVENTS]
        assert fast.flags.tolist() == slow.flags.tolist()
        assert fast.extremes == pytest.approx(slow.extremes, rel=2.0**-23)
    oracle.assert_same(together[0][plain], again[0].tolist(), label=order)


def test_a_row_in_parts_has_the_moments_of_the_whole():
    x = terms(target("float32"), np.random.default_rng(98), 2, 1000, "normal")
    whole = engine(x, "rowwise(8)", 0, "aten-cpu")
    formats = {"mean": format_named("float32"), "sum": format_named("float32")}
    a = Emulated(Machine(formats, {}), 2, 1000)
    bounds = [0, 128, 384, 896, 1000]
    parts = Elements(lambda i, _: x[:, bounds[i] : bounds[i + 1]], 4, format_named("float32"))
    mean, total = a.moments("mean", "sum", parts, order_named("rowwise(8)"), 0, "aten-cpu")
    assert mean.data[:, 0].tolist() == whole[0].tolist()
    assert total.data[:, 0].tolist() == whole[1].tolist()


@pytest.mark.parametrize("recurrence", RECURRENCES)
@pytest.mark.parametrize("order", ORDERS)
def test_the_operations_that_are_counted_are_those_performed(order, recurrence):
    chunk = ORDERS[order][1]
    for n in ORDERS[order][2]:
        x = terms(target("float32"), np.random.default_rng(99), 1, n, "normal")
        *_, mean, total = engine(x, order, chunk, recurrence)
        form = format_named("float32")
        counting = Counting(n, {"mean": form, "sum": form}, {})
        counting.moments("mean", "sum", counting.elements(form), order_named(order), chunk, recurrence)
        for step, events in (("mean", mean), ("sum", total)):
            counted = sum(count.on_elements for (name, *_), count in counting.counts.items() if name == step)
            assert counted == events.operations, (step, n)


def test_the_reference_has_the_same_moments_whatever_the_order():
    x = np.random.default_rng(100).standard_normal((2, 50))
    mean, total = Exact(2, 50).moments("mean", "sum", Elements.of(x), order_named("rowwise(8)"), 0, "aten-cpu")
    assert mean.data[:, 0] == pytest.approx(x.mean(axis=1), rel=1e-14)
    assert total.data[:, 0] == pytest.approx(50 * x.var(axis=1), rel=1e-13)
