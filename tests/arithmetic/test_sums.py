"""`summed`: every order of summation against a slow model that adds one pair of numbers at a time."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
import oracle
import pytest
from oracle import target

from normcheck.arithmetic.events import FLAG_NAMES
from normcheck.arithmetic.operations import summed
from normcheck.arithmetic.orders import DEFAULT_BLOCK, DEFAULT_LANES, ORDERS, order_named
from normcheck.arithmetic.values import PART
from normcheck.errors import UsageError

EVENTS = ("operations", "overflow", "underflow", "subnormal", "invalid", "absorbed")


@dataclass
class Model:
    """One row's sum as the orders are documented, an operation at a time, and its events."""

    form: oracle.Target
    settings: dict
    counts: dict = field(default_factory=lambda: dict.fromkeys(EVENTS, 0))

    def operate(self, operation, *operands):
        mode = self.settings.get("rounding", "nearest-even")
        ftz, daz = self.settings.get("ftz", False), self.settings.get("daz", False)
        seen = [oracle.flushed(x, self.form) if daz else x for x in operands]
        exact = oracle.apply(operation, *seen, mode=mode)
        policy = self.settings.get("overflow", "ieee")
        result = oracle.round_exact(exact, self.form, mode, policy, ftz=ftz)
        counts, whole = self.counts, not any(math.isnan(x) for x in seen)
        counts["operations"] += 1
        counts["overflow"] += all(map(math.isfinite, seen)) and oracle.overflows(exact, self.form, mode)
        counts["underflow"] += result == 0 and isinstance(exact, Fraction)
        counts["subnormal"] += 0 < abs(result) < self.form.smallest_normal
        counts["invalid"] += whole and isinstance(exact, float) and math.isnan(exact)
        return result

    def add(self, total, term):
        """Add a term to a sum; it is absorbed where it is not zero and the finite sum stays as it was."""
        result = self.operate("add", total, term)
        self.counts["absorbed"] += term != 0 and result == total and math.isfinite(total)
        return result

    def tree(self, x):
        x = list(x)
        while len(x) > 1:
            half = 1
            while 2 * half < len(x):
                half *= 2
            x = [self.add(x[i], x[i + half]) if i + half < len(x) else x[i] for i in range(half)]
        return x[0]

    def sequential(self, x):
        total = 0.0
        for term in x:
            total = self.add(total, term)
        return total

    def pairwise(self, x):
        while len(x) > 1:
            pairs = [self.add(x[i], x[i + 1]) for i in range(0, len(x) - 1, 2)]
            x = pairs + x[len(x) - len(x) % 2 :]
        return x[0]

    def lanes(self, x, width, merge):
        sums = [self.sequential(x[lane::width]) for lane in range(min(width, len(x)))]
        if merge == "tree":
            return self.tree(sums)
        total = sums[0]
        for lane in sums[1:]:
            total = self.add(total, lane)
        return total

    def kahan(self, x):
        total = compensation = 0.0
        for term in x:
            y = self.operate("subtract", term, compensation)
            new = self.operate("add", total, y)
            rest = self.operate("subtract", self.operate("subtract", new, total), y)
            self.counts["absorbed"] += new == total and term != 0 and rest == compensation and math.isfinite(total)
            total, compensation = new, rest
        return total

    def blocks(self, x, largest):
        """Mean of means: blocks as equal as can be; means of unequal ones are weighted by their elements."""
        weights = [1] * len(x)
        first = True
        while first or len(x) > 1:
            sizes = cut(len(x), largest)
            means, totals, start = [], [], 0
            equal = len(set(weights)) == 1 and (first or len(set(sizes)) == 1)
            for size in sizes:
                part, part_weights = x[start : start + size], weights[start : start + size]
                start += size
                total = sum(part_weights)
                if equal and size == 1:
                    terms = part
                elif equal:
                    terms = [self.operate("divide", term, float(size)) for term in part]
                else:
                    rounded = [self.weight(Fraction(weight, total)) for weight in part_weights]
                    terms = [self.operate("multiply", term, weight) for term, weight in zip(part, rounded, strict=True)]
                means.append(self.tree(terms))
                totals.append(total)
            x, weights, first = means, totals, False
        return x[0]

    def weight(self, exact):
        mode = self.settings.get("rounding", "nearest-even")
        return oracle.round_exact(Fraction(float(exact)), self.form, mode, self.settings.get("overflow", "ieee"))

    def sum(self, x, order):
        kind, width, merge = re.fullmatch(r"(\w+)(?:\((\d+)(?:, (serial))?\))?", order).groups()
        if kind == "lanes":
            return self.lanes(x, int(width), merge or "tree")
        return self.blocks(x, int(width)) if kind == "blocks" else getattr(self, kind)(x)


def cut(n, largest):
    """Cut n elements: into equal blocks if up to twice as many as needed allow it, else nearly equal, larger first.

    As many blocks as elements would leave as many means as there were terms, for ever.
    """
    fewest = math.ceil(n / largest)
    for count in range(fewest, min(2 * fewest, n - 1) + 1):
        if n % count == 0:
            return [n // count] * count
    return [n // fewest + 1] * (n % fewest) + [n // fewest] * (fewest - n % fewest)


ORDER_NAMES = (
    "sequential",
    "pairwise",
    "tree",
    "kahan",
    "lanes(2)",
    "lanes(3)",
    "lanes(8)",
    "lanes(32)",
    "lanes(8, serial)",
    "lanes(5, serial)",
    "blocks(4)",
    "blocks(8)",
    "blocks(64)",
)
LENGTHS = (1, 2, 3, 5, 7, 8, 9, 31, 33, 67, 130)
SETTINGS = (
    ("float16", {}),
    ("bfloat16", {}),
    ("float8_e4m3fn", {}),
    ("float8_e5m2fnuz", {"overflow": "saturate"}),
    ("float32", {}),
    ("tf32", {}),
    ("float16", {"ftz": True}),
    ("bfloat16", {"ftz": True, "daz": True}),
    ("float8_e5m2", {"rounding": "toward-zero", "daz": True}),
    ("float16", {"rounding": "up"}),
    ("float8_e5m2", {"rounding": "down", "overflow": "saturate"}),
    ("e9m4", {"rounding": "toward-zero"}),
)


def terms(form, rng, rows, n, kind):
    """Return rows of numbers of the format: growing sums, cancelling ones, subnormals, overflows."""
    x = rng.standard_normal((rows, n))
    if kind == "positive":
        x = np.abs(x)
    elif kind == "wild":
        x *= np.exp2(rng.integers(-form.mantissa_bits - 2, form.mantissa_bits + 2, (rows, n)))
    elif kind == "tiny":
        x *= float(form.smallest_normal) * 0.7
    elif kind == "huge":
        x *= float(form.largest) * rng.choice([0.01, 0.4], (rows, n))
    elif kind == "sparse":
        x = np.where(rng.random((rows, n)) < 0.5, rng.choice([0.0, -0.0], (rows, n)), x)
    places = oracle.between_ratios([oracle.exact(v) for v in x.ravel().tolist()], form)
    return oracle.select(places, form, "nearest-even", "saturate")[0].reshape(rows, n)


KINDS = ("normal", "positive", "wild", "tiny", "huge", "sparse")


def overflow_setting(name, settings):
    return {"overflow": oracle_policy(name)} | settings


def oracle_policy(name):
    return "ieee" if target(name).infinities else "nan"


@pytest.mark.parametrize(("name", "settings"), SETTINGS)
@pytest.mark.parametrize("order", ORDER_NAMES)
def test_sums_and_their_events_are_the_models(order, name, settings):
    form, rng = target(name), np.random.default_rng(80)
    settings = overflow_setting(name, settings)
    for index, n in enumerate(LENGTHS):
        kinds = KINDS if n in {9, 33} else [KINDS[index % len(KINDS)]]
        for kind in kinds:
            rows = 1 + index % 3
            x = terms(form, rng, rows, n, kind)
            models = [Model(form, settings) for _ in range(rows)]
            expected = [model.sum(row, order) for model, row in zip(models, x.tolist(), strict=True)]
            outcome = summed(x, format=name, order=order, **settings)
            label = f"{order} {name} {settings} {kind} n={n} rows={rows}"
            oracle.assert_same(outcome.result, expected, label=label)
            counts = {event: getattr(outcome.events, event) for event in EVENTS}
            assert counts == {event: sum(model.counts[event] for model in models) for event in EVENTS}, label
            for event, flag in FLAG_NAMES.items():
                rows_affected = [bool(model.counts[event]) for model in models]
                assert ((outcome.events.flags & flag) > 0).tolist() == rows_affected, (label, event)


@pytest.mark.parametrize("order", ["sequential", "pairwise", "lanes(3)", "kahan"])
@pytest.mark.parametrize("settings", [{}, {"rounding": "toward-zero"}])
def test_infinities_and_nans_among_the_terms(order, settings):
    rng = np.random.default_rng(81)
    x = rng.standard_normal((40, 9)).astype(np.float16).astype(np.float64)
    x[rng.random(x.shape) < 0.15] = math.inf
    x[rng.random(x.shape) < 0.1] = -math.inf
    x[rng.random(x.shape) < 0.03] = math.nan
    model = Model(target("float16"), settings)
    expected = [model.sum(row, order) for row in x.tolist()]
    outcome = summed(x, format="fp16", order=order, **settings)
    oracle.assert_same(outcome.result, expected, label=order)
    assert {event: getattr(outcome.events, event) for event in EVENTS} == model.counts


# ---------------------------------------------------------------------------- long rows, against float16


def accumulate(x):
    with np.errstate(all="ignore"):
        return np.add.accumulate(x.astype(np.float16), axis=-1)[..., -1].astype(np.float64)


def numpy_lanes(x, width):
    return np.stack([accumulate(x[:, lane::width]) for lane in range(width)], axis=-1)


def numpy_tree(x):
    x = x.astype(np.float16)
    while x.shape[-1] > 1:
        half = 1 << ((x.shape[-1] - 1).bit_length() - 1)
        over = x.shape[-1] - half
        x = np.concatenate([x[..., :over] + x[..., half:], x[..., over:half]], axis=-1)
    return x[..., 0].astype(np.float64)


def numpy_pairwise(x):
    x = x.astype(np.float16)
    while x.shape[-1] > 1:
        even = x.shape[-1] // 2 * 2
        x = np.concatenate([x[..., 0:even:2] + x[..., 1:even:2], x[..., even:]], axis=-1)
    return x[..., 0].astype(np.float64)


LONG = {
    "sequential": accumulate,
    "pairwise": numpy_pairwise,
    "tree": numpy_tree,
    "lanes(32)": lambda x: numpy_tree(numpy_lanes(x, 32)),
    "lanes(3)": lambda x: numpy_tree(numpy_lanes(x, 3)),
    "lanes(1000)": lambda x: numpy_tree(numpy_lanes(x, 1000)),
    "lanes(7, serial)": lambda x: accumulate(numpy_lanes(x, 7)),
}


@pytest.mark.parametrize(("n", "rows"), [(1000, 3), (PART + 1, 1), (2 * PART + 12345, 2)])
@pytest.mark.parametrize("order", LONG)
def test_long_sums_are_those_of_float16(order, n, rows):
    rng = np.random.default_rng(82)
    for x in (rng.standard_normal((rows, n)), rng.random((rows, n)) * 2000):
        half = x.astype(np.float16)
        half[np.abs(half) < 2.0**-14] = 1
        with np.errstate(over="ignore"):
            expected = LONG[order](half)
        for settings in ({}, {"daz": True}):  # two kernels, and no subnormals to tell them apart
            got = summed(half, format="fp16", order=order, **settings).result
            oracle.assert_same(got, expected, label=f"{order} n={n} {settings}")


@pytest.mark.parametrize("rows", [1, 64])
def test_sequential_sums_are_bit_equal_to_numpys_accumulate(rows):
    rng = np.random.default_rng(83)
    for scale in (2.0**-24, 2.0**-14, 1.0, 300.0):
        x = (rng.standard_normal((rows, 3000)) * scale).astype(np.float16)
        for values in (x, np.abs(x), x.astype(np.float32)):
            got = summed(values, format="fp16", order="sequential").result
            oracle.assert_same(got, accumulate(x if values is not x and values.dtype == np.float32 else values))


@pytest.mark.parametrize(
    ("name", "stops"), [("fp16", 2048), ("bf16", 256), ("e4m3fn", 16), ("e5m2", 8), ("tf32", 2048)]
)
def test_ones_stop_counting_where_their_half_ulp_begins(name, stops):
    n = 10_000
    outcome = summed(np.ones((2, n)), format=name, order="sequential")
    assert outcome.result.tolist() == [stops, stops]
    assert outcome.events.absorbed == 2 * (n - stops)
    assert outcome.lost_mass == pytest.approx((n - stops) / n, rel=1e-12)
    assert summed(np.ones((2, 4096)), format="fp16", order="tree").events.absorbed == 0


def test_stagnation_as_the_issue_states_it():
    x = np.random.default_rng(84).standard_normal((8, 32768)).astype(np.float16).astype(np.float64)
    squares = summed((x * x).astype(np.float16), format="fp16", order="sequential")
    magnitudes = summed(np.abs(x), format="fp16", order="sequential")
    assert 0.45 < np.median(squares.result) / 32768 < 0.55
    assert 0.2 < np.median(magnitudes.result) / 32768 < 0.27
    assert magnitudes.lost_mass > squares.lost_mass > 0.4
    for order in ("lanes(32)", "pairwise", "tree"):
        assert summed(np.abs(x), format="fp16", order=order).lost_mass < 0.01


# ------------------------------------------------------------------------------- lost mass, means, bounds


@pytest.mark.parametrize("order", ORDER_NAMES)
def test_lost_mass_is_the_worst_rows(order):
    rng = np.random.default_rng(85)
    x = np.abs(rng.standard_normal((5, 700))).astype(np.float16).astype(np.float64)
    x[2, 350:] *= -1
    x[4] = 60000.0  # overflows, so that it has no lost mass, but for means
    outcome = summed(x, format="fp16", order=order)
    worst = 0.0
    for row, got in zip(x.tolist(), outcome.result.tolist(), strict=True):
        if math.isfinite(got):
            exact, mass = sum(map(Fraction, row)), sum(abs(Fraction(v)) for v in row)
            exact, mass = (exact / 700, mass / 700) if "blocks" in order else (exact, mass)
            worst = max(worst, float(abs(Fraction(got) - exact) / mass))
    assert outcome.lost_mass == pytest.approx(worst, rel=1e-9, abs=1e-15)
    assert np.isfinite(outcome.result[4]) == ("blocks" in order)


@pytest.mark.parametrize("n", [1, 2, 3, 7, 63, 64, 65, 67, 127, 128, 1000, 4096, 4099, 10_007, 100_352, PART + 1])
@pytest.mark.parametrize("name", ["fp16", "bf16", "float32"])
@pytest.mark.parametrize("width", [3, 64])
def test_means_of_means_are_means(n, name, width):
    form = target({"fp16": "float16", "bf16": "bfloat16"}.get(name, name))
    u = 2.0 ** -(form.mantissa_bits + 1)
    rng = np.random.default_rng(n)
    x = (
        terms(form, rng, 2, n, "positive")
        if n < 5000
        else np.abs(rng.standard_normal((2, n))).astype(np.float16).astype(float)
    )
    if name == "bf16" and n >= 5000:
        x = np.ldexp(np.round(np.ldexp(x, 4)), -4).clip(0, 7)
    outcome = summed(x, format=name, order=f"blocks({width})")
    levels, depth, left = 0, 0, n
    while left > 1:
        levels, depth, left = levels + 1, depth + math.ceil(math.log2(width)), math.ceil(left / width)
    bound = ((1 + u) ** (2 * levels + depth + 2) - 1) * np.abs(x).mean(axis=1) + n * 2.0**-23 * (name == "fp16")
    assert (np.abs(outcome.result - x.mean(axis=1)) <= bound).all()
    assert outcome.events.overflow == 0


def test_means_of_means_neither_grow_nor_need_n():
    x = np.full((2, 100_352), 60000.0)
    assert summed(x, format="fp16", order="blocks(64)").result == pytest.approx([60000.0] * 2, rel=2e-3)


def test_means_of_two_come_to_an_end():
    script = """if True:
        from normcheck.arithmetic.operations import summed
        print(*[summed([[3.0] * n], format="fp16", order="blocks(2)").result[0] for n in (1, 2, 3, 5, 7, 31)])
    """
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=30)
    assert [float(word) for word in done.stdout.split()] == pytest.approx([3.0] * 6, rel=2e-3)


def test_a_single_term_and_no_more_rows_than_one():
    for order in ORDER_NAMES:
        assert summed([[1.5]], format="fp16", order=order).result.tolist() == [1.5]
        assert summed(np.zeros((3, 4)), format="fp16", order=order).result.tolist() == [0, 0, 0]


def test_all_terms_negative_zero():
    minus = np.full((2, 5), -0.0)
    for order in ("sequential", "kahan", "lanes(3)"):  # from +0
        oracle.assert_same(summed(minus, format="fp16", order=order).result, [0.0, 0.0])
    for order in ("pairwise", "tree"):
        oracle.assert_same(summed(minus, format="fp16", order=order).result, [-0.0, -0.0])


def test_terms_finer_than_the_format_are_rounded_with_the_sum_only():
    x = np.array([[1.0, 2.0**-11, 2.0**-40], [1.0, 2.0**-11 + 2.0**-40, 0.0]])
    assert summed(x, format="fp16", order="sequential").result.tolist() == [1.0, 1 + 2.0**-10]
    assert summed(x, format="fp16", order="tree").result.tolist() == [1.0, 1 + 2.0**-10]


# ------------------------------------------------------------------------------------------------- names


@pytest.mark.parametrize(
    "order", ["sequential", "pairwise", "tree", "kahan", "lanes(8)", "lanes(8, serial)", "blocks(16)"]
)
def test_orders_print_as_they_are_written(order):
    assert str(order_named(order)) == order
    assert order_named(f" {order.upper()} ") == order_named(order)
    assert order_named(order).kind in ORDERS


def test_widths_have_defaults():
    assert order_named("lanes") == order_named(f"lanes({DEFAULT_LANES})")
    assert order_named("blocks") == order_named(f"blocks({DEFAULT_BLOCK})")
    assert order_named("blocks").is_mean
    assert not order_named("lanes").is_mean


@pytest.mark.parametrize(
    "order",
    ["", "random", "lanes(1)", "lanes(5000)", "sequential(4)", "tree(2)", "blocks(8, serial)", "lanes(a)"],
)
def test_other_orders_are_usage_errors(order):
    with pytest.raises(UsageError):
        order_named(order)
    with pytest.raises(UsageError):
        summed(np.ones((1, 4)), format="fp16", order=order)
