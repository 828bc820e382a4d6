"""`EmulatedPrecision` in training: loss scales, activations and weights, events, and the reports of steps."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from normcheck import nn
from normcheck.arithmetic.rounding import round_to
from normcheck.paper.digits import TRAINED, digits
from normcheck.render import json_report, table


@pytest.fixture(autouse=True)
def _one_thread():
    """Threads of torch's gain nothing here, and cost much where other tests run beside these."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Net(torch.nn.Module):
    """A convolution, a norm, and a linear layer, for the digits."""

    def __init__(self, statistic="l2", scale=1.0):
        super().__init__()
        torch.manual_seed(0)
        self.conv = torch.nn.Conv2d(1, 8, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(8, statistic=statistic, eps=1e-5 if statistic == "l2" else 1e-5**0.5)
        self.relu = torch.nn.ReLU()
        self.pool = torch.nn.AvgPool2d(2)
        self.fc = torch.nn.Linear(128, 10)
        with torch.no_grad():
            self.conv.weight *= scale

    def forward(self, x):
        return self.fc(self.pool(self.relu(self.bn(self.conv(x)))).flatten(1))


def batch(size=32):
    images, classes = digits()
    return (images[:size] / 4 - 1).float(), classes[:size]


def grads(model, x, classes):
    for p in model.parameters():
        p.grad = None
    torch.nn.functional.cross_entropy(model(x), classes).backward()
    return [p.grad.clone() for p in model.parameters()]


def trained(model, steps, *, lr=0.05, size=32):
    images, classes = digits()
    images = (images / 4 - 1).float()
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    order = torch.randperm(TRAINED, generator=torch.Generator().manual_seed(0))
    for step in range(steps):
        at = order[step * size % (TRAINED - size) :][:size]
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(images[at]), classes[at]).backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        return float((model(images[TRAINED:]).argmax(1) == classes[TRAINED:]).float().mean())


def is_rounded(tensor, precision="fp16"):
    values = tensor.detach().numpy()
    return np.array_equal(values, round_to(values, precision))


def _listen(tensor, listener):
    """Have the gradient of a tensor told to a listener, and nothing else."""
    tensor.register_hook(lambda gradient: listener(gradient.clone()))


# ------------------------------------------------------------------------------------------------- loss scale


def test_unscaling_is_exact_where_nothing_is_rounded():
    """In double precision a power of two changes no bit of any gradient, inputs' included."""

    def run(loss_scale):
        net = Net().double()
        x = batch()[0].double().requires_grad_()
        wrapped = nn.EmulatedPrecision(net, "pure", "fp64", loss_scale=loss_scale)
        wrapped(x).square().sum().backward()
        return [x.grad, *(p.grad for p in net.parameters())]

    assert all(torch.equal(a, b) for a, b in zip(run(1.0), run(2.0**20), strict=True))


def test_gradients_too_small_for_the_precision_come_through_under_a_loss_scale():
    x, classes = batch()

    def weight_gradient(loss_scale, **how):
        wrapped = nn.EmulatedPrecision(Net(), "pure-scaled", "fp16", loss_scale=loss_scale, **how)
        y = wrapped(x)
        (torch.nn.functional.cross_entropy(y, classes) * 2.0**-17).backward()
        return wrapped.module.conv.weight.grad * 2.0**17, wrapped.events["bn"]

    exact = grads(Net(), x, classes)[0]
    lost, counted = weight_gradient(1.0)
    kept, scaled = weight_gradient(2.0**20)
    assert (lost - exact).norm() > 0.3 * exact.norm()
    assert (kept - exact).norm() < 0.01 * exact.norm()
    assert counted["grad-load"].underflow > 20 * scaled["grad-load"].underflow


def test_what_flows_through_the_norms_is_the_scaled_gradient_rounded():
    x, classes = batch()

    def arrived(loss_scale):
        """What leaves the norm towards the convolution."""
        seen = []
        wrapped = nn.EmulatedPrecision(Net(), "pure", "fp16", loss_scale=loss_scale)
        wrapped.module.conv.register_forward_hook(lambda _m, _a, out: _listen(out, seen.append))
        grads(wrapped, x, classes)
        return seen[0]

    plain, scaled = arrived(1.0), arrived(1024.0)
    assert is_rounded(scaled)
    assert not is_rounded(scaled / 3)
    torch.testing.assert_close(scaled.norm(), 1024 * plain.norm(), rtol=0.05, atol=0)


def test_an_overflow_of_the_scaled_gradient_is_infinite_for_the_optimizer():
    x, classes = batch()
    wrapped = nn.EmulatedPrecision(Net(), "pure-scaled", "fp16", loss_scale=2.0**40)
    found = grads(wrapped, x, classes)
    assert not all(torch.isfinite(g).all() for g in found)
    assert wrapped.events["bn"]["grad-load"].overflow > 0


def test_a_loop_needs_no_change_and_a_parameter_used_elsewhere_is_scaled_where_it_should_be():
    x, classes = batch()
    net = Net()
    wrapped = nn.EmulatedPrecision(net, "wide", "fp32", loss_scale=256.0)
    loss = torch.nn.functional.cross_entropy(wrapped(x), classes) + net.fc.weight.square().sum()
    loss.backward()
    decayed = grads(Net(), x, classes)[3] + 2 * Net().fc.weight
    torch.testing.assert_close(net.fc.weight.grad, decayed, rtol=1e-5, atol=1e-6)


# --------------------------------------------------------------------------------------- activations, weights


class Probe(torch.nn.Module):
    """A module without submodules that keeps the gradients which it is given."""

    def __init__(self, arrived):
        super().__init__()
        self.arrived = arrived

    def forward(self, x):
        y = torch.relu(x)
        _listen(y, self.arrived.append)
        return y


def test_activations_and_the_gradients_between_modules_are_numbers_of_the_precision():
    x, classes = batch()
    wrapped = nn.EmulatedPrecision(Net(), "wide", "fp16", activations=True)
    seen, arrived = {}, []
    wrapped.module.relu = Probe(arrived)
    for name, child in wrapped.module.named_children():
        child.register_forward_hook(lambda _m, _a, out, name=name: seen.update({name: out}))
    grads(wrapped, x, classes)
    assert all(is_rounded(out) for out in seen.values())
    assert is_rounded(arrived[0])
    assert not is_rounded(arrived[0] / 3)
    assert set(wrapped.events["conv"]) == {"activation", "activation-gradient"}
    assert wrapped.events["conv"]["activation"].operations == 32 * 8 * 64
    assert "activation" not in wrapped.events["bn"], "norms round what they store"


def test_modules_under_a_parametrisation_are_leaves_all_the_same():
    net = torch.nn.Sequential(nn.bounded_weight_norm(torch.nn.Linear(4, 3)), torch.nn.LayerNorm(3))
    wrapped = nn.EmulatedPrecision(net, "wide", "fp16", activations=True)
    wrapped(torch.randn(5, 4))
    assert set(wrapped.events) == {"0", "1"}


def test_master_weights_stay_and_rounded_copies_compute():
    x, classes = batch()
    net = Net()
    before = [p.detach().clone() for p in net.parameters()]
    wrapped = nn.EmulatedPrecision(net, "wide", "fp16", weights="master")
    inside = []
    net.conv.register_forward_pre_hook(lambda m, _a: inside.append(m.weight))
    found = grads(wrapped, x, classes)
    assert all(torch.equal(p, b) for p, b in zip(net.parameters(), before, strict=True))
    assert is_rounded(inside[0])
    assert not is_rounded(net.conv.weight)
    assert all(is_rounded(g) for g in found)
    assert set(wrapped.events["conv"]) == {"parameter-weight", "parameter-weight-gradient"}
    assert wrapped.events["fc"]["parameter-bias"].operations == 10
    assert wrapped.events["bn"]["bias"].operations == 32 * 8 * 64, "the norm's own step is another"


def test_low_weights_are_rounded_themselves_after_each_step():
    x, classes = batch()
    net = Net()
    wrapped = nn.EmulatedPrecision(net, "wide", "fp16", weights="low")
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-9)
    grads(wrapped, x, classes)
    assert all(is_rounded(p) for p in net.parameters())
    before = [p.detach().clone() for p in net.parameters()]
    optimizer.step()
    wrapped(x)
    assert all(torch.equal(p, b) for p, b in zip(net.parameters(), before, strict=True)), "below half an ulp"


def test_low_weights_may_be_used_twice_before_backward():
    x, classes = batch()
    wrapped = nn.EmulatedPrecision(Net(), "wide", "fp16", weights="low")
    wrapped(x)
    torch.nn.functional.cross_entropy(wrapped(x) + wrapped(x), classes).backward()


# --------------------------------------------------------------------------------------------------- training


@pytest.mark.parametrize("how", [{}, {"weights": "master", "activations": True}, {"rounding": "stochastic"}])
def test_a_network_learns_the_digits_in_half_precision(how):
    wrapped = nn.EmulatedPrecision(Net("l1"), "pure-scaled", "fp16", loss_scale=1024.0, **how)
    assert trained(wrapped, 45) > 0.8


def test_the_same_seed_trains_to_the_same_bits_with_any_number_of_threads():
    def run(jobs):
        net = Net()
        how = {"rounding": "stochastic", "seed": 5, "jobs": jobs, "weights": "master", "activations": True}
        trained(nn.EmulatedPrecision(net, "pure", "fp16", loss_scale=64.0, **how), 2)
        return net.state_dict()

    one, two = run(1), run(2)
    assert all(torch.equal(one[key], two[key]) for key in one)


# ---------------------------------------------------------------------------------------------------- reports


def test_the_report_names_the_layer_and_the_step_where_squares_collapse():
    """Silent as it is: all outputs are finite, and no NaN or infinity reaches the loss."""
    x, classes = batch()
    wrapped = nn.EmulatedPrecision(Net(scale=3000.0), "wide-sum", "fp16", loss_scale=1024.0, report_every=1)
    loss = torch.nn.functional.cross_entropy(wrapped(x), classes)
    loss.backward()
    assert torch.isfinite(loss)
    (report,) = wrapped.reports
    collapsed = [f for f in report.findings if f.rule == "NC102"]
    assert [(f.layer, f.step, f.severity) for f in collapsed] == [("bn", "square", "error")]
    (result,) = report.results
    assert result.verdict == "unsafe"
    assert result.rows.collapsed > 0
    assert not result.input.assumed
    fixed = nn.EmulatedPrecision(Net("l1", 3000.0), "pure-scaled", "fp16", loss_scale=1024.0, report_every=1)
    grads(fixed, x, classes)
    assert [f for f in fixed.reports[0].findings if f.severity == "error"] == []


@pytest.mark.parametrize("how", [{}, {"rounding": "stochastic", "seed": 3}, {"weights": "master"}])
def test_a_report_counts_what_happened_in_its_step(how):
    x, classes = batch()
    wrapped = nn.EmulatedPrecision(Net(scale=2000.0), "wide-sum", "fp16", loss_scale=512.0, report_every=2, **how)
    for _ in range(3):
        wrapped.reset_events()
        grads(wrapped, x, classes)
    assert [report.settings["step"] for report in wrapped.reports] == [1, 3]
    (result,) = wrapped.reports[-1].results
    counted = wrapped.events["bn"]
    passes = [{step.step: step for step in steps} for steps in (result.steps, result.backward.steps)]
    of_the_norm = {name: total for name, total in counted.items() if not name.startswith("parameter-")}
    for name, total in of_the_norm.items():
        for figure in ("operations", "overflow", "underflow", "subnormal", "invalid", "absorbed"):
            both = sum(getattr(steps[name], figure) for steps in passes if name in steps)
            assert getattr(total, figure) == both, (name, figure)
    assert result.backward.loss_scale == 512.0
    assert set(of_the_norm) == {step.step for step in (*result.steps, *result.backward.steps)}


def test_reports_can_be_shown_and_written():
    x, classes = batch()
    said = []
    wrapped = nn.EmulatedPrecision(
        Net(), "pure", "fp16", report_every=1, on_report=lambda step, report: said.append((step, report))
    )
    grads(wrapped, x, classes)
    assert said == [(1, wrapped.reports[-1])]
    text = table.render(said[0][1], width=80) if "width" in table.render.__code__.co_varnames else ""
    assert json.loads(json_report.render(said[0][1]))["results"][0]["layer"] == "bn"
    assert text == "" or "bn" in text


def test_a_step_without_backward_is_reported_with_the_next():
    x, classes = batch()
    wrapped = nn.EmulatedPrecision(Net(), "pure", "fp16", report_every=1)
    wrapped(x)
    assert wrapped.reports == []
    grads(wrapped, x, classes)
    assert [report.results[0].backward is None for report in wrapped.reports] == [True, False]


def test_evaluation_is_no_step():
    x, _ = batch()
    wrapped = nn.EmulatedPrecision(Net(), "pure", "fp16", report_every=1)
    with torch.no_grad():
        wrapped(x)
    wrapped.eval()(x)
    assert wrapped.step == 0
    assert wrapped.reports == []
