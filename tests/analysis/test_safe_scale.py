"""The safe scale is true: a fresh simulation inside it is clean, and just outside it is not."""

from __future__ import annotations

import math

import pytest

from normcheck import simulate
from normcheck.analysis import assemble as assembling
from normcheck.analysis import safe_scale, study

MANY_ROWS = (2000, 64)
"""Where deviation bounds the interval: the average over many rows moves smoothly with the scale."""


def shape_of(norm):
    if norm.startswith(("layer", "rms")):
        return (48, 160)
    return (24, 320) if norm.startswith("weight") else (8, 8, 12, 10)


def fresh(std, *, search=False, mean=0.0, **settings):
    """Simulate once, without the search unless it is asked for."""
    with pytest.MonkeyPatch.context() as patch:
        if not search:
            patch.setattr(assembling, "safe_scale", lambda *_args, **_settings: None)
        report = simulate(std=std, mean=mean, jobs=1, **settings)
    (result,) = report.results
    return result, report.findings


def is_clean(std, **settings):
    """Whether nothing overflows, no row is bad and NC301 is silent: docs/numerics.md's words, on a run of its own."""
    result, findings = fresh(std, **settings)
    return not (result.overflow.count or result.rows.bad or any(f.rule == "NC301" for f in findings))


def scaled(factor, std=1.0, mean=0.0, **settings):
    return is_clean(std * factor, mean=mean * factor, **settings)


def assert_true(result, **settings):
    """Check both ends, where they are ends.

    Deviation, which bounds the low end, wobbles by a percent or so about its threshold even over many rows.
    """
    low, high = result.safe_scale
    assert low < high
    assert scaled(0.99 * high, **settings), (high, settings)
    assert not scaled(1.01 * high, **settings), (high, settings)
    if low:
        assert scaled(1.03 * low, **settings), (low, settings)
        assert not scaled(0.97 * low, **settings), (low, settings)


def case(precision, norm, implementation, **more):
    return {
        "precisions": [precision],
        "norms": [norm],
        "implementations": [implementation],
        "shape": shape_of(norm),
    } | more


OVERFLOWING = [
    *[("fp16", norm, how) for norm in ("batch-l2", "rms") for how in ("pure", "pure-scaled", "wide-sum", "wide")],
    *[("fp16", norm, "pure") for norm in ("batch-l1", "batch-linf", "batch-topk", "batch-range", "layer-l2")],
    *[("fp16", norm, "pure") for norm in ("instance-l2", "group-l1", "layer-l1-uncentred", "batch-linf-uncentred")],
    ("fp16", "batch-l1", "pure-scaled"),
    ("fp16", "batch-l1", "wide"),
    ("fp16", "weight-l2", "pure"),
    ("fp16", "weight-linf", "wide"),
    ("bf16", "batch-l2", "wide"),
    ("bf16", "layer-l1", "wide"),
    ("bf16", "rms", "wide-sum"),
    ("float8_e5m2", "batch-l2", "wide"),
    ("float8_e4m3fn", "layer-l2", "wide"),
    ("float8_e4m3fn", "batch-l1", "wide"),
    ("tf32", "layer-l2", "pure"),
    ("e6m9", "layer-l2", "wide-sum"),
    ("fp32", "batch-l2", "pure"),
    ("fp32", "batch-l1", "pure-scaled"),
]


@pytest.mark.parametrize(("precision", "norm", "implementation"), OVERFLOWING)
def test_the_high_end_is_where_overflow_begins_and_headroom_says_so(precision, norm, implementation):
    settings = case(precision, norm, implementation)
    result, _ = fresh(1.0, search=True, **settings)
    _, high = result.safe_scale
    assert scaled(0.99 * high, **settings)
    assert not scaled(1.01 * high, **settings)
    over, _ = fresh(1.01 * high, **settings)
    assert over.overflow.count
    assert result.headroom.overflow_bits == pytest.approx(math.log2(high), abs=0.1)


BEYOND = [
    ("fp16", "batch-l2", "pure", 100.0),
    ("fp16", "batch-l2", "wide-sum", 300.0),
    ("fp16", "batch-l1", "pure", 400.0),
    ("fp16", "layer-l2", "wide", 40000.0),
    ("float8_e4m3fn", "batch-linf", "wide", 1000.0),
]


@pytest.mark.parametrize(("precision", "norm", "implementation", "std"), BEYOND)
def test_after_an_overflow_the_interval_lies_below_one_and_headroom_is_negative(precision, norm, implementation, std):
    settings = case(precision, norm, implementation)
    result, _ = fresh(std, search=True, **settings)
    assert result.safe_scale[1] < 1
    assert scaled(0.99 * result.safe_scale[1], std=std, **settings)
    assert not scaled(1.01 * result.safe_scale[1], std=std, **settings)
    assert result.headroom.overflow_bits < 0
    assert result.headroom.overflow_bits == pytest.approx(math.log2(result.safe_scale[1]), abs=0.1)


LOW = {
    "squares of float16 without eps": case("fp16", "layer-l2", "pure", shape=MANY_ROWS, eps=1e-8),
    "in blocks": case("fp16", "layer-l2", "pure-scaled", shape=MANY_ROWS, eps=1e-8),
    "eps flushed": case("fp16", "rms", "pure", shape=MANY_ROWS, ftz=True),
    "l1": case("fp16", "layer-l1", "pure", shape=MANY_ROWS),
    "no eps in float32": case("bf16", "layer-l2", "wide", shape=MANY_ROWS, eps=0.0),
    "e4m3fn": case("float8_e4m3fn", "layer-l2", "wide", shape=MANY_ROWS, eps=0.0),
}


@pytest.mark.parametrize("settings", LOW.values(), ids=LOW)
def test_the_low_end(settings):
    result, _ = fresh(1.0, search=True, **settings)
    assert result.safe_scale[0] > 0
    assert_true(result, **settings)


def test_too_small_an_input_has_to_grow():
    settings = case("fp16", "layer-l2", "pure", shape=MANY_ROWS, eps=1e-8)
    result, _ = fresh(1e-4, search=True, **settings)
    low, high = result.safe_scale
    assert 1 < low < high
    assert_true(result, std=1e-4, **settings)


def test_both_ends_do_not_depend_on_where_one_stands():
    settings = case("fp16", "layer-l2", "pure", shape=MANY_ROWS, eps=1e-8)
    ends = []
    for std in (1e-4, 1.0, 100.0):
        result, _ = fresh(std, search=True, **settings)
        ends.append([std * end for end in result.safe_scale])
    for low, high in ends[1:]:
        assert low == pytest.approx(ends[0][0], rel=0.03)
        assert high == pytest.approx(ends[0][1], rel=0.006)


def test_a_mean_is_scaled_with_the_rest():
    settings = case("fp16", "batch-l2", "pure") | {"mean": 30.0}
    result, _ = fresh(1.0, search=True, **settings)
    _, high = result.safe_scale
    assert scaled(0.99 * high, **settings)
    assert not scaled(1.01 * high, **settings)
    assert result.headroom.overflow_step == "sum-mean"


def test_an_end_is_found_to_a_256th_of_a_bit():
    # one row of +-1 (the sign of a bimodal far apart): the sum of 64 squares k^2 overflows at exactly 65520
    settings = case("fp16", "rms", "pure", shape=(1, 64), distribution="bimodal(separation=1e6)")
    result, _ = fresh(1.0, search=True, **settings)
    largest = math.log2(math.sqrt(65520 / 64))
    assert largest - 2 * safe_scale.RESOLUTION <= math.log2(result.safe_scale[1]) <= largest + safe_scale.RESOLUTION


def test_with_eps_no_input_is_too_small():
    # as the input shrinks eps takes over, and in the end x is 0 and so is y
    result, _ = fresh(1.0, search=True, **case("fp16", "batch-l2", "wide"))
    assert result.safe_scale[0] == 0
    for std in (1e-6, 1e-9, 1e-30):
        assert is_clean(std, **case("fp16", "batch-l2", "wide"))


NOTHING_HELPS = {
    "n is infinite": case("fp16", "batch-l2", "pure", shape=(8, 2, 112, 112)),
    "n is infinite, and nothing is squared": case("fp16", "batch-l1", "pure", shape=(8, 2, 112, 112)),
    "n is NaN": case("float8_e4m3fn", "batch-l2", "pure"),
    "the sum stagnates": case("fp16", "weight-l2", "pure-sequential", shape=(2, 30000)),
    "no row has any variance and eps is 0": case("fp16", "batch-l2", "pure", distribution="constant", eps=0.0),
}


@pytest.mark.parametrize("settings", NOTHING_HELPS.values(), ids=NOTHING_HELPS)
def test_null_where_nothing_helps(settings):
    result, _ = fresh(1.0, search=True, mean=1.0 if "distribution" in settings else 0.0, **settings)
    assert result.safe_scale is None
    for factor in (1e-4, 0.01, 1.0, 30.0):
        mean = factor if "distribution" in settings else 0.0
        assert not is_clean(factor, **settings | {"mean": mean})


LARGE = {
    "heavy tails": case("fp16", "batch-l2", "wide-sum", shape=(16, 64, 16, 16), distribution="student-t(df=2.5)"),
    "low end": case("fp16", "layer-l2", "pure", shape=MANY_ROWS, eps=1e-8),
}


@pytest.mark.parametrize("settings", LARGE.values(), ids=LARGE)
def test_of_a_large_input_the_worst_blocks_are_searched(settings, monkeypatch):
    monkeypatch.setattr(study, "BLOCK", 4096)
    whole, _ = fresh(1.0, search=True, **settings)
    monkeypatch.setattr(safe_scale, "_FEW_ELEMENTS", 0)
    sampled, _ = fresh(1.0, search=True, **settings)
    assert sampled.safe_scale[0] == pytest.approx(whole.safe_scale[0], rel=0.03)
    assert sampled.safe_scale[1] == pytest.approx(whole.safe_scale[1], rel=0.006)
    assert_true(sampled, **settings)


def test_what_the_blocks_searched_do_not_show_the_whole_does(monkeypatch):
    settings = LARGE["heavy tails"]
    monkeypatch.setattr(study, "BLOCK", 4096)
    monkeypatch.setattr(safe_scale, "_FEW_ELEMENTS", 0)
    want, _ = fresh(1.0, search=True, **settings)
    monkeypatch.setattr(safe_scale, "_nearest_to_trouble", lambda extents: [len(extents) // 2])  # an ordinary one
    got, _ = fresh(1.0, search=True, **settings)
    assert got.safe_scale[1] == pytest.approx(want.safe_scale[1], rel=0.006)


def test_an_overflow_that_saturates_is_outside():
    # 6 is the largest number of float4: outliers beyond are clipped when loaded, and no row is bad
    settings = case("float4_e2m1fn", "layer-l2", "wide", distribution="outlier(fraction=0.02, scale=4)")
    result, _ = fresh(1.0, search=True, **settings)
    assert result.rows.bad == 0
    assert result.overflow.count
    assert result.safe_scale is None or result.safe_scale[1] < 1
