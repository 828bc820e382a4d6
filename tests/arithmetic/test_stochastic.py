"""Stochastic rounding: unbiased, reproducible, independent of how the work is cut up."""

from __future__ import annotations

import math
import threading

import numpy as np
import oracle
import pytest
from oracle import BINARY, FLUSHES, POLICIES, target

from normcheck.arithmetic.operations import operate, summed
from normcheck.arithmetic.rounding import round_to

FORMATS = ("float16", "bfloat16", "float8_e4m3fn", "float8_e5m2fnuz", "float4_e2m1fn", "e3m2", "e9m4")
SIGMAS = 5.0
"""Bound of the statistical tests: with fixed seeds they either pass or fail, always."""


def stochastic(x, name, **settings):
    return round_to(x, name, rounding="stochastic", **settings)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("probes", [oracle.float32_probes, oracle.float64_probes])
def test_every_result_is_a_neighbour_and_exact_values_stay(name, probes):
    form = target(name)
    x = probes(form)
    wide = oracle.widened(x)
    for policy in POLICIES:
        for flush in FLUSHES[::3]:
            operand = oracle.flush_operands(wide, form) if flush["daz"] else wide
            places = oracle.between_codes(operand, form)
            below, above = (
                oracle.finish(places, size, form, "stochastic", policy, ftz=flush["ftz"])[0]
                for size in (places.low, places.high)
            )
            with np.errstate(invalid="ignore"):
                got = stochastic(x, name, overflow=policy, seed=3, **flush)
            exact = places.side == 0
            oracle.assert_same(got[exact], below[exact], wide[exact], label=f"{name} exact")
            good = oracle.agree(got, below) | oracle.agree(got, above)
            assert good.all(), (name, policy, flush, wide[~good][:5], got[~good][:5])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("name", "low", "gap"),
    [
        ("float16", 1.0, 2**-10),
        ("float16", 0.0, 2**-24),
        ("float16", -(2.0**-14), -(2**-24)),
        ("bfloat16", 3.0, 2**-6),
        ("e4m3fn", -16.0, -2.0),
    ],
)
@pytest.mark.parametrize("fraction", [1 / 64, 1 / 4, 1 / 2, 0.71875, 63 / 64])
def test_the_probability_of_rounding_up_is_the_fraction_of_the_gap(name, low, gap, fraction, dtype):
    n = 200_000
    x = np.full(n, low + fraction * gap).astype(dtype)
    got = stochastic(x, name, seed=11)
    ups = np.count_nonzero(got == low + gap)
    assert ups + np.count_nonzero(got == low) == n
    assert abs(ups - n * fraction) < SIGMAS * math.sqrt(n * fraction * (1 - fraction))


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("bits", [17, pytest.param(24, marks=pytest.mark.exhaustive)])
def test_small_probabilities_are_kept(bits, sign):
    for fraction, rare in [(2.0**-bits, True), (1 - 2.0**-bits, False)]:
        x = np.full(1 << 18, sign * (1 + fraction * 2.0**-10))
        total = 0
        for seed in range(1 << (bits + 4 - 18)):
            away = stochastic(x, "fp16", seed=seed) == sign * (1 + 2.0**-10)
            total += np.count_nonzero(away if rare else ~away)
        assert 2 <= total <= 42  # 16 expected; Poisson leaves this interval twice in 10**6


def test_results_beyond_the_largest_number_overflow_with_their_fraction():
    n, largest = 100_000, 65504.0
    x = np.full(n, largest + 8)  # a quarter of the way to 65536
    for policy, up in [("ieee", math.inf), ("saturate", largest), ("nan", math.nan)]:
        got = stochastic(x, "fp16", overflow=policy, seed=1)
        if policy == "saturate":
            assert (got == largest).all()
        else:
            ups = np.count_nonzero(oracle.agree(got, np.full(n, up)))
            assert abs(ups - n / 4) < SIGMAS * math.sqrt(n * 3 / 16)
            assert ups + np.count_nonzero(got == largest) == n
    assert np.isinf(stochastic(np.array([65536.0, 1e30]), "fp16")).all()


@pytest.mark.parametrize("name", ["float16", "bfloat16", "e4m3fn"])
def test_rounding_is_unbiased_over_many_sizes(name):
    rng = np.random.default_rng(90)
    x = rng.standard_normal(400_000) * np.exp2(rng.integers(-3, 4, 400_000))
    form = target({"e4m3fn": "float8_e4m3fn"}.get(name, name))
    ulp = np.exp2(np.maximum(np.floor(np.log2(np.abs(x))), form.emin) - form.mantissa_bits)
    error = (stochastic(x, name, seed=5) - x) / ulp
    assert np.abs(error).max() < 1
    assert abs(error.mean()) < SIGMAS * error.std() / math.sqrt(len(x))
    assert 0.35 < error.std() < 0.45  # sqrt(1 / 6) for fractions spread evenly
    towards_zero = (error * np.sign(x)).mean()
    assert abs(towards_zero) < SIGMAS * error.std() / math.sqrt(len(x))


def test_draws_of_neighbouring_elements_and_seeds_are_independent():
    n = 100_000
    x = np.full(n, 1 + 2.0**-11)
    ups = np.stack([stochastic(x, "fp16", seed=seed) > 1 for seed in (0, 1, 2, 2**63, 2**64 - 1)]).astype(float)
    correlation = np.corrcoef(np.concatenate([ups, ups[:1].take(np.arange(1, n + 1) % n, axis=1)]))
    assert np.abs(correlation - np.eye(6)).max() < SIGMAS / math.sqrt(n)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_same_seed_gives_the_same_bits_however_the_work_is_cut(dtype):
    x = np.random.default_rng(91).standard_normal(300_001).astype(dtype)
    whole = stochastic(x, "bf16", seed=7)
    assert np.array_equal(whole, stochastic(x, "bf16", seed=7))
    assert not np.array_equal(whole, stochastic(x, "bf16", seed=8))
    for n in (1, 1023, 1025, 65_537, 262_145):
        assert np.array_equal(whole[:n], stochastic(x[:n], "bf16", seed=7))
    assert np.array_equal(whole[:300_000].reshape(600, 500), stochastic(x[:300_000].reshape(600, 500), "bf16", seed=7))
    grid = x[:300_000].reshape(600, 500)
    assert np.array_equal(stochastic(grid.T, "bf16", seed=7), stochastic(np.ascontiguousarray(grid.T), "bf16", seed=7))


def test_threads_do_not_change_the_bits():
    x = np.random.default_rng(92).standard_normal(200_000)
    expected = [stochastic(x, "fp16", seed=seed) for seed in range(4)]
    wrong = []

    def work(seed):
        wrong.extend(seed for _ in range(4) if not np.array_equal(stochastic(x, "fp16", seed=seed), expected[seed]))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("operation", [*BINARY, "sqrt", "fma"])
@pytest.mark.parametrize("name", ["float16", "float8_e4m3fn", "float32"])
def test_operations_are_unbiased_and_keep_exact_results(operation, name):
    rng = np.random.default_rng(93)
    form, n = target(name), 60_000
    operands = [
        np.ldexp(rng.integers(8, 16, n), rng.integers(-5, -1, n)).astype(float)
        for _ in range({"sqrt": 1, "fma": 3}.get(operation, 2))
    ]
    outcome = operate(operation, *operands, format=name, rounding="stochastic", seed=13)
    again = operate(operation, *operands, format=name, rounding="stochastic", seed=13)
    assert np.array_equal(outcome.result, again.result)
    few = slice(0, 3000)
    exact = [oracle.apply(operation, *row) for row in zip(*(x[few].tolist() for x in operands), strict=True)]
    places = oracle.between_ratios(exact, form)
    low, high = (oracle.finish(places, size, form, "stochastic", "ieee")[0] for size in (places.low, places.high))
    got = outcome.result[few]
    assert (oracle.agree(got, low) | (oracle.agree(got, high) & (places.side > 0))).all()
    values = np.array([float(value) for value in exact])
    error = (got - values) / np.where(places.side > 0, np.abs(high - low), 1)
    assert abs(error.mean()) < SIGMAS * max(error.std(), 1e-9) / math.sqrt(len(error)) + 1e-6


@pytest.mark.parametrize("order", ["sequential", "pairwise", "tree", "lanes(8)", "lanes(8, serial)", "blocks(16)"])
def test_sums_are_unbiased_and_do_not_stagnate(order):
    rows, n = 400, 1000
    x = np.full((rows, n), 0.30004883)
    outcome = summed(x, format="bf16", order=order, rounding="stochastic", seed=17)
    exact = 0.30004883 * (1 if "blocks" in order else n)
    error = outcome.result / exact - 1
    assert error.std() > 0
    assert abs(error.mean()) < SIGMAS * error.std() / math.sqrt(rows)
    again = summed(x, format="bf16", order=order, rounding="stochastic", seed=17)
    assert np.array_equal(outcome.result, again.result)
    other = summed(x, format="bf16", order=order, rounding="stochastic", seed=18)
    assert not np.array_equal(outcome.result, other.result)
    if order == "sequential":
        stuck = summed(x[:1], format="bf16", order=order).result[0]
        assert stuck < 0.5 * exact < outcome.result.min()


def test_kahan_takes_stochastic_rounding_too():
    x = np.full((300, 400), 0.30004883)
    outcome = summed(x, format="bf16", order="kahan", rounding="stochastic", seed=19)
    error = outcome.result / (0.30004883 * 400) - 1
    assert abs(error.mean()) < SIGMAS * error.std() / math.sqrt(300) + 2.0**-12
    assert np.abs(error).max() < 0.02
