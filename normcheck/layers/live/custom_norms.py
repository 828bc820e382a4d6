"""Norms that people write themselves: recognised by class name and parameters, then run and compared.

Names alone decide nothing: T5LayerNorm is an RMS norm, GemmaRMSNorm multiplies by 1 + w.
"""

from __future__ import annotations

import contextlib
import math
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from normcheck.layers.contents import Omitted, Stated
from normcheck.layers.live.probing import ProbeError, eps_of, probe
from normcheck.norms.table import norm_named

if TYPE_CHECKING:
    import torch

    from normcheck.layers.live.probing import Formula
    from normcheck.norms.table import Norm

_WEIGHTS = ("weight", "gamma", "scale", "g", "w", "a_2")
_BIASES = ("bias", "beta", "shift", "b", "b_2")
_SIZES = ("normalized_shape", "num_features", "num_channels", "hidden_size", "dim", "d_model", "size")
_RUNNING = ("running_mean", "running_var")
_TORCH = ("torch.nn.modules.", "torch.nn.utils.", "torch.ao.")
"""Where torch's own classes are: its norms are known, and the others with norms in their names are parametrisations and
observers, which normalise no activations."""

_ARBITRARY_SIZE = 16
"""Elements of a token for a module without parameters that states no size."""


@dataclass(frozen=True, slots=True)
class Recognised:
    """A norm module, with the names of its attributes for its parameters.

    Attributes:
        stated: what it is.
        calls_function: whether it computes by one of torch's norm functions.
        channels_first: whether its input is (N, C, ...) although it normalises C as layer norms do the last dimension.
    """

    stated: Stated
    calls_function: bool = False
    channels_first: bool = False


@dataclass(frozen=True, slots=True)
class _Parameters:
    """Names of the module's attributes, None where it has none, and the shape of a token (None: nothing says)."""

    weight: str | None
    bias: str | None
    shape: tuple[int, ...] | None


def class_name(module: torch.nn.Module) -> str:
    """Return the dotted name of a module's class, of torch's own in its public form."""
    cls = type(module)
    home = re.sub(r"^torch\.nn\.modules\.\w+", "torch.nn", cls.__module__)
    return f"{home}.{cls.__qualname__}"


def recognised(
    name: str, module: torch.nn.Module, matched: Norm | None, base: Stated | None = None
) -> Recognised | Omitted | None:
    """Return a hand-written norm, or why it is not analysed; None where it does not look like one.

    Args:
        name: the module's dotted name.
        module: the module; it is not run itself, but a copy of it.
        matched: the norm that the user says it is, None where he says nothing.
        base: what it is as a subclass of a norm of torch, unless its own forward does something else.
    """
    parameters = _parameters(module)
    if matched is not None:
        return _as_matched(name, module, matched, parameters)
    if base is not None:
        with contextlib.suppress(ProbeError):
            return _as_run(name, module, parameters) or Recognised(base, calls_function=True)
        return Recognised(base, calls_function=True)
    return _hand_written(name, module, parameters) if _is_candidate(module) else _unclear(name, module)


def _hand_written(name: str, module: torch.nn.Module, parameters: _Parameters) -> Recognised | Omitted:
    if _is_frozen_batch_norm(module):
        return Recognised(_frozen_batch_norm(name, module))
    try:
        seen = _as_run(name, module, parameters)
    except ProbeError as error:
        return _by_name(name, module, parameters, str(error))
    neither = f"{_called(module)}: its output is neither a layer norm's nor an RMS norm's; if it is a norm: match"
    return seen or Omitted(name, neither)


def _as_run(name: str, module: torch.nn.Module, parameters: _Parameters) -> Recognised | None:
    formula = probe(module, parameters.weight, parameters.bias, parameters.shape or (_ARBITRARY_SIZE,))
    return None if formula is None else _recognised(_as_seen(name, module, formula, parameters), formula)


def _recognised(stated: Stated, formula: Formula) -> Recognised:
    return Recognised(stated, calls_function=formula.call is not None, channels_first=formula.channels_first)


def _is_candidate(module: torch.nn.Module) -> bool:
    is_leaf = not any(True for _ in module.children())
    return "norm" in type(module).__name__.lower() and is_leaf and not _is_machinery(module)


def _unclear(name: str, module: torch.nn.Module) -> Omitted | None:
    """A module that by its name is a norm, with modules inside of which none is one."""
    children = [type(m).__name__.lower() for m in module.modules() if m is not module]
    is_named = re.search(r"norm(\dd|gated)?$", type(module).__name__.lower()) is not None
    if not is_named or not children or any("norm" in c for c in children) or _is_machinery(module):
        return None
    return Omitted(name, f"{_called(module)}: it has modules inside, so it is no plain norm; if it is one: match")


def _is_machinery(module: torch.nn.Module) -> bool:
    return type(module).__module__.startswith(_TORCH)


def _parameters(module: torch.nn.Module) -> _Parameters:
    weight, bias = _first(module, _WEIGHTS), _first(module, _BIASES)
    for name in (weight, bias):
        if name is not None:
            return _Parameters(weight, bias, tuple(getattr(module, name).shape))
    return _Parameters(None, None, _stated_shape(module))


def _first(module: torch.nn.Module, names: tuple[str, ...]) -> str | None:
    import torch  # noqa: PLC0415 - torch is loaded where there is a module, not with this one

    for name in names:
        value = getattr(module, name, None)
        if isinstance(value, torch.Tensor) and value.ndim and value.is_floating_point():
            return name
    return None


def _stated_shape(module: torch.nn.Module) -> tuple[int, ...] | None:
    for name in _SIZES:
        value = getattr(module, name, None)
        if isinstance(value, int) and not isinstance(value, bool):
            return (value,)
        if isinstance(value, tuple | list) and value and all(isinstance(v, int) for v in value):
            return tuple(value)
    return None


def _called(module: torch.nn.Module) -> str:
    return f"module {class_name(module)}"


# ------------------------------------------------------------------------------------------------- what it is


def _stated(name: str, norm: Norm, how: str, parameters: _Parameters, **more: Any) -> Stated:
    shape = parameters.shape
    if norm.where == "layer" and shape is not None:
        more.setdefault("normalized_shape", shape)
    channels = None if shape is None else math.prod(shape)
    return Stated(
        name=name, norm=norm, how=how, weight=parameters.weight, bias=parameters.bias, num_channels=channels, **more
    )


def _as_seen(name: str, module: torch.nn.Module, formula: Formula, parameters: _Parameters) -> Stated:
    call = formula.call
    kind = "an RMS norm" if formula.norm.name == "rms" else f"a {formula.norm.where} norm"
    kind += " over dimension 1" if formula.channels_first else ""
    how = f"{_called(module)}, run on a random input: {kind}"
    if call is not None:
        how = f"{_called(module)}, which calls {call.function}"
    if formula.weight_offset:
        how += " with weight 1 + w"
    more: dict[str, Any] = {"eps": formula.eps, "weight_offset": formula.weight_offset}
    if call is not None:
        more |= {"num_groups": call.num_groups, "momentum": call.arguments.get("momentum")}
    if call is not None and call.normalized_shape and parameters.shape is not None:
        more["normalized_shape"] = call.normalized_shape
    if formula.norm.where in ("batch", "instance"):
        more |= {r: r for r in _RUNNING if getattr(module, r, None) is not None}
    return _stated(name, formula.norm, how, parameters, **more)


def _by_name(name: str, module: torch.nn.Module, parameters: _Parameters, why: str) -> Recognised | Omitted:
    """Take the class name's word where the module cannot be run: a vector of weights and an eps must support it."""
    plain, eps = type(module).__name__.lower().replace("_", ""), eps_of(module)
    norm = "rms" if "rmsnorm" in plain else "layer" if "layernorm" in plain else None
    vector = parameters.weight is not None and parameters.shape is not None and len(parameters.shape) == 1
    if norm is None or eps is None or not vector:
        return Omitted(name, f"{_called(module)}: it cannot be run on a plain tensor ({why}); if it is a norm: match")
    how = f"{_called(module)}, by its class name, eps and vector of weights; it could not be run alone ({why})"
    return Recognised(_stated(name, norm_named(norm), how, parameters, eps=eps))


def _as_matched(name: str, module: torch.nn.Module, norm: Norm, parameters: _Parameters) -> Recognised:
    """What the user says; what only running it can tell comes from there, where that agrees with him."""
    try:
        formula = probe(module, parameters.weight, parameters.bias, parameters.shape or (_ARBITRARY_SIZE,))
    except ProbeError:
        formula = None
    how = f"{_called(module)}, matched as {norm.name}"
    if formula is not None and formula.norm is norm:
        return _recognised(replace(_as_seen(name, module, formula, parameters), how=how), formula)
    momentum, groups = getattr(module, "momentum", None), getattr(module, "num_groups", None)
    running = {r: r for r in _RUNNING if getattr(module, r, None) is not None}
    more: dict[str, Any] = {"eps": eps_of(module), **running}
    more["momentum"] = momentum if isinstance(momentum, float) else None
    more["num_groups"] = groups if isinstance(groups, int) else None
    return Recognised(_stated(name, norm, how, parameters, **more))


# ------------------------------------------------------------------------------------------ frozen batch norms


def _is_frozen_batch_norm(module: torch.nn.Module) -> bool:
    shapes = [getattr(getattr(module, r, None), "shape", None) for r in _RUNNING]
    return (
        "batchnorm" in type(module).__name__.lower()
        and shapes[0] is not None
        and shapes[0] == shapes[1]
        and len(shapes[0]) == 1
    )


def _frozen_batch_norm(name: str, module: torch.nn.Module) -> Stated:
    weight, bias = _first(module, _WEIGHTS), _first(module, _BIASES)
    running = tuple(module.get_buffer("running_var").shape)
    how = f"{_called(module)}, by its class name and running statistics"
    parameters = _Parameters(weight, bias, running)
    return _stated(name, norm_named("batch"), how, parameters, eps=eps_of(module), **{r: r for r in _RUNNING})
