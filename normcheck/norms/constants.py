"""The constants C that make a statistic an estimate of a Gaussian's standard deviation.

Each s = C * (mean |c|, max |c|, mean of the k largest |c|, max c - min c) over a group of n elements; C is a
dimensionless number that depends on n (and k) alone. Two kinds exist, because the published ones are biased:
``paper`` is what the authors use, ``exact`` makes E s = sigma for n independent N(0, sigma^2) elements.

The expectations of order statistics come from one integral over the tail (David and Nagaraja, "Order
Statistics", 3rd ed., section 3.1), with no term of either sign that could cancel:

    E sum of the k largest |z| = 2 n * integral_0^inf x phi(x) P(Bin(n - 1, q(x)) < k) dx,   q(x) = P(|z| > x)
    E [max z - min z]          = 2 n * integral_0^inf x phi(x) ((1 - Q)^(n-1) - Q^(n-1)) dx, Q(x) = P(z > x)
"""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Literal

import numpy as np

from normcheck.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from normcheck.norms.table import Norm, StatisticName

    Array = NDArray[np.float64]

Kind = Literal["paper", "exact"]

GAUSSIAN_L1 = math.sqrt(math.pi / 2)
"""sigma / E|c| for c ~ N(0, sigma^2)."""


@functools.cache
def constant(statistic: StatisticName, kind: Kind, n: int, k: int = 10) -> float:
    """Return the constant C of `statistic` over groups of `n` elements.

    ====== ==================================================== ====================================
    s      ``paper``                                            ``exact`` (z: n independent N(0, 1))
    ====== ==================================================== ====================================
    l1     sqrt(pi / 2)                                         sqrt(pi / 2)
    linf   (1 + sqrt(pi ln 4)) / (2 sqrt(2 ln n))               1 / E max|z|
    topk   the same for every k                                 k / sum_{j <= k} E|z|_(j)
    range  1 / sqrt(2 ln n)                                     1 / E[max z - min z]
    ====== ==================================================== ====================================

    Sources: Hoffer et al., "Norm matters" (arXiv 1803.01814) and the authors' code for linf and topk; Banner
    et al. (arXiv 1805.11046) for range, whose code takes 0.540209 / sqrt(2 ln n) over chunks of n elements
    instead. On Gaussian groups of 256 to 400 000 elements the published constants overestimate sigma: linf by
    41 to 46 %, topk (k = 10) by 12 to 34 %, range by 70 to 84 %.

    ``exact`` holds for deviations from the true mean. Centring a Gaussian group by its own mean makes each
    deviation's standard deviation smaller by exactly sqrt(1 - 1/n), and E s with l1; linf and topk fall by a
    factor that is near 1 too (but 1/2 for two elements). It is not corrected, as batch norm does not correct
    it in l2 either, whose variance divides by n. The range does not depend on the mean.

    Args:
        statistic: what the norm divides by; l2 has no constant.
        kind: the published constant or the unbiased one.
        n: elements of a group.
        k: terms of topk; more than `n` means all of them. The other statistics ignore it.

    Returns:
        C, dimensionless. Largest relative error of `exact` seen in tests for n up to 1e12: 1e-14 (k <= 4096),
        and 1e-12 beyond, where the binomial comes from scipy.

    Raises:
        UsageError: l2; n < 1; n = 1 for all but l1 (ln 1 = 0, and one element has no range); k < 1 for topk.
    """
    if statistic == "l2":
        raise UsageError("statistic l2 has no constant: it is the standard deviation itself")
    if n < 1:
        raise UsageError(f"constant of {statistic}: a group has at least 1 element, received n = {n}")
    k = effective_k(n, k) if statistic == "topk" else 1
    if statistic == "l1":
        return GAUSSIAN_L1
    if n == 1:
        raise UsageError(f"constant of {statistic}: undefined for groups of n = 1 element; use l1, l2 or larger groups")
    return _paper(statistic, n) if kind == "paper" else _exact(statistic, n, k)


def scale_of(norm: Norm, kind: Kind, n: int, k: int) -> tuple[float, int | None]:
    """Return the constant of a norm over groups of `n` elements, 1 where it has none, and the terms of its topk.

    Raises:
        UsageError: as `constant` does.
    """
    terms = effective_k(n, k) if norm.statistic.name == "topk" else None
    return (constant(norm.statistic.name, kind, n, terms or 1) if norm.has_constant else 1.0), terms


def effective_k(n: int, k: int) -> int:
    """Return how many terms topk really takes from groups of `n` elements: min(k, n).

    Raises:
        UsageError: k < 1.
    """
    if k < 1:
        raise UsageError(f"k must be at least 1, received {k}: topk is the mean of the k largest deviations")
    return min(k, n)


def _paper(statistic: Literal["linf", "topk", "range"], n: int) -> float:
    spread = math.sqrt(2 * math.log(n))
    return 1 / spread if statistic == "range" else (1 + math.sqrt(math.pi * math.log(4))) / (2 * spread)


def _exact(statistic: Literal["linf", "topk", "range"], n: int, k: int) -> float:
    return 1 / _expected_range(n) if statistic == "range" else k / _expected_top(n, k)


_NEGLIGIBLE = 45.0
"""exp(-45) = 3e-20: probabilities below it are treated as 0, those within it of 1 as 1."""
_NODES = 16
_MAX_PANELS = 2**14
_TOLERANCE = 1e-11
_MAX_TERMS = 4096
"""So many terms of the binomial take some 20 ms to add; importing scipy.special, for more of them, 130 ms."""


def _expected_top(n: int, k: int) -> float:
    """E of the sum of the k largest of n |z|, z standard normal."""
    if k == n:
        return n / GAUSSIAN_L1

    def below(x: Array) -> Array:
        return _binomial_below(k, n - 1, _two_sided_tail(x))

    low, high = _window(n, k)
    # beyond the window fewer than k of the n elements remain, all but surely: every element there is counted
    return _integral(n, below, low, high) + 2 * n * _density(high)


def _expected_range(n: int) -> float:
    """E[max z - min z] of n standard normals."""

    def weight(x: Array) -> Array:
        tail = _two_sided_tail(x) / 2
        weights: Array = np.exp((n - 1) * np.log1p(-tail)) - tail ** (n - 1)
        return weights

    _, high = _window(n, 1)
    return _integral(n, weight, 0.0, high) + 2 * n * _density(high)


def _window(n: int, k: int) -> tuple[float, float]:
    """Return where P(Bin(n - 1, q(x)) < k) leaves 0 and where it reaches 1, within exp(-45).

    By Chernoff's bound a count of mean m reaches k, or stays below it, with a probability under
    exp(-(m - k + k ln(k/m))); bounding the logarithm gives the two means in closed form.
    """
    b = _NEGLIGIBLE
    most = k + b + math.sqrt(b * b + 2 * b * k)
    least = max(k - math.sqrt(2 * b * k), k * math.exp(-1 - b / k))
    return _two_sided_quantile(most / n), _two_sided_quantile(least / n)


def _two_sided_quantile(q: float) -> float:
    """Return x with P(|z| > x) = q, 0 for q >= 1."""
    from statistics import NormalDist  # noqa: PLC0415  # 3 ms that only these constants need

    return -NormalDist().inv_cdf(q / 2) if q < 1 else 0.0


def _two_sided_tail(x: Array) -> Array:
    """P(|z| > x) = erfc(x / sqrt 2), within a few ulps also where it is tiny; numpy has no erfc."""
    return np.array([math.erfc(v) for v in (x / math.sqrt(2)).tolist()])


def _density(x: float) -> float:
    """The standard normal density."""
    return math.exp(-x * x / 2) / math.sqrt(2 * math.pi)


def _binomial_below(k: int, m: int, q: Array) -> Array:
    """P(Bin(m, q) < k) for 0 < q < 1 and k <= m: positive terms, in logarithms against early underflow."""
    if k > _MAX_TERMS:
        from scipy.special import betaincc  # noqa: PLC0415  # slow to import, seldom needed

        return np.asarray(betaincc(k, m - k + 1, q), np.float64)
    log_odds = np.log(q) - np.log1p(-q)
    log_term = m * np.log1p(-q)
    total: Array = np.exp(log_term)
    for i in range(k - 1):
        log_term += log_odds + math.log((m - i) / (i + 1))
        total += np.exp(log_term)
    return total


def _integral(n: int, weight: Callable[[Array], Array], low: float, high: float) -> float:
    """2 n * integral of x phi(x) weight(x) from `low` to `high`.

    Gauss-Legendre on panels of equal width, twice as many until the result stands still: the weight is
    analytic, but for large k it may rise from 0 to 1 in a small part of the window.
    """
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    scale = 2 * n / math.sqrt(2 * math.pi)
    previous, panels = math.inf, 8
    while panels <= _MAX_PANELS:
        half = (high - low) / panels / 2
        x = (low + half * (2 * np.arange(panels)[:, None] + 1) + half * nodes).ravel()
        values = x * np.exp(-x * x / 2) * weight(x)
        result = scale * half * float((values.reshape(panels, _NODES) @ weights).sum())
        if abs(result - previous) <= _TOLERANCE * result:
            return result
        previous, panels = result, panels * 2
    raise AssertionError(f"quadrature over n = {n} elements did not converge")
