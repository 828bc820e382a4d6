"""Running a live module once, to see what reaches its norms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from normcheck.errors import UsageError
from normcheck.layers.live.recording import record

if TYPE_CHECKING:
    import torch

    from normcheck.layers.live.recording import Recording


def call_of(inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return inputs as the arguments of a call: a mapping gives keywords, a tuple or list positions."""
    if isinstance(inputs, Mapping):
        return (), dict(inputs)
    return (tuple(inputs) if isinstance(inputs, tuple | list) else (inputs,)), {}


def observe(
    module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], *, match: Any = None, seed: int = 0
) -> Recording:
    """Run the module once, as it is (train or eval), without gradients, and return what reached its norms.

    Raises:
        UsageError: the module does not take these inputs.
    """
    import torch  # noqa: PLC0415  # the caller has a module, so it is loaded

    with record(module, match=match, seed=seed) as recording, torch.no_grad():
        try:
            module(*args, **kwargs)
        except Exception as error:
            what = f"{type(error).__name__}: {error}".splitlines()[0]
            raise UsageError(f"{type(module).__name__} does not take these inputs: {what}") from error
    return recording
