"""Batch norms: running averages and their keys, what a state dict must not bring, named classes, mean-only."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from norm_modules import OTHERS, SHAPES, STATISTICS, K, build, build_torch, exactly, input_of

from normcheck import nn as ours
from normcheck.errors import UsageError

every_statistic = pytest.mark.parametrize("statistic", STATISTICS)
every_other = pytest.mark.parametrize("statistic", OTHERS)


def key_of(statistic):
    return "running_var" if statistic == "l2" else f"running_{statistic}"


# ------------------------------------------------------------------------------------------- running averages


@every_statistic
@pytest.mark.parametrize("kind", ["exact", "paper"])
def test_running_averages_are_the_engines_own(statistic, kind):
    module = build("batch-2d", statistic, constant=kind, momentum=0.3)
    mean, running = np.zeros(4), np.ones(4)
    for seed in range(3):
        x = input_of("batch-2d", seed=seed)
        module(x)
        done = exactly(module, x, running_mean=mean, running_var=running, momentum=0.3)
        mean, running = done.running_mean, done.running_var
    assert np.abs(module.running_mean.numpy() - mean).max() < 1e-10
    assert np.abs(getattr(module, key_of(statistic)).numpy() - running).max() < 1e-10
    assert module.num_batches_tracked == 3


@every_statistic
def test_eval_mode_is_the_engines_own(statistic):
    module, x = build("batch-2d", statistic), input_of("batch-2d", seed=3)
    module(input_of("batch-2d"))
    running = getattr(module, key_of(statistic)).numpy()
    expected = exactly(module, x, running_mean=module.running_mean.numpy(), running_var=running, mode="eval").output
    assert np.abs(module.eval()(x).detach().numpy() - expected).max() < 1e-10


@every_other
def test_eval_mode_has_the_derivative_of_an_affine_map(statistic):
    module, x = build("batch-2d", statistic), input_of("batch-2d").requires_grad_()
    module(x)
    module.eval()
    assert torch.autograd.gradcheck(module, (x,))
    slope = module.weight / (getattr(module, key_of(statistic)) + module.eps)
    (dx,) = torch.autograd.grad(module(x).sum(), x)
    assert torch.allclose(dx, slope.reshape(1, -1, 1, 1).expand_as(dx))


@every_statistic
def test_without_a_momentum_they_are_means_over_all_batches(statistic):
    module, single = (build("batch-2d", statistic, momentum=m) for m in (None, 1.0))
    seen = []
    for seed in range(4):
        x = input_of("batch-2d", seed=seed)
        module(x)
        single(x)
        seen.append(getattr(single, key_of(statistic)).clone())
    assert torch.allclose(getattr(module, key_of(statistic)), torch.stack(seen).mean(0), rtol=1e-13)


def test_for_l2_they_are_torchs_to_the_bit_without_a_momentum_too():
    module, theirs = build("batch-2d", momentum=None), build_torch("batch-2d")
    theirs.momentum = None
    for seed in range(3):
        x = input_of("batch-2d", seed=seed)
        assert torch.equal(module(x), theirs(x))
    assert all(torch.equal(value, theirs.state_dict()[key]) for key, value in module.state_dict().items())


@every_statistic
def test_without_running_averages_eval_mode_uses_the_batch(statistic):
    module, x = build("batch-2d", statistic, track_running_stats=False), input_of("batch-2d")
    expected = module(x)
    assert torch.equal(module.eval()(x), expected)
    assert list(module.state_dict()) == ["weight", "bias"]


@every_statistic
def test_eval_mode_and_gradients_leave_them_alone(statistic):
    module = build("batch-2d", statistic)
    module(input_of("batch-2d")).sum().backward()
    before = copy.deepcopy(module.state_dict())
    module.eval()(input_of("batch-2d", seed=3))
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())


@every_statistic
def test_they_stay_in_the_type_of_their_buffer(statistic):
    module = ours.BatchNorm2d(4, statistic=statistic).half()
    module(input_of("batch-2d", torch.float16))
    running = getattr(module, key_of(statistic))
    assert running.dtype == torch.float16
    assert (running > 0.9).all()


@every_statistic
def test_reset_brings_the_beginning_back(statistic):
    module = ours.BatchNorm2d(4, statistic=statistic)
    fresh = copy.deepcopy(module.state_dict())
    torch.nn.init.normal_(module.weight)
    module(torch.randn(SHAPES["2d"]))
    module.reset_parameters()
    assert all(torch.equal(value, fresh[key]) for key, value in module.state_dict().items())


@every_statistic
def test_a_single_value_per_channel_is_fine_in_eval_mode(statistic):
    x = torch.ones(1, 4, dtype=torch.float64)
    assert build("batch-rows", statistic).eval()(x).isfinite().all()


# ------------------------------------------------------------------------------------------------- state dicts


@every_other
def test_the_key_says_which_statistic_it_is(statistic):
    keys = ["weight", "bias", "running_mean", f"running_{statistic}", "num_batches_tracked"]
    assert list(ours.BatchNorm1d(4, statistic=statistic).state_dict()) == keys


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize(("into", "of"), [(a, b) for a in STATISTICS for b in STATISTICS if a != b])
def test_running_statistics_of_another_norm_are_refused(into, of, strict):
    given = torch.nn.Sequential(build("batch-2d", of)).state_dict()
    model = torch.nn.Sequential(build("batch-2d", into))
    with pytest.raises(RuntimeError, match=rf"0\.{key_of(of)} is a running statistic of batch-{of}, which BatchNorm2d"):
        model.load_state_dict(given, strict=strict)


@every_statistic
@pytest.mark.parametrize("strict", [True, False])
def test_a_mean_only_norm_refuses_running_statistics(statistic, strict):
    with pytest.raises(RuntimeError, match="of a batch norm that divides by a statistic, which MeanOnlyBatchNorm2d"):
        ours.MeanOnlyBatchNorm2d(4).load_state_dict(build("batch-2d", statistic).state_dict(), strict=strict)


@every_statistic
def test_a_state_dict_without_a_count_is_taken_as_torch_takes_it(statistic):
    module = build("batch-2d", statistic)
    module(input_of("batch-2d"))
    given = dict(module.state_dict())  # without the version, as a safetensors file has none
    del given["num_batches_tracked"]
    fresh = build("batch-2d", statistic)
    fresh.load_state_dict(given)
    assert fresh.num_batches_tracked == 0
    assert torch.equal(fresh.running_mean, module.running_mean)


# ------------------------------------------------------------------------------------------------ named classes


@pytest.mark.parametrize("dimensions", SHAPES)
@pytest.mark.parametrize(
    ("prefix", "statistic"), [("L1", "l1"), ("Linf", "linf"), ("TopK", "topk"), ("Range", "range")]
)
def test_a_named_class_is_batch_norm_of_its_statistic(prefix, statistic, dimensions):
    plain, named = getattr(ours, f"BatchNorm{dimensions}"), getattr(ours, f"{prefix}BatchNorm{dimensions}")
    x = input_of(f"batch-{dimensions}", torch.float32)
    module = named(4, 1e-3, 0.2, k=K)
    assert torch.equal(module(x), plain(4, 1e-3, 0.2, statistic=statistic, k=K)(x))
    assert issubclass(named, plain)
    assert named(4, statistic=statistic).statistic == statistic
    with pytest.raises(UsageError, match=f"{prefix}BatchNorm{dimensions} is of {statistic}, received statistic='l2'"):
        named(4, statistic="l2")


def test_they_are_no_batch_norms_to_what_takes_their_statistic_for_a_variance():
    model = torch.nn.Sequential(ours.L1BatchNorm2d(4), torch.nn.BatchNorm2d(4))
    converted = torch.nn.SyncBatchNorm.convert_sync_batchnorm(model)
    assert [type(m) for m in converted] == [ours.L1BatchNorm2d, torch.nn.SyncBatchNorm]


# ---------------------------------------------------------------------------------------------------- mean-only


@pytest.mark.parametrize("dimensions", SHAPES)
def test_mean_only_takes_off_the_mean_and_adds_the_bias(dimensions):
    module = getattr(ours, f"MeanOnlyBatchNorm{dimensions}")(4, dtype=torch.float64)
    torch.nn.init.normal_(module.bias)
    x = input_of(f"batch-{dimensions}").requires_grad_()
    over = [d for d in range(x.ndim) if d != 1]
    per_channel = [1, 4, *(1,) * (x.ndim - 2)]
    expected = x - x.mean(over, keepdim=True) + module.bias.reshape(per_channel)
    assert torch.allclose(module(x), expected, atol=1e-14)
    assert torch.allclose(module.running_mean, 0.1 * x.mean(over))
    assert torch.autograd.gradcheck(module, (x,))
    assert torch.autograd.gradgradcheck(lambda x: module(x).square(), (x[:2, :, :2].contiguous(),))
    module.eval()
    expected = x - (module.running_mean - module.bias).reshape(per_channel)
    assert torch.allclose(module(x), expected, atol=1e-14)


def test_mean_only_has_torchs_keys_without_a_scale():
    assert list(ours.MeanOnlyBatchNorm2d(4).state_dict()) == ["bias", "running_mean", "num_batches_tracked"]
    assert list(ours.MeanOnlyBatchNorm2d(4, bias=False, track_running_stats=False).state_dict()) == []


def test_mean_only_keeps_the_mean_of_torch():
    module, theirs = ours.MeanOnlyBatchNorm2d(4, momentum=None, dtype=torch.float64), build_torch("batch-2d")
    theirs.momentum = None
    for seed in range(3):
        module(input_of("batch-2d", seed=seed))
        theirs(input_of("batch-2d", seed=seed))
    assert torch.allclose(module.running_mean, theirs.running_mean, rtol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_mean_only_computes_half_inputs_in_float32(dtype):
    module, x = ours.MeanOnlyBatchNorm2d(4), 3000 * input_of("batch-2d", dtype)
    assert torch.equal(module(x), copy.deepcopy(module)(x.float()).to(dtype))


def test_mean_only_takes_one_element_and_none():
    module = ours.MeanOnlyBatchNorm1d(4)
    assert torch.equal(module(torch.ones(1, 4)), torch.zeros(1, 4))
    before = module.running_mean.clone()
    assert module(torch.ones(0, 4)).shape == (0, 4)
    assert torch.equal(module.running_mean, before)


def test_mean_only_resets_and_shows_itself():
    module = ours.MeanOnlyBatchNorm1d(4)
    torch.nn.init.normal_(module.bias)
    module(torch.ones(3, 4))
    module.reset_parameters()
    assert not any(value.any() for value in module.state_dict().values())
    assert repr(module) == "MeanOnlyBatchNorm1d(4, momentum=0.1, bias=True, track_running_stats=True)"
    with pytest.raises(UsageError, match=r"expected 2D or 3D input \(got 4D input\)"):
        module(torch.ones(2, 4, 3, 3))


def test_an_instance_norm_with_running_statistics_is_refused():
    with pytest.raises(UsageError, match="these modules keep none"):
        ours.InstanceNorm2d(4, track_running_stats=True)
