"""What an unknown norm module computes: run on a small input and compared with the formulas.

    rms     y = (w + offset) * x / sqrt(mean(x^2) + eps)
    layer   y = (w + offset) * (x - mean(x)) / sqrt(var(x) + eps) + b

with offset 0 or 1. A module that calls one of torch's norm functions says more: that call is read instead. The copy
of the module that runs has random parameters, so that zeros and ones hide nothing; the module itself is not touched.
"""

from __future__ import annotations

import contextlib
import copy
import warnings
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from normcheck.layers.live.torch_functions import FunctionCall, function_mode
from normcheck.norms.table import norm_named

if TYPE_CHECKING:
    import torch

    from normcheck.layers.contents import Array
    from normcheck.norms.table import Norm

_EPSILONS = (0.0, 1e-3, 1e-5, 1e-6, 1e-7, 1e-8, 1e-12)
"""Tried where the module has no attribute that says."""

_SCALES = np.array([30.0, 1.0, 1.0, 1e-2, 1e-4, 1e-6])
"""Of the rows of the input: the small ones tell one eps from another."""

_CLOSE = 1e-3
"""Relative distance of a row's output from the formula's, far above float32's errors, far below any difference."""

_LARGEST = 2**20
"""Elements of all tensors of a module: what has more is no norm of tokens, and not worth the memory of a copy."""


class ProbeError(Exception):
    """The module cannot be run on a plain tensor; says why."""


@dataclass(frozen=True, slots=True)
class Formula:
    """What a module was seen to compute.

    `call`: where it calls a norm function of torch. `channels_first`: it takes (N, C, ...) and normalises over C.
    """

    norm: Norm
    eps: float | None
    weight_offset: float = 0.0
    call: FunctionCall | None = None
    channels_first: bool = False


def probe(module: torch.nn.Module, weight: str | None, bias: str | None, shape: tuple[int, ...]) -> Formula | None:
    """Return what `module` computes, None where that is none of the formulas.

    Args:
        module: any module that takes one tensor; it is copied, and neither run nor changed itself.
        weight: its attribute with the gain, bias: with the shift; None where it has none.
        shape: of one token.

    Raises:
        ProbeError: it cannot be copied or run, or is too large to be a norm.
    """
    import torch  # noqa: PLC0415 - only where there is a module is torch loaded already

    size = sum(tensor.numel() for tensor in (*module.parameters(), *module.buffers()))
    if size > _LARGEST:
        raise ProbeError(f"it has {size} parameters, more than any norm")
    random = np.random.default_rng(0)
    with torch.no_grad(), torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return _probed(_twin(module, weight, bias, random), weight, bias, shape, random)
        except Exception as error:  # a stranger's code raises what it likes
            raise ProbeError(_one_line(error)) from error


def _probed(
    twin: torch.nn.Module, weight: str | None, bias: str | None, shape: tuple[int, ...], random: np.random.Generator
) -> Formula | None:
    """Try tokens; where that fits nothing or fails, (N, C, 2, 3); the failure with tokens is the one that counts."""
    w, b = (None if name is None else _numbers(getattr(twin, name)) for name in (weight, bias))
    scales = _SCALES.reshape(-1, *([1] * len(shape)))
    x = scales * (random.standard_normal((len(_SCALES), *shape)) + 0.5)
    failure = None
    try:
        formula = _seen(twin, x, w, b, channels_first=False)
    except Exception as error:  # noqa: BLE001 - see `probe`
        formula, failure = None, error
    if formula is None and len(shape) == 1:
        images = scales[..., None, None] * (random.standard_normal((len(_SCALES), *shape, 2, 3)) + 0.5)
        with contextlib.suppress(Exception):
            formula = _seen(twin, images, w, b, channels_first=True)
    if formula is None and failure is not None:
        raise failure
    return formula


def _seen(
    twin: torch.nn.Module,
    x: Array,
    w: Array | None,
    b: Array | None,
    *,
    channels_first: bool,
) -> Formula | None:
    calls, y = _run(twin, x)
    call = calls[0] if calls else None
    if len(calls) > 1:
        return None
    if call is not None and (call.weight is not None or w is None):
        return _of_call(call, w)
    if y.shape != x.shape or x.ndim != (4 if channels_first else 2):
        return None
    if channels_first:
        x, y = (np.moveaxis(a, 1, -1).reshape(-1, a.shape[1]) for a in (x, y))
    formula = _fitted(x, y, w, b, eps_of(twin) if call is None else call.eps)
    return None if formula is None else replace(formula, call=call, channels_first=channels_first)


def eps_of(module: torch.nn.Module) -> float | None:
    """Return the eps that an attribute of the module states; None where none does."""
    for name in ("eps", "variance_epsilon", "epsilon", "layer_norm_eps", "norm_eps"):
        value = getattr(module, name, None)
        if isinstance(value, float | int) and not isinstance(value, bool):
            return float(value)
    return None


def _twin(
    module: torch.nn.Module, weight: str | None, bias: str | None, random: np.random.Generator
) -> torch.nn.Module:
    """Return a float32 copy of the module with random parameters."""
    import torch  # noqa: PLC0415 - see `probe`

    twin = copy.deepcopy(module).eval().float()
    for name, low, high in ((weight, 0.5, 1.5), (bias, -1.0, 1.0)):
        tensor = None if name is None else getattr(twin, name)
        if tensor is not None:
            tensor.copy_(torch.from_numpy(random.uniform(low, high, tuple(tensor.shape))))
    return twin


def _run(twin: torch.nn.Module, x: Array) -> tuple[list[FunctionCall], Array]:
    import torch  # noqa: PLC0415 - see `probe`

    device = next((p.device for p in twin.parameters()), torch.device("cpu"))
    calls: list[FunctionCall] = []
    with function_mode(calls.append):
        y = twin.forward(torch.from_numpy(x).to(device, torch.float32))
    return calls, _numbers(y)


def _numbers(x: torch.Tensor) -> Array:
    return x.detach().cpu().double().numpy()


def _of_call(call: FunctionCall, w: Array | None) -> Formula | None:
    """The norm of the function that was called, if its gain is the module's."""
    if call.weight is None:
        return Formula(call.norm, call.eps, 0.0, call)
    gain = _numbers(call.weight)
    for offset in (0.0, 1.0):
        if w is not None and gain.size == w.size and np.allclose(gain.ravel(), w.ravel() + offset, rtol=1e-5):
            return Formula(call.norm, call.eps, offset, call)
    return None


def _fitted(
    x: Array,
    y: Array,
    w: Array | None,
    b: Array | None,
    stated: float | None,
) -> Formula | None:
    """The formula whose every row is the module's."""
    shift = np.float64(0.0) if b is None else b
    for centred, offset in ((False, 0.0), (False, 1.0), (True, 0.0), (True, 1.0)):
        if w is None and offset:
            continue
        c = x - x.mean(1, keepdims=True) if centred else x
        gained = c if w is None else c * (w + offset)
        variance = np.mean(np.square(c), 1, keepdims=True)
        for eps in _EPSILONS if stated is None else (stated,):
            expected = gained / np.sqrt(variance + eps)
            error = np.linalg.norm(y - shift - expected, axis=1)
            if np.all(error <= _CLOSE * (np.linalg.norm(expected, axis=1) + np.linalg.norm(shift) * 1e-2)):
                return Formula(norm_named("layer" if centred else "rms"), eps, offset)
    return None


def _one_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
