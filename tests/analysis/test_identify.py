"""`identify`: the catalogue's nearest row to a kernel's output, and where they part."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import normcheck
from normcheck.analysis.identify import identify
from normcheck.errors import UsageError
from normcheck.norms.implementations import IMPLEMENTATIONS

X = np.random.default_rng(0).standard_normal((32, 96)).astype(np.float16).astype(np.float32) * np.float32(4)
GENERIC = tuple(IMPLEMENTATIONS)


def made_by(implementation: Any, **given: Any) -> Any:
    return normcheck.emulate(X, "layer-l2", precision="fp16", implementation=implementation, **given).output


@pytest.mark.parametrize("name", ["pure", "wide-sum", "wide", "pure-sequential"])
def test_an_implementation_is_found_by_its_own_output(name: str) -> None:
    found = identify(X, made_by(name), "layer-l2", precision="fp16", implementations=GENERIC)
    assert found.candidates[0].identical == found.candidates[0].compared == X.size
    alike = [row.implementation for row in found.candidates if row.identical == row.compared]
    assert name in alike


def test_candidates_come_nearest_first() -> None:
    shares = [row.share for row in identify(X, made_by("pure"), "layer-l2", precision="fp16").candidates]
    assert shares == sorted(shares, reverse=True)
    assert len(shares) > len(GENERIC)


def test_another_eps_parts_at_the_variance() -> None:
    kernel = replace(
        IMPLEMENTATIONS["wide"], name="other-order", title="", order=IMPLEMENTATIONS["pure-sequential"].order
    )
    x = X * np.float32(1) + np.float32(0)
    y = normcheck.emulate(x, "layer-l2", precision="fp32", implementation=kernel).output
    found = identify(x, y, "layer-l2", precision="fp32", implementations=["wide"]).candidates[0]
    assert found.parting is not None
    assert found.parting.rows == found.parting.by_mean + found.parting.by_variance + found.parting.by_elements
    assert found.parting.step in ("mean", "variance")


def test_a_kernel_that_rounds_elements_otherwise_parts_at_normalize() -> None:
    weight = np.linspace(0.5, 1.5, 96)
    kernel = replace(IMPLEMENTATIONS["wide"], name="rounds-twice", title="", normalized="io")
    y = made_by(kernel, weight=weight)
    found = identify(X, y, "layer-l2", precision="fp16", implementations=["wide"], weight=weight).candidates[0]
    assert found.identical < found.compared
    assert found.parting is not None
    assert (found.parting.step, found.parting.by_mean) == ("normalize", 0)


def test_the_contrast_names_the_first_step_that_differs_between_the_nearest_two() -> None:
    found = identify(X, made_by("wide"), "layer-l2", precision="fp16", implementations=["wide", "wide-sum"])
    assert found.contrast is not None
    assert (found.contrast.implementation, found.contrast.step) == ("wide-sum", "mean")


def test_an_output_of_another_shape_is_refused() -> None:
    with pytest.raises(UsageError, match=r"input has shape \(32, 96\), the output \(96, 32\)"):
        identify(X, X.T, "layer-l2", precision="fp16")


def test_numbers_that_the_format_does_not_have_are_refused() -> None:
    with pytest.raises(UsageError, match="the output has numbers that fp16 does not have"):
        identify(X, X / np.float32(3), "layer-l2", precision="fp16")
