"""The norms of live modules: torch's own, hand-written ones told apart by running them, names, memory, errors."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils.parametrizations import weight_norm

from normcheck.errors import UsageError
from normcheck.layers.live.modules import contents_of

if TYPE_CHECKING:
    from normcheck.layers.contents import Contents, Stated


def stated(module: nn.Module, **options: object) -> dict[str, Stated]:
    return {s.name: s for s in contents_of(module, **options).stated}


def only(module: nn.Module, **options: object) -> Stated:
    (one,) = contents_of(nn.ModuleDict({"norm": module}), **options).stated
    return one


def reasons(contents: Contents) -> dict[str, str]:
    return {o.name: o.reason for o in contents.omitted}


# ------------------------------------------------------------------------------------------------ torch's own


@pytest.mark.parametrize(
    ("module", "norm", "facts"),
    [
        (nn.BatchNorm1d(6, eps=1e-3), "batch-l2", {"eps": 1e-3, "momentum": 0.1, "spatial": None}),
        (
            nn.BatchNorm2d(6, momentum=None),
            "batch-l2",
            {"momentum": None, "spatial": True, "running_var": "norm.running_var"},
        ),
        (nn.BatchNorm3d(6, affine=False), "batch-l2", {"weight": None, "num_channels": 6, "spatial": True}),
        (nn.BatchNorm2d(6, track_running_stats=False), "batch-l2", {"running_mean": None, "running_var": None}),
        (nn.SyncBatchNorm(6), "batch-l2", {"weight": "norm.weight", "running_mean": "norm.running_mean"}),
        (nn.InstanceNorm1d(6), "instance-l2", {"weight": None, "running_mean": None, "num_channels": 6}),
        (
            nn.InstanceNorm2d(6, affine=True, track_running_stats=True),
            "instance-l2",
            {"weight": "norm.weight", "running_var": "norm.running_var"},
        ),
        (nn.LayerNorm(6), "layer-l2", {"weight": "norm.weight", "bias": "norm.bias", "normalized_shape": (6,)}),
        (nn.LayerNorm((2, 3), bias=False), "layer-l2", {"bias": None, "normalized_shape": (2, 3), "num_channels": 6}),
        (nn.LayerNorm(6, elementwise_affine=False), "layer-l2", {"weight": None, "bias": None, "num_channels": 6}),
        (nn.GroupNorm(3, 6), "group-l2", {"num_groups": 3, "num_channels": 6, "weight": "norm.weight"}),
        (nn.RMSNorm(6, eps=1e-6), "rms", {"eps": 1e-6, "bias": None, "normalized_shape": (6,)}),
    ],
)
def test_a_norm_of_torch_states_what_it_is(module: nn.Module, norm: str, facts: dict[str, object]) -> None:
    one = only(module)
    assert one.norm.name == norm
    assert one.how == f"module torch.nn.{type(module).__name__}"
    assert {name: getattr(one, name) for name in facts} == facts


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_eps_none_is_what_torch_computes_with(dtype: torch.dtype) -> None:
    """Told by torch's own output for an input so small that eps is most of the statistic."""
    one = only(nn.RMSNorm(8, dtype=dtype))
    x = torch.full((1, 8), 1e-5 if dtype != torch.float64 else 1e-9, dtype=dtype)
    y = functional.rms_norm(x, (8,))[0, 0].double().item()
    assert one.eps == pytest.approx((x[0, 0].double().item() / y) ** 2 - x[0, 0].double().item() ** 2, rel=0.02)
    assert "its eps is None" in one.how


def test_lazy_norms_are_known_once_they_have_run() -> None:
    model = nn.Sequential(nn.LazyBatchNorm2d())
    with pytest.raises(UsageError, match=r"'0\.weight' is not initialised yet: run the model once"):
        contents_of(model)
    model(torch.zeros(2, 5, 3, 3))
    assert stated(model)["0"].num_channels == 5


def test_a_subclass_is_named_with_what_it_derives_from() -> None:
    class BatchNormAct(nn.BatchNorm2d):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return functional.relu(super().forward(x))

    one = only(BatchNormAct(4))
    assert one.norm.name == "batch-l2"
    assert one.how.endswith("BatchNormAct, a torch.nn.BatchNorm2d")


def test_local_response_norm_is_left_out_with_its_reason() -> None:
    contents = contents_of(nn.Sequential(nn.LocalResponseNorm(2)))
    assert contents.stated == ()
    assert "neighbouring channels" in reasons(contents)["0"]


# ---------------------------------------------------------------------------------------------- hand-written


class LlamaRMSNorm(nn.Module):
    def __init__(self, size: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.variance_epsilon = eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        wide = x.float()
        wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)
        return self.weight * wide.to(x.dtype)


class T5LayerNorm(LlamaRMSNorm):
    """An RMS norm, whatever it is called."""


class GemmaRMSNorm(nn.Module):
    def __init__(self, size: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(size))
        self.eps = eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps) * (1 + self.weight)


class PlainLayerNorm(nn.Module):
    """Without an attribute that says its eps."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.gamma, self.beta = nn.Parameter(torch.ones(size)), nn.Parameter(torch.zeros(size))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        centred = x - x.mean(-1, keepdim=True)
        return self.gamma * centred / torch.sqrt(centred.pow(2).mean(-1, keepdim=True) + 1e-12) + self.beta


class BiaslessLayerNorm(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(size)), 1e-5

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (
            self.weight * (x - x.mean(-1, keepdim=True)) / torch.sqrt(x.var(-1, correction=0, keepdim=True) + self.eps)
        )


class ZeroCentredLayerNorm(BiaslessLayerNorm):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x - x.mean(-1, keepdim=True)
        return (1 + self.weight) * x / torch.sqrt(x.pow(2).mean(-1, keepdim=True) + self.eps)


class FunctionLayerNorm(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(size)), nn.Parameter(torch.zeros(size))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.layer_norm(x, self.weight.shape, self.weight, self.bias, 1e-4)


class OnePlusLayerNorm(nn.LayerNorm):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.layer_norm(x, self.normalized_shape, self.weight + 1, self.bias, self.eps)


class LayerNorm2d(nn.LayerNorm):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ChannelsFirstLayerNorm(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(size)), nn.Parameter(torch.zeros(size))
        self.eps = 1e-6

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        centred = x - x.mean(1, keepdim=True)
        x = centred / torch.sqrt(centred.pow(2).mean(1, keepdim=True) + self.eps)
        return self.weight[:, None, None] * x + self.bias[:, None, None]


class GatedRMSNorm(LlamaRMSNorm):
    def forward(self, x: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
        return super().forward(x) * functional.silu(gate)


class ScaleOnlyNorm(nn.Module):
    """No norm, in spite of its name."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(size)), 1e-5

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.weight


class FrozenBatchNorm2d(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        for name in ("weight", "bias", "running_mean", "running_var"):
            self.register_buffer(name, torch.ones(size))
        self.eps = 1e-5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("cls", "norm", "eps", "offset"),
    [
        (LlamaRMSNorm, "rms", 1e-6, 0),
        (T5LayerNorm, "rms", 1e-6, 0),
        (GemmaRMSNorm, "rms", 1e-6, 1),
        (PlainLayerNorm, "layer-l2", 1e-12, 0),
        (FunctionLayerNorm, "layer-l2", 1e-4, 0),
        (OnePlusLayerNorm, "layer-l2", 1e-5, 1),
        (ZeroCentredLayerNorm, "layer-l2", 1e-5, 1),
        (LayerNorm2d, "layer-l2", 1e-5, 0),
        (ChannelsFirstLayerNorm, "layer-l2", 1e-6, 0),
        (GatedRMSNorm, "rms", 1e-6, 0),
    ],
)
def test_a_hand_written_norm_is_what_it_computes(
    cls: type[nn.Module], norm: str, eps: float, offset: float, dtype: torch.dtype
) -> None:
    one = only(cls(8).to(dtype))
    assert (one.norm.name, one.eps, one.weight_offset) == (norm, eps, offset)
    assert one.weight in ("norm.weight", "norm.gamma")
    assert cls.__name__ in one.how
    assert ("could not be run" in one.how) == (cls is GatedRMSNorm)


@pytest.mark.parametrize("weight", [0.0, 1.0, -1.0])
def test_the_weights_of_the_moment_hide_nothing(weight: float) -> None:
    """With weights of 0 an RMS norm puts out what a layer norm does; the copy that runs has others."""
    for cls, norm, offset in ((LlamaRMSNorm, "rms", 0), (GemmaRMSNorm, "rms", 1), (BiaslessLayerNorm, "layer-l2", 0)):
        module = cls(8)
        nn.init.constant_(module.weight, weight)
        one = only(module)
        assert (one.norm.name, one.weight_offset) == (norm, offset)
        assert module.weight.tolist() == [weight] * 8


def test_what_computes_no_norm_is_left_out_with_its_reason() -> None:
    contents = contents_of(nn.ModuleDict({"a": ScaleOnlyNorm(8)}))
    assert contents.stated == ()
    assert "neither a layer norm's nor an RMS norm's" in reasons(contents)["a"]


def test_a_subclass_that_cannot_be_run_is_what_it_derives_from() -> None:
    class Adaptive(nn.LayerNorm):
        def forward(self, x: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
            return super().forward(x) * condition

    one = only(Adaptive(8, eps=1e-3))
    assert (one.norm.name, one.eps, one.weight) == ("layer-l2", 1e-3, "norm.weight")
    assert one.how.endswith("Adaptive, a torch.nn.LayerNorm")


def test_what_a_module_does_in_training_alone_does_not_hide_the_norm() -> None:
    class DropoutRMSNorm(LlamaRMSNorm):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return functional.dropout(super().forward(x), 0.5, self.training)

    assert only(DropoutRMSNorm(8).train()).norm.name == "rms"


def test_what_is_too_large_for_a_norm_is_not_run() -> None:
    class NormalizedEmbedding(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(2**11, 2**10))

        def forward(self, _: torch.Tensor) -> torch.Tensor:
            pytest.fail("it was run")

    contents = contents_of(nn.Sequential(NormalizedEmbedding()))
    assert contents.stated == ()
    assert "it has 2097152 parameters, more than any norm" in reasons(contents)["0"]


def test_a_frozen_batch_norm_is_a_batch_norm() -> None:
    one = only(FrozenBatchNorm2d(4))
    assert (one.norm.name, one.eps, one.running_var) == ("batch-l2", 1e-5, "norm.running_var")


def test_a_norm_of_no_parameters_and_no_size_is_left_to_recording() -> None:
    class UnitRMSNorm(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)

    contents = contents_of(nn.ModuleDict({"a": UnitRMSNorm()}))
    assert contents.stated == ()
    assert "record its inputs" in reasons(contents)["a"]
    sized = UnitRMSNorm()
    sized.dim = 12
    assert (only(sized).num_channels, only(sized).normalized_shape) == (12, (12,))


def test_looking_leaves_no_trace() -> None:
    """No hook of the user's runs, nothing is drawn from torch's random numbers, weights, mode and gradients stay."""
    model = nn.Sequential(LlamaRMSNorm(8), GemmaRMSNorm(8), OnePlusLayerNorm(8)).train()
    model[0].register_forward_hook(lambda *_: pytest.fail("the user's hook ran"))
    before, draws = copy.deepcopy(model.state_dict()), torch.random.get_rng_state()
    assert len(contents_of(model).stated) == 3
    assert torch.equal(draws, torch.random.get_rng_state())
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(module.training for module in model.modules())
    assert all(p.grad is None for p in model.parameters())


# ----------------------------------------------------------------------------------------------------- match


class Odd(nn.Module):
    """Not recognised: nothing in its name says norm."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.g, self.epsilon = nn.Parameter(torch.zeros(size)), 1e-4

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x / torch.sqrt(x.pow(2).mean(-1, keepdim=True) + self.epsilon) * (1 + self.g)


@pytest.mark.parametrize(
    "match", [{"Odd": "rms"}, {Odd: "rmsnorm"}, {f"{__name__}.Odd": "rms"}, lambda m: "rms" if type(m) is Odd else None]
)
def test_match_names_a_norm_and_running_it_tells_the_rest(match: object) -> None:
    assert contents_of(nn.Sequential(Odd(6))).stated == ()
    one = only(Odd(6), match=match)
    assert (one.norm.name, one.weight, one.eps, one.weight_offset) == ("rms", "norm.g", 1e-4, 1)
    assert one.how.endswith("Odd, matched as rms")


def test_match_wins_over_what_is_seen() -> None:
    one = only(ScaleOnlyNorm(8), match={"ScaleOnlyNorm": "layer-l1"})
    assert (one.norm.name, one.weight, one.eps) == ("layer-l1", "norm.weight", 1e-5)
    one = only(T5LayerNorm(8), match={T5LayerNorm: "layer"})
    assert (one.norm.name, one.weight, one.eps) == ("layer-l2", "norm.weight", 1e-6)


@pytest.mark.parametrize(
    ("match", "message"),
    [
        ({"Od": "rms"}, r"no module of class 'Od'; its classes are Odd, Sequential"),
        ({"Odd": "rsm"}, r"unknown norm 'rsm': did you mean rms"),
        ("Odd", r"match: expected a mapping or a function, received str"),
    ],
)
def test_a_wrong_match_is_one_line(match: object, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        contents_of(nn.Sequential(Odd(6)), match=match)
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------------------------------------- names, tensors


def test_a_module_under_two_names_is_stated_once_and_its_tensors_share_their_storage() -> None:
    norm = nn.LayerNorm(4)
    contents = contents_of(nn.ModuleDict({"a": norm, "b": norm, "c": nn.LayerNorm(4)}))
    assert [s.name for s in contents.stated] == ["a", "c"]
    storages = {name: contents.tensors[f"{name}.weight"].storage for name in "abc"}
    assert storages["a"] == storages["b"] != storages["c"]
    assert contents.tensors["a.weight"].storage != contents.tensors["a.bias"].storage


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.float8_e4m3fn])
def test_tensors_are_read_exactly(dtype: torch.dtype) -> None:
    norm = nn.LayerNorm(64)
    norm.weight.data = torch.randn(64, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)
    tensor = contents_of(norm).tensors["weight"]
    loaded = tensor.load()
    assert (tensor.shape, tensor.dtype) == ((64,), str(dtype).removeprefix("torch."))
    assert loaded.dtype == (np.float64 if dtype == torch.float64 else np.float32)
    assert np.array_equal(loaded, norm.weight.detach().double().numpy())
    loaded[:] = 0
    assert norm.weight.detach().float().abs().max() > 0


def test_weight_norms_and_counters_are_tensors_too() -> None:
    with pytest.warns(FutureWarning):
        old = nn.utils.weight_norm(nn.Linear(3, 4))
    contents = contents_of(nn.Sequential(weight_norm(nn.Linear(3, 4)), old, nn.BatchNorm1d(4)))
    assert {"0.parametrizations.weight.original0", "0.parametrizations.weight.original1"} <= set(contents.tensors)
    assert {"1.weight_g", "1.weight_v"} <= set(contents.tensors)
    assert contents.tensors["2.num_batches_tracked"].dtype == "int64"
    assert [s.name for s in contents.stated] == ["2"]
    assert contents.omitted == ()


def test_a_parametrised_weight_is_there_as_the_norm_sees_it() -> None:
    class Double(nn.Module):
        def forward(self, w: torch.Tensor) -> torch.Tensor:
            return 2 * w

    norm = nn.LayerNorm(3)
    nn.utils.parametrize.register_parametrization(norm, "weight", Double())
    contents = contents_of(nn.Sequential(norm))
    (one,) = contents.stated
    assert one.weight is not None
    assert contents.tensors[one.weight].load().tolist() == [2, 2, 2]


@pytest.mark.parametrize("wrap", [nn.DataParallel, lambda m: torch.compile(m, backend="eager")])
def test_wrappers_leave_no_trace_in_names(wrap: object) -> None:
    model = nn.Sequential(nn.LayerNorm(4), nn.Sequential(nn.RMSNorm(4, eps=1e-6)))
    contents = contents_of(wrap(model))
    assert [s.name for s in contents.stated] == ["0", "1.0"]
    assert set(contents.tensors) == set(model.state_dict())


def test_a_compiled_submodule_keeps_its_name() -> None:
    norm, within = nn.LayerNorm(4), nn.Sequential(nn.LayerNorm(4))
    compiled = {"a": torch.compile(norm, backend="eager"), "b": torch.compile(within, backend="eager")}
    contents = contents_of(nn.ModuleDict({**compiled, "again": norm}))
    assert [(s.name, s.weight) for s in contents.stated] == [("a", "a.weight"), ("b.0", "b.0.weight")]
    assert {name for name in contents.tensors if name.endswith("weight")} == {"a.weight", "b.0.weight", "again.weight"}


def test_a_norm_alone_goes_by_its_class() -> None:
    (one,) = contents_of(nn.LayerNorm(4)).stated
    assert (one.name, one.weight) == ("LayerNorm", "weight")


def test_extra_state_is_no_tensor() -> None:
    class Extra(nn.LayerNorm):
        def get_extra_state(self) -> dict[str, int]:
            return {"version": 3}

        def set_extra_state(self, state: dict[str, int]) -> None:
            raise NotImplementedError

    assert set(contents_of(Extra(4)).tensors) == {"weight", "bias"}


# ----------------------------------------------------------------------------------------------------- errors


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_what_cannot_be_seen_is_refused_in_one_line() -> None:
    with torch.device("meta"):
        meta = nn.Sequential(nn.LayerNorm(4))
    scripted = torch.jit.script(nn.Sequential(nn.LayerNorm(4)))
    for module, message in (
        (meta, "meta device and has no values: load the weights first"),
        (scripted, "the model is scripted"),
        (nn.ModuleDict({"a": scripted}), "module 'a' is scripted"),
        ({"weight": torch.ones(3)}, "expected a torch.nn.Module, received dict"),
    ):
        with pytest.raises(UsageError, match=message) as caught:
            contents_of(module)
        assert "\n" not in str(caught.value)


# ---------------------------------------------------------------------------------------- tensors of other kinds


class WithGraph(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4)
        self.register_buffer("adjacency", torch.eye(3).to_sparse())


def test_sparse_tensors_beside_the_norms_are_left_alone() -> None:
    contents = contents_of(WithGraph())
    assert set(contents.tensors) == {"norm.weight", "norm.bias"}
    assert [s.name for s in contents.stated] == ["norm"]


def test_a_weight_that_is_a_lazily_negated_view_is_read() -> None:
    module = nn.LayerNorm(4)
    view = torch.randn(4, dtype=torch.complex64, generator=torch.Generator().manual_seed(0)).conj().imag
    assert view.is_neg()
    module.weight = nn.Parameter(view)
    np.testing.assert_array_equal(contents_of(module).tensors["weight"].load(), view.resolve_neg().numpy())
