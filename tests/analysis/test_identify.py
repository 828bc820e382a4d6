"""`identify`: the catalogue's nearest row to a kernel's output, and where they part."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import normcheck
from normcheck.analysis import identify as module
from normcheck.analysis.identify import BY_STATUS, identify
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


def test_another_order_of_summation_parts_at_a_statistic() -> None:
    kernel = replace(
        IMPLEMENTATIONS["wide"], name="other-order", title="", order=IMPLEMENTATIONS["pure-sequential"].order
    )
    y = normcheck.emulate(X, "layer-l2", precision="fp32", implementation=kernel).output
    found = identify(X, y, "layer-l2", precision="fp32", implementations=["wide"]).candidates[0]
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


def test_float32_parameters_of_float16_elements_are_not_rounded_and_find_the_row_that_takes_them() -> None:
    weight = np.random.default_rng(1).standard_normal(96).astype(np.float32)
    mixed = "torch-cpu-batchnorm-mixed"
    y = normcheck.emulate(X, "batch-l2", precision="fp16", implementation=mixed, weight=weight, params="float32").output
    found = identify(X, y, "batch-l2", precision="fp16", weight=weight).candidates
    assert mixed in [row.implementation for row in found if row.identical == row.compared]
    half = identify(X, y, "batch-l2", precision="fp16", weight=weight, params="half").candidates
    assert half[0].identical < half[0].compared


def test_equally_near_rows_come_in_the_order_of_how_well_they_are_known() -> None:
    found = identify(X, made_by("wide"), "layer-l2", precision="fp16").candidates
    alike = [BY_STATUS.index(row.status) for row in found if row.identical == row.compared and not row.zero_signs]
    assert len(set(alike)) > 1
    assert alike == sorted(alike)


def test_a_row_that_rescales_its_input_parts_in_its_elements() -> None:
    y = normcheck.emulate(X, "rms", precision="fp16", implementation="pure").output
    found = identify(X, y, "rms", precision="fp16", implementations=["coremltools-rms-norm"]).candidates[0]
    assert found.identical < found.compared
    assert found.parting is not None
    assert found.parting.by_elements == found.parting.rows > 0


@pytest.mark.parametrize(
    ("norm", "given", "wanted"),
    [
        ("layer-l2", {"weight": np.ones(5)}, "weight of layer-l2: expected 96 numbers"),
        ("batch-l2", {"mode": "eval"}, "needs running_mean and running_var"),
        ("layer-l2", {"mode": "test"}, "mode must be train or eval"),
        ("layer-l2", {"implementations": ["hf-llama-rmsnorm"]}, "hf-llama-rmsnorm does not define layer-l2"),
    ],
)
def test_a_wrong_call_says_what_is_wrong(norm: str, given: dict[str, Any], wanted: str) -> None:
    with pytest.raises(UsageError, match=wanted):
        identify(X, X, norm, precision="fp16", **given)


def test_the_step_told_is_that_of_most_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = iter(["mean"] + ["normalize"] * 40)
    monkeypatch.setattr(module, "_told", lambda *_: next(steps))
    parting = identify(X, X, "layer-l2", precision="fp16", implementations=["pure"]).candidates[0].parting
    assert parting is not None
    assert (parting.step, parting.by_mean) == ("normalize", 1)
    assert parting.by_elements == parting.rows - 1


@pytest.mark.parametrize(
    ("norm", "shape"), [("layer-l2", (4, 8, 96)), ("batch-l2", (4, 48, 2, 8)), ("group-l2", (32, 12, 8))]
)
def test_of_large_tensors_the_nearest_rows_alone_are_run_on_the_whole(
    monkeypatch: pytest.MonkeyPatch, norm: str, shape: tuple[int, ...]
) -> None:
    x = X.reshape(shape)
    weight = np.linspace(0.5, 1.5, shape[-1] if norm == "layer-l2" else shape[1]).astype(np.float16)
    y = normcheck.emulate(x, norm, precision="fp16", implementation="wide", weight=weight, residual=x).output
    monkeypatch.setattr(module, "SAMPLE", 1000)
    ticks: list[float] = []
    found = identify(x, y, norm, precision="fp16", weight=weight, residual=x, progress=ticks.append).candidates
    compared = [row.compared for row in found]
    assert compared[: module.WHOLE] == [X.size] * module.WHOLE
    assert len(found) > module.WHOLE
    assert 0 < max(compared[module.WHOLE :]) <= 1000
    assert found[0].identical == X.size
    assert ticks == sorted(ticks)
    assert ticks[-1] == pytest.approx(1)
