"""What autograd sees: a norm in the engine's arithmetic, a rounding, and a change of the gradient's scale."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

Tensor = torch.Tensor


class Call(Protocol):
    """One call of a norm, forward and backward."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the output."""
        ...

    def backward(self, gradient: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Return the gradients of x, weight and bias."""
        ...


class EmulatedNorm(torch.autograd.Function):
    """A norm; there is no second derivative."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, call: Call) -> Tensor:
        """Run the call; weight and bias are arguments so that they get their gradients, the call has their values."""
        ctx.call, ctx.has = call, (weight is not None, bias is not None)
        return call.forward(x)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Run the call's backward pass."""
        dx, weight, bias = ctx.call.backward(grad)
        return dx, weight if ctx.has[0] else None, bias if ctx.has[1] else None, None


class Through(torch.autograd.Function):
    """A tensor as `there` makes it, and its gradient as `back` makes it; None for as they are."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, there: Callable[[Tensor], Tensor] | None, back: Callable[[Tensor], Tensor] | None
    ) -> Tensor:
        """Return what `there` makes of the tensor."""
        ctx.back = back
        return x.view_as(x) if there is None else there(x)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Return what `back` makes of the gradient."""
        return grad if ctx.back is None else ctx.back(grad), None, None


def through(x: Tensor, there: Callable[[Tensor], Tensor] | None, back: Callable[[Tensor], Tensor] | None) -> Tensor:
    """Apply `Through`."""
    out: Tensor = Through.apply(x, there, back)  # type: ignore[no-untyped-call]
    return out


def mapped(function: Callable[[Tensor], Tensor], value: Any) -> Any:
    """Apply a function to every floating-point tensor in nested lists, tuples and mappings."""
    if isinstance(value, Tensor):
        return function(value) if value.is_floating_point() else value
    if isinstance(value, dict):
        return type(value)({key: mapped(function, item) for key, item in value.items()})
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(mapped(function, item) for item in value))
    if isinstance(value, list | tuple):
        return type(value)(mapped(function, item) for item in value)
    return value
