"""Experiment (a): the factor on the constant is what it says, and the short form shows what is robust at its size."""

from __future__ import annotations

import math
from statistics import fmean
from typing import get_args

import pytest
import torch

from normcheck.norms.constants import GAUSSIAN_L1
from normcheck.paper import statistics
from normcheck.paper.runs import Runs
from normcheck.paper.statistics import EPS, FOURFOLD, L1, L2, QUARTER, WAYS, FactoredNorm, network, norm_of
from normcheck.results.experiment import Standing


@pytest.fixture(scope="module")
def quick():
    with Runs(1) as runs:
        return statistics.run(quick=True, runs=runs)


def by_factor(x, factor):
    """L1 batch norm with a factor on its constant, written out."""
    c = x - x.mean((0, 2, 3), keepdim=True)
    s = factor * GAUSSIAN_L1 * c.abs().mean((0, 2, 3), keepdim=True) + math.sqrt(EPS)
    return c / s


@pytest.mark.parametrize("way", [QUARTER, FOURFOLD])
def test_the_factor_is_on_the_constant_and_not_on_eps(way):
    x = (torch.randn(4, 3, 5, 5, dtype=torch.float64) * 0.01 + 2).requires_grad_()
    norm = FactoredNorm(3, way).double()
    y, expected = norm(x), by_factor(x, way.factor)
    torch.testing.assert_close(y, expected, rtol=1e-12, atol=1e-12)
    g = torch.randn_like(y)
    ours, theirs = (torch.autograd.grad(out, x, g, retain_graph=True)[0] for out in (y, expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("way", [QUARTER, FOURFOLD])
def test_running_statistics_bear_the_factor_too(way):
    x = torch.randn(64, 3, 5, 5, dtype=torch.float64)
    norm = FactoredNorm(3, way).double()
    norm.norm.momentum = 1.0
    with torch.no_grad():
        norm.weight.fill_(1.7)
        norm.bias.fill_(0.3)
        trained, running = norm(x), norm.eval()(x)
    torch.testing.assert_close(running, trained, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(trained, by_factor(x, way.factor) * 1.7 + 0.3, rtol=1e-9, atol=1e-9)


def test_all_ways_begin_with_the_same_weights_and_eps_is_the_same_floor():
    first = [p for p in network(L2, 5).parameters() if p.ndim > 1]
    for way in WAYS[1:]:
        weights = [p for p in network(way, 5).parameters() if p.ndim > 1]
        assert all(torch.equal(a, b) for a, b in zip(first, weights, strict=True))
    assert (norm_of(L2, 4).eps, norm_of(L1, 4).eps) == (1e-5, math.sqrt(1e-5))


def test_every_claim_of_the_short_form_has_its_criterion_and_a_standing(quick):
    assert [claim.standing in get_args(Standing) for claim in quick.claims] == [True] * 5
    assert all(claim.by and claim.measured and claim.published for claim in quick.claims)
    assert all(claim.reason for claim in quick.claims if claim.standing != "reproduced")
    assert quick.seeds == (0, 1, 2)


def test_all_statistics_train_in_the_short_form_and_no_loss_is_infinite(quick):
    means = {name: fmean(facts["accuracies"]) for name, facts in quick.facts.items()}
    assert min(means[name] for name in ("L2", "L1", "top-10", "L-infinity")) > 0.75
    assert all(all(facts["finite"]) for facts in quick.facts.values())


def test_a_quarter_of_the_constant_learns_slower_in_the_short_form(quick):
    slow, right = (fmean(quick.facts[way.name]["mean_over_run"]) for way in (QUARTER, L1))
    assert slow < right


def test_the_plots_hold_every_evaluation_of_every_way(quick):
    accuracies, constants = quick.curves
    assert [series.name for series in accuracies.series] == ["L2", "L1", "top-10", "L-infinity"]
    assert [series.name for series in constants.series] == ["L2", "L1", "L1, C/4", "L1, 4C"]
    for series in (*accuracies.series, *constants.series):
        assert series.x == (15, 30, 45, 60)
        assert all(low <= y <= high for low, y, high in zip(series.low, series.y, series.high, strict=True))
