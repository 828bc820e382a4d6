"""The constants against closed forms, an oracle of 25 digits, identities, simulation and known figures."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from statistics import NormalDist

import mpmath as mp  # comes with torch, by way of sympy
import numpy as np
import pytest

from normcheck.errors import UsageError
from normcheck.norms import constants
from normcheck.norms.constants import constant, effective_k

PI32 = math.pi**1.5
ULPS = 1e-14  # relative; the quadrature itself is good to a few 1e-15
EDGES = [j / 2 for j in range(26)]  # beyond 12.5 not even one of 10**12 elements is left


# ---------------------------------------------------------------------------------------- exact: closed forms


@pytest.mark.parametrize(
    ("n", "expected_max"),
    [(2, 2 / math.sqrt(math.pi)), (3, 12 * math.atan(math.sqrt(0.5)) / PI32)],
)
def test_linf_equals_the_closed_form(n, expected_max):
    assert constant("linf", "exact", n) == pytest.approx(1 / expected_max, rel=ULPS)


@pytest.mark.parametrize(
    ("n", "expected_range"),
    [
        (2, 2 / math.sqrt(math.pi)),
        (3, 3 / math.sqrt(math.pi)),
        (4, 12 * math.atan(math.sqrt(2)) / PI32),
        (5, 2.5 / math.sqrt(math.pi) + 15 * math.asin(1 / 3) / PI32),
    ],
)
def test_range_equals_the_closed_form(n, expected_range):
    assert constant("range", "exact", n) == pytest.approx(1 / expected_range, rel=ULPS)


@pytest.mark.parametrize("kind", ["paper", "exact"])
@pytest.mark.parametrize("n", [1, 2, 10**9])
def test_l1_is_the_root_of_half_pi_whatever_the_group(kind, n):
    assert constant("l1", kind, n) == pytest.approx(1.2533141373155003, rel=1e-16)


@pytest.mark.parametrize("n", [2, 10, 10**9])
def test_topk_of_all_elements_is_l1_and_of_one_is_linf(n):
    assert constant("topk", "exact", n, n) == pytest.approx(constant("l1", "exact", n), rel=1e-15)
    assert constant("topk", "exact", n, 1) == constant("linf", "exact", n)


# ------------------------------------------------------------------------------- exact: an independent oracle


def oracle_top(n, k):
    """Return E of the sum of the k largest |z| as the integral of E min(k, Bin(n, P(|z| > x))), in 25 digits.

    Not the form that is under test, which integrates over the density; terms of both signs, hence the digits.
    """

    def remaining(x):
        q, p = mp.erfc(x / mp.sqrt(2)), mp.erf(x / mp.sqrt(2))
        return k - mp.fsum((k - i) * mp.binomial(n, i) * q**i * p ** (n - i) for i in range(k))

    return mp.quad(remaining, EDGES, method="gauss-legendre")


def oracle_range(n):
    """Return E[max z - min z]: by symmetry twice the integral over x > 0 of P(min z < x < max z)."""

    def within(x):
        tail = mp.erfc(x / mp.sqrt(2)) / 2
        return 1 - (1 - tail) ** n - tail**n

    return 2 * mp.quad(within, EDGES, method="gauss-legendre")


@pytest.mark.parametrize(
    ("n", "k"),
    [(2, 1), (3, 2), (11, 10), (32, 10), (1024, 1), (1024, 10), (10**9, 1), (10**9, 10), (10**12, 3)],
)
def test_top_constants_equal_the_oracle(n, k):
    with mp.workdps(25):
        assert constant("topk", "exact", n, k) == pytest.approx(float(k / oracle_top(n, k)), rel=ULPS)


@pytest.mark.parametrize("n", [2, 7, 32, 1024, 65536, 10**9, 10**12])
def test_range_constant_equals_the_oracle(n):
    with mp.workdps(25):
        assert constant("range", "exact", n) == pytest.approx(float(1 / oracle_range(n)), rel=ULPS)


@pytest.mark.parametrize(("n", "k"), [(4097, 4096), (20_000, 5000), (10**6, 5000), (10**9, 5000)])
def test_both_ways_to_the_binomial_agree(n, k, monkeypatch):
    monkeypatch.setattr(constants, "_MAX_TERMS", k)
    by_terms = constants._expected_top(n, k)
    monkeypatch.setattr(constants, "_MAX_TERMS", k - 1)
    by_scipy = constants._expected_top(n, k)
    assert by_scipy != 0
    assert by_scipy == pytest.approx(by_terms, rel=1e-12)


@pytest.mark.parametrize(("n", "k"), [(3, 1), (50, 7), (1024, 10), (9000, 5000), (10**6, 500_000)])
def test_order_statistics_of_neighbouring_group_sizes_obey_their_recurrence(n, k):
    # j E[j+1 of n] + (n-j) E[j of n] = n E[j of n-1] (David and Nagaraja, section 3.4), summed over j <= k
    top = constants._expected_top
    left = (n - 1 - k) * top(n, k) + k * top(n, k + 1)
    assert left == pytest.approx(n * top(n - 1, k), rel=1e-12)


def test_top_ten_of_1024_agrees_with_simulation_within_five_standard_errors():
    groups = np.abs(np.random.default_rng(7).standard_normal((4000, 1024)))
    top = np.partition(groups, -10, axis=1)[:, -10:].mean(axis=1)
    estimate, error = top.mean(), top.std() / math.sqrt(len(top))
    assert error / estimate < 1e-3  # the bound means something
    assert abs(1 / constant("topk", "exact", 1024) - estimate) < 5 * error


@pytest.mark.parametrize(
    ("n", "ks", "quoted"),
    [(2, [1], 0.0385), (8, [1], 0.006), (32, range(1, 11), 0.006), (400_000, range(1, 11), 0.006)],
)
def test_bloms_approximation_is_as_good_as_quoted(n, ks, quoted):
    # the k-th largest |z| is about the quantile 1 - (k - 3/8) / (2 (n + 1/4)); below n = 32 only for k = 1
    for k in ks:
        blom = sum(NormalDist().inv_cdf(1 - (j - 0.375) / (2 * (n + 0.25))) for j in range(1, k + 1))
        assert constant("topk", "exact", n, k) == pytest.approx(k / blom, rel=quoted), k


def test_range_is_twice_the_largest_normal():
    with mp.workdps(25):
        largest = mp.quad(lambda x: x * 100 * mp.npdf(x) * mp.ncdf(x) ** 99, range(-15, 16))
    assert constant("range", "exact", 100) == pytest.approx(float(1 / (2 * largest)), rel=ULPS)


# ----------------------------------------------------------------------------------------- paper: its figures


@pytest.mark.parametrize("n", [2, 32, 1024, 10**9])
def test_the_papers_constants_are_its_formulas(n):
    spread = math.sqrt(2 * math.log(n))
    assert constant("linf", "paper", n) == pytest.approx(1.543452 / spread, rel=1e-6)
    assert constant("range", "paper", n) == pytest.approx(1 / spread, rel=1e-15)
    assert {constant("topk", "paper", n, k) for k in (1, 10, n)} == {constant("linf", "paper", n)}


@pytest.mark.parametrize(("statistic", "ratio"), [("l1", 1.000), ("linf", 1.429), ("topk", 1.196), ("range", 1.747)])
def test_s_over_sigma_of_gaussian_groups_of_1024(statistic, ratio):
    # quoted from a simulation, over each group's own deviation, which is a little below sigma
    bias = constant(statistic, "paper", 1024) / constant(statistic, "exact", 1024)
    assert bias == pytest.approx(ratio, abs=2.5e-3)


@pytest.mark.parametrize(
    ("statistic", "sizes", "low", "high"),
    [
        ("linf", (32, 256, 1024, 65536, 400_000), 1.355, 1.475),
        ("topk", (256, 1024, 65536, 400_000), 1.115, 1.375),
        ("topk", (32,), 0.884, 0.887),
        ("range", (256, 1024, 65536, 400_000), 1.695, 1.855),
        ("range", (32,), 1.57, 1.575),
    ],
)
def test_the_papers_constants_are_biased_as_stated(statistic, sizes, low, high):
    for n in sizes:
        bias = constant(statistic, "paper", n) / constant(statistic, "exact", n)
        assert low <= bias <= high, (n, bias)


# ------------------------------------------------------------------------------------------------------ edges


@pytest.mark.parametrize("kind", ["paper", "exact"])
@pytest.mark.parametrize("statistic", ["linf", "topk", "range"])
def test_groups_of_one_element_are_refused_in_one_line(statistic, kind):
    with pytest.raises(UsageError, match=rf"^constant of {statistic}: undefined for groups of n = 1 [^\n]*$"):
        constant(statistic, kind, 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("l2", "exact", 8), "statistic l2 has no constant"),
        (("l2", "paper", 8), "statistic l2 has no constant"),
        (("l1", "exact", 0), "received n = 0"),
        (("linf", "paper", -3), "received n = -3"),
        (("topk", "exact", 8, 0), "k must be at least 1, received 0"),
        (("topk", "paper", 8, -1), "k must be at least 1, received -1"),
    ],
)
def test_what_has_no_constant_is_refused(arguments, message):
    with pytest.raises(UsageError, match=re.escape(message)):
        constant(*arguments)


@pytest.mark.parametrize("kind", ["paper", "exact"])
def test_k_beyond_the_group_means_the_whole_group(kind):
    assert constant("topk", kind, 4, 10) == constant("topk", kind, 4, 4)
    assert (effective_k(4, 10), effective_k(10, 10), effective_k(1024, 10)) == (4, 10, 10)


def test_statistics_without_k_ignore_it():
    assert constant("linf", "exact", 64, 0) == constant("linf", "exact", 64, 10)


def test_a_constant_is_computed_once(monkeypatch):
    first = constant("range", "exact", 12345)
    monkeypatch.setattr(constants, "_integral", None)
    assert constant("range", "exact", 12345) == first


def test_a_quadrature_that_does_not_converge_says_so(monkeypatch):
    monkeypatch.setattr(constants, "_TOLERANCE", -1.0)
    with pytest.raises(AssertionError, match="did not converge"):
        constants._expected_range(100)


def test_default_constants_load_no_scipy():
    code = (
        "import sys; from normcheck.norms.constants import constant\n"
        "for s in ('l1', 'linf', 'topk', 'range'): constant(s, 'exact', 25088)\n"
        "sys.exit(any(m.split('.')[0] in ('scipy', 'torch', 'numba') for m in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
