"""`operate`: + - × ÷ √ and fused multiply-add, one rounding each, in every mode, with their events."""

from __future__ import annotations

import functools
import itertools
import math
from fractions import Fraction

import ml_dtypes
import numpy as np
import oracle
import pytest
from oracle import BINARY, FLUSHES, MODES, POLICIES, target

from normcheck.arithmetic.elementwise import elementwise
from normcheck.arithmetic.events import no_events
from normcheck.arithmetic.formats import format_named
from normcheck.arithmetic.operations import operate
from normcheck.arithmetic.rounding import Rounding
from normcheck.errors import UsageError

SMALL = (
    "float8_e4m3fn",
    "float8_e5m2",
    "float8_e4m3fnuz",
    "float8_e5m2fnuz",
    "float6_e3m2fn",
    "float4_e2m1fn",
    "e3m4",
    "e4m3",
)
WIDE = ("float16", "bfloat16", "tf32", "float32", "e8m15", "e6m9", "e5m11", "e9m4", "e9m23", "e2m23")
MOST = ("tf32", "float32", "e8m15", "e6m9")
"""No foreign library checks these in directed modes, and but for float32 none at all: they get the most pairs."""
OPERATIONS = (*BINARY, "sqrt", "rsqrt", "fma")
ARITY = dict.fromkeys(BINARY, 2) | {"sqrt": 1, "rsqrt": 1, "fma": 3}
CONFIGURATIONS = tuple(
    [(mode, policy, FLUSHES[0]) for mode in MODES for policy in POLICIES]
    + [(mode, "ieee", flush) for mode in MODES for flush in FLUSHES[1:]]
)


# ------------------------------------------------------------------------- expectations for whole arrays


def float64_result(operation, operands, mode):
    """Return the operation in float64, with the sign that exact zero sums have in the mode."""
    with np.errstate(all="ignore"):
        if operation == "fma":
            a, b, c = operands
            terms = (a * b, c)
        else:
            terms = (operands[0], -operands[1] if operation == "subtract" else operands[-1])
        if operation in ("add", "subtract", "fma"):
            total = terms[0] + terms[1]
            if mode == "down":
                total = np.where(
                    (total == 0) & ~((terms[0] == 0) & ~np.signbit(terms[0]) & ~np.signbit(terms[1])),
                    -0.0,
                    total,
                )
            return total
        return getattr(np, operation)(*operands)


def expected_events(operands, exact_is_nan, exact_is_zero, result, over, form):
    """Count the events of `results.Step` from the definitions."""
    whole = ~functools.reduce(np.logical_or, map(np.isnan, operands))
    finite = functools.reduce(np.logical_and, map(np.isfinite, operands))
    size = np.abs(result)
    return {
        "operations": result.size,
        "overflow": int((over & finite).sum()),
        "underflow": int(((size == 0) & ~exact_is_zero).sum()),
        "subnormal": int(((size > 0) & (size < float(form.smallest_normal))).sum()),
        "invalid": int((exact_is_nan & whole).sum()),
    }


def counted(outcome):
    return {
        name: getattr(outcome.events, name) for name in ("operations", "overflow", "underflow", "subnormal", "invalid")
    }


def check(operation, operands, name, places, exact_is_nan, exact_is_zero, divided_by_zero, settings, *, events=True):
    """Compare results and events of one configuration with what the brackets say."""
    mode, policy, flush = settings
    form = target(name)
    expected, over = oracle.select(places, form, mode, policy, ftz=flush["ftz"])
    with np.errstate(over="ignore"):  # that none is raised has a test of its own
        outcome = operate(operation, *operands, format=name, rounding=mode, overflow=policy, **flush)
    label = f"{operation} {name} {mode} {policy} {flush}"
    assert outcome.result.dtype == np.float64
    oracle.assert_same(outcome.result, expected, *operands, label=label)
    if events:
        wanted = expected_events(operands, exact_is_nan, exact_is_zero, expected, over | divided_by_zero, form)
        assert counted(outcome) == wanted, label


def check_by_codes(operation, operands, name, settings):
    """Expect what rounding the float64 result gives: only where no float64 rounding can matter."""
    mode, _, flush = settings
    form = target(name)
    seen = [oracle.flush_operands(x, form) if flush["daz"] else x for x in operands]
    result = float64_result(operation, seen, mode)
    by_zero = np.isinf(result) & np.isfinite(seen[0]) & (operation == "divide")
    places = oracle.between_codes(result, form)
    check(operation, operands, name, places, np.isnan(result), result == 0, by_zero, settings)


def exact_results(operation, operands, mode="nearest-even"):
    """Return the exact results as the oracle's values, one by one."""
    rows = zip(*(x.tolist() for x in operands), strict=True)
    return [oracle.apply(operation, *row, mode=mode) for row in rows]


def variants(operation, operands, form):
    """Yield the exact results for each of (rounding down, daz); only rows that these change are worked out again."""
    usual = exact_results(operation, operands)
    flushed = [oracle.flush_operands(x, form) for x in operands]
    for down, daz in itertools.product((False, True), repeat=2):
        seen = flushed if daz else operands
        values = list(usual)
        changed = np.zeros(len(values), bool)
        if daz:
            changed |= functools.reduce(np.logical_or, [x != y for x, y in zip(operands, flushed, strict=True)])
        if down:
            changed |= functools.reduce(np.logical_and, [np.isfinite(x) for x in seen])
            changed &= np.array([daz or value == 0 for value in values])
        rows = np.flatnonzero(changed)
        again = exact_results(operation, [x[rows] for x in seen], "down" if down else "nearest-even")
        for row, value in zip(rows.tolist(), again, strict=True):
            values[row] = value
        yield (down, daz), seen, values


def check_by_fractions(operation, operands, name, configurations=CONFIGURATIONS):
    """Expect what the exact rationals say."""
    form = target(name)
    places = {}
    for key, seen, values in variants(operation, operands, form):
        special = np.array([value if isinstance(value, float) else 1.0 for value in values])
        by_zero = np.isinf(special) & np.isfinite(seen[0]) & (operation in {"divide", "rsqrt"})
        places[key] = (oracle.between_ratios(values, form), np.isnan(special), special == 0, by_zero)
    for mode, policy, flush in configurations:
        check(operation, operands, name, *places[mode == "down", flush["daz"]], (mode, policy, flush))


# --------------------------------------------------------------------------------- every pair of 8 bits


def all_pairs(name):
    numbers = target(name).numbers
    return [grid.ravel() for grid in np.meshgrid(numbers, numbers, indexing="ij")]


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("operation", BINARY)
def test_every_pair_of_small_formats(operation, name):
    # Sums and products of these are exact in float64 and its quotients lie on the exact ones' side of every midpoint
    # (numerators and denominators have at most 5 bits): the next test checks that against Fractions.
    operands = all_pairs(name)
    for settings in CONFIGURATIONS:
        check_by_codes(operation, operands, name, settings)


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("operation", BINARY)
def test_the_expectations_for_pairs_agree_with_fractions(operation, name):
    rng = np.random.default_rng(10)
    operands = [rng.choice(target(name).numbers, 120) for _ in range(2)]
    for mode, policy, flush in CONFIGURATIONS:
        form = target(name)
        seen = [oracle.flush_operands(x, form) if flush["daz"] else x for x in operands]
        places = oracle.between_codes(float64_result(operation, seen, mode), form)
        fast, _ = oracle.select(places, form, mode, policy, ftz=flush["ftz"])
        rows = zip(*operands, strict=True)
        slow = [
            oracle.calculate(operation, *map(float, r), form=form, mode=mode, overflow=policy, **flush) for r in rows
        ]
        oracle.assert_same(fast, slow, *operands, label=f"{operation} {name} {mode} {policy}")


@pytest.mark.parametrize("name", [*SMALL, "float16", "bfloat16", "tf32"])
def test_square_roots_of_every_code(name):
    numbers = target(name).numbers
    if len(numbers) > 512:
        check_by_codes("sqrt", [numbers], name, ("nearest-even", "ieee", FLUSHES[0]))
        rng = np.random.default_rng(11)
        numbers = np.concatenate([rng.choice(numbers, 3000), numbers[:64], numbers[-64:]])
    check_by_fractions("sqrt", [numbers], name)


@pytest.mark.parametrize("name", ["float4_e2m1fn", "e2m1", "float6_e3m2fn"])
def test_fma_of_every_triple_of_tiny_formats(name):
    numbers = target(name).numbers
    positive = numbers[~np.signbit(numbers)]
    grids = np.meshgrid(positive, numbers, numbers, indexing="ij")
    for settings in CONFIGURATIONS:
        check_by_codes("fma", [g.ravel() for g in grids], name, settings)


def test_fma_of_every_triple_of_e4m3fn():
    numbers = target("float8_e4m3fn").numbers
    positive = numbers[~np.signbit(numbers)]
    for part in np.array_split(positive, 4):  # products reach down to 2**-18 and sums up to 2**18: exact in float64
        grids = [g.ravel() for g in np.meshgrid(part, positive, numbers, indexing="ij")]
        check_by_codes("fma", grids, "float8_e4m3fn", ("nearest-even", "nan", FLUSHES[0]))
        sample = [g[::7] for g in grids]
        for settings in [
            ("toward-zero", "ieee", FLUSHES[0]),
            ("up", "nan", FLUSHES[1]),
            ("down", "saturate", FLUSHES[2]),
        ]:
            check_by_codes("fma", sample, "float8_e4m3fn", settings)


@pytest.mark.parametrize("name", ["float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float6_e3m2fn", "e4m3"])
def test_fma_of_random_triples_of_small_formats(name):
    rng = np.random.default_rng(12)
    check_by_fractions("fma", [rng.choice(target(name).numbers, 5000) for _ in range(3)], name)


# ------------------------------------------------------------------- 10**7 pairs against foreign libraries

MILLIONS = 2_500_000
"""Pairs for each of four operations: 10**7 a format."""
FOREIGN = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16}


def decoded(codes, form):
    """Return the values of positive codes, those beyond the largest finite number taken as that."""
    codes = np.minimum(codes, form.largest_code)
    exponent, mantissa = np.divmod(codes, 2**form.mantissa_bits)
    integer = np.where(exponent == 0, mantissa, 2**form.mantissa_bits + mantissa).astype(np.float64)
    return np.ldexp(integer, (np.maximum(exponent, 1) - form.bias - form.mantissa_bits).astype(np.int64))


def boundary_codes(form):
    """Return codes of zero, subnormals, the smallest and largest normals, powers of two and their neighbours."""
    unit = 2**form.mantissa_bits
    powers = np.arange(1, 2**form.exponent_bits) * unit
    some = np.arange(1, unit, max(1, unit // 64))
    last = form.largest_code
    codes = np.concatenate([[0, 1, 2, 3, unit - 2, unit - 1, last - 1, last], some, powers - 1, powers, powers + 1])
    return np.unique(codes[(codes >= 0) & (codes <= last)])


def pairs(form, n, seed):
    """Return n pairs of a format's numbers: random, at boundaries, near each other, tying, cancelling; some special."""
    rng = np.random.default_rng(seed)
    unit, edges = 2**form.mantissa_bits, boundary_codes(form)
    a, b = rng.integers(0, form.largest_code + 1, (2, n))
    kind = rng.integers(0, 6, n)
    a = np.where(kind <= 1, rng.choice(edges, n), a)
    b = np.where(kind == 1, rng.choice(edges, n), b)
    reach = (form.mantissa_bits + 3) * unit
    b = np.where(kind == 2, np.clip(a + rng.integers(-reach, reach, n), 0, form.largest_code), b)
    middle = form.bias * unit
    for x in (a, b):  # about 1, where products and quotients neither overflow nor underflow
        x[:] = np.where(kind == 3, np.clip(middle + rng.integers(-4 * unit, 4 * unit, n), 1, form.largest_code), x)
    half_ulp = np.maximum(a - a % unit - (form.mantissa_bits + 1) * unit, 0) + rng.choice([0, -1, 1, unit // 2], n)
    half_ulp = np.maximum(half_ulp, 0)
    b = np.where(kind == 4, half_ulp, b)
    b = np.where(
        kind == 5,
        np.where(rng.random(n) < 0.5, a, np.clip(a + rng.integers(-3, 4, n), 0, form.largest_code)),
        b,
    )
    specials = np.array([0.0, math.inf, math.nan, 1.0, 3.0])
    values = [decoded(codes, form) * rng.choice([-1.0, 1.0], n) for codes in (a, b)]
    return [np.where(rng.random(n) < 0.01, rng.choice(specials, n), x) for x in values]


@pytest.mark.parametrize("operation", BINARY)
@pytest.mark.parametrize("name", FOREIGN)
def test_millions_of_pairs_agree_with_the_foreign_library(name, operation):
    form = target(name)
    operands = pairs(form, MILLIONS, BINARY.index(operation))
    with np.errstate(all="ignore"):  # both libraries compute in float32 and round once more: right for these two
        foreign = getattr(np, operation)(*(x.astype(FOREIGN[name]) for x in operands)).astype(np.float64)
    outcome = operate(operation, *operands, format=name)
    oracle.assert_same(outcome.result, foreign, *operands, label=f"{operation} {name}")
    exact = float64_result(operation, operands, "nearest-even")
    by_zero = np.isinf(exact)
    wanted = expected_events(operands, np.isnan(exact), exact == 0, foreign, np.isinf(foreign) | by_zero, form)
    assert counted(outcome) == wanted


@pytest.mark.parametrize("operation", [*BINARY, "sqrt"])
def test_float32_is_native(operation):
    operands = pairs(target("float32"), 500_000, 15)[: ARITY[operation]]
    with np.errstate(all="ignore"):
        native = getattr(np, operation)(*(x.astype(np.float32) for x in operands))
    outcome = operate(operation, *operands, format="float32")
    oracle.assert_same(outcome.result, native, *operands, label=operation)


@pytest.mark.parametrize("operation", BINARY)
@pytest.mark.parametrize("mode", MODES[1:])
def test_hundreds_of_thousands_of_float16_pairs_in_directed_modes(mode, operation):
    # Sums and products of float16 are exact in float64; quotients of 11-bit integers keep clear of midpoints.
    operands = pairs(target("float16"), 300_000, 20 + BINARY.index(operation))
    for flush in (FLUSHES[0], FLUSHES[3]):
        check_by_codes(operation, operands, "float16", (mode, "ieee", flush))


@pytest.mark.parametrize("operation", ["multiply", "divide"])
@pytest.mark.parametrize("mode", MODES[1:])
def test_hundreds_of_thousands_of_bfloat16_pairs_in_directed_modes(mode, operation):
    operands = pairs(target("bfloat16"), 200_000, 30 + BINARY.index(operation))
    check_by_codes(operation, operands, "bfloat16", (mode, "ieee", FLUSHES[0]))


@pytest.mark.parametrize("operation", ["multiply", "divide"])
@pytest.mark.parametrize("name", ["tf32", "e8m9", "e8m8", "bfloat16"])
def test_products_and_quotients_among_subnormals_that_float32_rounds_twice(name, operation):
    form = target(name)
    unit = 2**form.mantissa_bits
    a, b = (grid.ravel() / unit for grid in np.meshgrid(np.arange(unit, 2 * unit), np.arange(unit, 2 * unit)))
    exact = a * b if operation == "multiply" else a / b
    quantum = float(form.magnitude(1))
    found = []
    for exponent in range(form.emin - form.mantissa_bits, form.emin):
        value = np.ldexp(exact, exponent)
        twice = np.rint(value.astype(np.float32) / np.float64(quantum))
        wrong = np.flatnonzero(twice != np.rint(value / quantum))[:2000]
        near = wrong if len(wrong) else np.arange(0, len(a), 499)  # else a sample
        half = exponent // 2
        other = exponent - half if operation == "multiply" else half - exponent
        found.append((np.ldexp(a[near], half), np.ldexp(b[near], other), np.full(len(near), len(wrong))))
    left, right, counts = (np.concatenate(parts) for parts in zip(*found, strict=True))
    assert counts.any() == (operation == "multiply" and name in {"tf32", "e8m9"})
    check_by_codes(operation, [left, right], name, ("nearest-even", "ieee", FLUSHES[0]))


# --------------------------------------------------------------------------- every format against Fractions


@pytest.mark.parametrize("operation", BINARY)
@pytest.mark.parametrize("name", WIDE)
def test_pairs_agree_with_fractions(name, operation):
    check_by_fractions(operation, pairs(target(name), 10_000 if name in MOST else 3000, 40), name)


@pytest.mark.parametrize("operation", ["sqrt", "rsqrt"])
@pytest.mark.parametrize("name", WIDE)
def test_square_roots_agree_with_fractions(name, operation):
    a, _ = pairs(target(name), 3000, 50)
    check_by_fractions(operation, [np.where(np.arange(len(a)) % 8, np.abs(a), a)], name)


def triples(form, n, seed):
    """Return triples whose products cancel the addend, or reach half an ulp of it but for a crumb, or are random."""
    rng = np.random.default_rng(seed)
    a, b = pairs(form, n, seed)
    c, d = pairs(form, n, seed + 1)
    kind = rng.integers(0, 4, n)
    with np.errstate(all="ignore"):
        nearly = oracle.select(
            oracle.between_ratios([oracle.exact(x) for x in (-(a * b)).tolist()], form),
            form,
            "nearest-even",
            "ieee",
        )
        c = np.where(kind == 0, nearly[0], c)
        # (1 + j u) (1 - j u) 2**-p c  =  half an ulp of a power of two, less j**2 u**2 of it
        j = rng.integers(0, 4, n) * 2.0**-form.mantissa_bits
        lowest = form.emin + form.mantissa_bits + 2
        scale = np.ldexp(1.0, rng.integers(lowest, max(form.bias, lowest + 1), n))
        power = np.ldexp(rng.choice([1.0, 1.0, 1.5], n), np.frexp(scale)[1])
    tie = kind == 1
    a = np.where(tie, 1 + j, a)
    b = np.where(tie, rng.choice([-1, 1], n) * (1 - j) * scale * 2.0 ** -(form.mantissa_bits + 1), b)
    c = np.where(tie, power, c)
    return [a, b, np.where(kind == 2, d, c)]


@pytest.mark.parametrize("name", WIDE)
def test_fma_agrees_with_fractions(name):
    check_by_fractions("fma", triples(target(name), 10_000 if name in MOST else 5000, 60), name)


@pytest.mark.parametrize(
    ("name", "operands", "mode", "expected"),
    [
        ("float32", (1.0, -(2.0**-24), 2.0), "toward-zero", 2 - 2.0**-23),  # through float32 twice: 2
        (
            "float32",
            (1 + 2.0**-23, 2.0**-24 * (1 - 2.0**-23), 1.0),
            "nearest-even",
            1.0,
        ),  # 2**-70 below the midpoint
        ("float32", (1 + 2.0**-12, 2.0**-24 * (1 + 2.0**-12), 1.0), "nearest-even", 1 + 2.0**-23),
        ("float32", (2.0**-75, 2.0**-75, 1.0), "up", 1 + 2.0**-23),
        ("float32", (2.0**-75, -(2.0**-75), 1.0), "down", 1 - 2.0**-24),
        ("float32", (2.0**-75, -(2.0**-75), 1.0), "nearest-even", 1.0),
        ("float32", (2.0**-75, 2.0**-75, 2.0**-149), "nearest-even", 2.0**-148),  # a tie
        (
            "float32",
            (2.0**-75, 2.0**-75 * (1 - 2.0**-23), 2.0**-149),
            "nearest-even",
            2.0**-149,
        ),  # just below it
        ("float16", (1 + 2.0**-10, 1 + 2.0**-10, -1.0), "nearest-even", 2.0**-9),  # 2**-20 more is a tie
        (
            "float16",
            (2.0**-6, 2.0**-5 * (1 + 2.0**-10), 1.0),
            "nearest-even",
            1 + 2.0**-10,
        ),  # 2**-21 above the midpoint
        ("float16", (2.0**-14, 2.0**-14, 1 + 2.0**-10), "up", 1 + 2.0**-9),
        ("float16", (65504.0, 65504.0, -math.inf), "nearest-even", -math.inf),
        ("float16", (math.inf, 0.0, 1.0), "nearest-even", math.nan),
        ("float16", (256.0, 256.0, -32.0), "nearest-even", 65504.0),  # the product alone overflows
        ("bfloat16", (1.0, 2.0**-9, 1.0), "up", 1 + 2.0**-7),
    ],
)
def test_fma_by_hand(name, operands, mode, expected):
    oracle.assert_same([oracle.calculate("fma", *operands, form=target(name), mode=mode)], [expected])
    oracle.assert_same(operate("fma", *map(np.array, operands), format=name, rounding=mode).result, expected)


# ------------------------------------------------------------------------------ operands of no such format


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("name", ["float16", "float8_e4m3fn", "float32", "e9m23"])
def test_operands_finer_than_the_format_are_not_rounded_first(name, operation):
    form, rng = target(name), np.random.default_rng(70)
    n, p = 4000, form.mantissa_bits + 1
    operands = []
    for _ in range(ARITY[operation]):
        whole = 1 + rng.integers(0, 8, n) * 2.0**-p
        operands.append(whole + rng.choice([0, 0, 1, -1], n) * np.exp2(-rng.integers(p, 53, n)))
    operands[-1] *= np.exp2(rng.integers(-2 * p, 3, n)) * (rng.choice([-1, 1], n) if len(operands) > 1 else 1)
    if operation == "rsqrt":  # results a hair off the midpoints and numbers of the format
        near = (1 + rng.integers(0, 2**p, n) * 2.0**-p) ** -2.0 * np.exp2(2 * rng.integers(-3, 3, n))
        operands[0][: n // 2] = (near + rng.integers(-3, 4, n) * np.spacing(near))[: n // 2]
    check_by_fractions(operation, operands, name)


def scattered(count, low, high):
    """Return float64 numbers with few or all bits set, with exponents of all kinds from `low` to `high`."""
    rng, n = np.random.default_rng(71), 2000
    kinds = [
        rng.integers(low, high, n),
        rng.integers(-60, 60, n),
        rng.choice([low, low // 2, high // 2, high - 1], n),
    ]
    operands = []
    for _ in range(count):
        digits = 1 + rng.integers(0, 4, n) / 4 + rng.integers(0, 2, n) * 2.0**-52
        operands.append(np.ldexp(digits, np.choose(rng.integers(0, 3, n), kinds)) * rng.choice([-1, 1], n))
    return operands


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("name", ["float16", "bfloat16", "float32", "e9m23"])
def test_operands_far_outside_the_format(name, operation):
    check_by_fractions(operation, scattered(ARITY[operation], -300, 300), name)


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("name", ["float16", "float32", "e9m23"])
def test_operands_whose_exact_result_is_outside_float64(name, operation):
    operands = scattered(ARITY[operation], -1074, 1024)
    if operation == "fma":  # smaller addends may cancel with products that are no float64 numbers
        operands[2] = np.copysign(np.maximum(np.abs(operands[2]), 2.0**-900), operands[2])
    check_by_fractions(operation, operands, name)


def test_large_operands_raise_no_warning():
    assert operate("add", 1e300, 1.0, format="fp16").result == math.inf


@pytest.mark.parametrize("operation", [name for name in OPERATIONS if name != "rsqrt"])
def test_float64_is_native(operation):
    rng = np.random.default_rng(72)
    n = 20_000 if operation != "fma" else 3000
    noise = rng.integers(0, 2**64, (ARITY[operation], n), dtype=np.uint64).view(np.float64)
    near = rng.standard_normal(noise.shape)
    operands = list(np.where(rng.random(n) < 0.5, near, noise))
    outcome = operate(operation, *operands, format="float64")
    with np.errstate(all="ignore"):
        if operation == "fma":
            rows = zip(*(x.tolist() for x in operands), strict=True)
            expected = np.array([oracle.calculate("fma", *row, form=target("float64")) for row in rows])
        else:
            expected = getattr(np, operation)(*operands)
    oracle.assert_same(outcome.result, expected, *operands, label=operation)


def test_float64_counts_underflow():
    outcome = operate("multiply", [1e-200, 1e-160, 0.0], [1e-200, 1e-160, 1.0], format="float64")
    assert outcome.result.tolist() == [0.0, 1e-160 * 1e-160, 0.0]
    assert (outcome.events.underflow, outcome.events.subnormal) == (1, 1)


@pytest.mark.parametrize("operation", ["add", "multiply", "divide"])
@pytest.mark.parametrize("settings", [{}, {"rounding": "toward-zero"}, {"daz": True}])
def test_extremes_are_the_magnitudes_before_rounding(operation, settings):
    rng = np.random.default_rng(74)
    a, b = (np.ldexp(rng.integers(1024, 2048, 3000), rng.integers(-18, -2, 3000)).astype(float) for _ in range(2))
    a[::7] = 0
    extremes = operate(operation, a, b, format="fp16", **settings).events.extremes
    exact = np.abs(float64_result(operation, [a, b], "nearest-even"))
    assert extremes[0] == pytest.approx(exact.max(), rel=2.0**-23)  # past the largest finite number, too
    assert extremes[1] == pytest.approx(exact[exact > 0].min(), rel=2.0**-23)


@pytest.mark.parametrize("settings", [{}, {"rounding": "toward-zero"}])
def test_nans_do_not_hide_the_extremes(settings):
    assert operate("copy", [math.nan, 1000.0, -3.0], format="fp16", **settings).events.extremes.tolist() == [
        1000.0,
        3.0,
    ]


@pytest.mark.parametrize("mode", ["nearest-even", "up"])
@pytest.mark.parametrize("operation", BINARY)
def test_rows_columns_and_scalars_as_second_operands(operation, mode):
    form, rounding = format_named("fp16"), Rounding(mode)
    rows, m = 5, 2500  # more than the kernels take at once
    a, b = (pairs(target("float16"), rows * m, seed)[0].reshape(rows, m) for seed in (76, 77))
    a[1] = 1.5  # a row in which hardly anything happens
    for other in (b[:1, :1], b[:, :1], b[:1], b, np.ones((1, 1)), np.zeros((1, 1))):
        events = no_events(rows)
        dtype = np.float32 if mode == "nearest-even" else np.float64
        operands = (a.astype(dtype), other.astype(dtype))
        got = elementwise(operation, operands, form, rounding, events, fast=mode == "nearest-even")
        counts = dict.fromkeys(("operations", "overflow", "underflow", "subnormal", "invalid"), 0)
        for i in range(rows):
            alone = operate(operation, a[i], np.broadcast_to(other, a.shape)[i], format="fp16", rounding=mode)
            oracle.assert_same(got[i], alone.result, label=f"{operation} row {i}")
            assert events.flags[i] == alone.events.flags[0]
            counts = {name: counts[name] + count for name, count in counted(alone).items()}
        assert {name: getattr(events, name) for name in counts} == counts


# --------------------------------------------------------------------------------------------- interface


def test_operands_broadcast():
    a, b = np.linspace(0, 3, 12).reshape(3, 4), np.array([1.0, 1e3, -7.0, 0.1])
    for x, y in [(a, b), (b, a), (a, 3.0), (a[:, :1], b), (2.0, 3.0)]:
        outcome = operate("multiply", x, y, format="fp16")
        wide, tall = np.broadcast_arrays(np.asarray(x, float), np.asarray(y, float))
        rows = [
            oracle.calculate("multiply", float(p), float(q), form=target("float16"))
            for p, q in zip(wide.flat, tall.flat, strict=True)
        ]
        assert outcome.result.shape == wide.shape
        oracle.assert_same(outcome.result.ravel(), rows)
        assert outcome.events.operations == wide.size


def test_empty_arrays():
    outcome = operate("add", np.zeros((0, 3)), np.zeros((0, 3)), format="fp16")
    assert outcome.result.shape == (0, 3)
    assert outcome.events.operations == 0


def test_results_are_not_overwritten_by_later_calls():
    x = np.random.default_rng(73).standard_normal(40_000)
    first = operate("add", x, x, format="float32")
    copy = first.result.copy()
    for _ in range(40):
        operate("multiply", x, -x, format="float32")
    oracle.assert_same(first.result, copy)


def test_one_rounding_of_a_third():
    assert operate("divide", 1.0, 3.0, format="fp16").result == float(Fraction(1365, 4096))


@pytest.mark.parametrize(
    "settings",
    [{"format": "fp17"}, {"format": "fp16", "rounding": "odd"}, {"format": "fp16", "overflow": "wrap"}],
)
def test_unknown_settings_are_usage_errors(settings):
    with pytest.raises(UsageError):
        operate("add", 1.0, 2.0, **settings)
