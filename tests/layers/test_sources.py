"""Synthetic activations: one tensor however it is cut, the distributions that their names promise, errors."""

from __future__ import annotations

import hashlib
import math
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats

from normcheck.errors import UsageError
from normcheck.layers import counter_rng, sources
from normcheck.layers.distributions import DISTRIBUTIONS, parse_distribution
from normcheck.layers.sources import Synthetic
from normcheck.norms.table import Grouping, grouping, norm_named

DRAWN = [
    *DISTRIBUTIONS,
    "student-t(df=1)",
    "outlier(fraction=0.2, of=channels)",
    "outlier(fraction=0.2, scale=7)",
    "gamma(a=2)",
]
"""Every row of the table, the branches within them, and a distribution of scipy.stats."""
MANY = 1_000_000


def a_grouping(norm: str, shape: tuple[int, ...], num_groups: int | None = None) -> Grouping:
    return grouping(norm_named(norm), shape, num_groups)


def whole(source: Synthetic, rows: Grouping) -> np.ndarray:
    return source.draw(rows, 0, rows.groups, 0, rows.size)


def vector(text: str, n: int, seed: int = 0) -> np.ndarray:
    """n draws of the standard values, as float64."""
    x = whole(Synthetic(parse_distribution(text), seed=seed), a_grouping("layer", (n,)))
    return x[0].astype(np.float64)


def uniforms(n: int, seed: int = 0, *, stream: int = 0, first: int = 0) -> np.ndarray:
    rows = a_grouping("layer", (first + n,))
    return sources.Block(seed, rows, 0, first, 0, first + n, n).uniform(stream)


# ------------------------------------------------------------------------- a function of (seed, index)


def splitmix(z: int) -> int:
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) % 2**64
    return z ^ (z >> 31)


def reference_uniform(seed: int, stream: int, index: int) -> float:
    """The definition, in Python's integers: the finalizer between whose halves the salt enters."""
    golden = 0x9E3779B97F4A7C15
    state = splitmix((seed + golden) % 2**64)
    key, salt = (splitmix((state + (2 * stream + k) * golden) % 2**64) for k in (1, 2))
    z = (key + index * golden) % 2**64
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) % 2**64 ^ salt
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) % 2**64
    return ((z ^ (z >> 31)) >> 12) / 2**52 + 2**-53


def test_python_and_numba_know_the_published_splitmix64() -> None:
    """First outputs for state 1234567, as published with the generator (also Rosetta Code's)."""
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    states = [(1234567 + k * 0x9E3779B97F4A7C15) % 2**64 for k in (1, 2, 3)]
    assert [splitmix(s) for s in states] == published
    assert [counter_rng._finalized(s) for s in states] == published
    out = np.empty(3)
    counter_rng.fill_uniform(out, np.uint64(1234567), np.uint64(0), (0, 1, 0, 4, 4, 1, 0, 0))
    assert out.tolist() == [(value >> 12) / 2**52 + 2**-53 for value in published]


@given(
    seed=st.integers(0, 2**64 - 1),
    stream=st.integers(0, 3),
    row=st.integers(0, 2**31 - 1),
    position=st.integers(0, 2**20 - 1),
    inner=st.sampled_from([1, 2, 3, 7, 1024, 2**20]),
)
@settings(deadline=None)
def test_an_element_depends_on_seed_and_flat_index_alone(
    seed: int, stream: int, row: int, position: int, inner: int
) -> None:
    """Strides as in a tensor of 2**51 elements and more: indices past 2**32 neither wrap nor lose bits."""
    rows = Grouping(2**31, 2**20, inner, 2**20, 2**33 + 5, 2**31, "row")
    index = position // inner * rows.outer_stride + row * rows.row_stride + position % inner
    drawn = sources.Block(seed, rows, row, position, position, position + 1, 1).uniform(stream)
    assert drawn.tolist() == [reference_uniform(seed, stream, index)]


def test_tensors_beyond_four_billion_elements_do_not_repeat() -> None:
    rows = a_grouping("layer", (2**22, 2**12))
    source = Synthetic(parse_distribution("gaussian"))
    far, near = source.draw(rows, 2**20, 2**20 + 1, 0, 2**12), source.draw(rows, 0, 1, 0, 2**12)
    assert np.mean(far == near) < 0.001


def test_bits_do_not_depend_on_the_machine() -> None:
    """Only IEEE basic operations run: recorded on AVX-512, equal to code for baseline x86-64."""
    rows = a_grouping("layer", (64, 4099))
    recorded = {"gaussian": "92876ea5d4d2d996", "uniform": "79ee5df364508748", "bimodal": "f94bbe511146fbaa"}
    for name, digest in recorded.items():
        values = whole(Synthetic(parse_distribution(name), 0.1, 2.0, 7), rows)
        assert hashlib.sha256(values.astype("<f4").tobytes()).hexdigest()[:16] == digest


# ------------------------------------------------------------------------- any cut, the same tensor


@pytest.mark.parametrize("text", DRAWN)
@pytest.mark.parametrize(("h", "w"), [(5, 7), (1, 2), (1, 1)])
def test_every_norm_sees_the_same_tensor(text: str, h: int, w: int) -> None:
    n, c = 3, 12
    source = Synthetic(parse_distribution(text), 0.5, 3.0, seed=11)
    batch = whole(source, a_grouping("batch", (n, c, h, w))).reshape(c, n, h, w).transpose(1, 0, 2, 3)
    for norm, groups in (("instance", None), ("group", 4), ("group", 12), ("group", 1)):
        other = whole(source, a_grouping(norm, (n, c, h, w), groups)).reshape(n, c, h, w)
        assert np.array_equal(other, batch), (norm, groups)
    if "channels" not in text:  # a layer norm's channels are its last dimension
        assert np.array_equal(whole(source, a_grouping("layer", (n, c, h, w))).reshape(n, c, h, w), batch)
        assert np.array_equal(whole(source, a_grouping("weight-l2", (n, c, h, w))).reshape(n, c, h, w), batch)


@pytest.mark.parametrize("norm", ["batch", "layer", "instance", "group"])
@pytest.mark.parametrize("cut", [(0, 4, 0, 6), (1, 4, 2, 6), (2, 3, 5, 6), (3, 4, 0, 1)])
def test_channels_follow_the_tensor(norm: str, cut: tuple[int, int, int, int]) -> None:
    """A tensor whose elements are the numbers of their channels, read through the norm's rows."""
    n, c, spatial = 2, 4, 6
    rows = a_grouping(norm, (n, c, spatial), 2)
    tensor = np.broadcast_to(np.arange(c)[None, :, None], (n, c, spatial))
    if norm == "layer":
        tensor = np.broadcast_to(np.arange(spatial), (n, c, spatial))
    expected = tensor.transpose(1, 0, 2) if norm == "batch" else tensor
    top, bottom, left, right = cut
    block = sources.Block(0, rows, top, left, left, right, (bottom - top) * (right - left))
    expected = expected.reshape(rows.groups, rows.size)[top:bottom, left:right]
    assert np.array_equal(block.channel(), expected.reshape(-1))


def test_batch_and_layer_agree_on_a_matrix_whose_columns_are_channels() -> None:
    source = Synthetic(parse_distribution("outlier(fraction=0.3, of=channels)"), seed=5)
    batch, layer = (whole(source, a_grouping(norm, (40, 23))) for norm in ("batch", "layer"))
    assert np.array_equal(batch.T, layer)
    assert len(np.unique(batch)) == batch.size


SHAPES = st.lists(st.integers(1, 6), min_size=2, max_size=4).map(tuple)


NORMS = st.sampled_from(["batch", "layer", "instance", "group"])
SOURCES = st.builds(
    lambda text, seed: Synthetic(parse_distribution(text), 0.25, 1.5, seed),
    st.sampled_from(DRAWN),
    st.integers(0, 2**64 - 1),
)


@given(source=SOURCES, rows=st.builds(a_grouping, NORMS, SHAPES), block=st.integers(1, 40), data=st.data())
@settings(deadline=None, max_examples=300)
def test_any_rectangle_in_any_block_size_has_the_same_bits(
    source: Synthetic, rows: Grouping, block: int, data: st.DataObject
) -> None:
    full = whole(source, rows)
    top, bottom = sorted(data.draw(st.tuples(*[st.integers(0, rows.groups)] * 2)))
    left, right = sorted(data.draw(st.tuples(*[st.integers(0, rows.size)] * 2)))
    with mock.patch.object(sources, "_BLOCK", block):
        part = source.draw(rows, top, bottom, left, right)
    assert part.dtype == np.float32
    assert part.flags.c_contiguous
    assert part.tobytes() == full[top:bottom, left:right].tobytes()
    assert part.shape == (bottom - top, right - left)


@pytest.mark.parametrize("text", DRAWN)
def test_large_draws_in_threads_equal_one_draw(text: str) -> None:
    rows = a_grouping("batch", (16, 24, 13, 11))  # 54912 elements: blocks end inside rows
    source = Synthetic(parse_distribution(text), seed=2**64 - 1)
    full = whole(source, rows)
    cuts = [(r, c) for r in range(0, 24, 5) for c in range(0, rows.size, 1001)]

    def part(cut: tuple[int, int]) -> np.ndarray:
        r, c = cut
        return source.draw(rows, r, min(r + 5, 24), c, min(c + 1001, rows.size))

    with ThreadPoolExecutor(8) as pool:
        for (r, c), values in zip(cuts, pool.map(part, cuts), strict=True):
            assert np.array_equal(values, full[r : r + 5, c : c + 1001])


@pytest.mark.parametrize("cut", [(0, 5, 0, 1), (-1, 1, 0, 1), (0, 1, 0, 9), (0, 1, 3, 2), (3, 2, 0, 1)])
def test_rectangles_outside_the_tensor_are_refused(cut: tuple[int, int, int, int]) -> None:
    with pytest.raises(IndexError, match="are not within 4 rows of 8"):
        Synthetic(parse_distribution("gaussian")).draw(a_grouping("layer", (4, 8)), *cut)


# ------------------------------------------------------------------------- uniforms


def test_uniforms_are_odd_multiples_of_two_to_the_minus_53() -> None:
    k = uniforms(MANY) * 2.0**53
    assert np.array_equal(k % 2, np.ones(MANY))
    assert k.min() >= 1
    assert k.max() < 2.0**53


def unsplitmix(z: int) -> int:
    """The state whose hash is z: an xor with a shift is undone from the top, an odd factor by its inverse."""
    for shift, factor in ((31, 0x94D049BB133111EB), (27, 0xBF58476D1CE4E5B9), (30, 1)):
        z ^= z >> shift ^ z >> 2 * shift
        z = z * pow(factor, -1, 2**64) % 2**64
    return z


@pytest.mark.parametrize(("hashed", "u"), [(0, 2.0**-53), (2**63, 0.5 + 2.0**-53), (2**64 - 1, 1 - 2.0**-53)])
def test_extreme_hashes_stay_inside_the_open_interval(hashed: int, u: float) -> None:
    state = unsplitmix(hashed)
    assert splitmix(state) == hashed
    out = np.empty(1)
    counter_rng.fill_uniform(out, np.uint64(state), np.uint64(0), (0, 0, 0, 1, 1, 1, 0, 0))
    assert out[0] == u
    counter_rng.normal_quantile(out)
    assert abs(out[0]) < 8.21


def test_uniforms_pass_kolmogorov_smirnov_and_every_bit_is_fair() -> None:
    u = uniforms(MANY, seed=1)
    assert stats.kstest(u, "uniform").pvalue > 1e-4
    bits = (u * 2.0**53).astype(np.uint64)
    shares = [np.mean((bits >> np.uint64(b)) & np.uint64(1)) for b in range(1, 53)]
    assert np.abs(np.array(shares) - 0.5).max() < 5 * 0.5 / math.sqrt(MANY)


def no_correlation(a: np.ndarray, b: np.ndarray) -> None:
    """Neither linearly, nor anywhere in the unit square (chi-squared over 16 x 16 cells)."""
    assert abs(np.corrcoef(a, b)[0, 1]) < 5 / math.sqrt(a.size)
    assert abs(np.corrcoef((a - 0.5) ** 2, (b - 0.5) ** 2)[0, 1]) < 5 / math.sqrt(a.size)
    cells = np.bincount((np.floor(a * 16) * 16 + np.floor(b * 16)).astype(np.int64), minlength=256)
    assert stats.chisquare(cells).pvalue > 1e-5


@pytest.mark.parametrize("lag", [1, 2, 3, 64, 784, 4096, 65536])
def test_neighbouring_indices_are_independent(lag: int) -> None:
    u = uniforms(MANY + lag, seed=3)
    no_correlation(u[:-lag], u[lag:])


@pytest.mark.parametrize(("a", "b"), [(0, 1), (1, 2), (0, 2**63), (41, 42), (2**64 - 1, 0)])
def test_neighbouring_seeds_are_independent(a: int, b: int) -> None:
    no_correlation(uniforms(MANY, a), uniforms(MANY, b))


def test_streams_and_far_parts_are_independent() -> None:
    first = uniforms(MANY)
    no_correlation(first, uniforms(MANY, stream=1))
    no_correlation(uniforms(MANY, stream=1), uniforms(MANY, stream=2))
    no_correlation(first, uniforms(MANY, first=2**32))


def test_the_first_element_over_consecutive_seeds_is_uniform() -> None:
    u = np.array([uniforms(1, seed)[0] for seed in range(20_000)])
    assert stats.kstest(u, "uniform").pvalue > 1e-4
    assert abs(np.corrcoef(u[:-1], u[1:])[0, 1]) < 5 / math.sqrt(u.size)


# ------------------------------------------------------------------------- the normal's quantile


def test_normal_quantile_agrees_with_scipy_everywhere() -> None:
    rng = np.random.default_rng(0)
    parts = [
        rng.random(300_000),
        10.0 ** -rng.uniform(0, 307, 100_000),
        1.0 - 2.0 ** -rng.uniform(1, 53, 100_000),
        0.5 + 10.0 ** -rng.uniform(1, 16, 20_000),
        [2.0**-53, 1.0 - 2.0**-53, 0.075, 0.925, math.exp(-25.0), np.nextafter(math.exp(-25.0), 0.0)],
    ]
    p = np.concatenate(parts)
    p = p[(p > 0.0) & (p < 1.0) & (p != 0.5)]
    z = p.copy()
    counter_rng.normal_quantile(z)
    assert np.abs(z / special.ndtri(p) - 1.0).max() < 1e-14


@given(k=st.integers(0, 2**52 - 1))
@settings(deadline=None)
def test_normals_are_symmetric_to_the_last_bit(k: int) -> None:
    u = (2 * k + 1) * 2.0**-53
    z = np.array([u, 1.0 - u])
    counter_rng.normal_quantile(z)
    assert z[0] == -z[1]


@given(n=st.integers(1, 5000))
@settings(deadline=None, max_examples=50)
def test_normal_quantile_does_not_see_where_in_an_array_it_is(n: int) -> None:
    u = uniforms(5000)
    z, tail = u.copy(), u[5000 - n :].copy()
    counter_rng.normal_quantile(z)
    counter_rng.normal_quantile(tail)
    assert np.array_equal(z[5000 - n :], tail)


# ------------------------------------------------------------------------- distributions against theory


def bimodal_cdf(x: np.ndarray, separation: float) -> np.ndarray:
    half, s = separation / 2, math.sqrt(1 + separation**2 / 4)
    return (special.ndtr(x * s - half) + special.ndtr(x * s + half)) / 2


CDFS = {
    "gaussian": special.ndtr,
    "uniform": stats.uniform(-math.sqrt(3), 2 * math.sqrt(3)).cdf,
    "laplace": stats.laplace(scale=math.sqrt(0.5)).cdf,
    "student-t": stats.t(4, scale=math.sqrt(0.5)).cdf,
    "student-t(df=0.5)": stats.t(0.5).cdf,
    "student-t(df=1)": stats.cauchy.cdf,
    "student-t(df=2)": stats.t(2).cdf,
    "student-t(df=2.5)": stats.t(2.5, scale=math.sqrt(0.2)).cdf,
    "student-t(df=1e9)": special.ndtr,
    "lognormal": stats.lognorm(1.0).cdf,
    "lognormal(sigma=0.3)": stats.lognorm(0.3).cdf,
    "bimodal": lambda x: bimodal_cdf(x, 4.0),
    "bimodal(separation=0)": special.ndtr,
    "bimodal(separation=9)": lambda x: bimodal_cdf(x, 9.0),
    "outlier(fraction=0.25, scale=10)": lambda x: 0.75 * special.ndtr(x) + 0.25 * special.ndtr(x / 10),
    "outlier(fraction=1, scale=3)": lambda x: special.ndtr(x / 3),
    "outlier(fraction=0)": special.ndtr,
    "gamma(a=2)": stats.gamma(2).cdf,
    "norm": special.ndtr,
    "beta(a=2, b=0.5)": stats.beta(2, 0.5).cdf,
}


@pytest.mark.parametrize("text", CDFS)
def test_distribution_passes_kolmogorov_smirnov(text: str) -> None:
    n = 200_000 if text in ("gamma(a=2)", "beta(a=2, b=0.5)") else MANY
    assert stats.kstest(vector(text, n, seed=4), CDFS[text]).pvalue > 1e-4


MOMENTS = {
    # mean, standard deviation, kurtosis (for the error of the sample's variance)
    "gaussian": (0, 1, 3),
    "uniform": (0, 1, 1.8),
    "laplace": (0, 1, 6),
    "student-t(df=12)": (0, 1, 3 + 6 / 8),
    "lognormal(sigma=0.5)": (
        math.exp(0.125),
        math.sqrt(math.expm1(0.25) * math.exp(0.25)),
        math.exp(1.0) + 2 * math.exp(0.75) + 3 * math.exp(0.5) - 3,
    ),
    "relu-gaussian": (1 / math.sqrt(2 * math.pi), math.sqrt(0.5 - 0.5 / math.pi), 6),
    "bimodal": (0, 1, (16 + 6 * 4 + 3) / 25),
    "outlier(fraction=0.1, scale=5)": (0, math.sqrt(1 + 0.1 * 24), 3 * (1 + 0.1 * 624) / (1 + 0.1 * 24) ** 2),
}


@pytest.mark.parametrize("text", MOMENTS)
@pytest.mark.parametrize("seed", [0, 1])
def test_moments_are_within_five_standard_errors(text: str, seed: int) -> None:
    mean, std, kurtosis = MOMENTS[text]
    z = vector(text, MANY, seed)
    assert abs(z.mean() - mean) < 5 * std / math.sqrt(MANY)
    assert abs(z.var() / std**2 - 1) < 5 * math.sqrt((kurtosis - 1) / MANY)


def test_every_distribution_of_the_table_is_checked_against_theory() -> None:
    checked = {text.partition("(")[0] for text in (*CDFS, *MOMENTS)}
    assert set(DISTRIBUTIONS) - checked == {"constant"}


def test_relu_gaussian_is_a_gaussian_without_its_negatives() -> None:
    assert np.array_equal(vector("relu-gaussian", 9999), np.maximum(vector("gaussian", 9999), 0.0))


def test_the_largest_of_a_million_normals_is_as_large_as_theory_says() -> None:
    largest = np.abs(vector("gaussian", MANY)).max()
    assert special.ndtri(1 - 0.5e-9) > largest > special.ndtri(1 - 0.5e-5)


def test_mean_and_std_are_applied_once_in_float64() -> None:
    rows = a_grouping("layer", (MANY,))
    gaussian = parse_distribution("gaussian")
    x = Synthetic(gaussian, mean=0.1, std=0.3, seed=9).draw(rows, 0, 1, 0, 4000)[0]
    z = sources.Block(9, rows, 0, 0, 0, 4000, 4000).normal()
    assert np.array_equal(x, (0.1 + 0.3 * z).astype(np.float32))
    assert not np.array_equal(x, np.float32(0.1) + np.float32(0.3) * z.astype(np.float32))


@pytest.mark.parametrize(
    ("text", "mean", "std", "expected"),
    [("constant", 2.5, 1.0, 2.5), ("gaussian", -3.0, 0.0, -3.0), ("lognormal(sigma=1e6)", 7.0, 0.0, 7.0)],
)
def test_rows_without_variance(text: str, mean: float, std: float, expected: float) -> None:
    x = whole(Synthetic(parse_distribution(text), mean, std), a_grouping("layer", (4, 9)))
    assert np.array_equal(x, np.full((4, 9), expected, np.float32))


def test_values_beyond_float32_are_infinite_without_a_warning() -> None:
    x = whole(Synthetic(parse_distribution("gaussian"), std=1e300), a_grouping("layer", (50,)))
    assert np.isinf(x).all()
    assert np.isinf(vector("lognormal(sigma=1e4)", 50)).any()
    assert not np.isnan(vector("student-t(df=0.001)", 5000)).any()


# ------------------------------------------------------------------------- outliers


def outlier_channels(x: np.ndarray) -> np.ndarray:
    """Rows (channels) whose deviation is far above 1."""
    return np.flatnonzero(x.std(axis=1) > 100)


@pytest.mark.parametrize(
    ("fraction", "count"), [("0", 0), ("1e-9", 1), ("0.001", 1), ("0.05", 10), ("0.25", 50), ("1", 200)]
)
def test_share_of_outlier_channels(fraction: str, count: int) -> None:
    source = Synthetic(parse_distribution(f"outlier(fraction={fraction}, scale=1000, of=channels)"), seed=6)
    x = whole(source, a_grouping("batch", (64, 200, 4)))
    found = outlier_channels(x)
    assert found.size == count
    plain = whole(Synthetic(parse_distribution("gaussian"), seed=6), a_grouping("batch", (64, 200, 4)))
    quiet = np.setdiff1d(np.arange(200), found)
    assert np.array_equal(x[quiet], plain[quiet])
    assert np.allclose(x[found], plain[found] * 1000.0, rtol=1e-6)


def test_outlier_channels_are_the_same_in_every_row_and_differ_between_seeds() -> None:
    chosen = []
    for seed in (0, 1):
        source = Synthetic(parse_distribution("outlier(fraction=0.02, scale=1e6, of=channels)"), seed=seed)
        x = np.abs(whole(source, a_grouping("layer", (300, 500))))
        loud = np.flatnonzero(np.median(x, axis=0) > 1e4)
        assert loud.size == 10
        assert np.array_equal(loud, np.flatnonzero(np.median(x[:50], axis=0) > 1e4))
        chosen.append(set(loud.tolist()))
    assert chosen[0] != chosen[1]


def test_outlier_elements_are_independent_of_their_values() -> None:
    z = vector("gaussian", MANY, seed=8)
    x = vector("outlier(fraction=0.25, scale=10)", MANY, seed=8)
    out = np.abs(x) > np.abs(z) * 5
    assert abs(out.mean() - 0.25) < 5 * math.sqrt(0.25 * 0.75 / MANY)
    assert abs(np.corrcoef(out, np.abs(z))[0, 1]) < 5 / math.sqrt(MANY)


# ------------------------------------------------------------------------- names and parameters


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("gaussian", "gaussian"),
        (" Gaussian ( ) ", "gaussian"),
        ("student-t", "student-t(df=4)"),
        ("Student_T( df = 2.5 )", "student-t(df=2.5)"),
        ("outlier(of=channels,scale=1e3)", "outlier(fraction=0.001, scale=1000, of=channels)"),
        ("bimodal(separation=0)", "bimodal(separation=0)"),
        ("lognormal(sigma=1e-7)", "lognormal(sigma=1e-07)"),
        ("student-t(df=0.1)", "student-t(df=0.1)"),
        ("gamma(a=2)", "gamma(a=2)"),
        ("beta(b=3, a=0.5)", "beta(a=0.5, b=3)"),
        ("norm", "norm"),
    ],
)
def test_canonical_text_reads_back(text: str, canonical: str) -> None:
    parsed = parse_distribution(text)
    assert str(parsed) == canonical
    assert parse_distribution(canonical) == parsed
    assert hash(parse_distribution(canonical)) == hash(parsed)


@given(df=st.floats(min_value=0, exclude_min=True, allow_infinity=False))
def test_figures_are_exact(df: float) -> None:
    parsed = parse_distribution(f"student-t(df={df!r})")
    assert dict(parsed.parameters) == {"df": df}
    assert parse_distribution(str(parsed)) == parsed


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_every_row_of_the_table_describes_itself_and_its_defaults_are_valid(name: str) -> None:
    row = DISTRIBUTIONS[name]
    assert row.name == name
    assert all((row.title, row.formula, row.mean, row.std))
    for parameter in row.parameters:
        assert parameter.meaning
        assert parameter.default is not None
        assert parameter.parse(str(parameter.default)) == parameter.default
        assert f"{parameter.name}={sources.figure(parameter.default)}" in str(parse_distribution(name))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gausian", r"unknown distribution 'gausian': did you mean gaussian\b.*`normcheck distributions`"),
        ("gama(a=2)", r"unknown distribution 'gama': did you mean .*gamma"),
        ("zzzzzz", r"unknown distribution 'zzzzzz': `normcheck distributions` lists what exists"),
        ("student-t(dof=4)", r"'student-t' has no parameter 'dof': it has df "),
        ("outlier(size=4)", r"has no parameter 'size': it has fraction, scale, of "),
        ("gaussian(std=2)", r"'gaussian' has no parameter 'std': it has none \(--mean and --std set "),
        ("gamma(a=2, scale=3)", r"'gamma' has no parameter 'scale': it has a \(--mean and --std set "),
        ("student-t(df=4, df=5)", r"'student-t': df is given twice"),
        ("student-t(4)", r"'student-t': write parameter=value, received '4'"),
        ("student-t(df=)", r"write parameter=value, received 'df='"),
        ("student-t(df=4,)", r"write parameter=value, received ''"),
        ("", r"distribution '': write name or name\(parameter=value, ...\)"),
        ("student-t(df=4", r"distribution 'student-t\(df=4': write name or name\("),
        ("student-t)", r"write name or name\("),
        ("gaussian()x", r"write name or name\("),
        ("4", r"write name or name\("),
        ("student-t(df=four)", r"'student-t': df must be a finite number greater than 0, received 'four'"),
        ("student-t(df=0)", r"df must be a finite number greater than 0, received '0'"),
        ("student-t(df=-1)", r"df must be a finite number greater than 0, received '-1'"),
        ("student-t(df=nan)", r"df must be a finite number greater than 0, received 'nan'"),
        ("student-t(df=inf)", r"df must be a finite number greater than 0, received 'inf'"),
        ("lognormal(sigma=0)", r"sigma must be a finite number greater than 0, received '0'"),
        ("bimodal(separation=-0.1)", r"separation must be a finite number of at least 0, received '-0.1'"),
        ("outlier(fraction=1.01)", r"fraction must be a number from 0 to 1, received '1.01'"),
        ("outlier(fraction=nan)", r"fraction must be a number from 0 to 1, received 'nan'"),
        ("outlier(scale=-1)", r"scale must be a finite number of at least 0, received '-1'"),
        ("outlier(of=rows)", r"of must be elements or channels, received 'rows'"),
        ("gamma", r"'gamma' needs a: write gamma\(a=...\)"),
        ("beta(a=1)", r"'beta' needs b: write beta\(a=..., b=...\)"),
        ("gamma(a=x)", r"'gamma': a must be a finite number, received 'x'"),
        ("gamma(a=nan)", r"'gamma': a must be a finite number, received 'nan'"),
        ("gamma(a=-1)", r"'gamma': scipy.stats.gamma does not take a=-1"),
    ],
)
def test_errors_of_names_and_parameters_are_one_clear_line(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        parse_distribution(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"std": -1.0}, r"std must be a finite number of at least 0, received -1$"),
        ({"std": math.nan}, r"std must be a finite number of at least 0, received nan$"),
        ({"std": math.inf}, r"std must be a finite number of at least 0, received inf$"),
        ({"mean": math.nan}, r"mean must be a finite number, received nan$"),
        ({"mean": -math.inf}, r"mean must be a finite number, received -inf$"),
        ({"seed": -1}, r"seed must be from 0 to 2\*\*64 - 1, received -1$"),
        ({"seed": 2**64}, r"seed must be from 0 to 2\*\*64 - 1, received 18446744073709551616$"),
    ],
)
def test_errors_of_the_tensor(values: dict[str, float], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Synthetic(parse_distribution("gaussian"), **values)


def test_scipy_quantiles_that_are_nan_are_an_error_not_an_input() -> None:
    source = Synthetic(parse_distribution("gamma(a=2)"))
    with (
        mock.patch.object(stats.gamma, "ppf", lambda u, **_: np.full_like(u, np.nan)),
        pytest.raises(UsageError, match=r"scipy\.stats\.gamma\.ppf gives NaN for a=2"),
    ):
        whole(source, a_grouping("layer", (5,)))


@pytest.mark.parametrize(
    ("source", "label"),
    [
        (Synthetic(parse_distribution("gaussian")), "gaussian(mean=0, std=1)"),
        (Synthetic(parse_distribution("student-t")), "student-t(df=4, mean=0, std=1)"),
        (Synthetic(parse_distribution("gaussian"), -0.5, 1e-8, 3), "gaussian(mean=-0.5, std=1e-08)"),
        (Synthetic(parse_distribution("gaussian"), 0.1, 65504), "gaussian(mean=0.1, std=65504)"),
        (
            Synthetic(parse_distribution("outlier(of=channels)"), std=20.0),
            "outlier(fraction=0.001, scale=100, of=channels, mean=0, std=20)",
        ),
    ],
)
def test_label_is_what_a_report_prints(source: Synthetic, label: str) -> None:
    assert source.label == label


def test_seeds_give_different_tensors_and_the_same_seed_the_same() -> None:
    rows = a_grouping("layer", (100,))
    gaussian = parse_distribution("gaussian")
    draws = {whole(Synthetic(gaussian, seed=seed), rows).tobytes() for seed in (0, 1, 2**64 - 1)}
    assert len(draws) == 3
    assert whole(Synthetic(gaussian), rows).tobytes() in draws


def test_names_and_parsing_load_no_heavy_module() -> None:
    code = (
        "import sys; from normcheck.layers.distributions import DISTRIBUTIONS, parse_distribution;"
        "from normcheck.layers.sources import Synthetic;"
        "[Synthetic(parse_distribution(name)).label for name in DISTRIBUTIONS];"
        "heavy = {'torch', 'numba', 'scipy', 'scipy.stats', 'scipy.special'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
