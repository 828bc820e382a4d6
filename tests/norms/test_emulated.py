"""The emulated forward pass against a slow model that computes one number at a time.

The model is written from docs/numerics.md and the meaning of `Implementation`'s fields; every number and every
event of every step must agree. It shares nothing with the code but the names of steps.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from normcheck import UsageError, emulate
from normcheck.arithmetic.emulated import Emulated
from normcheck.arithmetic.exact import Exact
from normcheck.arithmetic.formats import format_named
from normcheck.arithmetic.operations import summed
from normcheck.arithmetic.orders import Order, order_named
from normcheck.arithmetic.rounding import Rounding
from normcheck.arithmetic.values import PART, Elements
from normcheck.norms.constants import constant
from normcheck.norms.forward import Problem, forward
from normcheck.norms.implementations import IMPLEMENTATIONS, Implementation
from normcheck.norms.table import norm_named

sys.path.append(str(Path(__file__).resolve().parents[1] / "arithmetic"))
import oracle  # lives beside the tests of arithmetic

PURE, WIDE = IMPLEMENTATIONS["pure"], IMPLEMENTATIONS["wide"]
EVENTS = ("operations", "overflow", "underflow", "subnormal", "invalid", "absorbed", "rows_affected")


# ------------------------------------------------------------------------------------------- one operation


def rounded(value, form):
    """Round a float to nearest-even, and say whether that overflowed: integers and Python's own rounding."""
    if value == 0 or not math.isfinite(value):
        return value, False
    exponent = max(math.frexp(value)[1] - 1, form.emin) - form.mantissa_bits
    size = math.ldexp(round(math.ldexp(abs(value), -exponent)), exponent)
    if size > float(form.largest):
        return math.copysign(math.inf if form.infinities else math.nan, value), True
    return math.copysign(size, value), False


def in_doubles(operation, a, b=0.0):
    """Return an operation's result in float64: of operands of at most 24 bits, near enough to be rounded again."""
    if operation == "divide" and b == 0:
        return math.nan if a == 0 or math.isnan(a) else math.copysign(math.inf, a) * math.copysign(1.0, b)
    if operation == "sqrt":
        return math.sqrt(a) if a >= 0 else math.nan
    results = {"add": lambda: a + b, "subtract": lambda: a - b, "multiply": lambda: a * b, "divide": lambda: a / b}
    return {"copy": lambda: a, "absolute": lambda: abs(a), **results}[operation]()


@dataclass
class Record:
    """What happened in one step."""

    format: str
    operations: int = 0
    overflow: int = 0
    underflow: int = 0
    subnormal: int = 0
    invalid: int = 0
    absorbed: int = 0
    rows: set = field(default_factory=set)
    largest: float = 0.0
    least: float = math.inf
    lost_mass: float | None = None
    cancelled: float = 0.0

    @property
    def rows_affected(self):
        return len(self.rows)


@dataclass
class Scalar:
    """Arithmetic on single numbers: `formats` by step; `careful` for exact rationals where float64 will not do."""

    formats: dict
    rounding: dict
    careful: bool
    steps: dict = field(default_factory=dict)
    row: int = 0

    def begin(self, step):
        return self.steps.setdefault(step, Record(self.formats[step]))

    def calculate(self, operation, operands, name):
        """Return (exact or nearly exact value, rounded value, whether it overflowed)."""
        form = oracle.target(name)
        if self.careful:
            mode, ftz = self.rounding.get("rounding", "nearest-even"), self.rounding.get("ftz", False)
            value = oracle.apply(operation, *operands, mode=mode)
            policy = "ieee" if form.infinities else "nan"
            return value, oracle.round_exact(value, form, mode, policy, ftz=ftz), oracle.overflows(value, form, mode)
        value = in_doubles(operation, *operands)
        return value, *rounded(value, form)

    def operate(self, step, operation, *operands, own=None):
        """One recorded operation; subnormal operands are flushed by their `own` format, the step's unless given."""
        record = self.begin(step)
        form = oracle.target(record.format)
        given = operands
        if self.rounding.get("daz"):
            sources = own if isinstance(own, tuple) else (own,) * len(operands)
            formats = [oracle.target(source or record.format) for source in sources]
            operands = [oracle.flushed(x, f) for x, f in zip(operands, formats, strict=True)]
        value, result, over = self.calculate(operation, operands, record.format)
        finite = all(map(math.isfinite, operands))
        infinite, nan = (isinstance(value, float) and test(value) for test in (math.isinf, math.isnan))
        events = {
            "overflow": finite and (over or infinite),
            "underflow": result == 0 and value != 0,
            "invalid": nan and not any(map(math.isnan, operands)),
        }
        record.operations += 1
        for name, happened in events.items():
            setattr(record, name, getattr(record, name) + happened)
        record.subnormal += 0 < abs(result) < form.smallest_normal
        record.absorbed += operation == "add" and given[1] != 0 and result == given[0] and math.isfinite(given[0])
        if any(events.values()):
            record.rows.add(self.row)
        size = math.nan if nan else float(abs(value))
        record.largest = max(record.largest, size if size > 0 else 0.0)
        record.least = min(record.least, size if size > 0 else math.inf)
        return result

    def constant(self, step, value):
        """Round a number of the formula to the step's format."""
        return self.calculate("copy", [float(value)], self.formats[step])[1]

    def convert(self, step, value, source):
        """Round to the step's format what came out of the step `source`; where it is in it already, do nothing."""
        self.begin(step)
        return value if self.formats[step] == self.formats[source] else self.operate(step, "copy", value)

    def cancel(self, step, before, after):
        """Take note of the bits a row lost in a subtraction: the largest operand over the largest result."""
        high, low = max(map(abs, before)), max(map(abs, after))
        if 0 < low < math.inf and high < math.inf:
            record = self.begin(step)
            record.cancelled = max(record.cancelled, math.log2(high / low))

    # ------------------------------------------------------------------------------------------------- sums

    def sum(self, step, terms, order, factors=None):
        """Sum a row in an order; with factors, terms * factors enter by fused multiply-add."""
        record = self.begin(step)
        if order.kind == "blocks":
            result = self.mean_of_means(step, terms, order.width)
        else:
            lanes = order.width or 1
            totals = [self.one_lane(step, terms[i::lanes], factors and factors[i::lanes]) for i in range(lanes)]
            totals = totals[: len(terms)]
            result = self.tree(step, totals) if order.merge == "tree" else self.serial(step, totals)
        exact = [a * b for a, b in zip(terms, factors, strict=True)] if factors else terms
        mass = math.fsum(map(abs, exact)) if all(map(math.isfinite, exact)) else 0.0
        if mass and math.isfinite(result):
            total = result * len(terms) if order.kind == "blocks" else result
            lost = abs(total - math.fsum(exact)) / mass
            record.lost_mass = lost if record.lost_mass is None else max(lost, record.lost_mass)
        return result

    def one_lane(self, step, terms, factors):
        total = 0.0
        for index, term in enumerate(terms):
            before, after = total, None
            if factors:
                after = self.accumulate(step, term, factors[index], before)
            else:
                after = self.operate(step, "add", before, term)
            total = after
        return total

    def accumulate(self, step, a, b, before):
        """before + a * b, fused; absorbed is a product that leaves the accumulator as it was."""
        after = self.operate(step, "fma", a, b, before)
        self.steps[step].absorbed += a * b != 0 and after == before and math.isfinite(before)
        return after

    def serial(self, step, totals):
        total = totals[0]
        for lane in totals[1:]:
            total = self.operate(step, "add", total, lane)
        return total

    def tree(self, step, x):
        x = list(x)
        while len(x) > 1:
            half = 1 << ((len(x) - 1).bit_length() - 1)
            x = [self.operate(step, "add", x[i], x[i + half]) if i + half < len(x) else x[i] for i in range(half)]
        return x[0]

    def mean_of_means(self, step, x, largest):
        """Blocks of one size where a divisor allows it; else nearly equal ones, weighted by their elements."""
        weights, first = [1] * len(x), True
        while first or len(x) > 1:
            sizes = cut(len(x), largest)
            equal = first or (len(set(weights)) == 1 and len(set(sizes)) == 1)
            means, totals = [], []
            for start, stop in pairwise(np.cumsum([0, *sizes]).tolist()):
                part, total = x[start:stop], sum(weights[start:stop])
                if not equal:
                    factors = [self.constant(step, w / total) for w in weights[start:stop]]
                    part = [self.operate(step, "multiply", v, w) for v, w in zip(part, factors, strict=True)]
                elif len(part) > 1:
                    part = [self.operate(step, "divide", v, float(len(part))) for v in part]
                means.append(self.tree(step, part))
                totals.append(total)
            x, weights, first = means, totals, False
        return x[0]


def cut(n, largest):
    fewest = -(-n // largest)
    for count in range(fewest, min(2 * fewest, n) + 1):
        if n % count == 0:
            return [n // count] * count
    return [n // fewest + 1] * (n % fewest) + [n // fewest] * (fewest - n % fewest)


def spread(x, y):
    """Pairs of two lists, of which one may be a single number a row."""
    n = max(len(x), len(y))
    return zip(x * (n // len(x)), y * (n // len(y)), strict=True)


# --------------------------------------------------------------------------------------------- one norm


STEPS_OF = {
    "residual": ["residual"], "load": ["load"], "mean_sum": ["sum-mean"], "mean": ["mean"],
    "center": ["center", "rescale"],
    "product": ["square", "absolute", "maximum", "topk"], "sum": ["sum"], "count": ["count"],
    "statistic": ["variance", "statistic", "constant"], "eps": ["eps"], "root": ["root"], "reciprocal": ["reciprocal"],
    "normalize": ["normalize"], "fold": ["fold"], "normalized": ["cast"], "gain": ["gain"], "bias": ["bias"],
    "store": ["store"], "saved": ["saved"], "running": ["running-update"],
}  # fmt: skip
"""The field of an implementation that holds the format of each step."""

OWN_STEPS = {
    "total": ("total", ("sum",)), "mean_total": ("total-mean", ("mean_sum",)),
    "mean_count": ("count-mean", ("count",)), "kept": ("kept", ()), "recentred": ("recentred", ("center",)),
    "eps_rounded": ("eps-rounded", ("eps",)),
    "running_mean": ("running-mean", ("running",)), "running_batch": ("running-batch", ("running",)),
    "running_variance": ("running-variance", ("running_batch", "running")),
}  # fmt: skip
"""Fields without which their step is not there; the fields whose format it has otherwise, in a sum's result."""

WIDE_FIELDS = sorted(set(STEPS_OF) - {"load", "store", "saved", "running", "normalized"})
GENERIC = {
    "pure": {},
    "pure-scaled": {"order": Order("blocks", 64)},
    "wide-sum": dict.fromkeys(("mean_sum", "sum", "count", "eps"), "wide"),
    "wide": dict.fromkeys(WIDE_FIELDS, "wide"),
    "wide-one-pass": dict.fromkeys(WIDE_FIELDS, "wide") | {"variance": "one-pass"},
    "wide-saved-io": dict.fromkeys(WIDE_FIELDS, "wide") | {"saved": "io"},
    "pure-sequential": {"order": Order("sequential")},
}
"""docs/numerics.md."""


@dataclass
class Model:
    """A norm on rows, by an implementation's fields, one number at a time."""

    io: str
    how: dict
    param: str | None = None
    rounding: dict = field(default_factory=dict)
    careful: bool = False

    def __post_init__(self):
        for name in self.how:
            assert name in Implementation.__dataclass_fields__
        formats = {step: self.format(self.how.get(f) or "io") for f, steps in STEPS_OF.items() for step in steps}
        formats["running-update"] = self.format(self.how.get("running", "param"))
        formats["running-store"] = self.format("param")
        for field_name, (step, others) in OWN_STEPS.items():
            named = [name for name in (field_name, *others) if self.how.get(name)]
            formats[step] = self.format(self.how[named[0]] if named else "io")
        formats["inverse"] = self.format(self.how.get("inverse_count") or "io")
        wide = [formats["total"], formats["variance"]]
        formats["moment"] = max(wide, key=lambda name: oracle.target(name).mantissa_bits)  # the first of equal ones
        if self.how.get("moment"):
            formats["moment"] = self.format(self.how["moment"])
        self.a = Scalar(formats, self.rounding, self.careful)
        self.order = self.how.get("order", Order("lanes", 32))
        self.orders = {"sum": self.order, "sum-mean": self.how.get("mean_order") or self.order}

    def format(self, role):
        if role == "wide":
            return self.io if oracle.target(self.io).mantissa_bits > 23 else "float32"
        param = self.param or self.io
        promoted = max([self.io, param], key=lambda name: oracle.target(name).mantissa_bits)
        return {"io": self.io, "param": param, "promoted": promoted}.get(role, role)

    def contracts(self, step):
        return step in self.how.get("contracted", ())

    def inverse(self, n, count):
        """1/n, formed in the format of the count."""
        one = self.a.constant(count, 1.0)
        if not self.how.get("inverse_count"):
            return self.a.operate(count, "divide", one, n)
        return self.quotient("inverse", count, one, n)

    def whole_sum(self, terms, sum_step, factors=None):
        """The sum as it is divided, and the step that it was last rounded in."""
        total = self.a.sum(sum_step, terms, self.orders[sum_step], factors)
        of_mean = sum_step in ("sum-mean", "grad-sum-mean")
        field_name, step = ("mean_total", "total-mean") if of_mean else ("total", "total")
        if not self.how.get(field_name):
            return total, sum_step
        return self.a.convert(step, total, sum_step), step

    def mean(self, terms, sum_step, mean_step, factors=None):
        """Mean of a row by the implementation's division."""
        a, n, order = self.a, float(len(terms)), self.orders[sum_step]
        own = self.how.get("mean_division") if sum_step.endswith("sum-mean") else None
        division = own or self.how.get("division", "divide")
        count = "count-mean" if self.how.get("mean_count") and sum_step.endswith("sum-mean") else "count"
        if order.is_mean:
            return a.convert(mean_step, a.sum(sum_step, terms, order, factors), sum_step)
        if division.startswith("prescale"):
            inverse = self.inverse(a.constant(count, n), count)
            terms = [a.operate(sum_step, "multiply", v, inverse) for v in terms]
            return a.convert(mean_step, a.sum(sum_step, terms, order, factors), sum_step)
        total, last = self.whole_sum(terms, sum_step, factors)
        n = a.operate(count, "copy", n)
        self.divided = total
        if division == "multiply":
            return a.convert(mean_step, a.operate(last, "multiply", total, self.inverse(n, count)), last)
        return self.quotient(mean_step, last, total, n)

    def quotient(self, step, within, *operands, operation="divide"):
        """An operation, formed in the format of `within` where that is the wider one, then rounded to the step's."""
        a = self.a
        names = a.formats[within], a.formats[step]
        outer, inner = map(oracle.target, names)
        if names[0] != names[1] and outer.mantissa_bits >= inner.mantissa_bits and outer.largest >= inner.largest:
            return a.operate(step, "copy", a.calculate(operation, operands, names[0])[1], own=names[0])
        return a.operate(step, operation, *operands)

    def centred(self, x, mean, step="center"):
        out = [self.a.operate(step, "subtract", v, mean) for v in x]
        self.a.cancel(step, [*x, mean], out)
        return out

    def recentred(self, x, mean):
        """x - mean, formed once more to be normalised."""
        return self.centred(x, mean, "recentred" if self.how.get("recentred") else "center")

    # --------------------------------------------------------------------------------------------- variance

    def mean_square(self, c, step="variance"):
        a, fused = self.a, self.contracts("sum")
        if self.how.get("division") == "prescale-operand" and not self.order.is_mean:
            inverse = self.inverse(a.constant("count", float(len(c))), "count")
            scaled = [a.operate("square", "multiply", v, inverse) for v in c]
            if not fused:
                scaled = [a.operate("square", "multiply", v, w) for v, w in zip(scaled, c, strict=True)]
            return a.convert(step, a.sum("sum", scaled, self.order, c if fused else None), "sum")
        if fused:
            return self.mean(c, "sum", step, c)
        return self.mean([a.operate("square", "multiply", v, v) for v in c], "sum", step)

    def two_pass(self, x, centred):
        mean = self.mean(x, "sum-mean", "mean") if centred else None
        if centred and self.how.get("own_mean"):
            return mean, None, self.mean_square(self.centred(x, self.mean(x, "sum", "mean")))
        c = self.centred(x, mean) if centred else x
        return mean, c, self.mean_square(c)

    def one_pass(self, x, centred):
        if not centred:
            return None, x, self.mean_square(x)
        a, step = self.a, "variance" if self.a.formats["moment"] == self.a.formats["variance"] else "moment"
        fused = self.contracts("variance")
        if fused and self.how.get("division") == "multiply":
            squares = x if self.contracts("sum") else [a.operate("square", "multiply", v, v) for v in x]
            total, _ = self.whole_sum(squares, "sum", x if self.contracts("sum") else None)
            mean = self.mean(x, "sum-mean", "mean")
            product = a.operate(step, "multiply", mean, mean)
            inverse = self.inverse(a.operate("count", "copy", float(len(x))), "count")
            variance = a.operate(step, "fma", total, inverse, -product)
            a.cancel(step, [total * inverse, product], [variance])
        elif fused:
            square = self.mean_square(x, step)
            mean = self.mean(x, "sum-mean", "mean")
            variance = a.operate(step, "fma", -mean, mean, square)
            a.cancel(step, [mean * mean, square], [variance])
        else:
            square = self.mean_square(x, step)
            mean = self.mean(x, "sum-mean", "mean")
            product = a.operate(step, "multiply", mean, mean)
            variance = a.operate(step, "subtract", square, product)
            a.cancel(step, [square, product], [variance])
        return mean, None, variance if step == "variance" else a.convert("variance", variance, step)

    def one_pass_clamped(self, x, centred):
        mean, c, variance = self.one_pass(x, centred)
        return mean, c, max(variance, 0.0) if variance == variance else variance  # noqa: PLR0124  # NaN stays

    def shifted(self, x, centred):
        if not centred:
            return self.one_pass(x, centred)
        offset, _, variance = self.one_pass(self.centred(x, x[0]), centred=True)
        return self.a.operate("mean", "add", x[0], offset), None, variance

    def welford(self, x, centred):
        return self.online(x, centred, 1, 0)

    def chunked_welford(self, x, centred):
        return self.online(x, centred, self.order.width or 1, self.how.get("chunk", 16))

    def online(self, x, centred, lanes, chunk):
        sets = []
        self.a.begin("mean")
        self.a.begin("sum")
        for lane in range(lanes):
            terms = x[lane::lanes]
            chunks = [terms[i : i + chunk] for i in range(0, len(terms), chunk)] if chunk else [terms]
            sets.append(self.merge_all([self.recurrence(part) for part in chunks if part]))
        mean, total, _ = self.merge_all([s for s in sets if s])
        last = "sum"
        if self.how.get("total"):
            total, last = self.a.convert("total", total, "sum"), "total"
        n = self.a.operate("count", "copy", float(len(x)))
        if self.how.get("division") == "multiply":
            variance = self.a.operate(last, "multiply", total, self.inverse(n, "count"))
            variance = self.a.convert("variance", variance, last)
        else:
            variance = self.quotient("variance", last, total, n)
        self.divided = total
        if centred:
            return mean, None, variance
        if self.contracts("variance"):
            return None, x, self.a.operate("variance", "fma", mean, mean, variance)
        square = self.a.operate("variance", "multiply", mean, mean)
        return None, x, self.a.operate("variance", "add", variance, square)

    def recurrence(self, x):
        """d = x - m; m += d / i; M += d (x - m)."""
        o, m, total = self.a.operate, 0.0, 0.0
        fused = self.how.get("recurrence") == "welford-ops"
        for i, v in enumerate(x, start=1):
            d = o("mean", "subtract", v, m)
            m = o("mean", "add", m, o("mean", "divide", d, float(i)))
            e = o("mean", "subtract", v, m)
            product = None if fused else o("sum", "multiply", d, e)
            total = self.a.accumulate("sum", d, e, total) if fused else o("sum", "add", total, product)
        return m, total, float(len(x))

    def merge_all(self, sets):
        """Chan, Golub and LeVeque: c = nB / n, m = mA + d c, M = (MA + MB) + d d (nA c)."""
        if not sets:
            return None
        o, (m, total, count) = self.a.operate, sets[0]
        for mean_b, total_b, count_b in sets[1:]:
            c = o("mean", "divide", count_b, count + count_b)
            d = o("mean", "subtract", mean_b, m)
            m = o("mean", "add", m, o("mean", "multiply", d, c))
            total = o("sum", "add", total, total_b)
            between = o("sum", "multiply", o("sum", "multiply", d, d), o("sum", "multiply", count, c))
            total = o("sum", "add", total, between)
            count += count_b
        return m, total, count

    # ---------------------------------------------------------------------------------------------- forward

    def statistics(self, x, statistic, centred, scale, k):
        a = self.a
        centred = centred or self.how.get("statistic_centred", False)
        if statistic == "l2":
            algorithm = self.how.get("variance", "two-pass").replace("-", "_")
            mean, c, variance = getattr(self, algorithm)(x, centred=centred)
            if self.how.get("clip"):
                most = float(oracle.target(self.io).largest)
                variance = max(-most, min(most, variance)) if variance == variance else variance  # noqa: PLR0124  # NaN
            return mean, c, variance
        mean = self.mean(x, "sum-mean", "mean") if centred else None
        c = self.centred(x, mean) if centred else x
        last = "center" if centred else "load"
        if statistic == "range":
            top, bottom = (a.convert("maximum", f(c), last) for f in (max, min))
            plain = a.operate("statistic", "subtract", top, bottom)
            a.cancel("statistic", [top, bottom], [plain])
        else:
            size = [a.operate("absolute", "absolute", v) for v in c]
            if statistic == "linf":
                plain = a.convert("maximum", max(size), "absolute")
            elif statistic == "topk":
                top = [a.convert("topk", v, "absolute") for v in sorted(size, reverse=True)[:k]]
                plain = self.mean(top, "sum", "statistic")
            else:
                plain = self.mean(size, "sum", "statistic")
        return mean, c, a.operate("constant", "multiply", plain, a.constant("constant", scale))

    def row(self, index, x, statistic, *, centred, eps, scale=1.0, k=1, weight=None, bias=None, running=None):
        """Run a row; return y. weight, bias: one a row or one an element. running: (mean, variance, momentum)."""
        a, how = self.a, self.how
        a.row, n = index, len(x)
        if how.get("load", "io") not in ("io", self.io):
            x = [a.calculate("copy", [v], self.io)[1] for v in x]
        x = [a.operate("load", "copy", v) for v in x]
        if how.get("rescale") == "max":
            sizes = [a.operate("rescale", "absolute", v) for v in x]
            largest = max(sizes)
            x = [a.operate("rescale", "divide", v, largest) for v in x]
        mean, c, before = self.statistics(x, statistic, centred, scale, k)
        if how.get("eps_rounded"):
            eps = a.constant("eps-rounded", eps)
        added = a.constant("eps", max(eps, how.get("eps_min", 0.0)))
        total = self.with_eps(before, added, n, statistic)
        s, reciprocal = self.divisor(total, statistic)
        self.batch_mean = mean
        mean, c = (mean, None if how.get("recentred") else c) if centred else (None, x)
        for name in ("kept", "saved"):
            if how.get(name):
                values = [
                    v if v is None else a.convert(name, v, last)
                    for v, last in ((mean, "mean"), (reciprocal, "reciprocal"))
                ]
                if name == "kept":
                    (mean, reciprocal), c = values, c if not centred else None
        weight, bias = (v if v is None or isinstance(v, list) else [v] for v in (weight, bias))
        if weight and how.get("weight_offset"):
            weight = [a.operate("gain", "add", w, a.constant("gain", how["weight_offset"])) for w in weight]
        if running:
            self.running = self.updated(self.batch_mean, before, n, *running)
        return self.applied(x, c, mean, s, reciprocal, weight, bias)

    def with_eps(self, before, added, n, statistic):
        """The statistic + eps, or sum * (1/n) + eps in one operation, if nothing else is done to the sum."""
        a, how = self.a, self.how
        source = a.formats["variance" if statistic == "l2" else "constant"]
        plain = how.get("variance", "two-pass") in ("two-pass", "welford", "chunked-welford")
        same = a.formats["total"] == source and statistic == "l2"
        if self.contracts("eps") and how.get("division") == "multiply" and plain and same:
            inverse = self.inverse(a.operate("count", "copy", float(n)), "count")
            own = (source, a.formats["inverse" if how.get("inverse_count") else "count"], a.formats["eps"])
            return a.operate("eps", "fma", self.divided, inverse, added, own=own)
        return a.operate("eps", "add", before, added, own=(source, a.formats["eps"]))

    def applied(self, x, c, mean, s, reciprocal, weight, bias):
        """Normalise and apply gamma and beta, in the implementation's form."""
        a, form = self.a, self.how.get("normalize_form", "center")
        lacks_both = not weight and not bias
        if form == "fold-affine":
            form = "center" if lacks_both else "fold"
        if (
            not bias
            and self.how.get("absent_bias") == "zero"
            and (form != "center" or not (lacks_both and self.how["normalize_form"] == "fold-affine"))
        ):
            bias = [a.constant("bias", 0.0)]
        if form == "fold" and reciprocal is not None:
            return self.folded(x, mean, reciprocal, weight, bias)
        if form in ("center-fold", "gain-first") and weight:
            c = self.recentred(x, mean) if c is None else c
            if form == "center-fold":
                scale = [a.operate("fold", "multiply", w, reciprocal) for w in weight]
                return self.scaled(c, "gain", scale, bias)
            c = [a.operate("gain", "multiply", v, w) for v, w in spread(c, weight)]
            if reciprocal is not None:
                return self.scaled(c, "normalize", [reciprocal], bias)
            y = [a.operate("normalize", "divide", v, s) for v in c]
            return self.stored([a.operate("bias", "add", v, p) for v, p in spread(y, bias)], "bias") if bias else y
        plain = form != "shift" and reciprocal is not None and not self.how.get("normalized")
        if self.contracts("bias") and bias and not weight and plain:
            c = self.recentred(x, mean) if c is None else c
            return self.stored([a.operate("bias", "fma", v, reciprocal, p) for v, p in spread(c, bias)], "bias")
        return self.affine(self.normalised(x, c, mean, s, reciprocal), weight, bias)

    def stored(self, y, last):
        return [self.a.convert("store", v, last) for v in y]

    def scaled(self, x, step, scale, shift):
        """x * scale + shift."""
        a, last = self.a, "bias" if shift else step
        if shift and self.contracts("bias"):
            pairs = [(v, p) for v, p in spread(x, scale)]
            y = [a.operate("bias", "fma", v, p, q) for (v, p), q in spread(pairs, shift)]
        else:
            y = [a.operate(step, "multiply", v, p) for v, p in spread(x, scale)]
            y = [a.operate("bias", "add", v, p) for v, p in spread(y, shift)] if shift else y
        return self.stored(y, last)

    def divisor(self, total, statistic):
        """Return s, and 1/s where elements are multiplied by it; formed in the root's format where that is wider."""
        a, form = self.a, self.how.get("root_form", "root-reciprocal")
        if statistic == "l2" and form == "rsqrt":
            return None, self.quotient("reciprocal", "root", total, operation="rsqrt")
        if statistic == "l2" and form == "reciprocal-root":
            inverse = a.operate("root", "divide", a.constant("root", 1.0), total)
            return None, a.operate("reciprocal", "sqrt", inverse)
        if statistic != "l2":
            return total, None if form == "divide" else a.operate("reciprocal", "divide", 1.0, total)
        s = a.operate("root", "sqrt", total)
        return s, None if form == "divide" else self.quotient("reciprocal", "root", 1.0, s)

    def affine(self, y, weight, bias):
        a, last = self.a, "normalize"
        if self.how.get("normalized"):
            y, last = [a.convert("cast", v, last) for v in y], "cast"
        if weight:
            return self.scaled(y, "gain", weight, bias)
        if bias:
            y, last = [a.operate("bias", "add", v, p) for v, p in spread(y, bias)], "bias"
        return self.stored(y, last)

    def normalised(self, x, c, mean, s, reciprocal):
        a = self.a
        if self.how.get("normalize_form") == "shift" and mean is not None and reciprocal is not None:
            shift = a.operate("fold", "multiply", -mean, reciprocal)
            if self.contracts("normalize"):
                return [a.operate("normalize", "fma", v, reciprocal, shift) for v in x]
            product = [a.operate("normalize", "multiply", v, reciprocal) for v in x]
            return [a.operate("normalize", "add", v, shift) for v in product]
        if c is None:
            c = self.recentred(x, mean)
        if reciprocal is None:
            return [a.operate("normalize", "divide", v, s) for v in c]
        return [a.operate("normalize", "multiply", v, reciprocal) for v in c]

    def folded(self, x, mean, reciprocal, weight, bias):
        """x * scale + shift; what is one number a row is computed once a row."""
        a = self.a
        scale = [a.operate("fold", "multiply", v, reciprocal) for v in weight] if weight else [reciprocal]
        shift = bias
        if mean is not None:
            if bias and (self.contracts("fold") or (self.contracts("fold-gain") and weight)):
                shift = [a.operate("fold", "fma", v, -mean, p) for v, p in spread(scale, bias)]
            else:
                shift = [a.operate("fold", "multiply", v, -mean) for v in scale]
                shift = [a.operate("fold", "add", v, p) for v, p in spread(shift, bias)] if bias else shift
        return self.scaled(x, "gain", scale, shift)

    def updated(self, mean, variance, n, old_mean, old_variance, momentum):
        a, how, update = self.a, self.how, "running-update"
        batch = "running-batch" if how.get("running_batch") else update
        of_variance = "running-variance" if how.get("running_variance") else batch
        bessel = how.get("bessel", "variance")
        if bessel == "variance":
            variance = a.operate(of_variance, "multiply", variance, a.constant(of_variance, n / (n - 1)))
        elif bessel == "sum":
            divisor = a.operate("count", "copy", float(n - 1))
            variance = self.quotient("variance", "total" if how.get("total") else "sum", self.divided, divisor)
        if how.get("running_mean"):
            mean = a.convert("running-mean", mean, "mean")

        def mix(old, new, step):
            m, rest = a.constant(step, momentum), a.constant(update, 1 - momentum)
            if how.get("momentum_of") == "batch":
                m = a.constant(update, momentum)
                rest = a.constant(update, 1 - m)
            elif how.get("momentum_of") == "running":
                m = a.constant(step, 1 - rest)
            kept, added = a.operate(update, "multiply", old, rest), a.operate(step, "multiply", new, m)
            bits = [oracle.target(a.formats[s]).mantissa_bits for s in (step, update)]
            last = step if bits[0] >= bits[1] else update
            mixed = a.operate(last, "add", kept, added)
            same = a.formats[last] == a.formats["running-store"]
            return mixed if same else a.operate("running-store", "copy", mixed)

        new_variance = mix(old_variance, variance, of_variance)
        return mix(old_mean, mean, batch), new_variance


# ------------------------------------------------------------------------------------------- comparison


def assert_like_the_model(got, model, *, order=True):
    """Compare the record of every step: names, formats, every event, magnitudes, lost mass, cancelled bits."""
    want = model.a.steps
    names = [step.step for step in got]
    assert names == list(want) if order else sorted(names) == sorted(want)
    for step in got:
        record, name = want[step.step], step.step
        assert step.format == record.format, name
        events = {event: getattr(step, event) for event in EVENTS}
        assert events == {event: getattr(record, event) for event in EVENTS}, name
        largest = math.inf if step.max_abs == math.inf and record.largest > 3.4e38 else record.largest
        assert step.max_abs == pytest.approx(largest, rel=2e-7), name
        assert step.min_abs == pytest.approx(0.0 if math.isinf(record.least) else record.least, rel=2e-7), name
        if record.lost_mass is None:
            assert step.lost_mass is None, name
        else:
            assert step.lost_mass == pytest.approx(record.lost_mass, rel=1e-9, abs=1e-12), name
        assert step.cancelled_bits == pytest.approx(record.cancelled, rel=1e-9, abs=1e-9), name


def inputs(n, seed=0):
    """Three rows: plain, with a mean beside the deviation, so small that squares are lost. None overflows."""
    x = np.random.default_rng((seed, n)).standard_normal((3, n))
    return (x * [[1.0], [3.0], [2e-4]] + [[0.3], [5.0], [0.0]]).astype(np.float32)


def overflowing(n, seed=0):
    """Rows with squares, sums of squares, and sums that overflow float16, one with NaN, and a good one."""
    x = np.random.default_rng((seed, n)).standard_normal((5, n))
    x = (x * [[200.0], [60.0], [1.0], [1.0], [1.0]] + [[0.0], [0.0], [20000.0], [0.0], [1.0]]).astype(np.float32)
    x[3, n // 2] = np.nan
    return x


NORMS = {"layer-l2": ("l2", True), "rms": ("l2", False), "layer-l1": ("l1", True), "batch-l2": ("l2", True)}


def scale_of(statistic, n, k=10):
    return 1.0 if statistic == "l2" else constant(statistic, "exact", n, k)


def compare(x, name, io, implementation, how, *, careful=False, eps=1e-5, rounding=None, model=None, **settings):
    """Run rows x under the code and under the model; compare output and steps. x: (rows, n)."""
    rounding = rounding or {}
    norm = norm_named(name)
    label = format_named(io).label
    given = x.T if norm.where == "batch" else x
    emulation = emulate(given, name, precision=label, implementation=implementation, eps=eps, **rounding, **settings)
    model = model or Model(io, how, rounding=rounding, careful=careful)
    output = emulation.output.T if norm.where == "batch" else emulation.output
    want = rows_of(model, x, norm, eps=eps, **settings)
    oracle.assert_same(output.ravel(), np.array(want).ravel(), label=f"{name} {io}")
    assert_like_the_model(emulation.steps, model)
    return emulation, model


def rows_of(model, x, norm, *, eps, weight=None, bias=None, params="half", k=10):
    """Run the model on rows; parameters are rounded to their format first, as stored ones are."""
    stored = "float32" if params == "float32" else model.io
    cast = [None if p is None else [rounded(float(v), oracle.target(stored))[0] for v in p] for p in (weight, bias)]
    n, statistic = x.shape[1], norm.statistic.name
    scale = scale_of(statistic, n, min(k, n))
    out = []
    for index, row in enumerate(x.astype(np.float64).tolist()):
        w, b = (p if p is None or norm.where != "batch" else p[index] for p in cast)
        out.append(
            model.row(index, row, statistic, centred=norm.centred, eps=eps, scale=scale, k=min(k, n), weight=w, bias=b)
        )
    return out


def test_the_model_rounds_as_the_oracle():
    rng = np.random.default_rng(3)
    for name in ("float16", "bfloat16", "float32"):
        form = oracle.target(name)
        x = np.exp2(rng.uniform(-30, 17, (300, 2))) * rng.choice([-1.0, 1.0], (300, 2))
        for a, b in x.tolist():
            a, b = (rounded(v, form)[0] or 1.0 for v in (a, b))  # noqa: PLW2901
            for operation in oracle.BINARY:
                want = oracle.calculate(operation, a, b, form=form)
                assert rounded(in_doubles(operation, a, b), form)[0] == want, (operation, a, b)
            want = oracle.calculate("sqrt", abs(a), form=form)
            assert rounded(in_doubles("sqrt", abs(a)), form)[0] == want


# ------------------------------------------------------------------------------- the generic implementations


LENGTHS = [*range(1, 71), 95, 96, 97, 127, 128, 129, 200, 257]


@pytest.mark.parametrize(("name", "io"), [(name, io) for name in NORMS for io in ("float16", "bfloat16")])
@pytest.mark.parametrize("implementation", GENERIC)
def test_generic_implementations_are_bit_equal_to_the_model(implementation, name, io):
    every = 1 if (name, io) == ("layer-l2", "float16") else 5
    for n in LENGTHS[::every]:
        if n > 1 or name != "batch-l2":
            compare(inputs(n), name, io, implementation, GENERIC[implementation])


@pytest.mark.parametrize("implementation", GENERIC)
@pytest.mark.parametrize("name", ["layer-linf", "layer-topk", "layer-range", "layer-l1-uncentred", "rms"])
def test_the_other_statistics_too(implementation, name):
    for n in (2, 9, 33, 65, 130):
        compare(inputs(n), name, "float16", implementation, GENERIC[implementation])


@pytest.mark.parametrize("io", ["tf32", "float8_e5m2", "float8_e4m3fn", "float32"])
@pytest.mark.parametrize("implementation", ["pure", "wide-sum", "wide"])
def test_formats_that_float32_does_not_carry_and_narrow_ones(implementation, io):
    x = inputs(21)[:1] if io.startswith("float8") else inputs(21)
    compare(x, "layer-l2", io, implementation, GENERIC[implementation])
    compare(x, "layer-l1", io, implementation, GENERIC[implementation])


@pytest.mark.parametrize("io", ["float16", "bfloat16", "tf32"])
@pytest.mark.parametrize("implementation", GENERIC)
@pytest.mark.parametrize("row", [0, 1, 2], ids=["square", "sum of squares", "sum"])
def test_what_overflows(row, implementation, io):
    for n in (40, 65):
        for name in ("layer-l2", "layer-l1"):
            compare(overflowing(n)[[row, 4]], name, io, implementation, GENERIC[implementation])


@pytest.mark.parametrize("io", ["float16", "bfloat16", "tf32"])
def test_a_row_with_nan_hides_nothing_of_the_other_rows(io):
    compare(overflowing(12)[3:], "layer-l2", io, "pure", {})


def test_rows_are_the_same_in_any_company():
    x = inputs(37)
    together = emulate(x, "layer-l2", precision="fp16").output
    for index in range(3):
        alone = emulate(x[index : index + 1], "layer-l2", precision="fp16").output
        oracle.assert_same(alone[0], together[index])


def test_affine_parameters_are_cast_and_take_one_rounding_each():
    x, n = inputs(19)[:2], 19
    w, b = np.random.default_rng(5).standard_normal((2, n)) * [[0.7], [3.0]]
    for implementation, how in GENERIC.items():
        for params in ("half", "float32"):
            wanted = {"weight": w, "bias": b, "params": params}
            compare(x, "layer-l2", "float16", implementation, how, careful=True, **wanted)
    compare(x, "batch-l2", "float16", "pure", {}, weight=w[:2], bias=b[:2])
    compare(x, "rms", "bfloat16", "wide", GENERIC["wide"], weight=w)


# --------------------------------------------------------------------------- every field of an implementation


def implementation_of(how):
    return replace(PURE, name="changed", **how)


def rows_with_affine(n=37):
    """Rows, weights and a bias on which every field below shows: means beside deviations, no overflow."""
    rng = np.random.default_rng(99)
    rows = [[1.0], [6.0], [0.02], [0.5], [1.7], [0.2]], [[0.1], [20.0], [0.05], [0.3], [2.0], [1.0]]
    x = rng.standard_normal((6, n)) * rows[0] + rows[1]
    return x.astype(np.float32), rng.standard_normal(n) + 1.5, rng.standard_normal(n)


FIELDS = {
    **{f"variance {v}": {"variance": v} for v in ("one-pass", "one-pass-clamped", "shifted", "welford")},
    "variance chunked-welford": {"variance": "chunked-welford", "order": Order("lanes", 4), "chunk": 3},
    "variance chunked-welford, one lane": {"variance": "chunked-welford", "order": Order("lanes", 2), "chunk": 64},
    "own_mean": {"own_mean": True, "order": Order("lanes", 4), "mean_order": Order("sequential")},
    "chunk": {"variance": "chunked-welford", "order": Order("lanes", 4), "chunk": 5},
    "division multiply": {"division": "multiply"},
    "division prescale": {"division": "prescale"},
    "division multiply in a wide sum": {"division": "multiply", "sum": "wide", "mean_sum": "wide", "count": "wide"},
    "mean_division": {"mean_division": "multiply"},
    "mean_division of scaled terms": {"mean_division": "prescale"},
    "mean_division of scaled squares": {"mean_division": "divide", "division": "prescale"},
    "root_form rsqrt": {"root_form": "rsqrt"},
    "root_form divide": {"root_form": "divide"},
    "normalize_form shift": {"normalize_form": "shift"},
    "normalize_form fold": {"normalize_form": "fold"},
    "normalize_form fold, divide": {"normalize_form": "fold", "root_form": "divide"},
    "normalize_form fold, one-pass": {"normalize_form": "fold", "variance": "one-pass"},
    "contracted sum": {"contracted": ("sum",)},
    "contracted sum, wide sum": {"contracted": ("sum",), "sum": "wide"},
    "contracted sum, prescale": {"contracted": ("sum",), "division": "prescale"},
    "contracted sum, prescale-operand": {"contracted": ("sum",), "division": "prescale-operand"},
    "contracted variance": {"contracted": ("variance",), "variance": "one-pass"},
    "contracted variance, multiply": {"contracted": ("variance",), "variance": "one-pass", "division": "multiply"},
    "contracted sum and variance, multiply": {
        "contracted": ("sum", "variance"),
        "variance": "one-pass",
        "division": "multiply",
        "total": "float32",
    },
    "contracted eps": {"contracted": ("eps",), "division": "multiply"},
    "contracted eps, all but the sum wide": {
        "contracted": ("eps",),
        "division": "multiply",
        "inverse_count": "float32",
        "eps": "float32",
        "root": "float32",
    },
    "contracted eps of a total": {
        "contracted": ("eps", "sum"),
        "division": "multiply",
        "sum": "float32",
        "total": "float16",
    },
    "contracted eps, welford": {"contracted": ("eps",), "division": "multiply", "variance": "welford"},
    "contracted eps after a statistic of another format": {
        "contracted": ("eps",),
        "division": "multiply",
        "statistic": "bfloat16",
    },
    "contracted normalize": {"contracted": ("normalize",), "normalize_form": "shift"},
    "contracted normalize and bias": {"contracted": ("normalize", "bias"), "normalize_form": "shift"},
    "contracted fold": {"contracted": ("fold",), "normalize_form": "fold"},
    "contracted fold-gain": {"contracted": ("fold-gain", "bias"), "normalize_form": "fold"},
    "contracted bias": {"contracted": ("bias",)},
    "contracted bias, after a cast": {"contracted": ("bias",), "normalized": "bfloat16"},
    "contracted bias, center-fold": {"contracted": ("bias",), "normalize_form": "center-fold"},
    "contracted bias, gain-first": {"contracted": ("bias",), "normalize_form": "gain-first"},
    "normalize_form fold-affine": {"normalize_form": "fold-affine"},
    "normalize_form center-fold": {"normalize_form": "center-fold"},
    "normalize_form gain-first": {"normalize_form": "gain-first"},
    "normalize_form gain-first, divide": {"normalize_form": "gain-first", "root_form": "divide"},
    "root_form reciprocal-root": {"root_form": "reciprocal-root"},
    "reciprocal out of a wider root": {"root": "float64", "reciprocal": "io", "eps": "float64"},
    "rsqrt out of a wider root": {"root": "float32", "root_form": "rsqrt"},
    "division prescale-operand": {"division": "prescale-operand"},
    "division multiply, inverse_count": {"division": "multiply", "count": "float32", "inverse_count": "float8_e5m2"},
    "division multiply, welford": {"division": "multiply", "variance": "welford"},
    "one-pass in a wider sum": {"variance": "one-pass", "sum": "float32"},
    "one-pass, moment": {"variance": "one-pass", "sum": "float32", "statistic": "float32", "moment": "bfloat16"},
    "one-pass in a wider sum, moment": {"variance": "one-pass", "sum": "float32", "moment": "io"},
    "one-pass in a wider statistic": {"variance": "one-pass", "statistic": "float32"},
    "total": {"sum": "float32", "total": "bfloat16"},
    "total, multiply": {"sum": "float32", "total": "bfloat16", "division": "multiply"},
    "total, welford": {"variance": "welford", "sum": "float32", "total": "bfloat16"},
    "mean_total": {"mean_sum": "float32", "mean_total": "bfloat16"},
    "mean_count": {"mean_count": "bfloat16"},
    "kept": {"reciprocal": "float32", "mean": "float32", "kept": "bfloat16"},
    "kept and saved": {"kept": "bfloat16", "saved": "float8_e5m2"},
    "eps_rounded": {"eps": "float32", "eps_rounded": "float8_e5m2"},
    "recentred": {"recentred": "float32"},
    "recentred narrow": {"recentred": "bfloat16"},
    "recentred, gain-first": {"recentred": "float32", "normalize_form": "gain-first", "root_form": "divide"},
    "recentred, center-fold": {"recentred": "bfloat16", "normalize_form": "center-fold"},
    "recentred, fold-affine": {"recentred": "float32", "normalize_form": "fold-affine"},
    "clip": {"clip": True, "sum": "float32", "statistic": "float32"},
    "rescale": {"rescale": "max"},
    "rescale, wide": {"rescale": "max", "center": "float32"},
    "recurrence": {
        "variance": "chunked-welford",
        "order": Order("sequential"),
        "chunk": 0,
        "recurrence": "welford-ops",
    },
    "eps_min": {"eps_min": 0.5},
    "weight_offset": {"weight_offset": 1.0},
    "normalized": {"normalized": "bfloat16"},
    "saved": {"saved": "bfloat16"},
    "order sequential": {"order": Order("sequential")},
    "order lanes": {"order": Order("lanes", 5)},
    "order lanes, serial": {"order": Order("lanes", 8, "serial")},
    "order blocks": {"order": Order("blocks", 8)},
    "mean_order": {"mean_order": Order("sequential")},
    "order blocks, mean_order lanes": {"order": Order("blocks", 8), "mean_order": Order("lanes", 4)},
    "order lanes, mean_order blocks": {"order": Order("lanes", 4), "mean_order": Order("blocks", 8)},
    **{
        f"{name} {form}": {name: form}
        for name in STEPS_OF
        if name not in ("residual", "running", "normalized", "saved", "fold")
        for form in ("float32", "bfloat16")
    },
    "fold float32": {"fold": "float32", "normalize_form": "fold"},
    "fold bfloat16": {"fold": "bfloat16", "normalize_form": "shift"},
}
UNSEEN = (
    "saved",
    "load float32",
    "store float32",
    "bias float32",
    "count float32",
    "division multiply in a wide sum",
    "clip",
    "normalize_form fold-affine",
)
"""Not in the output: what is saved is not used again, float16 values do not change in float32, and a sum that is
rounded once more seldom does."""


@pytest.mark.parametrize("how", FIELDS.values(), ids=FIELDS)
def test_every_field_changes_what_it_says_and_nothing_else(how, request):
    counts = any(name.endswith("count") for name in how)
    x, w, b = rows_with_affine(259 if counts else 37)  # 259 is no number of bfloat16
    x = x[:2] if counts else x
    settings = {"weight": w, "bias": b, "eps": 0.01}
    emulation, _ = compare(x, "layer-l2", "float16", implementation_of(how), how, careful=True, **settings)
    plain = emulate(x, "layer-l2", precision="fp16", **settings)
    changed = [s for s in emulation.steps if s not in plain.steps]
    assert changed
    if request.node.callspec.id not in UNSEEN:
        assert not np.array_equal(emulation.output, plain.output)


@pytest.mark.parametrize("field_name", [n for n in STEPS_OF if n not in ("residual", "running", "fold")])
def test_a_format_is_that_of_its_steps_alone(field_name):
    x, w, b = rows_with_affine()
    for name in ("layer-l2", "layer-l1", "layer-topk", "layer-range"):
        form = "float32"
        got = emulate(x, name, precision="fp16", weight=w, bias=b, implementation=replace(PURE, **{field_name: form}))
        for step in got.steps:
            want = form if step.step in STEPS_OF[field_name] else "float16"
            assert step.format == want, (name, step.step)


FACTS = {
    "name", "title", "status", "citation", "project", "platform", "approximation", "norms", "precisions",
    "parameters", "modes", "multiple_of", "size_from", "size_below", "spatial_from", "spatial_below",
}  # fmt: skip
"""What a row says of a kernel beside its arithmetic."""
ELSEWHERE = {
    "absent_bias", "bessel", "layout", "mean_partial", "momentum_of", "partial", "running_batch", "running_mean",
    "running_variance", "statistic_centred",
}  # fmt: skip
"""Fields that a layer norm with gamma and beta does not show: each has a test of its own below."""


def test_every_field_is_covered():
    told = {name for how in FIELDS.values() for name in how} | set(STEPS_OF)
    assert not told & (FACTS | ELSEWHERE)
    assert told | FACTS | ELSEWHERE == set(Implementation.__dataclass_fields__)


def test_the_generic_rows_are_those_of_the_design():
    assert set(GENERIC) <= set(IMPLEMENTATIONS)
    for name, how in GENERIC.items():
        row, plain = IMPLEMENTATIONS[name], Implementation(name=name, title=IMPLEMENTATIONS[name].title)
        assert row == replace(plain, **how), name
        assert row.status == "generic"


@pytest.mark.parametrize("variance", ["one-pass", "shifted", "welford", "chunked-welford"])
def test_variance_algorithms_without_centring(variance):
    how = {"variance": variance, "order": Order("lanes", 4), "chunk": 3}
    compare(inputs(29)[:3], "rms", "float16", implementation_of(how), how, careful=True)


@pytest.mark.parametrize("given", [{}, {"weight": True}, {"bias": True}, {"weight": True, "bias": True}], ids=str)
@pytest.mark.parametrize("name", ["layer-l2", "rms", "batch-l2", "layer-l1"])
def test_scale_and_shift_of_every_shape(name, given):
    # one number a row or one an element, with and without a mean
    how = {"normalize_form": "fold", "fold": "float32", "weight_offset": 1.0}
    x, w, b = rows_with_affine(21)
    x, count = x[:3], 3 if name == "batch-l2" else 21
    parameters = {key: {"weight": w, "bias": b}[key][:count] for key in given}
    compare(x, name, "float16", implementation_of(how), how, careful=True, eps=0.01, **parameters)


def test_chunked_welford_in_one_sequence():
    how = {"variance": "chunked-welford", "order": Order("sequential"), "chunk": 8}
    x, _, _ = rows_with_affine(30)
    compare(x, "layer-l2", "float16", implementation_of(how), how, careful=True)


def test_a_one_pass_variance_by_hand():
    # squares 10201 -> 10200 and 10404 -> 10400; their sum 20600 -> 20608, halved 10304; mean 101.5, its square
    # 10302.25 -> 10304: nothing is left of the variance 0.25, and 1 / sqrt(0 + 2**-10) = 32
    x = np.array([[101.0, 102.0]], np.float32)
    got = emulate(x, "layer-l2", precision="fp16", eps=2.0**-10, implementation=replace(PURE, variance="one-pass"))
    assert got.output.tolist() == [[-16.0, 16.0]]
    two = emulate(x, "layer-l2", precision="fp16", eps=2.0**-10)
    assert two.output.tolist() == [[-0.998046875, 0.998046875]]  # 0.5 * 1.99609375


def test_a_fused_eps_by_hand():
    # 1/3 is 1365/4096, and 3 times that 4095/4096, which rounds to 1; eps is 3/4096
    row = replace(PURE, division="multiply", order=Order("sequential"))
    found = {}
    for contracted in ((), ("eps",)):
        how = replace(row, contracted=contracted)
        got = emulate(np.ones((1, 3)), "rms", precision="fp16", eps=3 / 4096, implementation=how)
        found[contracted] = next(s.max_abs for s in got.steps if s.step == "eps")
    assert found == {(): 4099 / 4096, ("eps",): 4098 / 4096}


def test_deviations_formed_again_by_hand():
    # the squares are of x - mean in float16, the normalised elements of x - mean in float32, where it is exact
    x = np.array([[1000.0, 1001.0, 1001.5]], np.float32)
    wide = replace(WIDE, center="io", store="float32")
    c = x[0] - np.float32(3002.5 / 3)
    found = {}
    for how, of in ((wide, c.astype(np.float16)), (replace(wide, recentred="float32"), c)):
        got = emulate(x, "layer-l2", precision="fp16", eps=0.0, implementation=how)
        found[how.recentred] = {s.step: s.format for s in got.steps}
        deviation = np.sqrt(np.mean(c.astype(np.float16).astype(np.float64) ** 2))
        np.testing.assert_allclose(got.output[0], of.astype(np.float64) / deviation, rtol=3e-7)
    assert "recentred" not in found[None]
    assert (found["float32"]["center"], found["float32"]["recentred"]) == ("float16", "float32")


def test_a_negative_one_pass_variance_is_clamped_or_not():
    # 41696 / 4 = 10424 less 102.125^2 = 10429.5 -> 10432 is -8
    x = np.array([[102.0, 102.0, 102.0, 102.5]], np.float32)
    wanted = {"precision": "fp16", "eps": 2.0**-10}
    got = emulate(x, "layer-l2", implementation=replace(PURE, variance="one-pass"), **wanted)
    assert np.isnan(got.output).all()
    got = emulate(x, "layer-l2", implementation=replace(PURE, variance="one-pass-clamped"), **wanted)
    assert got.output.tolist() == [[-4.0, -4.0, -4.0, 12.0]]


RUNNING = {
    **{f"running {form}": {"running": form} for form in ("float16", "float32", "bfloat16")},
    "running_mean": {"running_mean": "float8_e5m2"},
    "running_batch": {"running_batch": "bfloat16"},
    "running_batch, wider": {"running_batch": "float32"},
    "running_variance": {"running_variance": "bfloat16"},
    "running_variance beside running_batch": {"running_batch": "float32", "running_variance": "bfloat16"},
    "momentum_of batch": {"momentum_of": "batch"},
    "momentum_of running": {"momentum_of": "running"},
    "momentum_of running, batch": {"momentum_of": "running", "running_batch": "bfloat16"},
    "bessel sum": {"bessel": "sum"},
    "bessel sum of a total": {"bessel": "sum", "total": "bfloat16"},
    "bessel sum, welford": {"bessel": "sum", "variance": "welford"},
    "bessel none": {"bessel": "none"},
}


@pytest.mark.parametrize("how", RUNNING.values(), ids=RUNNING)
def test_the_update_of_running_statistics(how):
    rng = np.random.default_rng(4)
    x = (rng.standard_normal((7, 16, 2)) * 3 + 1).astype(np.float32)
    given = {"running_mean": rng.standard_normal(16), "running_var": rng.random(16) * 9}
    given["momentum"] = momentum = 0.1 if how.get("momentum_of") == "running" else 0.9  # the coarser of m and 1 - m
    both = [
        emulate(x, "batch-l2", precision="fp16", implementation=row, **given) for row in (implementation_of(how), PURE)
    ]
    got, plain = ((one.running_mean.tolist(), one.running_var.tolist()) for one in both)
    model = Model("float16", how, careful=True)
    want = []
    for channel in range(16):
        names, half = ("running_mean", "running_var"), oracle.target("float16")
        stored = [rounded(float(given[name][channel]), half)[0] for name in names]
        model.row(
            channel, x[:, channel].reshape(-1).tolist(), "l2", centred=True, eps=1e-5, running=(*stored, momentum)
        )
        want.append(model.running)
    assert got == tuple(map(list, zip(*want, strict=True)))
    assert_like_the_model(both[0].steps, model)
    assert (got == plain) == (how == {"running": "float16"})


def test_running_statistics_are_stored_as_parameters_are():
    x = np.random.default_rng(4).standard_normal((5, 3)).astype(np.float32)
    given = {"running_mean": [1.0] * 3, "running_var": [1.0] * 3, "implementation": replace(PURE, running="float32")}
    for params, kept in (("half", np.float16), ("float32", np.float32)):
        got = emulate(x, "batch-l2", precision="fp16", params=params, **given)
        steps = {one.step: one for one in got.steps}
        assert got.running_mean.astype(kept).tolist() == got.running_mean.tolist()
        assert ("running-store" in steps) == (params == "half")
        assert steps["running-update"].format == "float32"


@pytest.mark.parametrize(("params", "form"), [("half", "float16"), ("autocast", "float32"), ("stored", "float64")])
def test_running_statistics_live_where_the_parameters_do(params, form):
    running = {"running_mean": [0.1] * 3, "running_var": [1.1] * 3}
    got = emulate(inputs(8).T, "batch-l2", precision="fp16", params=params, **running)
    assert next(s for s in got.steps if s.step == "running-update").format == form


@pytest.mark.parametrize("form", ["io", "float32", "bfloat16"])
def test_the_residual_is_added_in_its_own_format(form):
    rng = np.random.default_rng(6)
    x, r = rng.standard_normal((2, 3, 11)).astype(np.float16).astype(np.float64) * [[[1.0]], [[64.0]]]
    how = replace(PURE, residual=form)
    machine = how.machine(format_named("fp16"), format_named("fp16"), Rounding())
    problem = Problem(norm=norm_named("layer-l2"), eps=1e-5, residual=Elements.of(r, format_named("fp16")))
    a = Emulated(machine, 3, 11)
    y = forward(a, Elements.of(x, format_named("fp16")), problem, how).y.part(0)
    target = oracle.target("float16" if form == "io" else form)
    added = np.array([rounded(v, target)[0] for v in (x + r).ravel().tolist()]).reshape(x.shape)
    want = emulate(added, "layer-l2", precision="fp16").output
    oracle.assert_same(np.asarray(y).ravel(), want.ravel())
    assert list(a.steps)[:2] == ["residual", "load"]
    assert a.steps["residual"].events.operations == 33


def test_a_residual_is_rounded_as_the_input_and_added_first():
    x, r = np.random.default_rng(6).standard_normal((2, 3, 11)) * [[[1.0]], [[30.0]]]
    half = [v.astype(np.float16).astype(np.float64) for v in (x, r)]
    settings = {"precision": "fp16", "weight": np.linspace(0.5, 2.0, 11)}
    got = emulate(x, "layer-l2", residual=r, **settings)
    want = emulate((half[0] + half[1]).astype(np.float16), "layer-l2", **settings)
    np.testing.assert_array_equal(got.output, want.output)
    exact = half[0] + half[1]
    exact = (exact - exact.mean(axis=1, keepdims=True)) / np.sqrt(exact.var(axis=1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(got.output, exact * settings["weight"], atol=0.02)
    assert got.deviation.rms < 1e-2  # the reference has the sum too
    unrounded = replace(PURE, residual="float32", load="float32")
    got = emulate(x, "layer-l2", residual=r, implementation=unrounded, **settings)
    assert {one.step: one.format for one in got.steps}["load"] == "float32"
    assert not np.array_equal(got.output, want.output)
    with pytest.raises(UsageError, match=r"residual.*\(3, 11\).*\(3, 10\)"):
        emulate(x, "layer-l2", residual=r[:, :10], **settings)


@pytest.mark.parametrize(("how", "given", "signs"), [
    ({}, {}, "-+"), ({"absent_bias": "zero"}, {}, "++"), ({"absent_bias": "zero"}, {"weight": [1.0] * 4}, "++"),
    ({"absent_bias": "zero", "normalize_form": "fold-affine"}, {}, "-+"),
    ({"absent_bias": "zero", "normalize_form": "fold-affine"}, {"weight": [1.0] * 4}, "++"),
    ({"absent_bias": "zero", "normalize_form": "shift"}, {}, "++"),
], ids=str)  # fmt: skip
def test_a_missing_beta_that_is_added_as_zero_makes_zero_of_minus_zero(how, given, signs):
    x = np.array([[-0.0, 0.0, 1.0, -1.0]], np.float32)
    got = emulate(x, "layer-l2", precision="fp16", implementation=implementation_of(how), **given).output[0]
    assert "".join("-" if sign else "+" for sign in np.signbit(got[:2])) == signs
    np.testing.assert_array_equal(got, emulate(x, "layer-l2", precision="fp16", **given).output[0])  # -0 equals 0


@pytest.mark.parametrize("norm", ["rms", "layer-l1-uncentred"])
def test_a_statistic_that_is_centred_where_the_norm_is_not(norm):
    x, w, _ = rows_with_affine(21)
    how = {"statistic_centred": True}
    compare(x, norm, "float16", implementation_of(how), how, careful=True, weight=w, eps=1e-3)
    got = emulate(x, norm, precision="fp16", implementation=implementation_of(how), eps=0.0)
    centred = emulate(x, "layer-l2" if norm == "rms" else "layer-l1", precision="fp16", eps=0.0)
    np.testing.assert_array_equal(got.rstd, centred.rstd)
    assert got.mean is None
    assert centred.mean is not None


def test_channels_last_rows_are_visited_position_by_position():
    x = np.random.default_rng(8).standard_normal((2, 6, 7)).astype(np.float32) * 9
    how = {"order": Order("sequential"), "layout": "channels-last"}
    visited = np.ascontiguousarray(x.reshape(4, 3, 7).transpose(0, 2, 1)).reshape(4, 21)
    want = emulate(visited, "layer-l2", precision="fp16", implementation=replace(PURE, order=Order("sequential")))
    got = emulate(x, "group-l2", precision="fp16", num_groups=2, implementation=implementation_of(how))
    back = want.output.reshape(4, 7, 3).transpose(0, 2, 1).reshape(2, 6, 7)
    np.testing.assert_array_equal(got.output, back)
    contiguous = emulate(
        x, "group-l2", precision="fp16", num_groups=2, implementation=replace(PURE, order=Order("sequential"))
    )
    assert not np.array_equal(got.output, contiguous.output)


@pytest.mark.parametrize("partial", [None, "float32"])
def test_the_sums_of_threads_are_added_in_the_format_of_partial_sums(partial):
    x = np.random.default_rng(9).standard_normal((1, 23)).astype(np.float32) * 20 + 5
    how = implementation_of({"order": Order("threads"), "partial": partial})
    got = emulate(x, "layer-l1-uncentred", precision="fp16", eps=0.0, implementation=how, threads=3)
    sizes, half = np.abs(x[0]).astype(np.float16), oracle.target("float16")
    sums = [0.0, 0.0, 0.0]
    for i, value in enumerate(sizes.tolist()):
        sums[i // 8] = rounded(sums[i // 8] + value, half)[0]
    form = oracle.target(partial or "float16")
    total = rounded(rounded(sums[0] + sums[1], form)[0] + sums[2], form)[0]
    mean = rounded(rounded(total / 23.0, form)[0], half)[0]
    s = rounded(mean * rounded(math.sqrt(math.pi / 2), half)[0], half)[0]
    assert got.rstd[0] == rounded(1.0 / s, half)[0]
    alone = emulate(x, "layer-l1-uncentred", precision="fp16", eps=0.0, implementation=how)
    assert alone.rstd[0] == emulate(x, "layer-l1-uncentred", precision="fp16", eps=0.0, order="sequential").rstd[0]


def test_the_sums_of_threads_of_the_mean_have_a_format_of_their_own():
    x = np.random.default_rng(9).standard_normal((9, 23)).astype(np.float32) * 20 + 5
    own, mean_of_own, both = (
        emulate(x, "layer-l2", precision="fp16", threads=3, implementation=replace(PURE, order=Order("threads"), **how))
        for how in ({}, {"mean_partial": "float32"}, {"partial": "float32"})
    )
    assert mean_of_own.mean.tolist() == both.mean.tolist() != own.mean.tolist()
    assert both.rstd.tolist() != mean_of_own.rstd.tolist()


def test_a_clipped_statistic_saturates_where_it_would_overflow():
    x = np.array([[300.0, -300.0, 300.0, -300.0]], np.float32)
    wide = replace(PURE, center="float32", product="float32", sum="float32")
    assert emulate(x, "layer-l2", precision="fp16", implementation=wide).rstd[0] == 0.0  # 1 / sqrt(inf)
    got = emulate(x, "layer-l2", precision="fp16", implementation=replace(wide, clip=True))
    assert got.rstd[0] == float(np.float16(1.0) / np.sqrt(np.float16(65504.0)))
    x[0, 0] = np.nan
    assert np.isnan(emulate(x, "layer-l2", precision="fp16", implementation=replace(wide, clip=True)).rstd).all()


def test_a_rescaled_row_does_not_overflow_and_has_another_eps():
    x = np.array([[3000.0, -4000.0, 1000.0, 2000.0], [0.0, 0.0, 0.0, 0.0]], np.float32)
    how, half = replace(PURE, rescale="max"), format_named("fp16")
    got = emulate(x, "rms", precision="fp16", implementation=how, eps=2.0**-4)
    assert np.isnan(got.output[1]).all()  # 0 / 0
    exact = x[0] / np.sqrt(np.mean(x[0] ** 2.0) + 2.0**-4 * 4000.0**2)  # eps counts in units of the largest square
    np.testing.assert_allclose(got.output[0], exact, rtol=3e-3)
    a = Emulated(how.machine(half, half, Rounding()), 2, 4)
    out = forward(a, Elements.of(x, half), Problem(norm=norm_named("rms"), eps=2.0**-4), how)
    assert out.effective_eps.data[:, 0].tolist() == [1e6, 0.0]
    assert out.s.data[0, 0] == pytest.approx(math.sqrt(np.mean(x[0] ** 2.0) + 1e6), rel=1e-3)
    assert out.before_eps.data[0, 0] == pytest.approx(np.mean(x[0] ** 2.0), rel=1e-3)
    assert (out.before_eps.degree, out.s.degree, out.y.degree) == (2, 1, 0)  # s grows with the input, and eps with it
    exact = forward(Exact(2, 4), Elements.of(x.astype(np.float64)), Problem(norm=norm_named("rms"), eps=2.0**-4), how)
    assert exact.effective_eps.data[:, 0].tolist() == [1e6, 0.0]


def test_what_a_kernel_saves_is_at_hand():
    x = inputs(33)
    plain = emulate(x, "layer-l2", precision="fp16", implementation="wide")
    saved = emulate(x, "layer-l2", precision="fp16", implementation="wide-saved-io")
    np.testing.assert_array_equal(saved.rstd, plain.rstd.astype(np.float16))
    np.testing.assert_array_equal(saved.mean, plain.mean.astype(np.float16))
    assert not np.array_equal(saved.rstd, plain.rstd)
    np.testing.assert_array_equal(saved.output, plain.output)
    divides = emulate(x, "layer-l2", precision="fp16", implementation=replace(PURE, root_form="divide"))
    assert divides.rstd is None
    assert divides.mean is not None


@pytest.mark.parametrize("lanes", [4, 8, 16])
def test_the_lanes_of_an_implementation_are_those_of_a_machine(lanes):
    x = inputs(300)
    named, own = (replace(PURE, order=order_named(f"lanes({width})")) for width in ("simd", lanes))
    got = emulate(x, "layer-l2", precision="fp16", implementation=named, simd=lanes)
    np.testing.assert_array_equal(got.output, emulate(x, "layer-l2", precision="fp16", implementation=own).output)


def test_a_mean_out_of_a_wide_sum_is_rounded_twice():
    # 12295.0009765625 / 12289 lies 4e-8 above 1 + 2^-11: float32 drops that, and float16 takes the tie to 1
    x = np.ones((1, 12289), np.float32)
    x[0, :2] = 1.0 + 2.0**-10, 7.0
    got, model = compare(x, "layer-l1-uncentred", "float16", "wide-sum", GENERIC["wide-sum"], eps=0.0)
    assert model.quotient("statistic", "sum", 12295.0009765625, 12289.0) == 1.0
    assert model.quotient("statistic", "load", 12295.0009765625, 12289.0) == 1.0 + 2.0**-10
    assert got.output[0, 9] == np.float16(1) / np.float16(math.sqrt(math.pi / 2))


def test_an_order_for_all_sums_goes_before_the_implementations_own():
    x, _, _ = rows_with_affine(50)
    both = replace(PURE, mean_order=Order("lanes", 4))
    for text in ("sequential", "pairwise", "tree", "kahan", "lanes(3)", "blocks(8)"):
        want = emulate(x, "layer-l2", precision="fp16", implementation=replace(PURE, order=order_named(text)))
        got = emulate(x, "layer-l2", precision="fp16", implementation=both, order=text)
        assert got.steps == want.steps, text
        np.testing.assert_array_equal(got.output, want.output)


@pytest.mark.parametrize("width", [3, 32])
def test_lanes_run_on_where_a_row_does_not_fit_into_one_part(width):
    n = PART + 50
    x = np.random.default_rng(2).standard_normal((1, n)).astype(np.float16)
    lanes = np.zeros(width, np.float16)
    for start in range(0, n, width):
        part = x[0, start : start + width]
        lanes[: len(part)] += part
    model = Scalar({"sum": "float16"}, {}, careful=False)
    want = model.tree("sum", lanes.astype(np.float64).tolist())
    got = summed(x.astype(np.float32), format="float16", order=f"lanes({width})")
    assert got.result[0] == want


# -------------------------------------------------------------------------------------------------- events


def step(emulation, name):
    return next(s for s in emulation.steps if s.step == name)


def test_operations_are_the_denominators():
    rows, n = 3, 40
    got = emulate(inputs(n)[:rows], "layer-l2", precision="fp16", weight=np.ones(n), bias=np.ones(n))
    each = dict.fromkeys(("load", "center", "square", "normalize", "gain", "bias"), rows * n)
    each |= dict.fromkeys(("sum-mean", "sum"), rows * (n + 31))  # 32 lanes from zero, 31 additions to merge them
    each |= dict.fromkeys(("mean", "variance", "eps", "root", "reciprocal"), rows)
    each |= {"count": 2 * rows, "store": 0}  # for mean and variance; the store finds fp16 already
    assert {s.step: s.operations for s in got.steps} == each
    got = emulate(inputs(n)[:rows], "layer-l2", precision="fp16", implementation="wide")
    assert step(got, "store").operations == rows * n


def test_each_kind_of_event_by_hand():
    got = emulate(np.array([[300.0, -300.0], [1.0, -1.0]], np.float32), "layer-l2", precision="fp16")
    square = step(got, "square")
    assert (square.overflow, square.rows_affected, square.max_abs, square.min_abs) == (2, 1, 90000.0, 1.0)
    assert (step(got, "sum").overflow, step(got, "reciprocal").underflow) == (0, 0)  # operands were infinite already
    assert (step(got, "normalize").invalid, step(got, "eps").absorbed) == (0, 1)  # 1 + 1e-5 = 1; inf does not count
    got = emulate(np.array([[1e-4, -1e-4], [2e-4, -2e-4]], np.float32), "layer-l2", precision="fp16")
    square = step(got, "square")  # 1.0e-8 is below half of 2**-24; 4.0e-8 above: it becomes 2**-24
    assert (square.underflow, square.subnormal, square.rows_affected) == (2, 2, 1)
    got = emulate(np.array([[3.0, 3.0]], np.float32), "layer-l2", precision="fp16", eps=0.0)
    assert (step(got, "reciprocal").overflow, step(got, "normalize").invalid) == (1, 2)  # 1 / 0, then 0 * inf
    x = np.array([[2048.0, 1.0, 1.0, 1.0, 1.0]], np.float32)
    got = emulate(x, "layer-l1-uncentred", precision="fp16", implementation="pure-sequential")
    total = step(got, "sum")
    assert (total.operations, total.absorbed) == (5, 4)
    assert total.lost_mass == pytest.approx(4 / 2052, rel=1e-12)


# ----------------------------------------------------------------------------- other roundings, and flushing


@pytest.mark.parametrize("mode", ["toward-zero", "up", "down"])
@pytest.mark.parametrize("implementation", GENERIC)
def test_directed_rounding(implementation, mode):
    wanted = {"careful": True, "rounding": {"rounding": mode}}
    for n in (2, 13, 67):
        compare(inputs(n), "layer-l2", "float16", implementation, GENERIC[implementation], **wanted)
    compare(inputs(13), "layer-l1", "bfloat16", implementation, GENERIC[implementation], **wanted)


@pytest.mark.parametrize("flush", [{"ftz": True}, {"daz": True}, {"ftz": True, "daz": True}], ids=str)
@pytest.mark.parametrize("implementation", ["pure", "pure-scaled", "wide-sum"])
def test_flushing(implementation, flush):
    x = inputs(33) * np.array([[1.0], [1e-4], [1.0]], np.float32)
    wanted = {"careful": True, "rounding": flush, "eps": 1e-3}
    for name in ("layer-l2", "layer-l1"):
        got, _ = compare(x, name, "float16", implementation, GENERIC[implementation], **wanted)
        plain = emulate(x, name, precision="fp16", implementation=implementation, eps=1e-3)
        assert got.steps != plain.steps


def test_flushing_with_directed_rounding():
    x = inputs(33)[:2] * np.float32(1e-2)
    wanted = {"careful": True, "rounding": {"ftz": True, "daz": True, "rounding": "up"}, "eps": 1e-4}
    compare(x, "layer-l2", "float16", "pure", {}, **wanted)


def test_an_operand_is_subnormal_in_its_own_format():
    # 3e-5 is a normal number of float32: daz leaves it alone, and the store makes a subnormal of it
    x = np.array([[1.0, -1.0]], np.float32)
    wanted = {"precision": "fp16", "implementation": "wide", "weight": [3e-5, 3e-5], "params": "float32"}
    plain = emulate(x, "layer-l2", **wanted).output
    assert plain[0, 0] == pytest.approx(3e-5, rel=1e-3)
    np.testing.assert_array_equal(emulate(x, "layer-l2", daz=True, **wanted).output, plain)
    assert not emulate(x, "layer-l2", ftz=True, **wanted).output.any()


WRONG = {
    "negative eps": ("layer-l2", {"eps": -1.0}, "eps.*-1"),
    "eps no number": ("layer-l2", {"eps": math.nan}, "eps.*nan"),
    "norm": ("layer-l3", {}, "layer-l3"),
    "precision": ("layer-l2", {"precision": "fp17"}, "fp17"),
    "implementation": ("layer-l2", {"implementation": "wid"}, "wid.*wide"),
    "weight": ("layer-l2", {"weight": [1.0] * 3}, r"weight.*layer-l2.*8.*3"),
    "bias": ("batch-l2", {"bias": [1.0] * 3}, r"bias.*batch-l2.*8.*3"),
    "bias of a weight norm": ("weight-l2", {"bias": [1.0] * 2}, "weight-l2.*bias"),
    "running statistics of a layer norm": ("layer-l2", {"running_var": [1.0] * 8}, "layer-l2.*running"),
    "evaluation without them": ("batch-l2", {"mode": "eval"}, "batch-l2.*running_mean"),
    "mode": ("batch-l2", {"mode": "test"}, "test"),
    "k": ("layer-topk", {"k": 0}, "k.*0"),
    "groups": ("group-l2", {"num_groups": 3}, "8.*3"),
    "params": ("layer-l2", {"params": "fp16"}, "fp16"),
    "order": ("layer-l2", {"order": "lanes(1)"}, r"lanes\(1\)"),
    "rounding": ("layer-l2", {"rounding": "nearest"}, "nearest"),
    "rounding of float64": ("layer-l2", {"rounding": "up", "precision": "fp64"}, "up.*float64"),
}


@pytest.mark.parametrize(("name", "settings", "says"), WRONG.values(), ids=WRONG)
def test_what_cannot_be_emulated_is_refused_in_one_clear_line(name, settings, says):
    with pytest.raises(UsageError, match=says) as caught:
        emulate(np.ones((2, 8)), name, **{"precision": "fp16"} | settings)
    assert "\n" not in str(caught.value)


STOCHASTIC = {"precision": "fp16", "rounding": "stochastic"}


def test_stochastic_rounding_is_keyed_by_the_seed():
    x = inputs(50)[:2]
    one, again, other = (emulate(x, "layer-l2", seed=seed, **STOCHASTIC) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.output, again.output)
    assert one.steps == again.steps
    assert not np.array_equal(one.output, other.output)
    nearest = emulate(x, "layer-l2", precision="fp16").output
    assert np.max(np.abs(one.output - nearest)) < 0.02


def test_stochastic_rounding_leaves_exact_results_alone():
    x = np.array([[1.0, -1.0, 1.0, -1.0], [3.0, -5.0, 1.0, 1.0]], np.float32)
    for implementation in GENERIC:
        got = emulate(x[:1], "layer-l2", eps=0.0, implementation=implementation, **STOCHASTIC).output
        assert got.tolist() == x[:1].tolist(), implementation
    got = emulate(x[1:], "rms", eps=7.0, **STOCHASTIC).output  # mean square 9
    assert got.tolist() == (x[1:] / 4).tolist()


def stochastic_machine(seed=7):
    half = format_named("fp16")
    return PURE.machine(half, half, Rounding("stochastic", seed=seed))


def test_stochastic_rounding_takes_a_neighbour_with_the_right_frequency():
    n = 40000
    for share in (0.1, 0.5, 0.93):
        value = 1.0 + share * 2.0**-10
        a = Emulated(stochastic_machine(), 1, n)
        got = np.asarray(a.load(Elements.of(np.full((1, n), value))).part(0), np.float64)
        assert set(got[0].tolist()) == {1.0, 1.0 + 2.0**-10}
        assert np.mean(got > 1.0) == pytest.approx(share, abs=5 * math.sqrt(share * (1 - share) / n))


def test_stochastic_rounding_draws_anew_for_every_row_and_operation_but_not_for_every_look():
    n = PART + 300
    a = Emulated(stochastic_machine(), 2, n)
    x = Elements.of(np.full((2, n), 1.0 + 2.0**-11))
    first, second = a.convert("load", x), a.convert("center", x)
    pieces = [first.part(1) > 1, first.part(0)[:, :300] > 1, second.part(1) > 1]
    np.testing.assert_array_equal(first.part(1) > 1, pieces[0])  # a second look computes it again
    rows = [piece[row] for piece in pieces for row in range(2)]
    for i, u in enumerate(rows):
        for v in rows[:i]:
            assert abs(np.mean(u == v) - 0.5) < 5 * 0.5 / math.sqrt(300)


def test_every_stochastic_operation_rounds_to_a_neighbour():
    x = np.random.default_rng(1).standard_normal((3, 400)).astype(np.float16).astype(np.float64)
    form = oracle.target("float16")
    loaded = Elements.of(x, format_named("fp16"))
    a = Emulated(stochastic_machine(), 3, 400)
    for operation in ("add", "multiply", "divide"):
        other = Elements.of(np.roll(x, 1, axis=1), format_named("fp16"))
        got = np.asarray(getattr(a, operation)("center", loaded, other).part(0), np.float64)
        operands = x.ravel(), np.roll(x, 1, axis=1).ravel()
        for u, v, r in np.stack([*operands, got.ravel()], axis=1).tolist():
            value = oracle.apply(operation, u, v)
            below, above = (oracle.round_exact(value, form, mode) for mode in ("down", "up"))
            assert r in (below, above), (operation, u, v)
    total = a.sum("sum", loaded).data[:, 0]
    assert np.all(np.abs(total - x.sum(axis=1)) < 44 * 32 * 2.0**-10)  # an ulp, up to 32, for each addition of a chain
