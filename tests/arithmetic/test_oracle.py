"""The oracle itself, against numpy float16, ml_dtypes, libm and the processor's own rounding modes."""

from __future__ import annotations

import ctypes
import ctypes.util
import platform
from fractions import Fraction

import ml_dtypes
import numpy as np
import oracle
import pytest
from oracle import BINARY, FLUSHES, MODES, POLICIES, target

FOREIGN = {
    "float16": (np.float16, "ieee"),
    "bfloat16": (ml_dtypes.bfloat16, "ieee"),
    "float8_e4m3fn": (ml_dtypes.float8_e4m3fn, "nan"),
    "float8_e5m2": (ml_dtypes.float8_e5m2, "ieee"),
    "float8_e4m3fnuz": (ml_dtypes.float8_e4m3fnuz, "nan"),
    "float8_e5m2fnuz": (ml_dtypes.float8_e5m2fnuz, "nan"),
    "e4m3": (ml_dtypes.float8_e4m3, "ieee"),
    "e3m4": (ml_dtypes.float8_e3m4, "ieee"),
    "float6_e2m3fn": (ml_dtypes.float6_e2m3fn, "saturate"),
    "float6_e3m2fn": (ml_dtypes.float6_e3m2fn, "saturate"),
    "float4_e2m1fn": (ml_dtypes.float4_e2m1fn, "saturate"),
}
BOTH_WAYS = ["float16", "float8_e4m3fn", "float8_e5m2fnuz", "float4_e2m1fn", "e9m4", "e3m2"]


def float64_specials(rng, n):
    """Return float64 numbers of like and unlike sizes, subnormals, zeros, infinities and NaN."""
    noise = rng.integers(0, 2**64, n, dtype=np.uint64).view(np.float64)
    near = rng.standard_normal(n) * np.exp2(rng.integers(-60, 60, n))
    tiny = rng.integers(0, 2**54, n, dtype=np.uint64).view(np.float64)
    corners = rng.choice([0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, 5e-324, 1.7976931348623157e308], n)
    return rng.permuted(np.stack([noise, near, near, tiny, corners]), axis=0)[0]


@pytest.mark.parametrize("name", FOREIGN)
def test_every_code_has_the_foreign_value(name):
    dtype, _ = FOREIGN[name]
    form = target(name)
    raw = np.uint16 if form.bits == 16 else np.uint8
    with np.errstate(all="ignore"):
        values = np.arange(2**form.bits, dtype=raw).view(dtype).astype(np.float64)
    positive = values[: form.largest_code + 1]
    oracle.assert_same(form.magnitudes, positive)
    finite = values[np.isfinite(values)]
    assert len(finite) == 2 * len(positive) - (form.nan == "negative-zero")
    assert np.isinf(values).sum() == 2 * form.infinities
    assert np.isnan(values).any() == (form.nan != "none")
    assert set(finite) == set(form.numbers[np.isfinite(form.numbers)])


@pytest.mark.parametrize("name", FOREIGN)
def test_arrays_round_as_the_foreign_cast_does(name):
    dtype, policy = FOREIGN[name]
    form = target(name)
    probes = oracle.float32_probes(form)
    if form.nan == "none":
        probes = probes[~np.isnan(probes)]
    with np.errstate(all="ignore"):
        foreign = probes.astype(dtype).astype(np.float64)
    expected, _ = oracle.select(oracle.between_codes(probes, form), form, "nearest-even", policy)
    oracle.assert_same(expected, foreign, probes, label=name)


@pytest.mark.parametrize("name", BOTH_WAYS)
def test_arrays_agree_with_fractions(name):
    form = target(name)
    rng = np.random.default_rng(1)
    x = np.concatenate([oracle.float64_probes(form), oracle.widened(oracle.float32_probes(form))])
    x = rng.choice(x, min(400, len(x)), replace=False)
    for mode in MODES:
        for policy in POLICIES:
            for flush in FLUSHES:
                slow = [oracle.round_float(float(v), form, mode, policy, **flush) for v in x]
                operand = oracle.flush_operands(x, form) if flush["daz"] else x
                codes = oracle.between_codes(operand, form)
                ratios = oracle.between_ratios([oracle.exact(float(v)) for v in operand], form)
                for brackets in (codes, ratios):
                    fast, _ = oracle.select(brackets, form, mode, policy, ftz=flush["ftz"])
                    oracle.assert_same(fast, slow, x, label=f"{name} {mode} {policy} {flush}")


@pytest.mark.parametrize("name", ["float16", "float8_e4m3fn", "float8_e4m3fnuz", "float6_e3m2fn", "tf32", "e9m23"])
def test_overflow_starts_where_the_specification_says(name):
    form = target(name)
    largest, half_way = form.largest, (form.largest + form.beyond) / 2
    crumb = largest / 2**60
    infinite = np.inf if form.infinities else np.nan
    stays_at_tie = name == "float8_e4m3fn"  # 448 is even: the tie goes to it
    for value, rounded in [
        (largest, float(largest)),
        (half_way - crumb, float(largest)),
        (half_way, float(largest) if stays_at_tie else infinite),
        (half_way + crumb, infinite),
    ]:
        oracle.assert_same([oracle.round_exact(value, form)], [rounded])
    for value in (form.beyond - crumb, form.beyond, 100 * form.beyond):
        assert oracle.round_exact(value, form, "toward-zero") == float(largest)
        assert oracle.round_exact(value, form, "down") == float(largest)
        oracle.assert_same([oracle.round_exact(value, form, "up")], [infinite])
        assert oracle.round_exact(-value, form, "up") == -float(largest)
        oracle.assert_same([oracle.round_exact(-value, form, "down")], [-infinite])
        assert oracle.round_exact(value, form, overflow="saturate") == float(largest)


def test_the_published_figures():
    assert float(target("float8_e4m3fn").largest) == 448
    assert oracle.round_float(464.0, target("float8_e4m3fn"), overflow="nan") == 448
    assert float(target("e4m3").largest) == 240
    assert float(target("float16").largest) == 65504
    assert oracle.round_float(65519.99, target("float16")) == 65504
    assert oracle.round_float(65520.0, target("float16")) == np.inf
    assert oracle.round_float(float.fromhex("0x1.400002p-23"), target("float16")) == 3 * 2**-24
    assert oracle.round_float(1 + 2**-11 + 2**-40, target("float16")) == 1 + 2**-10
    assert oracle.calculate("add", 2.0, -(2.0**-24), form=target("float32"), mode="toward-zero") == 2 - 2**-23
    assert oracle.round_float(6.1005e-5, target("float16"), ftz=True) == 0
    assert oracle.round_float(float.fromhex("0x1.ffep-15"), target("float16"), ftz=True) == 2**-14


def test_stochastic_rounding_goes_up_with_the_fraction_as_probability():
    form = target("float16")
    quarter = 1 + Fraction(1, 4096)
    draws = [oracle.round_exact(quarter, form, "stochastic", random=Fraction(i, 16)) for i in range(16)]
    assert draws == [1 + 2**-10] * 4 + [1.0] * 12
    assert oracle.round_exact(Fraction(1), form, "stochastic", random=Fraction(0)) == 1


@pytest.mark.parametrize("operation", [*BINARY, "sqrt"])
def test_operations_in_float64_are_the_processors(operation):
    rng = np.random.default_rng(2)
    form = target("float64")
    operands = [float64_specials(rng, 4000) for _ in range(1 if operation == "sqrt" else 2)]
    with np.errstate(all="ignore"):
        native = getattr(np, operation)(*operands)
    slow = [oracle.calculate(operation, *map(float, row), form=form) for row in zip(*operands, strict=True)]
    oracle.assert_same(slow, native, *operands, label=operation)


def test_fma_in_float64_is_libms():
    name = ctypes.util.find_library("m")
    if name is None:
        pytest.skip("no libm to compare with")
    libm = ctypes.CDLL(name)
    libm.fma.restype, libm.fma.argtypes = ctypes.c_double, [ctypes.c_double] * 3
    rng = np.random.default_rng(3)
    a, b, c = (float64_specials(rng, 4000) for _ in range(3))
    c[::2] = -(a[::2] * (b[::2] * (1 + rng.integers(-2, 3, 2000) * 2.0**-52))) if np.isfinite(a).all() else c[::2]
    native = [libm.fma(*row) for row in zip(a, b, c, strict=True)]
    slow = [oracle.calculate("fma", *map(float, row), form=target("float64")) for row in zip(a, b, c, strict=True)]
    oracle.assert_same(slow, native, a, b, c, label="fma")


@pytest.mark.skipif(platform.machine() != "x86_64", reason="rounding modes have the numbers of x86-64")
@pytest.mark.parametrize(("mode", "number"), [("down", 0x400), ("up", 0x800), ("toward-zero", 0xC00)])
def test_directed_modes_in_float64_are_the_processors(mode, number):
    name = ctypes.util.find_library("m")
    if name is None:
        pytest.skip("no libm to set the processor's rounding mode with")
    libm = ctypes.CDLL(name)
    rng = np.random.default_rng(4)
    a, b = float64_specials(rng, 3000), float64_specials(rng, 3000)
    a[::3] = b[::3]
    native = {}
    with np.errstate(all="ignore"):
        for operation in BINARY:
            libm.fesetround(number)
            try:
                native[operation] = getattr(np, operation)(a, b)
            finally:
                libm.fesetround(0)
    for operation, expected in native.items():
        rows = zip(a, b, strict=True)
        slow = [oracle.calculate(operation, *map(float, row), form=target("float64"), mode=mode) for row in rows]
        oracle.assert_same(slow, expected, a, b, label=f"{operation} {mode}")
