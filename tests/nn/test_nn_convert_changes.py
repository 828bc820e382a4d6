"""`normcheck.nn.conversion_of`: changes by their definition, and what conversion does to trained networks."""

from __future__ import annotations

import copy
import importlib.util
import itertools
import math
from pathlib import Path

import norm_modules
import pytest
import torch
from convertible import inputs, network, on_one_thread, quietly
from torch import nn

import normcheck
from normcheck import UsageError
from normcheck import nn as ours
from normcheck.paper.digits import TRAINED, digits

ROOT = Path(__file__).resolve().parents[2]

needs_samples = pytest.mark.skipif(
    importlib.util.find_spec("sklearn") is None, reason="scikit-learn, which splits the data, is not installed"
)


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    with on_one_thread():
        yield


@pytest.fixture(autouse=True)
def _one_seed():
    torch.manual_seed(0)


# -------------------------------------------------------------------------------------------------- what changed


def relative(a, b):
    return float((a - b).norm() / b.norm())


def test_changes_are_what_their_definition_says():
    model, batches = network(), [inputs(5), inputs(2)]
    converted = ours.convert(model, calibrate=batches)
    changes = ours.conversion_of(model.train(), converted, batches)
    assert all(m.training for m in model.modules())
    assert changes.samples == 7
    with torch.no_grad():
        before, after, own = {}, {}, {}
        for place in (1, 4):
            before[place] = torch.cat([model.eval()[: place + 1](x) for x in batches])
            after[place] = torch.cat([converted.eval()[: place + 1](x) for x in batches])
            own[place] = torch.cat([converted[place](model[:place](x)) for x in batches])
    assert changes.change == pytest.approx(relative(after[4], before[4]), rel=1e-12)
    for layer in changes.layers:
        place = int(layer.layer)
        assert layer.change == pytest.approx(relative(after[place], before[place]), rel=1e-12)
        assert layer.own_change == pytest.approx(relative(own[place], before[place]), rel=1e-12)
        assert (layer.before, layer.after, layer.constant, layer.k) == ("batch-l2", "batch-l1", "exact", None)
        assert (layer.eps_before, layer.eps) == (1e-5, math.sqrt(1e-5))
    assert [layer.change for layer in changes.layers] == sorted((v.change for v in changes.layers), reverse=True)
    first = next(layer for layer in changes.layers if layer.layer == "1")
    assert first.own_change == first.change  # nothing before it changed


def test_without_input_it_says_what_was_converted():
    model = network()
    changes = ours.conversion_of(model, quietly(model, "topk", k=4))
    assert (changes.samples, changes.change, changes.accuracy) == (0, None, None)
    assert [(layer.change, layer.k) for layer in changes.layers] == [(None, 4), (None, 4)]


@pytest.mark.parametrize("wrap", [lambda y: (y, None), lambda y: {"logits": y, "loss": [y.sum()]}, lambda y: y])
def test_outputs_of_any_form_are_compared(wrap):
    class Wrapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = network()

        def forward(self, x):
            return wrap(self.inner(x).mean((2, 3)))

    model, x = Wrapped(), inputs()
    converted = ours.convert(model, calibrate=x)
    classes = torch.arange(len(x)) % 3
    changes = ours.conversion_of(model, converted, [(x, classes)])
    with torch.no_grad():
        right = [int((m.eval().inner(x).mean((2, 3)).argmax(1) == classes).sum()) for m in (model, converted)]
    assert changes.change > 0
    assert [changes.accuracy.before, changes.accuracy.after, changes.accuracy.of] == [*right, 8]


def test_a_norm_that_is_used_twice_is_compared_use_by_use():
    norm = nn.BatchNorm2d(2).double()
    model = nn.Sequential(norm, nn.ReLU(), norm)
    x = inputs()
    converted = ours.convert(model, calibrate=x).eval()
    (layer,) = ours.conversion_of(model, converted, x).layers
    with torch.no_grad():
        model.eval()
        before = torch.cat([model[0](x), model(x)])
        after = torch.cat([converted[0](x), converted(x)])
    assert layer.change == pytest.approx(relative(after, before), rel=1e-12)


def test_outputs_that_are_no_numbers_show_and_come_first():
    model = network()
    converted = quietly(model)
    with torch.no_grad():
        converted[4].running_l1.fill_(math.nan)
        converted[1].running_l1.mul_(2)
    changes = ours.conversion_of(model, converted, inputs())
    assert [layer.layer for layer in changes.layers] == ["4", "1"]
    assert math.isnan(changes.change)


def test_a_change_from_nothing_is_infinite_and_none_is_zero():
    model = network()
    with torch.no_grad():
        for parameter in model[4].parameters():
            parameter.zero_()
    converted = quietly(model)
    layer = next(layer for layer in ours.conversion_of(model, converted, inputs()).layers if layer.layer == "4")
    assert (layer.change, layer.own_change) == (0.0, 0.0)
    with torch.no_grad():
        converted[4].bias.fill_(1)
    assert ours.conversion_of(model, converted, inputs()).change == math.inf


def test_outputs_that_cannot_be_compared_have_no_change():
    class Chosen(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = network()

        def forward(self, x):
            return self.inner(x).mean((2, 3)).argmax(1)

    model = Chosen()
    changes = ours.conversion_of(model, quietly(model), inputs())
    assert changes.change is None
    assert all(layer.change > 0 for layer in changes.layers)


def test_what_a_converted_norm_refuses_is_said_as_it_is():
    model = nn.Sequential(nn.LayerNorm(4))
    with pytest.raises(UsageError, match=r"^topk takes the k = 10"):
        ours.conversion_of(model, ours.convert(model, "topk", where="layer"), torch.rand(2, 4))


def test_models_that_are_no_conversion_of_each_other_are_refused():
    with pytest.raises(UsageError, match="is it a converted copy"):
        ours.conversion_of(network(), network())


def test_accuracy_needs_logits():
    model = network()
    with pytest.raises(UsageError, match="accuracy needs an output of shape"):
        ours.conversion_of(model, quietly(model), [(inputs(), torch.zeros(8, dtype=torch.long))])


# ------------------------------------------------------------------------------------------------- real networks


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("train_for_conversion", ROOT / "data" / "train.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def trained(script):
    """The network of data/digits-cnn.pt trained anew on pixels as the data have them, 0 to 16, for three epochs."""
    torch.manual_seed(0)
    images, classes = digits()
    images = images[:, 0].float()
    model = script.DigitsCNN()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    for _ in range(3):
        for rows in torch.randperm(TRAINED)[:1408].split(64):
            loss = nn.functional.cross_entropy(model(images[rows]), classes[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return model.eval(), images, classes


@pytest.mark.skipif(
    importlib.util.find_spec("sklearn") is None, reason="scikit-learn, which splits the data, is missing"
)
@pytest.mark.parametrize("statistic", norm_modules.OTHERS)
def test_the_trained_digits_network_keeps_its_accuracy_within_one_percent(script, statistic):
    model = script.DigitsCNN()
    model.load_state_dict(torch.load(ROOT / "data" / "digits-cnn.pt"))
    samples = script.digits()
    converted = ours.convert(model, statistic, calibrate=samples.train)
    accuracy = ours.conversion_of(model, converted, [(samples.test, samples.test_classes)]).accuracy
    assert (accuracy.before, accuracy.of) == (354, 360)
    assert accuracy.after >= accuracy.before - 0.01 * accuracy.of


def codes(report):
    return {(finding.rule, finding.severity) for finding in report.findings}


def test_in_fp16_pure_the_converted_network_is_clean_where_the_original_collapses(trained):
    model, images, classes = trained
    converted = ours.convert(model, calibrate=images[:TRAINED])
    accuracy = ours.conversion_of(model, converted, [(images[TRAINED:], classes[TRAINED:])]).accuracy
    assert accuracy.before > 0.9 * accuracy.of
    assert accuracy.after >= accuracy.before - 0.01 * accuracy.of
    options = {"inputs": images[:64], "precisions": ("fp16",), "implementations": ("pure",)}
    before, after = (normcheck.analyze(m, **options) for m in (model, converted))
    assert ("NC102", "error") in codes(before)  # channels that became beta, silently
    assert after.findings == ()
    assert {result.norm for result in after.results} == {"batch-l1"}
    assert {result.verdict for result in after.results} == {"ok"}


def test_where_plain_lanes_overflow_for_both_a_scaled_reduction_clears_l1_alone(trained):
    """Pixels of 0 to 255: `pure` fails for both norms, `pure-scaled` for l2 alone, whose squares overflow."""
    scaled = copy.deepcopy(trained[0])
    images = trained[1] * (255 / 16)
    converted = ours.convert(scaled, calibrate=images[:TRAINED])
    scaled = ours.convert(converted, "l2", calibrate=images[:TRAINED])  # the same function of the larger pixels
    found = {}
    for (name, model), row in itertools.product({"l2": scaled, "l1": converted}.items(), ("pure", "pure-scaled")):
        report = normcheck.analyze(
            model, inputs=images[:128], precisions=("fp16",), implementations=(row,), mode="train", layers=["*.0.bn"]
        )
        found[name, row] = {f.rule for f in report.findings if f.severity == "error"}
    assert "NC102" in found["l2", "pure"]
    assert "NC102" in found["l1", "pure"]
    assert "NC102" in found["l2", "pure-scaled"]
    assert found["l1", "pure-scaled"] == set()
