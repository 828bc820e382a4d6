"""Experiment (e): ratios are those of the definitions, and the claims on constants hold or fail where they must."""

from __future__ import annotations

import numpy as np
import pytest

from normcheck.layers.distributions import parse_distribution
from normcheck.norms.constants import GAUSSIAN_L1, constant
from normcheck.paper import constants
from normcheck.paper.constants import DISTRIBUTIONS, K, Sample, ratios
from normcheck.paper.runs import Runs


@pytest.fixture(scope="module")
def quick():
    with Runs(1) as runs:
        return constants.run(quick=True, runs=runs)


@pytest.mark.parametrize("distribution", ["gaussian", "relu-gaussian"])
def test_ratios_are_the_definitions_written_out(distribution, monkeypatch):
    sample = Sample(distribution, 64, 50)
    monkeypatch.setattr(constants, "_PIECE", 1000)
    x = np.concatenate([part.numpy() for part in constants._drawn(sample)])
    assert x.shape == (50, 64)
    c = np.abs(x - x.mean(1, keepdims=True))
    sigma = parse_distribution(distribution).moments[1]
    expected = {
        ("l2", "exact"): x.std(1),
        ("l1", "paper"): GAUSSIAN_L1 * c.mean(1),
        ("linf", "paper"): constant("linf", "paper", 64) * c.max(1),
        ("topk", "exact"): constant("topk", "exact", 64, K) * np.sort(c, 1)[:, -K:].mean(1),
        ("range", "paper"): constant("range", "paper", 64) * np.ptp(x, 1),
    }
    found = ratios(sample)
    for key, s in expected.items():
        ratio = s / sigma
        assert found[key].mean == pytest.approx(ratio.mean(), rel=1e-12)
        assert found[key].error == pytest.approx(ratio.std(ddof=1) / np.sqrt(50), rel=1e-9)
        assert found[key].variation == pytest.approx(ratio.std(ddof=1) / ratio.mean(), rel=1e-9)


def test_l1_and_the_exact_constants_estimate_sigma_and_the_other_published_ones_do_not(quick):
    standings = [claim.standing for claim in quick.claims]
    assert standings == ["reproduced", *["not reproduced"] * 3, *["reproduced"] * 3]
    assert all("times the one for which E s = sigma" in claim.reason for claim in quick.claims[1:4])


def test_the_facts_hold_every_distribution_size_and_statistic(quick):
    assert tuple(quick.facts) == DISTRIBUTIONS
    for by_size in quick.facts.values():
        assert list(by_size) == ["32", "256", "1024", "4096"]
        for by_statistic in by_size.values():
            assert len(by_statistic) == 9
    top = quick.facts["gaussian"]["1024"]["topk paper"]
    assert top["mean"] == pytest.approx(1.196, rel=0.01)


def test_on_gaussians_the_published_constants_are_off_by_their_ratio_to_the_exact_ones(quick):
    for n in (1024, 4096):
        for name in ("linf", "topk", "range"):
            ratio = constant(name, "paper", n, K) / constant(name, "exact", n, K)
            assert quick.facts["gaussian"][str(n)][f"{name} paper"]["mean"] == pytest.approx(ratio, rel=0.02)
