"""`EmulatedPrecision`: its norms are `normcheck.emulate`'s and the analysis' backward pass, bit by bit."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch

import normcheck
from normcheck import nn
from normcheck.analysis.engine import drawn
from normcheck.analysis.study import Runner, Study
from normcheck.arithmetic.emulated import Emulated, Machine
from normcheck.arithmetic.formats import FLOAT32, format_named
from normcheck.arithmetic.rounding import Rounding
from normcheck.arithmetic.values import Elements
from normcheck.errors import UsageError
from normcheck.layers.sources import Given
from normcheck.norms.backward import backward, gradient_machine
from normcheck.norms.constants import scale_of
from normcheck.norms.forward import forward
from normcheck.norms.implementations import IMPLEMENTATIONS, Implementation
from normcheck.norms.parameters import Parameters
from normcheck.norms.table import grouping

STATISTICS = ("l2", "l1", "linf", "topk", "range")
SHAPES = {"batch": (6, 4, 5, 3), "group": (3, 4, 5, 3), "instance": (3, 4, 5, 3), "layer": (9, 24), "rms": (9, 24)}


def norm_of(where, statistic="l2", **more):
    """A norm with parameters that are none of half precision, and running statistics, where it has such."""
    make = {
        "batch": lambda: nn.BatchNorm2d(4, statistic=statistic, k=3, **more),
        "group": lambda: nn.GroupNorm(2, 4, statistic=statistic, k=3, **more),
        "instance": lambda: nn.InstanceNorm2d(4, affine=True, statistic=statistic, k=3, **more),
        "layer": lambda: nn.LayerNorm(24, statistic=statistic, k=3, **more),
        "rms": lambda: nn.RMSNorm(24, eps=1e-5, statistic=statistic, k=3, **more),
    }[where]
    module = make()
    torch.manual_seed(1)
    with torch.no_grad():
        for tensor in (*module.parameters(), *module.buffers()):
            if tensor.is_floating_point():
                tensor.uniform_(0.5, 1.5)
    return module


def tensor_of(where, *, seed=0, scale=3.0, dtype=torch.float32):
    return torch.randn(SHAPES[where], generator=torch.Generator().manual_seed(seed)).to(dtype) * scale


def vector(tensor):
    return None if tensor is None else tensor.detach().double().numpy()


def as_emulated(module, where, x, *, mode="train", **how):
    """The same by `normcheck.emulate`; running statistics of batch norms included."""
    more = {"weight": vector(module.weight), "bias": vector(getattr(module, "bias", None))}
    if where == "batch":
        running = getattr(module, module.running_key)
        more |= {"running_mean": vector(module.running_mean), "running_var": vector(running)}
    if where == "group":
        more["num_groups"] = module.num_groups
    return normcheck.emulate(
        x.numpy(), module.norm.name, eps=module.eps, k=module.k, params="stored", mode=mode, **more, **how
    )


# --------------------------------------------------------------------------------------------------- forward


@pytest.mark.parametrize("where", SHAPES)
@pytest.mark.parametrize("statistic", STATISTICS)
def test_the_forward_pass_is_emulates_bit_for_bit(where, statistic):
    module, x = norm_of(where, statistic), tensor_of(where)
    for name in IMPLEMENTATIONS:
        wanted = as_emulated(module, where, x, precision="fp16", implementation=name)
        wrapped = nn.EmulatedPrecision(copy.deepcopy(module), name, "fp16")
        np.testing.assert_array_equal(wrapped(x).detach().numpy(), wanted.output, err_msg=name)
        if where == "batch":
            np.testing.assert_array_equal(wrapped.module.running_mean, wanted.running_mean.astype(np.float32))
            kept = getattr(wrapped.module, module.running_key)
            np.testing.assert_array_equal(kept, wanted.running_var.astype(np.float32))
            assert wrapped.module.num_batches_tracked == module.num_batches_tracked + 1


@pytest.mark.parametrize("precision", ["bf16", "float8_e4m3fn", "tf32"])
def test_the_forward_pass_is_emulates_in_other_precisions(precision):
    module, x = norm_of("batch"), tensor_of("batch")
    wanted = as_emulated(module, "batch", x, precision=precision, implementation="pure")
    np.testing.assert_array_equal(nn.EmulatedPrecision(module, "pure", precision)(x).detach(), wanted.output)


@pytest.mark.parametrize("statistic", STATISTICS)
def test_evaluation_divides_by_the_running_statistics(statistic):
    module, x = norm_of("batch", statistic).eval(), tensor_of("batch")
    wanted = as_emulated(module, "batch", x, mode="eval", precision="fp16", implementation="pure")
    before = copy.deepcopy(module.state_dict())
    wrapped = nn.EmulatedPrecision(module, "pure", "fp16")
    np.testing.assert_array_equal(wrapped(x).detach(), wanted.output)
    assert all(torch.equal(before[key], value) for key, value in module.state_dict().items())


@pytest.mark.parametrize("where", ["batch", "group", "layer"])
def test_stochastic_rounding_has_the_same_bits_for_any_number_of_threads(where, monkeypatch):
    monkeypatch.setattr("normcheck.analysis.study.BLOCK", 64)  # several blocks, which threads may take in any order

    def run(jobs, seed):
        module, x = norm_of(where), tensor_of(where).requires_grad_()
        wrapped = nn.EmulatedPrecision(module, "pure", "fp16", rounding="stochastic", seed=seed, jobs=jobs)
        outs = []
        for _ in range(2):
            y = wrapped(x)
            y.backward(tensor_of(where, seed=5))
            outs.append(y.detach().clone())
        return (*outs, x.grad, *(p.grad for p in module.parameters()))

    one, two, other = run(1, 3), run(2, 3), run(1, 4)
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    assert not torch.equal(one[0], other[0])
    assert not torch.equal(one[0], one[1]), "each step has random bits of its own"


def test_stochastic_rounding_in_training_does_not_depend_on_evaluation_between():
    def run(*, looks):
        wrapped = nn.EmulatedPrecision(norm_of("layer"), "pure", "fp16", rounding="stochastic", seed=1)
        x, out = tensor_of("layer"), []
        for _ in range(2):
            out.append(wrapped(x).detach())
            if looks:
                wrapped.eval()(x)
                wrapped.train()
        return out

    assert all(torch.equal(a, b) for a, b in zip(run(looks=False), run(looks=True), strict=True))


# -------------------------------------------------------------------------------------------------- backward


def by_the_engine(module, x, gradient, name, *, weight, bias):
    """dx, and the gradients of gamma and beta that rows own, by the engine's steps as the analysis runs them."""
    norm, io, how = module.norm, format_named("fp16"), IMPLEMENTATIONS[name]
    group = grouping(norm, x.shape, getattr(module, "num_groups", None))
    scale, k = scale_of(norm, "exact", group.size, module.k)
    parameters = Parameters(weight, bias, form=FLOAT32)
    machine = how.machine(io, FLOAT32, Rounding())
    study = Study(
        norm, group, io, Given.of(x, group), module.eps, scale, k or 1, parameters, parameters, (Runner(how, machine),)
    )
    size = (group.groups, group.size)
    loaded = Emulated(Machine({"load": io}, {}), *size).load(drawn(study, 0, group.groups))
    problem = study.problem(parameters, 0, group.groups, FLOAT32)
    outputs = forward(Emulated(machine, *size), loaded, problem, how)
    a = Emulated(gradient_machine(machine), *size)
    return backward(a, Elements.of(Given.of(gradient, group).rows), loaded, outputs, problem, how), group


@pytest.mark.parametrize("where", SHAPES)
@pytest.mark.parametrize("statistic", STATISTICS)
def test_the_backward_pass_is_the_analysis_own_bit_for_bit(where, statistic):
    gradient = tensor_of(where, seed=2, scale=1.0)
    for name in IMPLEMENTATIONS:
        module, x = norm_of(where, statistic), tensor_of(where).requires_grad_()
        weight, bias = vector(module.weight), vector(getattr(module, "bias", None))
        wanted, group = by_the_engine(module, x.detach().numpy(), gradient.numpy(), name, weight=weight, bias=bias)
        nn.EmulatedPrecision(module, name, "fp16")(x).backward(gradient)
        rows = Given.of(x.grad.numpy(), group).rows
        np.testing.assert_array_equal(rows, wanted.x.part(0), err_msg=name)
        if where == "batch":
            np.testing.assert_array_equal(module.weight.grad, wanted.weight.data[:, 0].astype(np.float32))
            np.testing.assert_array_equal(module.bias.grad, wanted.bias.data[:, 0].astype(np.float32))


def gradients(module, x, gradient):
    x = x.clone().requires_grad_()
    y = module(x)
    y.backward(gradient)
    return [y.detach(), x.grad, *(p.grad for p in module.parameters())]


@pytest.mark.parametrize("where", SHAPES)
@pytest.mark.parametrize("statistic", STATISTICS)
@pytest.mark.parametrize("training", [True, False])
def test_in_double_precision_both_passes_are_torchs(where, statistic, training):
    module = norm_of(where, statistic).double().train(training)
    x, gradient = tensor_of(where, dtype=torch.float64), tensor_of(where, seed=2, dtype=torch.float64)
    wanted = gradients(copy.deepcopy(module), x, gradient)
    for name in ("pure", "pure-scaled", "wide"):
        got = gradients(nn.EmulatedPrecision(copy.deepcopy(module), name, "fp64"), x, gradient)
        for mine, theirs in zip(got, wanted, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-10)


TORCHS = {
    "BatchNorm1d": (lambda: torch.nn.BatchNorm1d(4), (7, 4)),
    "BatchNorm2d": (lambda: torch.nn.BatchNorm2d(4, momentum=None), (3, 4, 2, 2)),
    "BatchNorm3d": (lambda: torch.nn.BatchNorm3d(4, affine=False), (3, 4, 2, 2, 2)),
    "BatchNorm2d, no running": (lambda: torch.nn.BatchNorm2d(4, track_running_stats=False), (3, 4, 2, 2)),
    "LayerNorm": (lambda: torch.nn.LayerNorm((4, 5)), (2, 3, 4, 5)),
    "LayerNorm, no bias": (lambda: torch.nn.LayerNorm(5, bias=False), (3, 5)),
    "GroupNorm": (lambda: torch.nn.GroupNorm(2, 4), (3, 4, 6)),
    "InstanceNorm1d": (lambda: torch.nn.InstanceNorm1d(4, affine=True), (3, 4, 6)),
    "InstanceNorm1d, no batch": (lambda: torch.nn.InstanceNorm1d(4), (4, 6)),
    "InstanceNorm2d": (lambda: torch.nn.InstanceNorm2d(4, affine=True, track_running_stats=True), (3, 4, 3, 2)),
    "RMSNorm": (lambda: torch.nn.RMSNorm(5), (3, 5)),
}


@pytest.mark.parametrize("name", TORCHS)
@pytest.mark.parametrize("training", [True, False])
def test_norms_of_torch_are_torchs_in_double_precision(name, training):
    make, shape = TORCHS[name]
    torch.manual_seed(3)
    module = make().double()
    x = 1 + 2 * torch.randn(shape, dtype=torch.float64)
    wanted, got = copy.deepcopy(module), nn.EmulatedPrecision(copy.deepcopy(module), "pure", "fp64")
    for _ in range(2):  # running statistics twice: the second time they are not the initial ones
        wanted.train(), got.train()
        a, b = gradients(wanted, x, x.sin()), gradients(got, x, x.sin())
        wanted.train(training), got.train(training)
        a, b = a + gradients(wanted, x, x.cos()), b + gradients(got, x, x.cos())
        for mine, theirs in zip(b, a, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-10)
    for key, value in wanted.state_dict().items():
        torch.testing.assert_close(got.module.state_dict()[key], value, rtol=1e-10, atol=1e-10)


def test_shared_gradients_are_rounded_sums_in_the_norms_own_order():
    module, x, gradient = norm_of("layer"), tensor_of("layer"), tensor_of("layer", seed=2)
    nn.EmulatedPrecision(module, "pure-sequential", "fp16")(x).backward(gradient)
    total = np.zeros(24, np.float16)
    for row in gradient.numpy().astype(np.float16):
        total = total + row
    np.testing.assert_array_equal(module.bias.grad, total.astype(np.float32))


# ------------------------------------------------------------------------------------------------- what it is


class Net(torch.nn.Module):
    """A small network with two norms, one nested."""

    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(1, 4, 3, bias=False)
        self.bn = nn.BatchNorm2d(4, statistic="l1")
        self.tail = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(144, 6), torch.nn.LayerNorm(6))

    def forward(self, x):
        return self.tail(torch.relu(self.bn(self.conv(x))))


def test_it_leaves_the_module_as_it_is():
    torch.manual_seed(0)
    net, x = Net(), torch.randn(5, 1, 8, 8)
    plain, wrapped = net.eval()(x), nn.EmulatedPrecision(net, "pure", "fp16")
    assert [f"module.{key}" for key in net.state_dict()] == list(wrapped.state_dict())
    assert not torch.equal(wrapped(x), plain)
    assert torch.equal(wrapped.module(x), plain)
    assert "forward" not in net.bn.__dict__
    with pytest.raises(UsageError, match="layer bn"):
        wrapped.train()(x.half().float()[:0].new_zeros(1, 1, 3, 3))
    assert torch.equal(wrapped.module.eval()(x), plain), "after an error too"


def test_it_can_be_copied_and_pickled():
    torch.manual_seed(0)
    wrapped, x = nn.EmulatedPrecision(Net(), "pure", "fp16").eval(), torch.randn(5, 1, 8, 8)
    y = wrapped(x)
    other = copy.deepcopy(wrapped)
    assert torch.equal(other(x), y)
    assert torch.equal(pickle.loads(pickle.dumps(wrapped))(x), y)  # noqa: S301 - our own
    with torch.no_grad():
        other.module.bn.weight.zero_()
    assert not torch.equal(other(x), y)
    assert torch.equal(wrapped(x), y)


def test_norms_that_are_put_in_later_are_emulated():
    torch.manual_seed(0)
    wrapped, x = nn.EmulatedPrecision(Net(), "pure", "fp16").eval(), torch.randn(5, 1, 8, 8)
    wrapped.module.tail[2] = torch.nn.RMSNorm(6, eps=1e-5)
    wrapped(x)
    assert set(wrapped.events) == {"bn", "tail.2"}
    assert "sum-mean" not in wrapped.events["tail.2"], "an RMS norm is not centred"


def test_settings_are_those_of_the_module_when_it_runs():
    module, x = norm_of("batch", "topk"), tensor_of("batch")
    wrapped = nn.EmulatedPrecision(module, "pure", "fp16")
    module.eps, module.k, module.constant = 0.25, 5, "paper"
    wanted = as_emulated(module, "batch", x, precision="fp16", implementation="pure", constant="paper")
    np.testing.assert_array_equal(wrapped(x).detach(), wanted.output)


def test_a_mapping_gives_each_norm_its_own_implementation():
    torch.manual_seed(0)
    net, x = Net(), 300 * torch.randn(5, 1, 8, 8)
    wrapped = nn.EmulatedPrecision(net, {"tail.*": "pure", "batch-l1": "wide"}, "fp16")
    wrapped(x)
    assert wrapped.events["bn"]["sum"].format == "float32"
    assert wrapped.events["tail.2"]["sum"].format == "float16"
    some = nn.EmulatedPrecision(net, {"bn": None, "*": IMPLEMENTATIONS["pure"]}, "fp16")
    some(x)
    assert set(some.events) == {"tail.2"}


ONLY_LAYER = Implementation(name="mine", title="for layer norms", norms=("layer-l2",))
REFUSED = {
    "an unknown name": (lambda: nn.EmulatedPrecision(Net(), "pur"), "unknown implementation 'pur'"),
    "a key that fits nothing": (
        lambda: nn.EmulatedPrecision(Net(), {"head.*": "pure", "*": "wide"}),
        r"'head\.\*' fits no norm of the module; it has bn \(batch-l1\), tail.2 \(layer-l2\)",
    ),
    "a norm without a key": (lambda: nn.EmulatedPrecision(Net(), {"bn": "pure"}), "no key fits tail.2"),
    "a norm it does not define": (
        lambda: nn.EmulatedPrecision(Net(), ONLY_LAYER),
        "layer bn: mine does not define batch-l1, only layer-l2; give this layer another one",
    ),
    "no norms": (lambda: nn.EmulatedPrecision(torch.nn.Linear(2, 2)), "Linear has no norms"),
    "a precision": (lambda: nn.EmulatedPrecision(Net(), "pure", "fp17"), "unknown format 'fp17'"),
    "a loss scale": (lambda: nn.EmulatedPrecision(Net(), loss_scale=0.0), "loss_scale must be finite and above 0"),
    "weights": (lambda: nn.EmulatedPrecision(Net(), weights="half"), "weights must be None, 'master' or 'low'"),
    "a constant": (lambda: nn.EmulatedPrecision(Net(), constant="mine"), "constant must be exact or paper"),
    "no steps": (lambda: nn.EmulatedPrecision(Net(), report_every=0), "report_every must be an integer of at least 1"),
    "on_report alone": (lambda: nn.EmulatedPrecision(Net(), on_report=print), "give report_every too"),
    "no threads": (lambda: nn.EmulatedPrecision(Net(), jobs=0), "jobs must be an integer of at least 1"),
    "double stochastic": (
        lambda: nn.EmulatedPrecision(Net(), precision="fp64", rounding="stochastic"),
        "float64 is what carries",
    ),
    "itself": (
        lambda: nn.EmulatedPrecision(torch.nn.Sequential(nn.EmulatedPrecision(Net()))),
        "0 is an EmulatedPrecision already",
    ),
    "no module": (lambda: nn.EmulatedPrecision(torch.relu), "expected a torch.nn.Module"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_is_refused_in_words(what):
    make, message = REFUSED[what]
    with pytest.raises(UsageError, match=message):
        make()


@pytest.mark.parametrize(
    ("dtype", "precision", "message"),
    [
        (torch.float16, "fp16", "layer bn: received a float16 input"),
        (torch.bfloat16, "fp16", "without autocast"),
        (torch.float32, "fp64", "layer bn: precision fp64 does not fit into the float32 input"),
    ],
)
def test_inputs_that_cannot_carry_the_emulation_are_refused(dtype, precision, message):
    net = torch.nn.Sequential()
    net.add_module("bn", torch.nn.BatchNorm1d(4))
    with pytest.raises(UsageError, match=message):
        nn.EmulatedPrecision(net, "wide", precision)(torch.ones(3, 4, dtype=dtype))


def test_halved_modules_and_wrong_shapes_are_refused():
    half = nn.EmulatedPrecision(torch.nn.Sequential(torch.nn.LayerNorm(4)).half())
    with pytest.raises(UsageError, match=r"layer 0: its parameters are float16; give a module in float32"):
        half(torch.ones(2, 4))
    one = nn.EmulatedPrecision(torch.nn.Sequential(torch.nn.LayerNorm(4), nn.BatchNorm1d(4)))
    with pytest.raises(UsageError, match=r"layer 0: expected an input of shape \(..., 4,\)"):
        one(torch.ones(2, 5))
    with pytest.raises(UsageError, match="layer 1: expected more than 1 value"):
        one(torch.ones(1, 4))


def test_an_empty_batch_gives_an_empty_output():
    module = norm_of("batch")
    assert nn.EmulatedPrecision(module)(torch.empty(0, 4, 2, 2)).shape == (0, 4, 2, 2)
    assert module.num_batches_tracked == 0


class HandWritten(torch.nn.Module):
    """An RMS norm as language models have it."""

    def __init__(self, size):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.linspace(0.5, 1.5, size))
        self.variance_epsilon = 1e-6

    def forward(self, x):
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon))


class HandWrittenNorm(HandWritten):
    """The same under a name by which it is looked at."""


def test_hand_written_norms_are_emulated():
    module, x = HandWrittenNorm(24), tensor_of("rms")
    wanted = normcheck.emulate(
        x.numpy(),
        "rms",
        precision="bf16",
        implementation="pure",
        eps=1e-6,
        params="stored",
        weight=vector(module.weight),
    )
    wrapped = nn.EmulatedPrecision(torch.nn.Sequential(module), "pure", "bf16")
    np.testing.assert_array_equal(wrapped(x).detach(), wanted.output)


def test_an_alias_picks_its_row_by_the_size_of_each_norm():
    torch.manual_seed(0)
    net, x = torch.nn.Sequential(torch.nn.LayerNorm(8), torch.nn.Linear(8, 7), torch.nn.LayerNorm(7)), torch.randn(5, 8)
    by_rows = {"0": "torch-cuda-layernorm-vec", "2": "torch-cuda-layernorm-fallback"}
    picked, named = (nn.EmulatedPrecision(net, how, "fp16") for how in ("torch-cuda", by_rows))
    assert torch.equal(picked(x), named(x))
    assert [site.implementation.name for site in picked._norms()] == list(by_rows.values())


def test_an_alias_picks_its_row_by_the_mode_of_each_call():
    net, x = torch.nn.Sequential(torch.nn.BatchNorm2d(4)), tensor_of("batch")
    wrapped, used = nn.EmulatedPrecision(net, "torch-cpu", "fp32"), []
    for training in (True, False, True):
        wrapped.train(training)(x)
        used += [site.implementation.name for site in wrapped._norms()]
    assert used == ["torch-cpu-batchnorm-fp32", "torch-cpu-batchnorm-eval", "torch-cpu-batchnorm-fp32"]


def test_an_alias_picks_its_row_by_the_positions_of_each_call():
    wrapped = nn.EmulatedPrecision(torch.nn.GroupNorm(2, 4), "torch-cpu-groupnorm-channels-last", "fp32")
    used = []
    for side in (4, 32):
        wrapped(torch.randn(1, 4, side, side))
        used += [site.implementation.name for site in wrapped._norms()]
    assert used == ["torch-cpu-groupnorm-channels-last-fp32", "torch-cpu-groupnorm-channels-last-large-fp32"]


def test_a_size_that_no_row_is_for_is_refused_at_the_call():
    wrapped = nn.EmulatedPrecision(torch.nn.Sequential(torch.nn.LayerNorm(7)), "torch-cuda-layernorm-vec", "fp16")
    with pytest.raises(
        UsageError, match=r"layer 0: .* takes rows of a multiple of 4 elements, not of 7; give this layer"
    ):
        wrapped(torch.randn(2, 7))


def test_transformer_encoders_call_their_norms_in_evaluation_too():
    layer = torch.nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    wrapped = nn.EmulatedPrecision(layer, "pure", "fp16").eval()
    with torch.no_grad():
        wrapped(torch.randn(2, 3, 8))
    assert set(wrapped.events) == {"norm1", "norm2"}


def test_a_norm_that_is_called_twice_has_both_calls_gradients():
    module = norm_of("layer")
    x, other = tensor_of("layer"), tensor_of("layer", seed=4)
    gradient = tensor_of("layer", seed=5)

    def grad_of(*inputs):
        wrapped = nn.EmulatedPrecision(copy.deepcopy(module), "pure", "fp16")
        sum((wrapped(i) * gradient).sum() for i in inputs).backward()
        return wrapped.module.weight.grad

    torch.testing.assert_close(grad_of(x, other), grad_of(x) + grad_of(other), rtol=0, atol=0)


def test_the_input_may_be_overwritten_after_the_norm_has_seen_it():
    module = norm_of("layer")

    def run(*, overwrites):
        module.zero_grad()
        x = tensor_of("layer")
        y = nn.EmulatedPrecision(module, "pure", "fp16")(x)
        if overwrites:
            x.zero_()
        y.backward(tensor_of("layer", seed=2))
        return module.weight.grad.clone()

    assert torch.equal(run(overwrites=True), run(overwrites=False))
