"""The bound on |x|: nothing below it overflows, and something just above it does."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from normcheck import analyze, emulate, simulate
from normcheck.analysis.safe_magnitude import RESOLUTION
from normcheck.norms.implementations import IMPLEMENTATIONS

HOWS = ("pure", "pure-scaled", "wide-sum", "wide")
NORMS = ("layer-l2", "layer-l1", "layer-linf", "layer-range", "rms", "layer-l1-uncentred")
N = 96


def bound(norm, how, precision="fp16", **settings):
    settings = {"eps": 1e-3, **settings}
    (result,) = simulate(
        norms=[norm], implementations=[how], precisions=[precision], shape=(2, N), jobs=1, **settings
    ).results
    return result.safe_magnitude


def overflows(rows, norm, how):
    got = emulate(rows.astype(np.float32), norm, precision="fp16", implementation=how, eps=1e-3)
    return sum(step.overflow for step in got.steps)


def extremes(magnitude):
    place = np.arange(N)
    return magnitude * np.stack([np.ones(N), np.where(place % 2, -1, 1), np.where(place == N - 1, 1, -1)])


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("norm", NORMS)
def test_no_input_up_to_the_bound_overflows(norm, how):
    b = bound(norm, how)
    rng = np.random.default_rng(0)
    signs = rng.choice([-1.0, 1.0], (200, N))
    inside = np.concatenate([signs, rng.uniform(-1, 1, (200, N)), np.sign(rng.normal(0.7, 1, (200, N)))])
    assert overflows(b * (1 - 2.0**-9) * inside, norm, how) == 0
    assert overflows(extremes(b * (1 - 2.0**-9)), norm, how) == 0


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("norm", NORMS)
def test_some_input_just_beyond_the_bound_overflows(norm, how):
    assert overflows(extremes(bound(norm, how) * (1 + 2.0**-8)), norm, how) > 0


def test_bounds_that_follow_by_hand():
    # sums of n equal squares (the mean of an alternating row is 0) and of n equal elements reach 65520
    assert bound("rms", "pure") == pytest.approx(math.sqrt(65520 / N), rel=1e-3)
    assert bound("layer-l1", "pure") == pytest.approx(65520 / N, rel=1e-3)
    assert bound("layer-l2", "wide") == 65504


def test_a_count_that_overflows_leaves_no_bound():
    (result,) = simulate(norms=["layer-l2"], implementations=["pure"], shape=(1, 65600), jobs=1).results
    assert result.safe_magnitude is None


def test_weights_have_none():
    (result,) = simulate(norms=["weight-l2"], implementations=["pure"], shape=(4, 8), jobs=1).results
    assert result.safe_magnitude is None


@pytest.mark.parametrize("how", HOWS)
def test_under_fixed_statistics_the_bound_is_that_of_the_worst_channel(how):
    mean, std = 3.0, 1e-3
    report = simulate(
        norms=["batch-l2"], implementations=[how], shape=(2, 3, 5), mode="eval", mean=mean, std=std, jobs=1
    )
    b = report.results[0].safe_magnitude
    running = {"running_mean": np.full(3, mean), "running_var": np.full(3, std**2), "mode": "eval"}
    x = np.ones((2, 3, 1)) * np.array([[[1.0]] * 3, [[-1.0]] * 3])
    inside = emulate((b * x).astype(np.float32), "batch-l2", precision="fp16", implementation=how, **running)
    beyond = emulate(
        (b * 2.0 ** (2 * RESOLUTION) * x).astype(np.float32),
        "batch-l2", precision="fp16", implementation=how, **running,
    )  # fmt: skip
    assert sum(step.overflow for step in inside.steps) == 0
    assert sum(step.overflow for step in beyond.steps) > 0


def test_where_a_flat_row_overflows_at_any_scale_there_is_none():
    assert bound("layer-l1", "pure", eps=1e-5) is None  # 1 / 1e-5 is beyond float16
    assert bound("layer-l1", "pure", eps=1e-5, eps_comparable=True) is not None


def test_a_gamma_that_takes_an_outlier_beyond_the_format_leaves_no_bound(tmp_path):
    def of(gamma):
        torch.save({"ln.weight": torch.full((N,), gamma), "ln.bias": torch.zeros(N)}, tmp_path / "model.pt")
        report = analyze(str(tmp_path / "model.pt"), precisions=["fp16"], implementations=["wide"], jobs=1)
        return report.results[0].safe_magnitude

    largest = 65504 / math.sqrt(N - 1)  # of the normalised value: sqrt(n - 1)
    assert of(0.99 * largest) == 65504
    assert of(1.01 * largest) is None


def test_every_implementation_has_a_bound_within_the_format():
    for how in IMPLEMENTATIONS:
        b = bound("layer-l2", how)
        assert b is not None
        assert 0 < b <= 65504
