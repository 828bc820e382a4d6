"""Gradients of gamma and beta over all rows of a study: their figures, their events, and what rules make of them."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from normcheck import simulate
from normcheck.analysis import assemble as assembling
from normcheck.analysis import backward as backwards
from normcheck.analysis import study as studies
from normcheck.analysis.parameter_gradients import compared
from normcheck.arithmetic.formats import format_named
from normcheck.arithmetic.rounding import round_to

sys.path.append(str(Path(__file__).resolve().parent))
from test_gradients import drawn  # the same rows


@pytest.fixture(autouse=True)
def no_search(monkeypatch):
    """Searches are another matter, and take time."""
    monkeypatch.setattr(assembling, "safe_scale", lambda *_args, **_settings: None)
    monkeypatch.setattr(backwards, "safe_loss_scale", lambda *_args, **_settings: (1.0, 1.0))


def run(norm="layer-l2", shape=(48, 96), implementation="wide", precision="fp16", jobs=1, **settings):
    """Simulate one norm with its backward pass; return that and the findings by rule."""
    report = simulate(
        norms=[norm], implementations=[implementation], precisions=[precision], shape=shape, jobs=jobs, backward=True,
        **settings,
    )  # fmt: skip
    return report.results[0].backward, {finding.rule: finding for finding in report.findings}


def test_figures_are_those_of_the_sums_over_rows():
    got, _ = run()
    x, g = round_to(drawn((48, 96)), "fp16").astype(float), drawn((48, 96), seed=1).astype(float)
    y = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-5)
    stored = round_to(g.astype(np.float32), "fp16").astype(float)
    of_weight, of_bias = ((g * y).sum(0), (stored * y).sum(0)), (g.sum(0), stored.sum(0))
    for gradient, (exact, near) in ((got.weight, of_weight), (got.bias, of_bias)):
        size = np.linalg.norm(exact)
        assert (gradient.format, gradient.count, gradient.elements) == ("float16", 96, 48)
        assert (gradient.nonfinite, gradient.flushed) == (0, 0)
        ideal = np.linalg.norm(round_to(exact, "fp16") - exact) / size
        assert gradient.ideal == pytest.approx(ideal, rel=1e-9)
        assert gradient.relative_rms == pytest.approx(np.linalg.norm(round_to(near, "fp16") - exact) / size, rel=0.02)


def test_numbers_that_are_not_finite_or_flushed_are_counted_and_do_not_enter_the_error():
    exact = np.array([1.0, -2.0, 3.0, 0.0, 1e-9])
    got = compared(np.array([1.5, np.inf, np.nan, 0.0, 0.0]), exact, format_named("fp16"), 7)
    assert (got.count, got.elements, got.nonfinite, got.flushed) == (5, 7, 2, 1)
    assert got.relative_rms == pytest.approx(0.5)
    assert got.ideal == pytest.approx(1e-9)
    assert compared(np.array([np.nan]), exact[:1], format_named("fp16"), 7).relative_rms is None
    assert compared(np.zeros(2), np.zeros(2), format_named("fp16"), 7).relative_rms == 0.0


WHERES = {
    "layer": ("layer-l2", (300, 40)),
    "instance": ("instance-l1", (40, 6, 50)),
    "group": ("group-l2", (40, 6, 25)),
    "batch": ("batch-l2", (40, 6, 25)),
}


@pytest.mark.parametrize(("norm", "shape"), WHERES.values(), ids=WHERES)
@pytest.mark.parametrize("implementation", ["pure", "pure-scaled", "wide"])
def test_neither_blocks_nor_threads_change_a_bit(norm, shape, implementation, monkeypatch):
    settings = {"norm": norm, "shape": shape, "implementation": implementation, "loss_scale": 2.0**9}
    settings |= {"num_groups": 2} if norm.startswith("group") else {}
    whole, _ = run(**settings)
    sums = [step for step in whole.steps if step.step in ("grad-weight", "grad-bias", "grad-parameter")]
    assert len(sums) == 3
    monkeypatch.setattr(studies, "BLOCK", 700)
    for jobs in (1, 3):
        pieces, _ = run(**settings, jobs=jobs)
        assert (pieces.weight.nonfinite, pieces.bias.nonfinite) == (whole.weight.nonfinite, whole.bias.nonfinite)
        assert pieces.weight.relative_rms == pytest.approx(whole.weight.relative_rms, rel=1e-9)  # of the exact sum
        assert [step for step in pieces.steps if step in sums] == sums


def test_what_rows_add_may_fit_where_their_sum_does_not():
    got, findings = run(shape=(2048, 32), loss_scale=2.0**11)
    assert got.rows.nonfinite == 0
    assert got.bias.nonfinite > 0
    steps = {step.step: step for step in got.steps}
    assert steps["grad-weight"].overflow == steps["grad-bias"].overflow == 0  # float32 holds them
    assert steps["grad-parameter"].overflow == got.weight.nonfinite + got.bias.nonfinite
    assert steps["grad-parameter"].rows_affected == got.weight.nonfinite + got.bias.nonfinite
    finding = findings["NC501"]
    assert (finding.step, finding.severity) == ("grad-parameter", "error")
    assert finding.measure.name == "backward.weight.nonfinite"
    assert finding.measure.value == got.weight.nonfinite
    assert "gradients of gamma are not finite" in finding.message
    kept, findings = run(shape=(2048, 32), loss_scale=2.0**11, params="autocast")  # gradients in float32 too
    assert kept.bias.nonfinite == kept.weight.nonfinite == 0
    assert kept.bias.format == "float32"
    assert "NC501" not in findings


@pytest.mark.parametrize("implementation", ["pure", "pure-scaled", "wide"])
def test_headroom_of_a_sum_over_rows_goes_on_beyond_the_format(implementation):
    settings = {"norm": "instance-l2", "shape": (30, 3, 64), "implementation": implementation}
    calm, over = (run(**settings, loss_scale=scale)[0] for scale in (1.0, 2.0**16))
    assert over.overflow.count
    assert over.overflow_step == calm.overflow_step
    assert over.overflow_bits == pytest.approx(calm.overflow_bits - 16, abs=1e-9)


def test_each_gradient_that_deviates_is_said_to():
    settings = {"norms": ["batch-l2"], "shape": (32, 4, 28, 28), "implementations": ["pure"], "jobs": 1}

    def found(**thresholds):
        report = simulate(**settings, backward=True, thresholds=thresholds)
        return report.results[0].backward, [finding for finding in report.findings if finding.rule == "NC504"]

    got, findings = found()
    values = {"backward.deviation.relative_rms": got.deviation}
    values |= {f"backward.{name}.relative_rms": each for name, each in got.parameters.items()}
    assert [finding.measure.name for finding in findings] == list(values)
    for finding, of in zip(findings, values.values(), strict=True):
        ideal = of.ideal if finding.measure.name != "backward.deviation.relative_rms" else of.ideal.relative_rms
        assert finding.severity == "warning"
        assert (finding.measure.value, finding.measure.limit) == (of.relative_rms, 16 * ideal)
        assert f"{of.relative_rms / ideal:.3g} times that of one rounding" in finding.message
    assert [finding.message.split(":")[0] for finding in findings] == ["dx", "gradient of gamma", "gradient of beta"]
    assert found(gradient_ideal=64)[1] == []
    assert {finding.severity for finding in found(gradient_deviation=0.003)[1]} == {"error"}


def test_the_default_simulation_of_both_passes_has_no_error():
    report = simulate(backward=True, shape=(32, 4, 28, 28), jobs=1)
    assert {finding.severity for finding in report.findings} <= {"warning", "note"}
    assert {f.implementation for f in report.findings if f.rule == "NC504"} == {"pure"}


def test_what_is_flushed_is_no_deviation_of_dx_besides():
    settings = {"norms": ["layer-l2"], "implementations": ["pure"], "shape": (8, 512), "std": 60.0, "jobs": 1}
    report = simulate(**settings, backward=True)  # sums of squares overflow: 1/s = 0, so dx is 0
    messages = {finding.rule: finding.message for finding in report.findings}
    assert "NC502" in messages
    assert not messages.get("NC504", "").startswith("dx")
    assert report.results[0].backward.deviation.relative_rms == 1
