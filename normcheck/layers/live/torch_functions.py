"""Calls of torch's norm functions, seen as they happen: `F.layer_norm`, `torch.batch_norm` and their like."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from normcheck.layers.operators import OPERATORS
from normcheck.norms.table import norm_named

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import torch
    from torch.overrides import TorchFunctionMode

    from normcheck.norms.table import Norm

_FUNCTIONS = ("layer_norm", "rms_norm", "group_norm", "batch_norm", "instance_norm")
_STATISTICS_FIRST = ("input", "running_mean", "running_var", "weight", "bias")
"""The first arguments of batch and instance norm in torch.nn.functional; in torch, weight and bias come first."""

_DEFAULT_EPS = 1e-5


@dataclass(frozen=True, slots=True, eq=False)
class FunctionCall:
    """One call of a norm function; tensors as they were passed.

    Attributes:
        function: its name, ``layer_norm``.
        norm: what it computes.
        x: what is normalised.
        arguments: all arguments that were given, by name.
        eps: as given; for rms norm without one, float32's machine epsilon, or float64's for a float64 input.
    """

    function: str
    norm: Norm
    x: torch.Tensor
    arguments: Mapping[str, Any]
    eps: float

    @property
    def weight(self) -> torch.Tensor | None:
        """The gain, None where none was given."""
        return self.arguments.get("weight")

    @property
    def normalized_shape(self) -> tuple[int, ...]:
        """The dimensions that a layer norm normalises; empty for others."""
        shape = self.arguments.get("normalized_shape", ())
        return (shape,) if isinstance(shape, int) else tuple(shape)

    @property
    def num_groups(self) -> int | None:
        """The groups of a group norm; None for others."""
        return self.arguments.get("num_groups")


def epsilon_of_none(dtype: torch.dtype | None) -> float:
    """Return the eps of an rms norm whose eps is None: torch takes it of the type that it computes in.

    That is float32 for float16 and bfloat16 inputs too, whatever the documentation of torch.nn.RMSNorm says.
    """
    import torch  # noqa: PLC0415 - torch is loaded where there is a tensor, not with this module

    return torch.finfo(torch.float64 if dtype == torch.float64 else torch.float32).eps


def function_mode(seen: Callable[[FunctionCall], None]) -> TorchFunctionMode:
    """Return a context manager under which `seen` is told each call of a norm function in this thread, before it runs.

    The call itself is passed on as it is. What is called within such a function is not told.
    """
    return _mode_class()(seen)


@functools.cache
def _known() -> dict[Any, tuple[str, Norm, tuple[str, ...]]]:
    import torch  # noqa: PLC0415 - see `epsilon_of_none`

    found = {}
    for name in _FUNCTIONS:
        norm, names = norm_named(OPERATORS[name].norm), OPERATORS[name].arguments
        found[getattr(torch, name)] = (name, norm, names)
        if set(_STATISTICS_FIRST) <= set(names):
            names = _STATISTICS_FIRST + names[len(_STATISTICS_FIRST) :]
        found[getattr(torch.nn.functional, name)] = (name, norm, names)
    return found


@functools.cache
def _mode_class() -> Callable[[Callable[[FunctionCall], None]], TorchFunctionMode]:
    from torch.overrides import TorchFunctionMode  # noqa: PLC0415 - see `epsilon_of_none`

    class Listening(TorchFunctionMode):
        def __init__(self, seen: Callable[[FunctionCall], None]) -> None:
            super().__init__()
            self._seen = seen

        def __torch_function__(
            self, func: Any, _types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
        ) -> Any:
            kwargs = kwargs or {}
            call = _call(func, args, kwargs)
            if call is not None:
                self._seen(call)
            return func(*args, **kwargs)

    return Listening


def _call(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> FunctionCall | None:
    known = _known().get(func)
    if known is None:
        return None
    name, norm, names = known
    arguments = dict(zip(names, args, strict=False)) | kwargs
    x = arguments.get("input")
    if x is None:
        return None  # torch will say so
    given = arguments.get("eps")
    default = epsilon_of_none(x.dtype) if name == "rms_norm" else _DEFAULT_EPS
    return FunctionCall(name, norm, x, arguments, default if given is None else given)
