"""`normcheck.nn.convert`: what is carried over, and what running statistics become."""

from __future__ import annotations

import copy
import math

import norm_modules
import pytest
import torch
from convertible import inputs, network, on_one_thread, quietly
from torch import nn

from normcheck import nn as ours
from normcheck.nn.convert_calls import Call
from normcheck.nn.convert_running import recalibrate

WHERE = {"batch": "batch", "instance": "instance", "group": "group", "layer": "layer", "rms": "rms"}


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    with on_one_thread():
        yield


@pytest.fixture(autouse=True)
def _one_seed():
    torch.manual_seed(0)


# ------------------------------------------------------------------------------------------ what is carried over


@pytest.mark.parametrize("statistic", norm_modules.OTHERS)
@pytest.mark.parametrize("name", norm_modules.PAIRS)
def test_a_converted_norm_is_the_one_that_could_have_been_built(name, statistic):
    theirs, kind, args, kwargs, shape = norm_modules.PAIRS[name]
    old = norm_modules.settled(theirs(*args, **kwargs, dtype=torch.float64))
    converted = ours.convert(old, statistic, where=WHERE[name.partition("-")[0]], k=3, constant="paper", eps="same")
    built = kind(*args, **kwargs, statistic=statistic, k=3, constant="paper", dtype=torch.float64)
    assert type(converted) is type(built)
    assert repr(converted) == repr(built)
    built.load_state_dict(converted.state_dict())
    x = torch.rand(shape, dtype=torch.float64)
    for mode in (True, False):
        assert torch.equal(converted.train(mode)(x), built.train(mode)(x))
    assert built.state_dict().keys() == converted.state_dict().keys()
    assert all(torch.equal(converted.get_parameter(n), p) for n, p in old.named_parameters())


def test_parameters_are_the_same_objects_in_place_and_the_model_too():
    model = network()
    model[1].weight.requires_grad_(requires_grad=False)
    parameters = list(model.parameters())
    converted = quietly(model, inplace=True)
    assert converted is model
    assert [id(p) for p in model.parameters()] == [id(p) for p in parameters]
    assert not model[1].weight.requires_grad
    assert isinstance(model[1], ours.BatchNorm2d)


def test_the_model_itself_is_left_alone():
    model = network().train()
    before = copy.deepcopy(model.state_dict())
    converted = ours.convert(model, calibrate=inputs())
    assert type(model[1]) is nn.BatchNorm2d
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(m.training for m in converted.modules())
    assert not {id(p) for p in model.parameters()} & {id(p) for p in converted.parameters()}


def test_each_module_keeps_its_own_training_flag_momentum_and_count():
    model = network().train()
    model[1].eval()
    model[1].momentum, model[4].momentum = 0.3, None
    converted = ours.convert(model, calibrate=[inputs(), inputs(3)])
    assert [m.training for m in converted] == [True, False, True, True, True]
    assert (converted[1].momentum, converted[4].momentum) == (0.3, None)
    assert int(converted[1].num_batches_tracked) == 3


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_types_are_kept(dtype):
    model = network().to(dtype)
    converted = ours.convert(model, calibrate=inputs().to(dtype))
    assert {p.dtype for p in converted.parameters()} == {dtype}
    assert converted[1].running_l1.dtype == converted[1].running_mean.dtype == dtype
    assert converted(inputs().to(dtype)).isfinite().all()


def test_a_shared_norm_stays_shared_and_a_tied_weight_tied():
    norm = nn.BatchNorm2d(4).double()
    tied = nn.BatchNorm2d(4).double()
    tied.weight = norm.weight
    model = nn.Sequential(nn.Conv2d(2, 4, 1).double(), norm, nn.ReLU(), norm, tied)
    converted = ours.convert(model, calibrate=[inputs(), inputs()])
    assert converted[1] is converted[3]
    assert converted[4].weight is converted[1].weight
    assert converted[4] is not converted[1]


def test_a_shared_norm_gets_the_average_of_its_uses():
    norm = nn.BatchNorm2d(2).double()
    model = nn.Sequential(norm, nn.ReLU(), norm)
    x = inputs()
    converted = ours.convert(model, calibrate=[x, x])
    with torch.no_grad():
        first = statistic_of(x)
        start = quietly(model)  # what it divides by until it is measured
        second = statistic_of(torch.relu(start[0].eval()(x)))
    assert torch.allclose(converted[0].running_l1, (first + second) / 2, rtol=1e-12, atol=0)


def statistic_of(x):
    """C * mean |x - mean| of each channel."""
    c = x - x.mean((0, 2, 3), keepdim=True)
    return c.abs().mean((0, 2, 3)) * math.sqrt(math.pi / 2)


def test_hooks_on_the_passes_are_kept_and_can_still_be_removed():
    model = network()
    seen = []
    handle = model[1].register_forward_hook(lambda *_: seen.append("forward"))
    model[4].register_full_backward_hook(lambda *_: seen.append("backward"))
    quietly(model, inplace=True)
    model(inputs().requires_grad_()).sum().backward()
    assert seen == ["forward", "backward"]
    handle.remove()
    model(inputs())
    assert seen == ["forward", "backward"]


# ---------------------------------------------------------------------------------------------------------- eps


@pytest.mark.parametrize(
    ("before", "after", "rule", "eps"),
    [
        ("l2", "l1", "comparable", 1e-3),
        ("l2", "l1", "same", 1e-6),
        ("l2", "range", 0.5, 0.5),
        ("l1", "l2", "comparable", 1e-12),
        ("l1", "linf", "comparable", 1e-6),
    ],
)
def test_eps_is_the_same_floor_or_what_was_asked_for(before, after, rule, eps):
    model = ours.LayerNorm(8, eps=1e-6, statistic=before)
    assert ours.convert(model, after, where="layer", eps=rule).eps == pytest.approx(eps, rel=1e-12)


def test_the_eps_of_an_rms_norm_without_one():
    machine = torch.finfo(torch.float32).eps
    assert ours.convert(nn.RMSNorm(8), where="rms", eps="same").eps is None
    assert ours.convert(nn.RMSNorm(8), where="rms").eps == math.sqrt(machine)
    assert ours.convert(nn.RMSNorm(8), where="rms", eps=1e-3).eps == 1e-3


# ------------------------------------------------------------------------------------------- running statistics


def test_without_data_the_statistic_is_the_root_of_the_variance_and_a_warning_says_so():
    model = network()
    with pytest.warns(UserWarning, match=r"statistics of 1, 4 are sqrt\(running_var\)"):
        converted = ours.convert(model)
    assert torch.equal(converted[1].running_l1, model[1].running_var.sqrt())
    assert torch.equal(converted[1].running_mean, model[1].running_mean)


def test_a_model_that_has_seen_nothing_has_nothing_to_warn_of():
    converted = ours.convert(nn.Sequential(nn.BatchNorm1d(3)))
    assert torch.equal(converted[0].running_l1, torch.ones(3))


def test_the_root_is_right_for_gaussian_inputs():
    norm = nn.BatchNorm1d(2, momentum=None)
    x = torch.randn(100_000, 2) * torch.tensor([3.0, 0.1]) + 1
    norm(x)
    guessed = quietly(norm).running_l1
    measured = ours.convert(norm, calibrate=x).running_l1
    assert torch.allclose(guessed, measured, rtol=0.01)  # 4 standard errors of a mean of 1e5


@pytest.mark.parametrize("statistic", ["l1", "linf", "topk", "range"])
def test_there_and_back_without_data(statistic):
    model = network()
    back = quietly(quietly(model, statistic), "l2")
    assert back[1].statistic == "l2"
    assert torch.allclose(back[1].running_var, model[1].running_var, rtol=1e-14)
    assert back[1].eps == pytest.approx(model[1].eps, rel=1e-12)


@pytest.mark.parametrize("statistic", norm_modules.STATISTICS)
@pytest.mark.parametrize("sizes", [[8], [8, 8, 3]])
def test_each_norm_is_measured_on_what_it_sees_behind_measured_ones(statistic, sizes):
    """The running averages are those of what reaches each norm when the converted model runs in evaluation."""
    batches = [inputs(n) for n in sizes]
    model = quietly(network(), "l1") if statistic == "l2" else network()
    converted = ours.convert(model, statistic, calibrate=batches).eval()
    weights = torch.tensor(sizes, dtype=torch.float64) / sum(sizes)
    for place in (1, 4):
        with torch.no_grad():
            seen = [converted[:place](x) for x in batches]
        fresh = [ours.BatchNorm2d(x.shape[1], momentum=1.0, statistic=statistic, dtype=torch.float64) for x in seen]
        for norm, x in zip(fresh, seen, strict=True):
            norm.train()(x)
        for key in ("running_mean", converted[place].running_key):
            average = sum(w * norm.get_buffer(key) for w, norm in zip(weights, fresh, strict=True))
            assert torch.allclose(converted[place].get_buffer(key), average, rtol=1e-12, atol=1e-14)


def test_norms_that_are_not_converted_keep_their_running_statistics():
    model = network()
    converted = ours.convert(model, layers="4", calibrate=inputs())
    assert type(converted[1]) is nn.BatchNorm2d
    assert torch.equal(converted[1].running_var, model[1].running_var)
    assert isinstance(converted[4], ours.BatchNorm2d)


class TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(2).double()

    def forward(self, x, scale=None):
        return self.norm(x if scale is None else x * scale)


@pytest.mark.parametrize(
    "form",
    [
        lambda x: x,
        lambda x: [x],
        lambda x: ((part, torch.zeros(len(part))) for part in x.split(4)),
        lambda x: torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, torch.zeros(len(x))), batch_size=4),
        lambda x: {"x": x, "scale": torch.ones(())},
        lambda x: [{"x": part} for part in x.split(4)],
    ],
    ids=["tensor", "list", "generator", "loader", "keywords", "list of keywords"],
)
def test_data_come_in_any_form_of_a_loader(form):
    x = inputs()
    converted = ours.convert(TwoInputs(), calibrate=form(x))
    assert torch.allclose(converted.norm.running_mean, x.mean((0, 2, 3)), rtol=1e-12)


def test_a_norm_that_no_batch_reaches_is_told_of():
    class Beside(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.unused = nn.BatchNorm2d(2).double(), nn.BatchNorm2d(2).double()

        def forward(self, x):
            return self.used(x)

    model = Beside()
    model.unused(inputs())
    with pytest.warns(UserWarning, match="statistics of unused are"):
        converted = ours.convert(model, calibrate=[inputs(), inputs()])
    assert torch.equal(converted.unused.running_l1, model.unused.running_var.sqrt())


def test_an_empty_batch_counts_for_nothing():
    batches = [inputs(4), inputs(0), inputs(2)]
    converted = ours.convert(network(), calibrate=batches)
    wanted = ours.convert(network_like(converted), calibrate=[batches[0], batches[2]])
    assert torch.equal(converted[1].running_l1, wanted[1].running_l1)
    nothing = quietly(network(), calibrate=inputs(0))
    assert torch.isfinite(nothing[1].running_l1).all()


def network_like(converted):
    """The network of `network` with the parameters of a converted one."""
    model = network()
    model.load_state_dict({k: v for k, v in converted.state_dict().items() if "running" not in k}, strict=False)
    return model


def test_progress_is_told_layer_by_layer():
    model = quietly(network())
    seen = []
    norms = {"1": model[1], "4": model[4]}
    assert recalibrate(model, norms, lambda: [Call((inputs(),))] * 2, lambda *tick: seen.append(tick)) == []
    assert seen == [(0.0, "1"), (0.5, "4")]
