"""`normcheck.record`: samples of what enters the norm layers of a live torch model, in bounded memory."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from normcheck.errors import UsageError
from normcheck.layers.activations import METADATA, STATED_FIELDS, RecordedLayer
from normcheck.layers.contents import ROLES, Stated
from normcheck.layers.live.modules import FoundNorm, check_module, named_modules, norms_of, tensors_of
from normcheck.layers.live.sampling import Tally, TensorSampler, UnitSampler, numbers_of, seeded, tensor_of
from normcheck.layers.live.torch_functions import function_mode

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch

    from normcheck.layers.contents import Array
    from normcheck.layers.live.modules import Match
    from normcheck.layers.live.torch_functions import FunctionCall

BUDGET = 8 * 2**20
"""Bytes that are kept for each layer, unless the user says otherwise."""


@contextlib.contextmanager
def record(
    model: torch.nn.Module,
    path: str | os.PathLike[str] | None = None,
    *,
    match: Match | None = None,
    budget: int = BUDGET,
    seed: int = 0,
) -> Iterator[Recording]:
    """Sample the inputs of every norm layer of `model` while the with-block runs it.

        with normcheck.record(model, "activations.safetensors") as recording:
            model(batch)

    Seen are norm modules, those of torch and hand-written ones as `normcheck.analyze` recognises them, and functions
    (``F.layer_norm``, ``torch.batch_norm``, ...) that other modules call, under the calling module's name: the second
    ``F.layer_norm`` in one forward of ``blocks.0`` is ``blocks.0:layer_norm.2``. Calls outside any forward of the model
    belong to no layer and are not seen.

    Of layer and RMS norms tokens are kept, of instance and group norms whole samples: a uniform sample, besides the
    units with the largest magnitude, with the smallest statistic, and one that is not finite. Of a batch norm the
    tensor of the call with the largest magnitude is kept, each channel thinned out if that is beyond the budget.
    What is kept depends on the seed, the layer's name and its inputs alone.

    The model is not changed and its outputs are the same bits, with two exceptions: what torch.compile compiled runs
    uncompiled inside the block, and the fused inference path of torch.nn.TransformerEncoderLayer, inside of which no
    norm can be seen, is not taken; both may differ from that in the last bits. Compiling, tracing and exporting
    inside the block are not supported, nor are scripted modules. Memory: the budget for each layer, and while a layer
    is sampled a copy of its input.

    Args:
        model: any module; in training or eval mode, of any type, on any device, under autocast and no_grad.
        path: the safetensors file that is written on leaving, whole or, after an exception, not at all.
        match: which modules are norms besides those that are recognised, as in `live.modules.contents_of`.
        budget: bytes kept for each layer.
        seed: of the sample.

    Raises:
        UsageError: the model or `match` cannot be used, the budget is not positive, the path cannot be written, or, on
            leaving with a path, no norm layer was run.
    """
    if budget < 1:
        raise UsageError(f"budget: expected a positive number of bytes, received {budget}")
    if path is not None:
        _check_path(Path(path))
    recording = Recording(model, match=match, budget=budget, seed=seed)
    with recording._listening(model):  # noqa: SLF001 - the other half of this function
        yield recording
    if path is not None:
        recording.save(path)


class Recording:
    """What `record` has seen so far; it can be read while the with-block runs, and afterwards."""

    def __init__(self, model: torch.nn.Module, *, match: Match | None, budget: int, seed: int) -> None:
        check_module(model)
        found, _ = norms_of(model, match)
        self._budget, self._seed = budget, seed
        self._lock, self._local = threading.Lock(), threading.local()
        self._norms = {id(norm.module): norm for norm in found}
        self._owners = {id(w): norm for norm in found if (w := getattr(norm.module, "weight", None)) is not None}
        self._names = {id(tensor): name for name, tensor in tensors_of(model)}
        self._layers = {norm.stated.name: _Layer(norm.stated) for norm in found}

    @property
    def activations(self) -> dict[str, Array]:
        """What was kept, by layer: numpy arrays in float32, those of float64 inputs in float64.

        Shapes are torch's: (N, C, S) or (N, C) for batch, instance and group, (tokens, D...) for layer and RMS norms.
        """
        return {
            name: numbers_of(kept.bits(), layer.dtype)
            for name, layer in self._layers.items()
            if (kept := layer.kept) is not None
        }

    @property
    def layers(self) -> dict[str, RecordedLayer]:
        """What was seen of each layer, those that never ran included."""
        return {name: layer.facts() for name, layer in self._layers.items()}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a safetensors file in the formats that the tensors arrived in; it appears whole or not at all.

        Raises:
            UsageError: nothing was recorded, or the file cannot be written.
        """
        from safetensors.torch import save_file  # noqa: PLC0415 - torch is loaded where there is a model

        target = Path(path)
        _check_path(target)
        tensors = {
            name: tensor_of(kept.bits(), layer.dtype)
            for name, layer in self._layers.items()
            if (kept := layer.kept) is not None
        }
        if not tensors:
            raise UsageError(f"{path} is not written: no norm layer of the model ran while it was recorded")
        temporary = target.with_name(f".{target.name}.{os.getpid()}.part")
        try:
            save_file(tensors, temporary, {METADATA: msgspec.json.encode(self.layers).decode()})
            temporary.replace(target)
        except OSError as error:
            raise UsageError(f"cannot write {path}: {error.strerror or error}") from error
        finally:
            temporary.unlink(missing_ok=True)

    # ------------------------------------------------------------------------------------------------ listening

    @contextlib.contextmanager
    def _listening(self, model: torch.nn.Module) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            for name, module in named_modules(model):
                norm = self._norms.get(id(module))
                before, after = self._hooks(name, norm)
                stack.callback(module.register_forward_pre_hook(before, with_kwargs=True).remove)
                stack.callback(module.register_forward_hook(after, always_call=True).remove)
            stack.enter_context(_uncompiled())
            stack.enter_context(function_mode(self._called))
            yield

    def _hooks(self, name: str, norm: FoundNorm | None) -> tuple[Any, Any]:
        """The hooks before and after the forward of a module."""

        def before(module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            tensors = _tensors_among((*args, *kwargs.values()))
            frame = _Frame(name, norm, guard=_unheard(module, tensors))
            self._frames.append(frame)
            if norm is not None and tensors:
                frame.x = tensors[0]
                if not norm.calls_function:
                    self._sample(frame)

        def after(_module: torch.nn.Module, _args: Any, output: Any) -> None:
            frames = self._frames
            if not frames or frames[-1].name != name:
                return  # a hook before ours failed, and ours never ran
            frame = frames.pop()
            frame.guard.close()
            if output is not None:  # None after an exception
                self._sample(frame)

        return before, after

    @property
    def _frames(self) -> list[_Frame]:
        """The modules whose forward runs in this thread, innermost last."""
        frames: list[_Frame] = self._local.__dict__.setdefault("frames", [])
        return frames

    def _sample(self, frame: _Frame) -> None:
        """Take in the input of a norm module, if its norm function has not been seen to get it already."""
        x, frame.x = frame.x, None
        if frame.norm is not None and x is not None:
            x = x.movedim(1, -1) if frame.norm.channels_first and x.ndim > 2 else x
            self._add(self._layers[frame.norm.stated.name], x)

    def _called(self, call: FunctionCall) -> None:
        """A norm function is called: as the inside of a norm module, or as a norm of its own."""
        frames = self._frames
        if not frames:
            return
        frame, norm = frames[-1], frames[-1].norm
        if norm is not None:
            if norm.calls_function and frame.x is not None and call.norm is norm.stated.norm:
                frame.x = None
                self._add(self._layers[norm.stated.name], call.x)
            return
        owner = self._owners.get(id(call.weight))
        if owner is not None and owner.stated.norm is call.norm:
            self._add(self._layers[owner.stated.name], call.x)
            return
        frame.calls[call.function] += 1
        number = frame.calls[call.function]
        name = f"{frame.name}:{call.function}" + (f".{number}" if number > 1 else "")
        with self._lock:
            layer = self._layers.setdefault(name, _Layer(self._stated(name, frame.name, call), functional=True))
        self._add(layer, call.x)

    def _stated(self, name: str, caller: str, call: FunctionCall) -> Stated:
        def tensor_name(argument: str) -> str | None:
            return self._names.get(id(call.arguments.get(argument)))

        how = f"function {call.function}, called in {caller}"
        if call.weight is not None and tensor_name("weight") is None:
            how += "; its weight is computed and no tensor of the model"
        names: dict[str, Any] = {role: tensor_name(role) for role in ROLES}
        return Stated(
            name=name,
            norm=call.norm,
            how=how,
            **names,
            eps=call.eps,
            momentum=call.arguments.get("momentum"),
            num_groups=call.num_groups,
            normalized_shape=call.normalized_shape,
        )

    def _add(self, layer: _Layer, x: torch.Tensor) -> None:
        if not x.is_floating_point() or not x.numel():
            return
        with self._lock:
            layer.add(x, self._budget, self._seed)


@dataclass(slots=True, eq=False)
class _Frame:
    """A forward that runs: of which module, the input that waits for being sampled, functions called so far."""

    name: str
    norm: FoundNorm | None
    x: torch.Tensor | None = None
    guard: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    calls: Counter[str] = field(default_factory=Counter)


@dataclass(slots=True, eq=False)
class _Layer:
    """One norm layer while it is recorded."""

    stated: Stated
    functional: bool = False
    calls: int = 0
    dtype: Any = None
    sampler: UnitSampler | TensorSampler | None = None
    note: str | None = None

    @property
    def kept(self) -> UnitSampler | TensorSampler | None:
        """What was kept, None where nothing was."""
        return self.sampler if self.sampler is not None and 0 not in self.sampler.shape else None

    def add(self, x: torch.Tensor, budget: int, seed: int) -> None:
        self.calls += 1
        arranged = _arranged(x, self.stated)
        if arranged is None:
            self.note = f"an input of shape {tuple(x.shape)} was not kept: it is none that this norm takes"
            return
        if self.sampler is None:
            self.dtype, self.sampler = x.dtype, _new_sampler(self.stated, x.dtype, budget, seed)
        if x.dtype != self.dtype:
            self.note = f"inputs in {_format(x.dtype)} were not kept: the first was in {_format(self.dtype)}"
            return
        if self.stated.num_channels is None:
            channels = arranged[0].numel() if self.stated.norm.where == "layer" else arranged.shape[1]
            self.stated = replace(self.stated, num_channels=channels)
        self.sampler.add(arranged)

    def facts(self) -> RecordedLayer:
        facts: dict[str, Any] = {name: getattr(self.stated, name) for name in STATED_FIELDS}
        sampler, tally = self.sampler, Tally()
        if sampler is not None:
            tally = sampler.tally
            facts |= {"dtype": _format(self.dtype), "shape": sampler.shape, "pinned": sampler.pinned}
            facts |= {"thinned": isinstance(sampler, TensorSampler) and sampler.thinned, "note": sampler.note}
        if self.note is not None:
            facts["note"] = self.note
        return RecordedLayer(
            norm=self.stated.norm.name,
            functional=self.functional,
            calls=self.calls,
            elements=tally.elements,
            max_abs=tally.max_abs,
            nonfinite=tally.nonfinite / max(1, tally.elements),
            **facts,
        )


def _new_sampler(stated: Stated, dtype: torch.dtype, budget: int, seed: int) -> UnitSampler | TensorSampler:
    norm, random = stated.norm, seeded(seed, stated.name)
    if norm.where == "batch":
        return TensorSampler(budget=budget, dtype=dtype)
    rows = {"instance": None, "group": stated.num_groups or 1}.get(norm.where, 1)
    return UnitSampler(budget=budget, dtype=dtype, rows=rows, centred=norm.centred, random=random)


def _arranged(x: torch.Tensor, stated: Stated) -> torch.Tensor | None:
    """The input as (tokens, D...), (N, C, S), or (N, C) of a batch norm; None where it is no such thing."""
    where, shape = stated.norm.where, stated.normalized_shape or tuple(x.shape[-1:])
    if where == "layer":
        return x.reshape(-1, *shape) if shape and tuple(x.shape[-len(shape) :]) == shape else None
    if x.ndim < (3 if where == "instance" else 2):
        return None
    return x if where == "batch" and x.ndim == 2 else x.reshape(*x.shape[:2], -1)


def _tensors_among(values: tuple[Any, ...]) -> list[torch.Tensor]:
    import torch  # noqa: PLC0415 - torch is loaded where there is a model

    return [v for v in values if isinstance(v, torch.Tensor)]


def _format(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _unheard(module: torch.nn.Module, tensors: list[torch.Tensor]) -> contextlib.ExitStack:
    """Torch's attention, in which there is no norm, takes another kernel where functions are listened to.

    So it is entered deaf, unless one of its tensors is of a class that has functions of its own.
    """
    import torch  # noqa: PLC0415 - torch is loaded where there is a model

    guard = contextlib.ExitStack()
    if type(module) is torch.nn.MultiheadAttention:
        types = {type(t) for t in (*tensors, *module.parameters())}
        if types <= {torch.Tensor, torch.nn.Parameter}:
            guard.enter_context(torch._C.DisableTorchFunction())  # noqa: SLF001 - torch has no public form of it
    return guard


@contextlib.contextmanager
def _uncompiled() -> Iterator[None]:
    """Let functions and modules that torch.compile compiled run as they are written: compiled, they call no hooks."""
    import torch  # noqa: PLC0415 - torch is loaded where there is a model

    if "torch._dynamo" not in sys.modules:  # nothing is compiled, and loading it takes seconds
        yield
        return
    if not hasattr(torch.compiler, "set_stance"):
        raise UsageError("recording beside torch.compile needs torch 2.6 or later: record in a process without it")
    with torch.compiler.set_stance("force_eager"):
        yield


def _check_path(path: Path) -> None:
    if path.suffix.lower() != ".safetensors":
        raise UsageError(
            f"cannot write {path}: recordings are safetensors files; give a path that ends in .safetensors"
        )
    if path.is_dir():
        raise UsageError(f"cannot write {path}: it is a directory; give the path of a file")
    if not path.parent.is_dir():
        raise UsageError(f"cannot write {path}: there is no directory {path.parent}; create it first")
