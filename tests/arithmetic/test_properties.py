"""What holds for all numbers: order kept, signs kept, nothing rounded twice, error and sums within their bounds."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import oracle
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from oracle import MODES, target

from normcheck.arithmetic.operations import operate, summed
from normcheck.arithmetic.rounding import round_to

settings.register_profile("arithmetic", deadline=None, database=None, derandomize=True, max_examples=150)
PROFILE = settings.get_profile("arithmetic")

names = st.sampled_from(
    [
        "float16",
        "bfloat16",
        "tf32",
        "float32",
        "float8_e4m3fn",
        "float8_e5m2",
        "float8_e4m3fnuz",
        "float6_e3m2fn",
        "float4_e2m1fn",
    ]
) | st.builds("e{}m{}".format, st.integers(2, 9), st.integers(1, 23))
modes = st.sampled_from(MODES)
floats = st.floats(allow_nan=False) | st.floats(-1e6, 1e6) | st.floats(-8, 8) | st.floats(width=32, allow_nan=False)
arrays = st.lists(floats, min_size=1, max_size=20).map(np.array)
MIRROR = {"up": "down", "down": "up"}


def within(x, form):
    return (np.abs(x) <= float(form.largest)) & np.isfinite(x)


@PROFILE
@given(arrays, names, modes, st.sampled_from(["ieee", "saturate"]))
def test_rounding_keeps_the_order(x, name, mode, overflow):
    x = np.sort(x)
    got = round_to(x, name, rounding=mode, overflow=overflow)
    got = got[~np.isnan(got)]
    assert (np.diff(got[np.isfinite(got)]) >= 0).all()
    assert (got[:-1] <= got[1:]).all()


@PROFILE
@given(arrays, names, modes)
def test_rounding_is_odd_and_the_directed_modes_mirror_each_other(x, name, mode):
    got, mirrored = round_to(x, name, rounding=mode), round_to(-x, name, rounding=MIRROR.get(mode, mode))
    expected = -mirrored
    if target(name).nan == "negative-zero":
        expected = expected + 0.0
    oracle.assert_same(got, expected, x)


@PROFILE
@given(arrays, names, modes, st.booleans())
def test_rounding_twice_changes_nothing(x, name, mode, stochastic):
    once = round_to(x, name, rounding="stochastic" if stochastic else mode)
    once = once[np.isfinite(once)]
    for again in (*MODES, "stochastic"):
        oracle.assert_same(round_to(once, name, rounding=again), once)


@PROFILE
@given(arrays, names)
@example(np.array([2.0**-1074, 65519.99, -65504.0]), "float16")
def test_the_error_is_at_most_half_an_ulp_or_less_than_one(x, name):
    form = target(name)
    x = x[within(x, form)]
    for mode in MODES:
        for value, got in zip(x.tolist(), round_to(x, name, rounding=mode).tolist(), strict=True):
            exponent = max(math.frexp(value)[1] - 1, form.emin) if value else form.emin
            error = abs(Fraction(got) - Fraction(value)) / Fraction(2) ** (exponent - form.mantissa_bits)
            assert error <= Fraction(1, 2) if mode == "nearest-even" else error < 1
            assert mode != "up" or got >= value
            assert mode != "down" or got <= value
            assert mode != "toward-zero" or abs(got) <= abs(value)


@PROFILE
@given(arrays, names, modes)
def test_float32_and_float64_inputs_agree(x, name, mode):
    with np.errstate(over="ignore"):
        narrow = x.astype(np.float32)
    oracle.assert_same(
        round_to(narrow, name, rounding=mode), round_to(narrow.astype(np.float64), name, rounding=mode), narrow
    )


@PROFILE
@given(st.lists(st.tuples(floats, floats, floats), min_size=1, max_size=8), names, modes, st.booleans(), st.booleans())
def test_operations_on_any_numbers_of_a_format(rows, name, mode, ftz, daz):
    form = target(name)
    a, b, c = (round_to(np.array(column), name, overflow="saturate") for column in zip(*rows, strict=True))
    flags = {"ftz": ftz, "daz": daz}
    for operation, operands in [
        ("add", (a, b)),
        ("subtract", (a, b)),
        ("multiply", (a, b)),
        ("divide", (a, b)),
        ("sqrt", (np.abs(a),)),
        ("rsqrt", (np.abs(a),)),
        ("fma", (a, b, c)),
        ("fma", (a, b, operate("multiply", a, -b, format=name, overflow="saturate").result)),
        ("absolute", (a,)),
        ("copy", (a,)),
    ]:
        got = operate(operation, *operands, format=name, rounding=mode, overflow="ieee", **flags).result
        rows_of = zip(*(x.tolist() for x in operands), strict=True)
        expected = [oracle.calculate(operation, *row, form=form, mode=mode, **flags) for row in rows_of]
        oracle.assert_same(got, expected, *operands, label=f"{operation} {name} {mode} {flags}")


@PROFILE
@given(arrays, arrays, names, modes)
def test_sums_and_products_commute(x, y, name, mode):
    n = min(len(x), len(y))
    for operation in ("add", "multiply"):
        there = operate(operation, x[:n], y[:n], format=name, rounding=mode).result
        back = operate(operation, y[:n], x[:n], format=name, rounding=mode).result
        oracle.assert_same(there, back, x[:n], y[:n], label=operation)


@PROFILE
@given(arrays, arrays, names)
def test_directed_results_enclose_the_nearest(x, y, name):
    n = min(len(x), len(y))
    for operation in ("add", "multiply", "divide"):
        low, mid, high = (
            operate(operation, x[:n], y[:n], format=name, rounding=mode, overflow="ieee").result
            for mode in ("down", "nearest-even", "up")
        )
        known = ~np.isnan(low + mid + high)
        assert (low[known] <= mid[known]).all()
        assert (mid[known] <= high[known]).all()


def depth(order, n):
    """Return how many roundings a term may pass through."""
    levels = math.ceil(math.log2(n)) if n > 1 else 0
    return {
        "sequential": n,
        "pairwise": levels,
        "tree": levels,
        "lanes(4)": math.ceil(n / 4) + 2,
        "lanes(3, serial)": math.ceil(n / 3) + 2,
    }[order]


@PROFILE
@given(
    st.lists(st.floats(-100, 100), min_size=1, max_size=40),
    st.sampled_from(["float16", "bfloat16", "tf32", "float32", "e6m9"]),
    st.sampled_from(["sequential", "pairwise", "tree", "lanes(4)", "lanes(3, serial)"]),
    modes,
)
def test_sums_lie_within_their_a_priori_bounds(x, name, order, mode):
    form = target(name)
    terms = round_to(np.array([x]), name)
    outcome = summed(terms, format=name, order=order, rounding=mode)
    exact, mass = sum(map(Fraction, terms[0].tolist())), sum(abs(Fraction(v)) for v in terms[0].tolist())
    unit = Fraction(1, 2 ** (form.mantissa_bits + (mode == "nearest-even")))
    bound = ((1 + unit) ** depth(order, len(x)) - 1) * mass
    error = abs(Fraction(float(outcome.result[0])) - exact)
    assert error <= bound
    assert 0 <= outcome.events.absorbed <= outcome.events.operations
    lost = float(error / mass) if mass else 0.0
    assert (outcome.lost_mass or 0.0) == pytest.approx(lost, rel=1e-6, abs=1e-13)


@PROFILE
@given(st.lists(st.floats(0, 100), min_size=1, max_size=60), st.sampled_from(["float16", "bfloat16", "float32"]))
def test_kahans_sum_has_a_bound_free_of_n(x, name):
    form = target(name)
    terms = round_to(np.array([x]), name)
    got = Fraction(float(summed(terms, format=name, order="kahan").result[0]))
    exact = sum(map(Fraction, terms[0].tolist()))
    unit = Fraction(1, 2 ** (form.mantissa_bits + 1))
    assert abs(got - exact) <= (2 * unit + 8 * len(x) * unit**2) * exact  # Higham 2002, (4.8)
