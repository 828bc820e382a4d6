"""The backward pass of a study: its figures against their definitions, and the loss scales that are said to be safe."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from normcheck import UsageError, analyze, simulate
from normcheck.analysis import assemble as assembling
from normcheck.analysis.rules import rule_named
from normcheck.arithmetic.formats import format_named
from normcheck.arithmetic.rounding import round_to
from normcheck.layers.distributions import parse_distribution
from normcheck.layers.sources import Synthetic
from normcheck.norms.table import grouping, norm_named

SHAPE = (24, 96)


@pytest.fixture(autouse=True)
def no_search(monkeypatch):
    """The safe scale of the forward pass is another matter, and takes time."""
    monkeypatch.setattr(assembling, "safe_scale", lambda *_args, **_settings: None)


def run(norm="layer-l2", implementation="wide", precision="fp16", shape=SHAPE, **settings):
    """Simulate one norm with its backward pass; return the result and the codes of the rules that fired."""
    report = simulate(
        norms=[norm],
        implementations=[implementation],
        precisions=[precision],
        shape=shape,
        jobs=1,
        backward=True,
        **settings,
    )
    (result,) = report.results
    return result, {finding.rule: finding for finding in report.findings}


def drawn(shape=SHAPE, norm="layer-l2", seed=0, std=1.0):
    """The rows that a simulation sees: the input with its seed, the gradient with the next one."""
    group = grouping(norm_named(norm), shape)
    source = Synthetic(parse_distribution("gaussian"), 0.0, std, seed)
    return source.draw(group, 0, group.groups, 0, group.size)


def exact_gradient(x, g, eps=1e-5):
    """Gradient of a layer norm's input in plain float64."""
    c = x - x.mean(1, keepdims=True)
    s = np.sqrt((c * c).mean(1, keepdims=True) + eps)
    y = c / s
    return (g - g.mean(1, keepdims=True) - y * (g * y).mean(1, keepdims=True)) / s


# ------------------------------------------------------------------------------------------------- figures


@pytest.mark.parametrize("std", [1.0, 1e-7])
def test_deviation_and_ideal_are_those_of_dx(std):
    result, _ = run(grad_std=std, implementation="wide")
    got = result.backward
    fp16 = format_named("fp16")
    x, g = round_to(drawn(), "fp16").astype(np.float64), drawn(seed=1, std=std).astype(np.float64)
    dx = exact_gradient(x, g)
    nearest = round_to(dx, fp16).astype(np.float64)
    size = np.sqrt((dx * dx).sum())
    assert got.deviation.ideal.relative_rms == pytest.approx(np.sqrt(((nearest - dx) ** 2).sum()) / size, rel=1e-9)
    stored = round_to(g.astype(np.float32), fp16).astype(np.float64)  # `wide` rounds g, and dx once
    want = round_to(exact_gradient(x, stored), fp16)
    assert got.deviation.relative_rms == pytest.approx(np.sqrt(((want - dx) ** 2).sum()) / size, rel=1e-3)
    assert (got.flushed.count, got.flushed.of) == (np.count_nonzero((want == 0) & (dx != 0)), np.count_nonzero(dx))
    assert got.flushed.ideal == np.count_nonzero((nearest == 0) & (dx != 0))
    assert got.flushed.share == got.flushed.count / got.flushed.of


def test_the_gradient_is_counted_before_it_is_stored():
    """Half of the gradient is lost in the load: the exact dx does not know that."""
    result, findings = run(grad_std=5e-8)
    step = result.backward.steps[0]
    assert (step.step, step.operations) == ("grad-load", 24 * 96)
    g = drawn(seed=1, std=5e-8)
    assert step.underflow == np.count_nonzero((round_to(g, "fp16") == 0) & (g != 0)) > 0.3 * g.size
    assert result.backward.deviation.relative_rms > 0.3
    assert findings["NC502"].severity == "warning"
    assert findings["NC502"].step == "grad-load"
    assert result.verdict == "degraded"


def test_a_loss_scale_multiplies_what_is_stored_and_undoes_the_loss():
    flushed, _ = run(grad_std=5e-8)
    saved, findings = run(grad_std=5e-8, loss_scale=2.0**16)
    assert "NC502" not in findings
    assert saved.backward.flushed.share < 0.01 < flushed.backward.flushed.share
    assert saved.backward.steps[0].max_abs == flushed.backward.steps[0].max_abs * 2.0**16
    assert saved.verdict == "ok"


def test_the_forward_pass_is_the_same_with_and_without():
    report = simulate(norms=["layer-l2"], implementations=["pure"], shape=SHAPE, jobs=1)
    with_gradient, _ = run(implementation="pure")
    without = report.results[0]
    assert without.backward is None
    assert with_gradient.backward is not None
    assert with_gradient.steps == without.steps
    assert with_gradient.deviation == without.deviation


def test_what_overflows_is_an_error_and_unsafe():
    result, findings = run(loss_scale=2.0**20)
    got = result.backward
    assert got.rows.nonfinite == got.rows.total == 24
    assert got.overflow_bits < 0
    assert findings["NC501"].severity == "error"
    assert findings["NC501"].step == "grad-load"
    assert findings["NC501"].measure.value == 24
    assert result.verdict == "unsafe"
    assert result.rows.bad == 0  # the forward pass is fine


def test_rows_that_vanish_are_an_error():
    result, findings = run(implementation="pure", std=60.0, shape=(8, 512))  # sums of squares overflow: 1/s = 0
    assert result.rows.collapsed == 8
    got = result.backward
    assert got.rows.vanished == 8
    assert got.flushed.count == got.flushed.of
    assert findings["NC502"].severity == "error"
    assert got.safe_loss_scale is None  # no loss scale mends that
    assert findings["NC502"].fix.startswith("mend the forward pass first")


def test_what_is_too_small_in_itself_has_not_vanished_on_the_way():
    result, findings = run(grad_std=1e-12)
    got = result.backward
    assert got.rows.vanished == 0
    assert got.flushed.ideal == got.flushed.count == got.flushed.of
    assert findings["NC502"].severity == "warning"


@pytest.mark.parametrize("implementation", ["pure", "wide"])
def test_headroom_is_that_of_the_loss_scale_beyond_the_format_too(implementation):
    calm, over = (run(implementation=implementation, loss_scale=s)[0].backward for s in (1.0, 2.0**18))
    assert over.overflow.count
    assert over.overflow_step == calm.overflow_step
    assert over.overflow_bits == pytest.approx(calm.overflow_bits - 18, abs=1e-9)


def test_rows_that_are_not_finite_do_not_enter_the_deviation():
    result, _ = run(grad_dist="cauchy", loss_scale=256.0)
    got = result.backward
    assert 0 < got.rows.nonfinite < got.rows.total
    assert 0 < got.deviation.relative_rms < 0.01


def test_little_room_is_a_warning():
    near, findings = run(loss_scale=2.0**11.75)
    assert 0 < near.backward.overflow_bits < 1
    assert findings["NC503"].severity == "warning"
    assert findings["NC503"].measure.value == near.backward.overflow_bits
    assert near.verdict == "ok"
    _, findings = run(loss_scale=2.0**11.75, thresholds={"loss_scale_bits": 0.1})
    assert "NC503" not in findings


def test_rules_of_gradients_are_silent_without_a_backward_pass():
    report = simulate(norms=["layer-l2"], shape=SHAPE, jobs=1, std=60.0)
    assert not {f.rule for f in report.findings} & {"NC501", "NC502", "NC503"}


@pytest.mark.parametrize("norm", ["batch-l1", "layer-range", "group-topk", "rms", "weight-l2", "bounded-weight-linf"])
def test_every_norm_has_a_backward_pass(norm):
    result, _ = run(norm, "pure", shape=(8, 64, 3))
    got = result.backward
    assert got.rows.bad == 0
    assert got.deviation.relative_rms < 0.05
    names = [step.step for step in got.steps]
    assert names[0] == "grad-load"
    assert "grad-store" in names
    trained = {"rms": ["weight"], "weight-l2": ["weight"], "bounded-weight-linf": []}.get(norm, ["weight", "bias"])
    assert list(got.parameters) == trained
    assert ("grad-weight" in names, "grad-bias" in names) == ("weight" in trained, "bias" in trained)
    assert ("grad-parameter" in names) == bool(trained)


def test_under_fixed_statistics_a_gradient_is_scaled_and_no_more():
    result, _ = run("batch-l2", "pure", mode="eval", shape=(8, 4, 8))
    names = [step.step for step in result.backward.steps]
    assert "grad-center" not in names
    assert [name for name in names if name.startswith("grad-")][:3] == ["grad-load", "grad-normalize", "grad-store"]
    assert result.backward.deviation.relative_rms < 1e-3
    assert [parameter.count for parameter in result.backward.parameters.values()] == [
        4,
        4,
    ]  # gamma and beta still learn


def test_threads_change_nothing():
    settings = {"norms": ["batch-l1"], "shape": (64, 40, 512), "implementations": ["pure"], "backward": True}
    one, many = (simulate(**settings, jobs=jobs).results[0].backward for jobs in (1, 3))
    assert one == many


# ------------------------------------------------------------------------------------------ safe loss scales


CASES = {
    "wide": {"implementation": "wide"},
    "pure": {"implementation": "pure"},
    "small": {"implementation": "pure", "grad_std": 1e-6, "loss_scale": 4.0},
    "many digits": {"implementation": "pure-scaled", "loss_scale": 37.5},
    "peaks": {"norm": "layer-topk", "implementation": "pure-scaled", "grad_std": 1e-7},
    "overflowing now": {"implementation": "pure", "loss_scale": 2.0**18},
    "weights": {"norm": "weight-l1", "implementation": "pure"},
}


@pytest.mark.parametrize("settings", CASES.values(), ids=CASES)
def test_safe_loss_scales_are_true(settings):
    """Runs of their own at both ends are clean, and at the powers of two beyond them are not."""
    got = run(**settings)[0].backward
    low, high = got.safe_loss_scale
    assert low < high
    for end in (low, high):
        assert math.log2(end) == round(math.log2(end))

    def clean(scale):
        again = run(**settings | {"loss_scale": scale})[0].backward
        over = again.overflow.count or again.rows.nonfinite
        return not over and again.flushed.share <= 0.01

    assert clean(low)
    assert clean(high)
    assert not clean(low / 2)
    assert not clean(high * 2)


def test_the_threshold_of_flushed_elements_is_that_of_the_safe_loss_scale():
    strict, lax = (
        run(grad_std=1e-6, thresholds={"flushed_share": share})[0].backward.safe_loss_scale for share in (0.001, 0.2)
    )
    assert strict[0] > lax[0] * 16
    assert strict[1] == lax[1]


def test_formats_with_range_have_no_end_that_is_looked_for():
    assert run(precision="bf16")[0].backward.safe_loss_scale == (2.0**-64, 2.0**64)


# -------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize("scale", [0.0, -1.0, math.inf, math.nan])
def test_a_loss_scale_is_a_positive_number(scale):
    with pytest.raises(UsageError, match="loss scale must be finite and above 0"):
        simulate(backward=True, loss_scale=scale)


@pytest.mark.parametrize(
    ("setting", "option"),
    [
        ({"loss_scale": 2.0}, "--loss-scale"),
        ({"grad_dist": "uniform"}, "--grad-dist"),
        ({"grad_std": 2.0}, "--grad-std"),
    ],
)
def test_settings_of_the_gradient_need_a_backward_pass(setting, option):
    with pytest.raises(UsageError, match=f"^{option} is a setting of the backward pass: give --backward"):
        simulate(**setting)


# ------------------------------------------------------------------------------------------- layers of a model

CNN = Path(__file__).parents[2] / "data" / "digits-cnn.pt"


def of_layers(**settings):
    """Analyze the small CNN with its backward passes."""
    return analyze(CNN, precisions=["fp16"], implementations=["wide"], jobs=1, backward=True, **settings)


def test_every_layer_has_the_gradients_of_its_own_parameters():
    report = of_layers(grad_dist="laplace", grad_std=0.001, loss_scale=64.0)
    assert len(report.results) == 2 * len(report.layers) == 6
    for result in report.results:
        got = result.backward
        assert (got.source, got.loss_scale, got.assumed) == ("laplace(mean=0, std=0.001)", 64.0, True)
        assert got.weight.count == got.bias.count == result.shape.groups
        assert got.weight.elements == result.shape.size
        assert got.rows.total == result.shape.groups
        assert got.rows.bad == 0
        assert "grad-gain" in [step.step for step in got.steps]
        assert got.safe_loss_scale[0] < 64.0 < got.safe_loss_scale[1]
    assert not {f.rule for f in report.findings} & {"NC501", "NC502", "NC503", "NC504"}


def test_without_being_asked_for_there_is_none():
    report = analyze(CNN, precisions=["fp16"], jobs=1)
    assert [result.backward for result in report.results] == [None] * len(report.results)


def test_frozen_statistics_are_not_differentiated_through():
    for result in of_layers().results:
        names = {step.step for step in result.backward.steps}
        assert ({"grad-center", "grad-statistic"} <= names) == (result.mode == "train")
        assert {"grad-normalize", "grad-weight", "grad-bias"} <= names


def test_what_rests_on_an_assumed_gradient_is_a_warning_with_recorded_input_too():
    import torch  # few tests of this page need it

    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.LayerNorm(64))
    report = analyze(
        model,
        inputs=torch.randn(16, 64),
        precisions=["fp16"],
        implementations=["wide"],
        jobs=1,
        backward=True,
        loss_scale=2.0**16,
    )
    (result,) = report.results
    assert not result.input.assumed
    assert (result.backward.weight.count, result.backward.weight.elements) == (64, 16)
    (finding,) = [f for f in report.findings if f.rule == "NC501"]
    assert (finding.severity, finding.assumed) == ("warning", True)
    assert result.verdict == "unsafe"
    simulated = simulate(
        norms=["layer-l2"], implementations=["wide"], shape=(16, 64), backward=True, loss_scale=2.0**16
    )
    (finding,) = [f for f in simulated.findings if f.rule == "NC501"]
    assert (finding.severity, finding.assumed) == ("error", False)  # there the gradient is the premise


def test_the_view_that_nobody_asked_for_is_searched_for_no_loss_scale():
    report = analyze(CNN, precisions=["fp16"], mode="train", jobs=1, backward=True, loss_scale=2.0**16)
    for result in report.results:
        assert (result.backward.safe_loss_scale is None) == (not result.asked)
    fixes = {f.fix for f in report.findings if f.rule == "NC501" and f.implementation == "pure"}
    assert fixes == {rule_named("NC501").fix}


def test_a_loss_scale_is_no_matter_of_the_forward_pass_and_its_advice():
    report = analyze(CNN, precisions=["fp16"], mode="train", jobs=1, backward=True, loss_scale=2.0**16)
    assert {result.verdict for result in report.results} == {"unsafe"}
    assert report.advice == ()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"grad_std": 2.0}, "^--grad-std is a setting of the backward pass: give --backward"),
        ({"backward": True, "loss_scale": 0.0}, "the loss scale must be finite and above 0"),
        ({"backward": True, "grad_dist": "gausian"}, "gaussian"),
    ],
)
def test_analyze_refuses_what_simulate_refuses(settings, message):
    with pytest.raises(UsageError, match=message):
        analyze(CNN, **settings)


def test_layers_do_not_depend_on_threads():
    one, many = (analyze(CNN, jobs=jobs, backward=True, batch_size=64).results for jobs in (1, 3))
    assert one == many
