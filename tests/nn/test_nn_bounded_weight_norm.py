"""Bounded weight norm: the formulas, what training cannot move, what it refuses."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from torch.nn.utils import parametrize

import normcheck
from normcheck.errors import UsageError
from normcheck.nn import BoundedWeightNorm, bounded_weight_norm

NAMES = {1: "l1", 2: "l2", math.inf: "linf"}
every_p = pytest.mark.parametrize("p", NAMES)
both = pytest.mark.parametrize("gain", [False, True])


def weights(shape=(5, 3, 2), seed=0):
    """Weights whose channels differ in norm."""
    generator = torch.Generator().manual_seed(seed)
    w = torch.randn(shape, generator=generator, dtype=torch.float64)
    return w * torch.arange(1, shape[0] + 1).reshape(-1, *(1,) * (len(shape) - 1))


def norms(w, p):
    return torch.linalg.vector_norm(w.detach().flatten(1), ord=p, dim=1)


# ------------------------------------------------------------------------------------------------- the formulas


@every_p
def test_fixed_every_channel_has_the_same_norm_and_its_direction(p):
    v = weights()
    w = BoundedWeightNorm(v, p)(v)
    rho = v.abs().max() if p == math.inf else v.abs().pow(p).sum().pow(1 / p) / 5 ** (1 / p)
    assert torch.allclose(norms(w, p), rho.expand(5), rtol=1e-14)
    expected = normcheck.emulate(v.numpy(), f"bounded-weight-{NAMES[p]}", precision="fp64", weight=[float(rho)]).output
    assert np.abs(w.numpy() - expected).max() < 1e-10


def test_for_p_2_the_norm_of_the_whole_layer_stays_what_it_was():
    v = weights()
    assert torch.allclose(BoundedWeightNorm(v)(v).norm(), v.norm(), rtol=1e-14)


@every_p
def test_with_gains_the_weights_start_as_they_were(p):
    v = weights()
    module = BoundedWeightNorm(v, p, gain=True)
    assert torch.allclose(module(v), v, rtol=1e-13)
    with torch.no_grad():
        module.gain.copy_(torch.tensor([1.0, 2.0, 0.5, 3.0, 1.0]))
    g = module.gain / module.gain.norm() * norms(v, p).norm()
    expected = normcheck.emulate(v.numpy(), f"weight-{NAMES[p]}", precision="fp64", weight=g.detach().numpy()).output
    assert np.abs(module(v).detach().numpy() - expected).max() < 1e-10


@every_p
@both
def test_the_backward_pass_is_the_derivative_twice(p, gain):
    v = weights((3, 2, 2)).requires_grad_()
    module = BoundedWeightNorm(v, p, gain=gain)
    parameters = dict(module.named_parameters())

    def call(v, *values):
        return torch.func.functional_call(module, dict(zip(parameters, values, strict=True)), (v,))

    assert torch.autograd.gradcheck(call, (v, *parameters.values()))
    assert torch.autograd.gradgradcheck(call, (v, *parameters.values()))


@every_p
@both
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_thousand_steps_leave_the_norm_where_it_was(p, gain, dtype):
    torch.manual_seed(0)
    layer = bounded_weight_norm(torch.nn.Linear(12, 6, dtype=dtype), p=p, gain=gain)
    start, first = layer.weight.detach().clone(), norms(layer.weight, p)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.05, momentum=0.9)
    for _ in range(1000):
        optimizer.zero_grad()
        x = torch.randn(8, 12, dtype=dtype)
        torch.nn.functional.mse_loss(layer(x), x[:, :6].square()).backward()
        optimizer.step()
    last = norms(layer.weight, p)
    assert (layer.weight - start).norm() > 0.1 * start.norm()
    assert abs(last.double().norm() / first.double().norm() - 1) < 1e-6
    if not gain:
        assert (last / first - 1).abs().max() < 1e-6


@both
def test_the_gradient_does_not_move_a_weight_along_itself(gain):
    layer = bounded_weight_norm(torch.nn.Linear(12, 6, dtype=torch.float64), gain=gain)
    layer(torch.ones(3, 12, dtype=torch.float64)).square().sum().backward()
    v = layer.parametrizations.weight.original
    assert (v * v.grad).sum(1).abs().max() < 1e-13


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_weights_are_normalised_in_float32(dtype):
    v = (200 * weights()).to(dtype)  # squares beyond float16
    w = BoundedWeightNorm(v)(v)
    exact = BoundedWeightNorm(v.double())(v.double())
    assert w.dtype == dtype
    assert torch.allclose(w.double(), exact, rtol=3 * torch.finfo(dtype).eps)


# ------------------------------------------------------------------------------------------------ in a module


@both
def test_the_state_dict_has_the_keys_that_discovery_reads(gain):
    layer = bounded_weight_norm(torch.nn.Conv2d(3, 4, 3), p=1, gain=gain)
    mine = [f"parametrizations.weight.{key}" for key in (*(("0.gain",) if gain else ()), "0.rho", "0.p", "original")]
    assert sorted(layer.state_dict()) == sorted(["bias", *mine])
    assert layer.state_dict()["parametrizations.weight.0.rho"].shape == ()
    assert layer.state_dict()["parametrizations.weight.0.p"] == 1


@every_p
@both
def test_a_state_dict_brings_the_same_weights_back(p, gain):
    layer, other = (bounded_weight_norm(torch.nn.Linear(4, 3), p=p, gain=gain) for _ in range(2))
    assert not torch.equal(other.weight, layer.weight)
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other.weight, layer.weight)
    assert torch.equal(copy.deepcopy(layer).weight, layer.weight)


@pytest.mark.parametrize("strict", [True, False])
def test_a_state_dict_of_another_p_is_refused(strict):
    layer, other = (bounded_weight_norm(torch.nn.Linear(4, 3), p=p) for p in (2, math.inf))
    with pytest.raises(RuntimeError, match=r"weight\.0\.p is inf, where this bounded weight norm has p = 2"):
        layer.load_state_dict(other.state_dict(), strict=strict)


def test_taking_it_off_leaves_the_weights():
    layer = bounded_weight_norm(torch.nn.Linear(4, 3))
    expected = layer.weight.detach().clone()
    parametrize.remove_parametrizations(layer, "weight")
    assert torch.equal(layer.weight, expected)


def test_it_is_shown_with_its_settings():
    assert repr(BoundedWeightNorm(weights(), math.inf, gain=True)) == "BoundedWeightNorm(p=inf, gain=True)"


# ------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("module", "settings", "message"),
    [
        (torch.nn.Linear(4, 3), {"p": 3}, "p must be 1, 2 or inf, received 3"),
        (torch.nn.Linear(4, 3), {"name": "bias"}, r"needs a weight \(out, \.\.\.\), received shape \[3\]"),
        (torch.nn.Linear(4, 3), {"name": "kernel"}, "'kernel' of Linear is no parameter; the module has weight, bias"),
        (torch.nn.ReLU(), {}, "'weight' of ReLU is no parameter; the module has none"),
        (torch.nn.ConvTranspose2d(4, 3, 2), {}, "has its output channels in dimension 1, where 0 is expected"),
        (bounded_weight_norm(torch.nn.Linear(4, 3)), {}, "of ParametrizedLinear is parametrised already"),
    ],
    ids=str,
)
def test_what_cannot_be_normalised_is_refused(module, settings, message):
    with pytest.raises(UsageError, match=message):
        bounded_weight_norm(module, **settings)


@every_p
@pytest.mark.parametrize(("value", "said"), [(0.0, "0"), (math.nan, "nan"), (math.inf, "inf")])
def test_a_vector_without_direction_is_refused_by_its_channel(p, value, said):
    v = weights()
    v[3] = value
    with pytest.raises(UsageError, match=f"output channel 3 have the norm {said} when it was to be normalised"):
        BoundedWeightNorm(v, p)


def test_a_vector_that_vanishes_in_training_is_refused():
    layer = bounded_weight_norm(torch.nn.Linear(4, 3))
    with torch.no_grad():
        layer.parametrizations.weight.original[1] = 0
    with pytest.raises(UsageError, match="output channel 1 have the norm 0 in training"):
        layer(torch.ones(2, 4))
