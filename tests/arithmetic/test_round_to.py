"""`round_to`, exhaustively: every code, midpoint, neighbour and threshold of every format of at most 16 bits."""

from __future__ import annotations

import itertools
import math
import threading

import numpy as np
import oracle
import pytest
from oracle import FLUSHES, MODES, POLICIES, target

import normcheck
from normcheck.arithmetic.formats import format_named
from normcheck.arithmetic.rounding import round_to
from normcheck.errors import UsageError

TABLE = tuple(name for name, form in oracle.SPECIFIED.items() if form.bits <= 16)
USER = ("e2m1", "e3m2", "e4m3", "e3m4", "e5m1", "e9m1", "e9m4", "e6m9")
WIDE = ("tf32", "float32", "e8m15", "e5m23", "e9m23", "e2m23")
NO_FLUSH = FLUSHES[0]
CONFIGURATIONS = tuple(
    dict.fromkeys(
        [(mode, policy, 0) for mode in MODES for policy in POLICIES]
        + [(mode, policy, flush) for mode in MODES for policy in ("ieee",) for flush in range(4)]
    )
)
FLOAT32_LIMIT = float(np.finfo(np.float32).max)


def fits_float32(form):
    return form.largest <= FLOAT32_LIMIT and form.magnitude(1) >= 2.0**-149 and form.mantissa_bits <= 23


def check(name, probes, bracket):
    """Compare all configurations on probes of one dtype; `bracket` gives their places among the format's numbers."""
    form = target(name)
    wide = oracle.widened(probes)
    places = {False: bracket(wide), True: bracket(oracle.flush_operands(wide, form))}
    dtype = np.float32 if probes.dtype == np.float32 and fits_float32(form) else np.float64
    before = probes.copy()
    for mode, policy, index in CONFIGURATIONS:
        flush = FLUSHES[index]
        expected, _ = oracle.select(places[flush["daz"]], form, mode, policy, ftz=flush["ftz"])
        with np.errstate(invalid="ignore"):  # signaling NaNs: see the test below
            got = round_to(probes, name, rounding=mode, overflow=policy, **flush)
        assert got.dtype == dtype
        oracle.assert_same(got, expected, wide, label=f"{name} {probes.dtype} {mode} {policy} {flush}")
    assert np.array_equal(before.view(np.uint8), probes.view(np.uint8)), "the input was changed"


@pytest.mark.parametrize("name", [*TABLE, *USER])
@pytest.mark.parametrize("probes", [oracle.float32_probes, oracle.float64_probes])
def test_every_code_midpoint_and_neighbour(name, probes):
    form = target(name)
    check(name, probes(form), lambda x: oracle.between_codes(x, form))


def code_samples(form, rng, n=200):
    """Codes where things happen, and random ones, of formats with too many codes to list."""
    normal, last = 2**form.mantissa_bits, form.largest_code
    edges = [
        *range(20),
        *range(normal - 10, normal + 10),
        *range(last - 10, last + 2),
        *range(2 * normal - 3, 2 * normal + 3),
    ]
    return [*edges, *rng.integers(0, last, n).tolist()]


def wide_probes(form, rng):
    """Float64 numbers at and around sampled codes and midpoints, and beyond the largest."""
    codes = code_samples(form, rng)
    points = [float(form.magnitude(c)) for c in codes]
    middles = [float((form.magnitude(c) + form.magnitude(c + 1)) / 2) for c in codes]
    points = np.array(points + middles + [float(form.beyond) * k for k in (1.5, 2, 4)])
    edges = [5e-324, 1e-310, 1e-160, 1e160, 1.7976931348623157e308, math.inf, math.nan, 0.0]
    positive = np.concatenate([points, np.nextafter(points, -1), np.nextafter(points, math.inf), edges])
    return np.concatenate([positive, -positive])


@pytest.mark.parametrize("name", WIDE)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_wide_formats_at_sampled_codes_midpoints_and_neighbours(name, dtype):
    form = target(name)
    probes = wide_probes(form, np.random.default_rng(5))
    if dtype is np.float32:
        with np.errstate(over="ignore"):
            points = probes.astype(np.float32)
            around = [np.nextafter(points, np.float32(end)) for end in (-math.inf, math.inf)]
        probes = np.concatenate([oracle.float32_probes(oracle.ieee(5, 3)), points, *around])
    check(name, probes, lambda x: oracle.between_ratios([oracle.exact(float(v)) for v in x], form))


def test_float64_changes_nothing():
    x = oracle.float64_probes(target("float16"))
    got = round_to(x, "float64")
    assert np.array_equal(got.view(np.uint64), x.view(np.uint64))
    assert got is not x
    assert not np.shares_memory(got, x)
    oracle.assert_same(round_to(np.float32([1.1, -0.0, np.inf]), "float64"), np.float32([1.1, -0.0, np.inf]))


@pytest.mark.parametrize("mode", [mode for mode in MODES if mode != "nearest-even"])
def test_float64_in_other_modes_is_refused_or_right(mode):
    x = np.array([1.1, -5e-324, 0.0, -0.0])
    try:
        got = round_to(x, "float64", rounding=mode)
    except UsageError as error:
        assert "float64" in str(error)  # noqa: PT017  # either outcome is right
    else:
        oracle.assert_same(got, x)


@pytest.mark.parametrize("name", [*TABLE, "e4m3", "e9m4", "tf32"])
def test_the_default_policy_is_the_formats(name):
    x = np.array([np.inf, -np.inf, 1e300, -1e300])
    oracle.assert_same(round_to(x, name), round_to(x, name, overflow=format_named(name).overflow))


@pytest.mark.parametrize(
    ("x", "name", "settings", "expected"),
    [
        (65519.996, "fp16", {}, 65504.0),
        (65520.0, "fp16", {}, math.inf),
        (65520.0, "fp16", {"overflow": "saturate"}, 65504.0),
        (-65520.0, "fp16", {"overflow": "nan"}, math.nan),
        (1e30, "fp16", {"rounding": "toward-zero"}, 65504.0),
        (65505.0, "fp16", {"rounding": "up"}, math.inf),
        (464.0, "e4m3fn", {}, 448.0),
        (464.0 + 1e-9, "e4m3fn", {}, math.nan),  # ml_dtypes and torch round twice and give 448
        (500.0, "e4m3fn", {"overflow": "saturate"}, 448.0),
        (465.0, "e4m3", {}, math.inf),
        (1 + 2**-11 + 2**-40, "fp16", {}, 1 + 2**-10),  # torch: 1.0, through float32
        (1 + 2**-8 + 2**-40, "bf16", {}, 1 + 2**-7),  # ml_dtypes and torch: 1.0
        (1 + 2**-4 + 2**-40, "e4m3fn", {}, 1.125),  # ml_dtypes and torch: 1.0
        (2 - 2**-24, "float32", {"rounding": "toward-zero"}, 2 - 2**-23),
        (float.fromhex("0x1.400002p-23"), "fp16", {}, 3 * 2**-24),  # pychop: 2 * 2**-24
        (float.fromhex("0x1.000002p-25"), "fp16", {}, 2**-24),  # pychop's FaultChop: 0
        (float.fromhex("0x1.fffffep-26"), "fp16", {}, 0.0),  # microxcaling: 2**-24
        (6.1005e-5, "fp16", {}, 2**-14 - 2**-24),
        (6.1034e-5, "fp16", {}, 2**-14),  # apytypes: 0
        (float.fromhex("0x1.ffep-15"), "fp16", {"ftz": True}, 2**-14),  # rounds up to normal first
        (float.fromhex("0x1.ffcp-15"), "fp16", {"ftz": True}, 2**-14),  # a tie: the even one is normal
        (float.fromhex("0x1.ffbfffp-15"), "fp16", {"ftz": True}, 0.0),
        (float.fromhex("-0x1.ffep-15"), "fp16", {"daz": True}, -0.0),
        (2.0**-127, "bf16", {}, 2.0**-127),  # CPFloat by default: 0
        (float.fromhex("0x1.fefffep127"), "bf16", {}, float.fromhex("0x1.fep127")),
        (float.fromhex("0x1.ffffbep127"), "bf16", {}, math.inf),  # microxcaling: NaN
        (-(2.0**-60), "fp16", {}, -0.0),
        (-0.0, "e5m2fnuz", {}, 0.0),
        (-(2.0**-60), "e5m2fnuz", {}, 0.0),
        (math.nan, "e2m1fn", {}, math.nan),
        (math.inf, "e2m1fn", {}, 6.0),
        (7.0, "e2m1fn", {"overflow": "ieee"}, math.nan),
    ],
)
def test_by_hand(x, name, settings, expected):
    oracle.assert_same([round_to(x, name, **settings)], [expected])
    oracle.assert_same(round_to(np.array([x, x]), name, **settings), [expected] * 2)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("settings", [{}, {"rounding": "up"}])
def test_shapes_layouts_and_kinds_of_input(dtype, settings):
    plain = np.linspace(-3, 70000, 720).astype(dtype)
    expected = round_to(plain, "fp16", **settings)
    grid, solid = plain.reshape(24, 30), expected.reshape(24, 30)
    swapped = grid.astype(grid.dtype.newbyteorder())
    frozen = grid.copy()
    frozen.flags.writeable = False
    for x, want in [
        (grid, solid),
        (grid.T, solid.T),
        (np.asfortranarray(grid), solid),
        (grid[::2, ::-3], solid[::2, ::-3]),
        (plain.reshape(2, 3, 4, 30), expected.reshape(2, 3, 4, 30)),
        (frozen, solid),
        (swapped, solid),
        (grid[:0], solid[:0]),
        (plain[7], expected[7]),
        (np.array(plain[7]), expected[7]),
    ]:
        got = round_to(x, "fp16", **settings)
        assert isinstance(got, np.ndarray)
        assert got.shape == np.shape(x)
        oracle.assert_same(got, want)
        assert not np.shares_memory(got, x)


def test_foreign_byte_order_keeps_its_width():
    x = np.array([1.5, 70000], np.float32)
    assert round_to(x.astype(x.dtype.newbyteorder()), "fp16").dtype == np.float32


@pytest.mark.parametrize("name", ["fp16", "e4m3fn", "e4m3fnuz", "float32", "tf32", "e9m4"])
@pytest.mark.parametrize("mode", ["nearest-even", "up"])
def test_signaling_nans_pass_without_a_warning(name, mode):
    assert np.isnan(round_to(oracle.FLOAT32_NANS, name, rounding=mode)).all()
    assert np.isnan(round_to(oracle.FLOAT64_NANS, name, rounding=mode)).all()


def test_other_kinds_of_numbers_are_taken_as_float64():
    for x in ([1, 2049, 70000], np.array([1, 2049, 70000]), np.array([1, 2049, 65504], np.uint16)):
        got = round_to(x, "fp16")
        assert got.dtype == np.float64
        oracle.assert_same(got, round_to(np.asarray(x, np.float64), "fp16"))
    half = np.array([1.5, -0.0, np.inf], np.float16)
    oracle.assert_same(round_to(half, "fp16"), half)


def test_results_are_the_callers_own():
    x = np.random.default_rng(6).standard_normal(50_000).astype(np.float32)
    kept = [(k, round_to(x * np.float32(k), "bf16")) for k in range(1, 12)]
    copies = [got.copy() for _, got in kept]
    for _ in range(30):
        round_to(-x, "bf16")
        round_to(-x.astype(np.float64), "bf16", rounding="up")
    for (_, got), copy in zip(kept, copies, strict=True):
        oracle.assert_same(got, copy)
    kept[0][1][:] = 0  # writable, and no one else's
    oracle.assert_same(kept[1][1], copies[1])


def test_threads_do_not_disturb_each_other():
    x = np.random.default_rng(7).standard_normal(100_000).astype(np.float32)
    settings = list(itertools.product(("fp16", "bf16", "e4m3fn"), ("nearest-even", "up", "stochastic")))
    expected = [round_to(x, name, rounding=mode) for name, mode in settings]
    wrong = []

    def work(index):
        name, mode = settings[index]
        for _ in range(5):
            got = round_to(x, name, rounding=mode)
            if not np.array_equal(got, expected[index]):
                wrong.append(settings[index])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(settings))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"rounding": "nearest"}, "nearest"),
        ({"overflow": "wrap"}, "wrap"),
        ({"seed": -1}, "-1"),
        ({"seed": 2**64}, "seed"),
    ],
)
def test_unknown_settings_are_usage_errors_that_repeat_what_was_received(settings, word):
    with pytest.raises(UsageError, match=word):
        round_to([1.0], "fp16", **settings)
    with pytest.raises(UsageError, match="fp17"):
        round_to([1.0], "fp17")


def test_the_public_name():
    assert normcheck.round_to is round_to
