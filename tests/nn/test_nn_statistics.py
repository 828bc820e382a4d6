"""Every statistic in every module: the engine's own norm forward, finite differences backward, types, memory, ties."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch
from norm_modules import OTHERS, PAIRS, STATISTICS, K, build, build_torch, exactly, input_of, settled
from torch.func import functional_call

from normcheck import nn as ours
from normcheck.errors import UsageError
from normcheck.nn.statistics import STATISTICS as TORCH_STATISTICS
from normcheck.norms.constants import constant
from normcheck.norms.table import STATISTICS as NORM_STATISTICS

every_where = pytest.mark.parametrize("name", PAIRS)
every_statistic = pytest.mark.parametrize("statistic", STATISTICS)
every_other = pytest.mark.parametrize("statistic", OTHERS)


def run(module, x, grad):
    """The output, and the gradients of input and parameters."""
    x = x.clone().requires_grad_()
    y = module(x)
    y.backward(grad.to(y.dtype))
    return y.detach(), [x.grad, *(p.grad for p in module.parameters())]


# ---------------------------------------------------------------------------------------------------- forward


@every_where
@every_statistic
@pytest.mark.parametrize("kind", ["exact", "paper"])
def test_the_forward_pass_is_the_engines_own(name, statistic, kind):
    module, x = build(name, statistic, constant=kind), input_of(name)
    expected = exactly(module, x).output.reshape(x.shape)
    assert np.abs(module(x).detach().numpy() - expected).max() < 1e-10


def test_the_statistics_are_those_of_the_formulas():
    x = torch.tensor([[1.0], [2.0], [-4.0], [9.0]], dtype=torch.float64)  # mean 2, c = -1, 0, -6, 7
    s = {"l1": 14 / 4, "linf": 7.0, "topk": (7 + 6 + 1) / 3, "range": 13.0}
    for statistic, estimate in s.items():
        c = constant(statistic, "exact", 4, K)
        module = ours.BatchNorm1d(1, eps=0.5, statistic=statistic, k=K, dtype=torch.float64)
        expected = (x - 2) / (c * estimate + 0.5)
        assert torch.allclose(module(x), expected, rtol=1e-14, atol=0), statistic
        assert getattr(module, f"running_{statistic}").item() == pytest.approx(0.9 + 0.1 * c * estimate, rel=1e-14)


def test_every_statistic_of_the_table_is_here_but_for_torchs_own():
    assert {"l2", *TORCH_STATISTICS} == set(NORM_STATISTICS)
    assert "l2" not in TORCH_STATISTICS


@every_other
@pytest.mark.parametrize("name", ["batch-2d", "layer", "group", "rms"])
def test_the_output_does_not_feel_the_scale_of_its_input(name, statistic):
    module, x = build(name, statistic), input_of(name)
    module.eps = 0.0
    assert torch.allclose(module(1000 * x), module(x), rtol=1e-12, atol=1e-12)


# --------------------------------------------------------------------------------------------------- backward


@every_where
@every_statistic
def test_the_backward_pass_is_the_derivative(name, statistic):
    module, x = build(name, statistic), input_of(name).requires_grad_()
    names = [n for n, _ in module.named_parameters()]

    def call(x, *parameters):
        return functional_call(module, dict(zip(names, parameters, strict=True)), (x,))

    assert torch.autograd.gradcheck(call, (x, *module.parameters()))


@every_other
@pytest.mark.parametrize("name", ["batch-2d", "instance-2d"])
def test_the_derivative_holds_in_channels_last_memory(name, statistic):
    x = input_of(name)
    last = x.to(memory_format=torch.channels_last)
    y, gradients = run(build(name, statistic), x, x.cos())
    y_last, gradients_last = run(build(name, statistic), last, x.cos().to(memory_format=torch.channels_last))
    assert torch.allclose(y, y_last, atol=1e-13)
    assert all(torch.allclose(a, b, atol=1e-12) for a, b in zip(gradients, gradients_last, strict=True))
    if name == "batch-2d":  # the others are computed by rows, as torch's are
        assert y_last.is_contiguous(memory_format=torch.channels_last)
        assert gradients_last[0].is_contiguous(memory_format=torch.channels_last)


@every_other
def test_the_gradient_has_no_mean_and_only_eps_lets_it_see_the_scale(statistic):
    module, x = build("batch-2d", statistic), input_of("batch-2d").requires_grad_()
    module.eps = 0.0
    (dx,) = torch.autograd.grad(module(x), x, x.detach().cos())
    assert dx.sum((0, 2, 3)).abs().max() < 1e-12
    assert (dx * x).sum((0, 2, 3)).abs().max() < 1e-11


@every_other
@pytest.mark.parametrize("frozen", ["weight", "bias", "x"])
def test_what_needs_no_gradient_gets_none(statistic, frozen):
    module, x = build("group", statistic), input_of("group").requires_grad_(frozen != "x")
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(name != frozen)
    module(x).square().sum().backward()
    given = {"x": x.grad, "weight": module.weight.grad, "bias": module.bias.grad}
    assert {name for name, grad in given.items() if grad is None} == {frozen}


@every_other
def test_there_is_no_second_derivative(statistic):
    module, x = build("layer", statistic), input_of("layer").requires_grad_()
    (dx,) = torch.autograd.grad(module(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        dx.sum().backward()
    with pytest.raises(RuntimeError, match="functorch"):
        torch.func.grad(lambda x: module(x).square().sum())(x.detach())


@every_other
def test_only_one_tensor_of_the_inputs_size_is_kept(statistic):
    module, x = ours.BatchNorm2d(8, statistic=statistic), torch.randn(16, 8, 6, 6, requires_grad=True)
    kept = {}

    def pack(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        module(x)
    channels = {"l1": 2 * 4, "linf": 2 * 4 + 8, "topk": 2 * 4 + 10 * 8, "range": 2 * 4 + 2 * 8}[statistic]
    assert sum(kept.values()) == 4 * x.numel() + 8 * channels  # y; s, weight and places of each channel


@every_other
@pytest.mark.parametrize("name", ["batch-2d", "layer", "rms"])
def test_ties_give_finite_gradients_of_the_right_total(name, statistic):
    """Where two elements are as large, any split between them is a derivative from some side; the total is not."""
    x = input_of(name).round().requires_grad_()
    module = build(name, statistic)
    module.eps = 0.0
    (dx,) = torch.autograd.grad(module(x), x, x.detach().cos())
    over = (0, 2, 3) if name == "batch-2d" else (-1,)
    assert dx.isfinite().all()
    assert (dx * x).sum(over).abs().max() < 1e-10
    if name != "rms":
        assert dx.sum(over).abs().max() < 1e-10


# ------------------------------------------------------------------------------------ torch's own where that is l2


@every_where
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_l2_is_torchs_to_the_bit_in_train_and_eval(name, dtype):
    ours_, theirs, x = build(name, dtype=dtype), build_torch(name, dtype), input_of(name, dtype)
    for train in (True, True, False):
        (y, grads), (expected, theirs_) = (run(m.train(train), x, x.cos()) for m in (ours_, theirs))
        assert torch.equal(y, expected)
        assert all(torch.equal(a, b) for a, b in zip(grads, theirs_, strict=True))
    for key, value in theirs.state_dict().items():
        assert torch.equal(ours_.state_dict()[key], value)


@every_where
def test_a_state_dict_of_l2_goes_both_ways(name):
    mine, theirs, x = build(name), build_torch(name), input_of(name)
    settled(theirs, seed=5)
    theirs(x)
    mine.load_state_dict(theirs.state_dict())
    assert torch.equal(mine.eval()(x), theirs.eval()(x))
    fresh = build_torch(name)
    fresh.load_state_dict(mine.state_dict())
    assert torch.equal(fresh.eval()(x), theirs(x))
    assert list(mine.state_dict()) == list(theirs.state_dict())


@every_where
def test_l2_is_shown_as_torch_shows_it(name):
    assert repr(build(name)) == repr(build_torch(name))


@pytest.mark.parametrize("name", ["layer", "rms", "group", "instance-1d"])
@every_other
def test_weight_and_bias_of_torch_are_taken_by_norms_without_running_statistics(name, statistic):
    module, theirs = build(name, statistic), settled(build_torch(name), seed=9)
    module.load_state_dict(theirs.state_dict())
    assert torch.equal(module.weight, theirs.weight)


# ------------------------------------------------------------------------------------------------------- types


@every_other
@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_inputs_are_computed_in_float32_and_rounded_once(name, statistic, dtype):
    module, x = build(name, statistic, dtype=torch.float32), input_of(name, dtype)
    if module.weight is not None:
        module.to(dtype)
    y, gradients = run(module, x, x.cos())
    wide, wide_gradients = run(copy.deepcopy(module).float(), x.float(), x.cos().float())
    assert torch.equal(y, wide.to(dtype))
    for a, b in zip(gradients[:1], wide_gradients[:1], strict=True):
        assert a.dtype == dtype
        assert (a.float() - b).norm() <= 2 * torch.finfo(dtype).eps * b.norm()


@every_other
def test_half_inputs_whose_sums_overflow_are_no_problem(statistic):
    x = 3000 * input_of("batch-2d")
    assert x.abs().sum((0, 2, 3)).min() > torch.finfo(torch.float16).max
    module = ours.BatchNorm2d(4, statistic=statistic)
    assert torch.allclose(module(x.half()).double(), module.double()(x), atol=2e-3)


@pytest.mark.parametrize("statistic", STATISTICS)
@pytest.mark.parametrize("name", ["batch-2d", "layer", "group", "rms", "instance-2d"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight")  # torch's own RMS norm
def test_autocast_gives_the_type_that_torchs_own_gives(name, statistic, dtype):
    x = input_of(name, dtype)
    with torch.autocast("cpu", torch.bfloat16):
        y = build(name, statistic, dtype=torch.float32)(x)
        expected = build_torch(name, torch.float32)(x)
    assert y.dtype == expected.dtype


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@every_statistic
@pytest.mark.parametrize("name", PAIRS)
def test_cuda_gives_what_the_cpu_gives_and_autocast_torchs_types(name, statistic):
    module, x = build(name, statistic, dtype=torch.float32), input_of(name, torch.float32)
    y, gradients = run(copy.deepcopy(module).cuda(), x.cuda(), x.cos().cuda())
    expected, others = run(module, x, x.cos())
    assert torch.allclose(y.cpu(), expected, atol=1e-5)
    assert all(torch.allclose(a.cpu(), b, atol=1e-4) for a, b in zip(gradients, others, strict=True))
    with torch.autocast("cuda", torch.float16):
        half = x.cuda().half()
        assert module.cuda()(half).dtype == build_torch(name, torch.float32).cuda()(half).dtype


@every_statistic
def test_shapes_can_be_had_without_values(statistic):
    module = ours.BatchNorm2d(4, statistic=statistic, device="meta")
    y = module(torch.empty(2, 4, 3, 5, device="meta"))
    assert (y.shape, y.device.type) == ((2, 4, 3, 5), "meta")


@pytest.mark.parametrize("name", PAIRS)
@every_statistic
def test_an_empty_batch_gives_an_empty_output(name, statistic):
    module, x = build(name, statistic), input_of(name)[:0].requires_grad_()
    before = {key: value.clone() for key, value in module.state_dict().items() if key != "num_batches_tracked"}
    y = module(x)
    y.sum().backward()
    assert y.shape == x.shape == x.grad.shape
    assert all(p.grad is not None and not p.grad.any() for p in module.parameters())
    assert all(torch.equal(module.state_dict()[key], value) for key, value in before.items())


@every_other
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_stays_in_its_group(statistic, bad):
    module, x = build("batch-2d", statistic), input_of("batch-2d")
    x[1, 2, 0, 0] = bad
    broken = ~module(x).isfinite().flatten(2).all(2).all(0)
    assert broken.tolist() == [False, False, True, False]


# ---------------------------------------------------------------------------------------------------- settings


@every_statistic
@pytest.mark.parametrize("name", PAIRS)
def test_copies_and_pickles_compute_the_same(name, statistic):
    module, x = build(name, statistic), input_of(name)
    module(x)
    module.eval()
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):  # noqa: S301  # our own bytes
        assert torch.equal(twin(x), module(x))
        assert repr(twin) == repr(module)


@pytest.mark.parametrize("name", ["batch-2d", "layer", "rms", "group", "instance-2d"])
def test_the_choice_is_shown(name):
    assert repr(build(name, "linf", constant="paper")).endswith("statistic=linf, constant=paper)")
    assert repr(build(name, "topk")).endswith(f"statistic=topk, constant=exact, k={K})")


@pytest.mark.parametrize("cls", [ours.BatchNorm1d, ours.LayerNorm, ours.RMSNorm, ours.InstanceNorm1d])
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"statistic": "l3"}, "unknown statistic 'l3': did you mean "),
        ({"statistic": "topp"}, "did you mean topk"),
        ({"constant": "precise"}, "constant must be exact or paper, received 'precise'"),
        ({"k": 0}, "k must be an integer of at least 1, received 0"),
        ({"k": 2.5}, r"k must be an integer of at least 1, received 2\.5"),
        ({"eps": -1e-5}, "eps must be finite and not negative, received -1e-05"),
        ({"eps": float("nan")}, "eps must be finite and not negative, received nan"),
    ],
)
def test_settings_that_cannot_be_are_refused(cls, settings, message):
    with pytest.raises(UsageError, match=message):
        cls(8, **settings)


@pytest.mark.parametrize(
    ("name", "n"), [("batch-2d", 60), ("group", 24), ("layer", 7), ("rms", 7), ("instance-2d", 12)]
)
def test_more_deviations_than_elements_are_refused(name, n):
    module, x = build(name, "topk"), input_of(name)
    module.k = n
    module(x)
    module.k = n + 1
    with pytest.raises(UsageError, match=f"k = {n + 1} largest deviations of a group, received groups of n = {n} "):
        module(x)


@pytest.mark.parametrize("statistic", ["linf", "range"])
def test_a_row_of_one_element_has_no_constant(statistic):
    with pytest.raises(UsageError, match="undefined for groups of n = 1 element"):
        ours.LayerNorm(1, statistic=statistic)(torch.ones(3, 1))


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("batch-1d", (2, 4, 3, 3), r"expected 2D or 3D input \(got 4D input\)"),
        ("batch-2d", (2, 4, 3), r"expected 4D input \(got 3D input\)"),
        ("batch-3d", (2, 4, 3), r"expected 5D input \(got 3D input\)"),
        ("instance-1d", (4, 3), r"expected 3D input \(got 2D input\)"),
        ("batch-2d", (2, 5, 3, 3), r"expected 4 channels in dimension 1, received an input of shape \[2, 5, 3, 3\]"),
        ("group", (2, 6, 3), r"expected 4 channels in dimension 1, received an input of shape \[2, 6, 3\]"),
        ("layer", (2, 6), r"expected an input of shape \(\.\.\., 7.*\), received shape \[2, 6\]"),
        ("layer-two", (4, 3), r"expected an input of shape \(\.\.\., 3, 4\), received shape \[4, 3\]"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(name, shape, message):
    with pytest.raises(UsageError, match=message):
        build(name, "l1")(torch.ones(shape, dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.int64, torch.complex64])
@pytest.mark.parametrize("train", [True, False])
def test_what_is_no_real_number_is_refused(dtype, train):
    for module in (ours.L1BatchNorm2d(4), ours.MeanOnlyBatchNorm2d(4)):
        with pytest.raises(UsageError, match=f"expected floating-point input, received {dtype}"):
            module.train(train)(torch.ones(2, 4, 3, 3, dtype=dtype))


def test_groups_that_do_not_divide_the_channels_are_refused():
    with pytest.raises(UsageError, match="num_channels must be a multiple of num_groups, received 6 and 4"):
        ours.GroupNorm(4, 6, statistic="l1")


@pytest.mark.parametrize(("name", "shape"), [("batch-rows", (1, 4)), ("group", (1, 2)), ("instance-1d", (2, 4, 1))])
@every_statistic
def test_one_element_a_group_is_refused_as_torch_does(name, shape, statistic):
    x = torch.ones(shape, dtype=torch.float64)
    module = ours.GroupNorm(2, 2, statistic=statistic) if name == "group" else build(name, statistic)
    with pytest.raises(ValueError, match=r"(?i)expected more than 1 (value per|spatial element)"):
        module(x.to(next(module.parameters()).dtype))
