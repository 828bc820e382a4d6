"""Recording: what is seen, what is kept of it in how much memory, that the model notices nothing, files."""

from __future__ import annotations

import contextlib
import copy
import json
import threading
import tracemalloc
from collections import Counter

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import nn
from torch.nn import functional

from normcheck.errors import UsageError
from normcheck.layers.activations import read_activations
from normcheck.layers.live import sampling
from normcheck.layers.live.recording import record


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=generator(seed))


class RMSNorm(nn.Module):
    """Written by hand, without any norm function."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(size)), 1e-6

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.weight * (x * torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True) + self.eps)).to(x.dtype)


class InPlaceRMSNorm(RMSNorm):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mul_(torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps)).mul_(self.weight)


class CNN(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm1 = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)
        self.norm2, self.norm3 = nn.GroupNorm(2, 8), nn.InstanceNorm2d(8)
        self.head, self.norm4 = nn.Linear(8, 6), nn.BatchNorm1d(6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.relu(self.norm1(self.conv(x)))
        return self.norm4(self.head(self.norm3(self.norm2(x)).mean((2, 3)) + x.amax((2, 3))))


class Block(nn.Module):
    """A transformer's, with a norm of each sort."""

    def __init__(self, size: int = 16) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(size), RMSNorm(size)
        self.attention = nn.MultiheadAttention(size, 2, batch_first=True)
        self.gain = nn.Parameter(torch.ones(size))
        self.linear = nn.Linear(size, size)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attention(*[self.norm1(x)] * 3, need_weights=False)[0]
        x = x + functional.layer_norm(self.linear(x), (x.shape[-1],), self.gain, None, 1e-4)
        x = x + functional.layer_norm(x * 3, (x.shape[-1],))
        return torch.rms_norm(self.norm2(x), (x.shape[-1],))


class Transformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Block(), Block()])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = block(x)
        return x


def made(cls: type[nn.Module]) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return cls()


def inputs_by_hooks(model: nn.Module, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """The first argument of every module of the model, seen independently."""
    seen, handles = {}, []
    for name, module in model.named_modules():
        handles.append(
            module.register_forward_pre_hook(lambda _, args, name=name: seen.update({name: args[0].clone()}))
        )
    with torch.no_grad():
        model(x)
    for handle in handles:
        handle.remove()
    return seen


# ------------------------------------------------------------------------------------------------ what is seen


def test_a_batch_norm_network_is_recorded_in_torchs_layout() -> None:
    model, x = made(CNN).eval(), randn(4, 3, 10, 10)
    seen = inputs_by_hooks(model, x)
    with torch.no_grad(), record(model) as recording:
        model(x)
    kept = recording.activations
    assert {n: a.shape for n, a in kept.items()} == {
        "norm1": (4, 8, 64),
        "norm2": (4, 8, 64),
        "norm3": (4, 8, 64),
        "norm4": (4, 6),
    }
    for name, array in kept.items():
        assert array.dtype == np.float32
        assert np.array_equal(array, seen[name].reshape(array.shape).numpy())


def test_a_transformers_modules_and_functions_are_recorded() -> None:
    model, x = made(Transformer).eval(), randn(3, 5, 16)
    seen = inputs_by_hooks(model, x)
    with torch.no_grad(), record(model) as recording:
        model(x)
        model(x)
    names = [
        f"blocks.{i}{n}" for i in (0, 1) for n in (".norm1", ".norm2", ":layer_norm", ":layer_norm.2", ":rms_norm")
    ]
    assert sorted(recording.layers) == sorted(names)
    for name, layer in recording.layers.items():
        assert layer.functional == (":" in name)
        assert (layer.calls, layer.elements, layer.shape) == (2, 2 * 240, (30, 16))
    first = recording.activations["blocks.1.norm1"][:15]
    assert np.array_equal(first, seen["blocks.1.norm1"].reshape(15, 16).numpy())
    linear = model.blocks[0].linear(seen["blocks.0.linear"]).detach().reshape(15, 16).numpy()
    assert np.array_equal(recording.activations["blocks.0:layer_norm"][:15], linear)


def test_a_function_is_stated_as_a_norm_of_its_own() -> None:
    model = made(Transformer).eval()
    with record(model) as recording:
        model(randn(3, 5, 16))
    one = recording.layers["blocks.0:layer_norm"].stated("a")
    assert (one.norm.name, one.weight, one.bias, one.eps) == ("layer-l2", "blocks.0.gain", None, 1e-4)
    assert (one.normalized_shape, one.num_channels) == ((16,), 16)
    assert one.how == "function layer_norm, called in blocks.0"
    second = recording.layers["blocks.0:rms_norm"].stated("b")
    assert (second.norm.name, second.weight, second.eps) == ("rms", None, torch.finfo(torch.float32).eps)


class Functions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight, self.own = nn.Parameter(torch.ones(6)), nn.LayerNorm(5)
        self.register_buffer("mean", torch.zeros(6))
        self.register_buffer("var", torch.ones(6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.batch_norm(x, self.mean, self.var, self.weight, momentum=0.3)
        x = torch.batch_norm(x, self.weight, None, self.mean, self.var, False, 0.2, 1e-3, False)
        x = functional.group_norm(x, 3, weight=self.weight, eps=1e-2)
        x = torch.group_norm(x, 2)
        x = functional.instance_norm(x, eps=1e-1)
        x = self.own.forward(x)
        return functional.layer_norm(input=x, normalized_shape=(6, 5), weight=None)


def test_every_norm_function_is_seen_with_its_arguments() -> None:
    model = Functions()
    with torch.no_grad(), record(model) as recording:
        model(randn(2, 6, 5))
    seen = {name.partition(":")[2] or name: layer for name, layer in recording.layers.items()}
    facts = {n: (s.norm, s.eps, s.momentum, s.num_groups, s.num_channels, s.shape) for n, s in seen.items()}
    assert facts == {
        "batch_norm": ("batch-l2", 1e-5, 0.3, None, 6, (2, 6, 5)),
        "batch_norm.2": ("batch-l2", 1e-3, 0.2, None, 6, (2, 6, 5)),
        "group_norm": ("group-l2", 1e-2, None, 3, 6, (2, 6, 5)),
        "group_norm.2": ("group-l2", 1e-5, None, 2, 6, (2, 6, 5)),
        "instance_norm": ("instance-l2", 1e-1, 0.1, None, 6, (2, 6, 5)),
        "own": ("layer-l2", 1e-5, None, None, 5, (12, 5)),
        "layer_norm": ("layer-l2", 1e-5, None, None, 30, (2, 6, 5)),
    }
    assert seen["batch_norm"].running_var == seen["batch_norm.2"].running_var == "var"
    assert seen["batch_norm"].weight == seen["group_norm"].weight == "weight"


def test_what_runs_outside_the_model_is_no_layer_of_it() -> None:
    model, other = nn.Sequential(nn.LayerNorm(4)), nn.LayerNorm(4)
    with record(model) as recording:
        functional.layer_norm(other(randn(2, 4)), (4,))
    assert list(recording.layers) == ["0"]
    assert (recording.layers["0"].calls, recording.layers["0"].dtype) == (0, None)
    assert recording.activations == {}


def test_a_shared_module_is_one_layer_with_all_its_calls() -> None:
    norm = nn.LayerNorm(4)
    model = nn.Sequential(norm, nn.Linear(4, 4), norm)
    with record(model) as recording:
        model(randn(3, 4))
    assert {n: (s.calls, s.shape) for n, s in recording.layers.items()} == {"0": (2, (6, 4))}


def test_norms_that_permute_are_recorded_as_the_norm_sees_them() -> None:
    class LayerNorm2d(nn.LayerNorm):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    class HandWrittenLayerNorm(nn.Module):
        def __init__(self, size: int) -> None:
            super().__init__()
            self.weight, self.eps = nn.Parameter(torch.ones(size)), 1e-6

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            c = x - x.mean(1, keepdim=True)
            return c / torch.sqrt(c.pow(2).mean(1, keepdim=True) + self.eps) * self.weight[:, None, None]

    x = randn(2, 4, 4, 3)
    for cls in (LayerNorm2d, HandWrittenLayerNorm):
        model = cls(4)
        with record(model) as recording:
            model(x)
        (array,) = recording.activations.values()
        assert np.array_equal(array, x.permute(0, 2, 3, 1).reshape(-1, 4).numpy())


def test_the_input_of_an_in_place_norm_is_kept_as_it_arrived() -> None:
    model, x = InPlaceRMSNorm(4), randn(3, 4)
    with torch.no_grad(), record(model) as recording:
        model(x.clone())
    assert np.array_equal(recording.activations["InPlaceRMSNorm"], x.numpy())


def test_keyword_arguments_and_unbatched_inputs_are_seen() -> None:
    model = nn.ModuleDict({"a": nn.LayerNorm(4), "b": nn.InstanceNorm1d(4), "c": RMSNorm(4)})
    x = randn(4, 4)
    with record(model) as recording:
        model["a"](input=x)
        model["b"](x)
        model["c"](x=x)
    assert {n: a.shape for n, a in recording.activations.items()} == {"a": (4, 4), "b": (1, 4, 4), "c": (4, 4)}


def test_match_records_what_is_not_recognised() -> None:
    class Odd(RMSNorm):
        pass

    model, x = nn.Sequential(Odd(4)), randn(3, 4)
    with record(model) as recording:
        model(x)
    assert recording.layers == {}
    with record(model, match={"Odd": "rms"}) as recording:
        model(x)
    assert np.array_equal(recording.activations["0"], x.numpy())


def test_a_norm_without_parameters_gets_its_size_from_its_input() -> None:
    class UnitRMSNorm(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)

    model = nn.Sequential(UnitRMSNorm())
    with record(model) as recording:
        model(randn(2, 3, 10))
    assert (recording.layers["0"].num_channels, recording.layers["0"].shape) == (10, (6, 10))


def test_compiled_models_are_recorded_uncompiled() -> None:
    model = made(Transformer).eval()
    compiled, x = torch.compile(model, backend="eager"), randn(3, 5, 16)
    with torch.no_grad():
        before = compiled(x)
        with record(compiled) as recording:
            during = compiled(x)
        with record(model) as uncompiled:
            model(x)
    assert torch.allclose(before, during, atol=1e-6)
    assert recording.layers == uncompiled.layers
    assert all(layer.calls == 1 for layer in recording.layers.values())


# --------------------------------------------------------------------------------- the model notices nothing


def hooks_of(model: nn.Module) -> list[int]:
    return [
        len(getattr(m, name))
        for m in model.modules()
        for name in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_forward_hooks_always_called")
    ]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("cls", [CNN, Transformer])
def test_outputs_gradients_and_running_statistics_are_the_same_bits(
    cls: type[nn.Module], training: bool, dtype: torch.dtype
) -> None:
    x = (randn(4, 3, 8, 8) if cls is CNN else randn(3, 5, 16)).to(dtype)
    plain = made(cls).train(training).to(dtype)
    watched = copy.deepcopy(plain)
    expected = plain(x)
    expected.sum().backward()
    with record(watched) as recording:
        result = watched(x)
        result.sum().backward()
    assert torch.equal(expected, result)
    for one, other in zip(plain.parameters(), watched.parameters(), strict=True):
        assert one.grad is not None
        assert torch.equal(one.grad, other.grad)
    assert all(torch.equal(a, b) for a, b in zip(plain.buffers(), watched.buffers(), strict=True))
    assert hooks_of(watched) == [0] * len(hooks_of(watched))
    for name, array in recording.activations.items():
        assert array.dtype == (np.float64 if dtype == torch.float64 else np.float32)
        assert recording.layers[name].dtype == str(dtype).removeprefix("torch.")


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode, contextlib.nullcontext])
def test_every_mode_of_torch_is_recorded(context: object) -> None:
    model, x = made(Transformer).eval(), randn(3, 5, 16)
    with context():
        expected = model(x)
    with record(model) as recording:
        with context():
            result = model(x)
        model(x)
    assert torch.equal(expected, result)
    assert all(layer.calls == 2 for layer in recording.layers.values())


def test_tensors_with_functions_of_their_own_keep_them_within_attention() -> None:
    heard = []

    class Loud(torch.Tensor):
        @classmethod
        def __torch_function__(cls, func, types, args=(), kwargs=None):
            heard.append(func)
            return super().__torch_function__(func, types, args, kwargs or {})

    model = nn.Sequential(nn.LayerNorm(4), nn.MultiheadAttention(4, 2)).eval()
    x = randn(3, 2, 4).as_subclass(Loud)

    def run() -> list[object]:
        heard.clear()
        model[1](x, x, x)
        return list(heard)

    plain = run()
    with record(model):
        assert run() == plain
    assert functional.multi_head_attention_forward in plain


def test_autocast_shows_the_types_that_arrive() -> None:
    model, x = made(Transformer).eval(), randn(3, 5, 16)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        expected = model(x)
        with record(model) as recording:
            result = model(x)
    assert torch.equal(expected, result)
    assert recording.layers["blocks.0:layer_norm"].dtype == "bfloat16"
    assert recording.layers["blocks.0.norm1"].dtype == "float32"


def test_nothing_keeps_a_graph_or_an_input_alive() -> None:
    model = made(Transformer)
    x = randn(3, 5, 16).requires_grad_()
    with record(model) as recording:
        model(x)
    x.data.fill_(7)
    assert not np.any(recording.activations["blocks.0.norm1"] == 7)
    assert all(frame.x is None for frame in recording._frames)
    assert recording._frames == []


def test_no_random_number_of_torchs_is_drawn() -> None:
    model, x = made(Transformer).eval(), randn(3, 5, 16)
    before = torch.random.get_rng_state()
    with record(model):
        model(x)
    assert torch.equal(before, torch.random.get_rng_state())


class Failing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.fails = nn.LayerNorm(4), True

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(x)
        if self.fails:
            raise RuntimeError("out of luck")
        return functional.layer_norm(x, (4,))


def test_a_model_that_raises_and_goes_on_is_recorded_on() -> None:
    model, x = nn.Sequential(Failing()), randn(2, 4)
    with record(model) as recording:
        with pytest.raises(RuntimeError, match="out of luck"):
            model(x)
        model[0].fails = False
        model(x)
    assert {n: s.calls for n, s in recording.layers.items()} == {"0.norm": 2, "0:layer_norm": 1}
    assert recording._frames == []


def test_an_input_that_a_norm_refuses_is_not_recorded() -> None:
    model = nn.Sequential(nn.BatchNorm2d(4))
    with record(model) as recording, pytest.raises(ValueError, match="expected 4D input"):
        model(randn(2, 4))
    assert recording.layers["0"].calls == 0


def test_an_exception_leaves_no_hook_and_no_file(tmp_path) -> None:
    model = nn.Sequential(Failing())
    with pytest.raises(RuntimeError, match="out of luck"), record(model, tmp_path / "a.safetensors"):
        model(randn(2, 4))
    assert sum(hooks_of(model)) == 0
    assert list(tmp_path.iterdir()) == []


def test_a_forward_in_another_thread_does_not_mix_its_names_in() -> None:
    """Modules are seen there too; functions only in the thread that records."""
    model, x = made(Transformer).eval(), randn(3, 5, 16)
    with torch.no_grad(), record(model) as recording:
        threads = [threading.Thread(target=lambda: model(x)) for _ in range(4)]
        for thread in threads:
            thread.start()
        model(x)
        for thread in threads:
            thread.join()
    assert recording.layers["blocks.0.norm2"].calls == recording.layers["blocks.1.norm1"].calls == 5
    assert recording.layers["blocks.0:layer_norm"].calls == 1


# ------------------------------------------------------------------------------------ what is kept, in bounds


def run_tokens(sizes: list[int], budget: int, seed: int = 0, width: int = 8) -> object:
    model = nn.Sequential(nn.LayerNorm(width))
    with torch.no_grad(), record(model, budget=budget, seed=seed) as recording:
        for call, size in enumerate(sizes):
            x = randn(size, width, seed=call)
            x[:, 0] = torch.arange(size) + 1000 * call  # says which token it is
            model(x)
    return recording


def test_the_budget_holds_whatever_passes(tmp_path) -> None:
    model = made(CNN).eval()
    budget = 20_000
    with torch.no_grad(), record(model, tmp_path / "a.safetensors", budget=budget) as recording:
        for call in range(5):
            model(randn(16, 3, 12, 12, seed=call))
    assert all(layer.elements * 4 > 5 * budget for name, layer in recording.layers.items() if name != "norm4")
    for name, array in recording.activations.items():
        assert 0 < array.nbytes <= budget, name
        assert array.nbytes > 0.6 * budget or name == "norm4"
    assert (tmp_path / "a.safetensors").stat().st_size < 4 * budget + 8192


def test_memory_does_not_grow_with_what_passes() -> None:
    model = nn.Sequential(nn.LayerNorm(64), RMSNorm(64))
    x = randn(4096, 64)
    with torch.no_grad(), record(model, budget=2**18) as recording:
        model(x)
        tracemalloc.start()
        for _ in range(20):
            model(x)
        grown, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert recording.layers["0"].elements == 21 * x.numel()
    assert grown < 2**18
    assert peak < 12 * x.nbytes  # chunks of 2**18 elements, in float64, and a few of them


def test_tokens_are_a_uniform_sample_of_whole_tokens() -> None:
    counts: Counter[float] = Counter()
    for seed in range(60):
        recording = run_tokens([50, 30, 20], 24 * 48, seed)
        kept, layer = recording.activations["0"], recording.layers["0"]
        assert 17 <= len(kept) <= 24
        free = [i for i in range(len(kept)) if i not in layer.pinned]
        counts.update(kept[free, 0].tolist())
        originals = {float(x[0]): x for x in tokens([50, 30, 20])}
        assert all(np.array_equal(row, originals[float(row[0])]) for row in kept)
    assert len(counts) > 85
    drawn = sum(counts.values())
    calls = Counter({c: sum(n for token, n in counts.items() if token // 1000 == c) for c in (0, 1, 2)})
    # the largest tokens, nearly all of the last call, are pinned: the first two calls hold 50 and 30 of the others
    assert calls[0] / (calls[0] + calls[1]) == pytest.approx(50 / 80, abs=3 * (0.234 / (0.8 * drawn)) ** 0.5)


def tokens(sizes: list[int], width: int = 8) -> list[np.ndarray]:
    result = []
    for call, size in enumerate(sizes):
        x = randn(size, width, seed=call)
        x[:, 0] = torch.arange(size) + 1000 * call
        result += list(x.numpy())
    return result


def test_the_same_seed_keeps_the_same_and_another_one_other_tokens() -> None:
    one, same, other = (run_tokens([50, 30, 20], 24 * 48, seed).activations["0"] for seed in (1, 1, 2))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


@pytest.mark.parametrize("seed", range(5))
def test_extreme_tokens_are_always_kept(seed: int) -> None:
    model = nn.ModuleDict({"layer": nn.LayerNorm(8), "rms": RMSNorm(8)})
    with torch.no_grad(), record(model, budget=24 * 48, seed=seed) as recording:
        for call in range(4):
            x = randn(100, 8, seed=call)
            if call == 1:
                x[17] *= 1e4
                x[23] *= 1e-4
                x[31] = 1.5 + 1e-3 * x[31]
                x[40, 3] = torch.inf
                x[41, 3] = torch.nan
            model["layer"](x)
            model["rms"](x)
    marked = randn(100, 8, seed=1)
    for name in ("layer", "rms"):
        kept, layer = recording.activations[name], recording.layers[name]
        pinned = kept[list(layer.pinned)]
        assert np.any(np.all(pinned == (marked[17] * 1e4).numpy(), axis=1))
        assert np.any(np.all(pinned == (marked[23] * 1e-4).numpy(), axis=1))
        assert np.isinf(pinned).any()
        assert layer.max_abs == pytest.approx(float((marked[17] * 1e4).abs().max()))
        assert layer.nonfinite == 2 / 3200
        # a nearly constant token has a small deviation and no small root mean square
        constant = np.all(np.abs(pinned - 1.5) < 0.1, axis=1)
        assert np.any(constant) == (name == "layer")


def test_samples_of_instance_and_group_norms_stay_whole() -> None:
    model = nn.ModuleDict({"instance": nn.InstanceNorm2d(4), "group": nn.GroupNorm(2, 4)})
    batches = [randn(10, 4, 6, 6, seed=call) for call in range(5)]
    batches[3][7, 2] *= 1e-3
    batches[2][5, 1, 3, 3] = 1e4
    with record(model, budget=12 * (4 * 36 * 4 + 16)) as recording:
        for x in batches:
            model["instance"](x)
            model["group"](x)
    originals = torch.cat(batches).reshape(50, 4, 36).numpy()
    for name in ("instance", "group"):
        kept = recording.activations[name]
        assert 8 <= len(kept) <= 12
        where = [next(i for i, original in enumerate(originals) if np.array_equal(original, unit)) for unit in kept]
        assert where == sorted(set(where))
        assert 25 in where
        assert 37 in where or name == "group"


def test_of_samples_of_several_sizes_the_largest_are_kept() -> None:
    model = nn.Sequential(nn.GroupNorm(2, 4))
    with record(model) as recording:
        for size in (4, 8, 6):
            model(randn(2, 4, size, size))
    assert recording.layers["0"].shape == (2, 4, 64)
    assert recording.layers["0"].elements == 8 * (16 + 64 + 36)


def test_a_sample_beyond_the_budget_is_named_and_not_cut() -> None:
    model = nn.Sequential(nn.GroupNorm(2, 4), nn.LayerNorm(8))
    with record(model, budget=100) as recording:
        model(randn(2, 4, 8, 8))
    assert set(recording.activations) == {"1"}
    assert recording.layers["0"].note == ("one unit of shape (4, 64) takes 1040 bytes, more than the budget of 100")
    assert recording.layers["0"].elements == 512


def test_of_a_batch_norm_the_call_with_the_largest_magnitude_is_kept_whole() -> None:
    model = nn.Sequential(nn.BatchNorm2d(4))
    batches = [randn(6, 4, 5, 5, seed=call) for call in range(5)]
    batches[2][1, 2, 3, 4] = -100
    with record(model) as recording:
        for x in batches:
            model(x)
    assert np.array_equal(recording.activations["0"], batches[2].reshape(6, 4, 25).numpy())
    assert not recording.layers["0"].thinned


def test_of_equal_magnitudes_the_first_call_is_kept() -> None:
    model = nn.Sequential(nn.BatchNorm1d(4))
    batches = [randn(6, 4, seed=call).clamp(-2, 1) - 1 for call in range(2)]
    for x in batches:
        x[0, 0] = -9
    with record(model) as recording:
        for x in batches:
            model(x)
    assert np.array_equal(recording.activations["0"], batches[0].numpy())


def test_layers_draw_their_samples_independently() -> None:
    model, x = nn.ModuleList([nn.LayerNorm(8), nn.LayerNorm(8)]), randn(100, 8)
    with record(model, budget=24 * 48) as recording:
        for module in model:
            module(x)
    first, second = recording.activations.values()
    assert not np.array_equal(first, second)


def test_an_infinite_batch_is_the_largest() -> None:
    model = nn.Sequential(nn.BatchNorm1d(4))
    batches = [randn(6, 4, seed=call) for call in range(3)]
    batches[1][0, 0] = torch.nan
    with record(model) as recording:
        for x in batches:
            model(x)
    assert np.array_equal(recording.activations["0"], batches[1].numpy(), equal_nan=True)
    assert recording.layers["0"].nonfinite == 1 / 72
    assert np.isfinite(recording.layers["0"].max_abs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(40, 4, 7, 7), (500, 4)])
def test_a_thinned_batch_keeps_every_channel_and_its_extremes(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    x = randn(*shape).to(dtype)
    x.movedim(1, 0)[2] *= 100
    budget = 4 * 100 * dtype.itemsize
    model = nn.Sequential(nn.BatchNorm2d(4) if len(shape) == 4 else nn.BatchNorm1d(4)).to(dtype)
    with record(model, budget=budget) as recording:
        model(x)
    kept = recording.activations["0"]
    assert recording.layers["0"].thinned
    assert kept.shape == ((1, 4, 100) if len(shape) == 4 else (100, 4))
    channels = kept[0] if len(shape) == 4 else kept.T
    for c in range(4):
        whole = x[:, c].float().reshape(-1).numpy()
        assert set(channels[c].tolist()) <= set(whole.tolist())
        assert (channels[c].min(), channels[c].max()) == (whole.min(), whole.max())
        assert channels[c].std() == pytest.approx(whole.std(), rel=0.25)


def test_inputs_that_do_not_fit_the_first_are_counted_and_noted() -> None:
    model = nn.Sequential(RMSNorm(4))
    with record(model) as recording:
        model(randn(2, 4))
        model(randn(2, 4).double())
    layer = recording.layers["0"]
    assert (layer.calls, layer.shape, layer.dtype) == (2, (2, 4), "float32")
    assert layer.note == "inputs in float64 were not kept: the first was in float32"


@pytest.mark.parametrize("capacity", range(6))
def test_the_smallest_keys_win_however_they_come(capacity: int) -> None:
    random = np.random.default_rng(0)
    keys = random.integers(0, 20, 60).astype(float)
    keys[::7] = np.inf
    for cuts in ([60], [1] * 60, [20, 0, 30, 10], [7, 53]):
        smallest = sampling._Smallest(capacity, (2,), np.dtype("u4"))
        start = 0
        for size in cuts:
            indices = np.arange(start, start + size)
            smallest.offer(keys[indices], indices, np.stack([indices, indices + 100], axis=1).astype("u4"))
            start += size
        expected = np.argsort(keys, kind="stable")[:capacity]
        assert sorted(smallest.indices) == sorted(expected)
        units = smallest.units[: len(smallest.indices)]
        assert np.array_equal(units[:, 0], smallest.indices)
        assert np.array_equal(units[:, 1], smallest.indices + 100)


# ------------------------------------------------------------------------------------------------------- files


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_a_file_holds_what_was_recorded(tmp_path, dtype: torch.dtype) -> None:
    path = tmp_path / "activations.safetensors"
    model = made(Transformer).eval().to(dtype)
    with torch.no_grad(), record(model, path, budget=3000) as recording:
        model(randn(3, 50, 16).to(dtype))
        assert list(tmp_path.iterdir()) == []
    assert list(tmp_path.iterdir()) == [path]
    activations = read_activations(str(path))
    kept = recording.activations
    assert set(activations) == set(kept)
    assert set(activations.dtypes.values()) == {str(dtype).removeprefix("torch.")}
    for name, array in activations.items():
        assert array.dtype == kept[name].dtype
        assert np.array_equal(array, kept[name])
    assert activations.layers == recording.layers
    with safe_open(path, framework="numpy") as file:
        assert json.loads(file.metadata()["normcheck"])["blocks.0.norm1"]["calls"] == 1


def test_layers_that_never_ran_are_in_the_file_by_name_alone(tmp_path) -> None:
    model = nn.ModuleDict({"used": nn.LayerNorm(4), "unused": nn.LayerNorm(4)})
    with record(model, tmp_path / "a.safetensors"):
        model["used"](randn(2, 4))
    activations = read_activations(str(tmp_path / "a.safetensors"))
    assert set(activations) == {"used"}
    assert activations.layers["unused"].calls == 0


def test_a_file_that_was_there_stays_until_the_new_one_is_whole(tmp_path, monkeypatch) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(b"before")
    model = nn.Sequential(nn.LayerNorm(4))

    def half(_tensors, file, _metadata) -> None:
        file.write_bytes(b"half of it")
        raise OSError(28, "No space left")

    monkeypatch.setattr("safetensors.torch.save_file", half)
    with pytest.raises(UsageError, match=r"a\.safetensors: No space left"), record(model, path):
        model(randn(2, 4))
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("a.npz", "recordings are safetensors files; give a path that ends in .safetensors"),
        ("no/a.safetensors", "there is no directory .*no; create it first"),
        ("d.safetensors", "it is a directory"),
    ],
)
def test_a_path_that_cannot_be_written_is_refused_before_the_model_runs(tmp_path, path: str, message: str) -> None:
    (tmp_path / "d.safetensors").mkdir()
    with pytest.raises(UsageError, match=message), record(nn.LayerNorm(4), tmp_path / path):
        pytest.fail("the block was entered")


def test_an_empty_recording_is_no_file(tmp_path) -> None:
    with (
        pytest.raises(UsageError, match="no norm layer of the model ran"),
        record(nn.LayerNorm(4), tmp_path / "a.safetensors"),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


def test_wrong_arguments_are_refused() -> None:
    with (
        pytest.raises(UsageError, match="budget: expected a positive number of bytes, received 0"),
        record(nn.LayerNorm(4), budget=0),
    ):
        pass
    with pytest.raises(UsageError, match=r"expected a torch\.nn\.Module, received str"), record("model"):
        pass
