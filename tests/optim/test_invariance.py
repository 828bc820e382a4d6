"""Scale invariance as it is measured, against what the structure of small networks says."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from normcheck.errors import UsageError
from normcheck.optim import scale_invariance
from normcheck.paper.weight_decay_task import NO_EPS, invariant, network


def inputs(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def scopes(module, *shape, **options):
    torch.manual_seed(0)
    return {name: found.scope for name, found in scale_invariance(module, inputs(*shape), **options).items()}


@pytest.mark.parametrize("kind", ["mlp", "cnn"])
def test_weights_before_a_batch_norm_are_found_and_no_others(kind):
    model = network(kind, seed=0)
    found = scale_invariance(model, inputs(32, 1, 8, 8))
    assert {name for name, f in found.items() if f.scope == "channel"} == set(invariant(model))
    assert {name for name, f in found.items() if f.scope is None} == set(found) - set(invariant(model))


def test_without_eps_they_are_invariant_to_rounding():
    found = scale_invariance(network("mlp", seed=0, eps=NO_EPS), inputs(32, 64))
    assert all(found[name].channels.largest < 1e-10 for name in ("1.weight", "4.weight"))
    last = found["7.weight"].channels
    assert min(last.output, last.radial, last.gradient) > 0.1


def test_an_eps_that_dominates_is_no_invariance():
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.BatchNorm1d(4, eps=1.0), nn.Linear(4, 4))
    assert scopes(model, 16, 4)["0.weight"] is None


def test_in_eval_mode_a_batch_norm_makes_nothing_invariant():
    model = network("mlp", seed=0)
    assert set(scopes(model.eval(), 16, 64).values()) == {None}


def test_a_layer_norm_makes_the_whole_weight_invariant_not_its_channels():
    model = nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8), nn.Linear(8, 3))
    nn.init.zeros_(model[0].bias)
    assert scopes(model, 16, 8) == {"0.weight": "tensor", "2.weight": None}
    nn.init.normal_(model[0].bias)
    assert scopes(model, 16, 8) == {"0.weight": None, "2.weight": None}


def test_a_norm_further_behind_is_seen():
    model = nn.Sequential(nn.Linear(8, 8, bias=False), nn.ReLU(), nn.Linear(8, 8, bias=False), nn.BatchNorm1d(8))
    assert scopes(model, 32, 8) == {"0.weight": "tensor", "2.weight": "channel"}


def test_the_bias_of_a_convolution_before_a_batch_norm_does_not_matter():
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 2))
    nn.init.constant_(model[0].bias, 3.0)
    assert scopes(model, 8, 1, 8, 8)["0.weight"] == "channel"


def test_the_gain_of_a_weight_norm_is_no_scale_but_its_vector_is():
    model = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(8, 8)), nn.Tanh(), nn.Linear(8, 2))
    assert scopes(model, 16, 8) == {
        "0.parametrizations.weight.original0": None,
        "0.parametrizations.weight.original1": "channel",
        "2.weight": None,
    }


def test_a_weight_without_effect_is_not_invariant():
    class WithSpare(nn.Linear):
        def __init__(self):
            super().__init__(4, 4)
            self.spare = nn.Linear(4, 4)

    found = scale_invariance(WithSpare(), inputs(8, 4))
    assert found["spare.weight"].scope is None
    assert math.isnan(found["spare.weight"].channels.largest)


def test_frozen_weights_are_left_out():
    model = network("mlp", seed=0)
    model[1].weight.requires_grad_(False)
    assert "1.weight" not in scopes(model, 16, 64)


def test_random_layers_draw_the_same_numbers_and_nothing_is_changed():
    model = nn.Sequential(nn.Linear(8, 8, bias=False), nn.Dropout(), nn.BatchNorm1d(8), nn.Linear(8, 2)).train()
    before, state = copy.deepcopy(model.state_dict()), torch.random.get_rng_state()
    assert scale_invariance(model, inputs(64, 8))["0.weight"].scope == "channel"
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


def test_the_tolerance_is_the_callers():
    model = network("mlp", seed=0)
    assert scopes(model, 32, 64, tolerance=1e-12)["1.weight"] is None


@pytest.mark.parametrize("module", [nn.LSTM(4, 4), nn.Flatten()])
def test_a_module_that_returns_no_tensor_with_a_gradient_is_refused(module):
    with pytest.raises(UsageError, match="expected a module that returns one tensor with a gradient"):
        scale_invariance(module, inputs(2, 3, 4))
