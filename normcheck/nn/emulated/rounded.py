"""Rounding of what is no norm: activations, the gradients between modules, and parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from normcheck.arithmetic.elementwise import elementwise, mix
from normcheck.arithmetic.emulated import StepRecord
from normcheck.arithmetic.events import no_events
from normcheck.arithmetic.rounding import carried_by_float32
from normcheck.nn.emulated.calls import check_input
from normcheck.nn.emulated.functions import through

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from normcheck.nn.emulated.counting import Counter
    from normcheck.nn.emulated.sites import Setting, Site

Array = np.ndarray[Any, np.dtype[Any]]

_APART = 1 << 32
"""Random streams of roundings are numbered from here, those of norms below."""


class Rounder:
    """Rounds tensors to the precision while one forward, and the backward after it, lasts."""

    def __init__(self, setting: Setting, counter: Counter, stream: tuple[int, ...]) -> None:
        self.setting, self.counter, self.stream = setting, counter, stream
        self.operations = _APART

    def rounded(self, layer: str, step: str, x: torch.Tensor) -> torch.Tensor:
        """Return the tensor with every element rounded once, and count the events under a layer's step."""
        check_input(x, self.setting, layer)
        form, rounding = self.setting.io, self.setting.rounding
        self.operations += 1
        key = int(mix(rounding.seed, *self.stream, self.operations)) if rounding.mode == "stochastic" else 0
        values: Array = x.detach().cpu().contiguous().numpy()
        events = no_events(1)
        fast = carried_by_float32(form, rounding)
        out = elementwise("copy", (values.reshape(1, -1),), form, rounding, events, fast=fast, key=key)
        self.counter.add(layer, [{step: StepRecord(events, form, 1)}])
        return torch.from_numpy(out.reshape(values.shape)).to(x.device, x.dtype)

    def activation(self, layer: str, y: torch.Tensor) -> torch.Tensor:
        """Return a module's output rounded, whose gradient is rounded too."""
        return through(
            y,
            lambda y: self.rounded(layer, "activation", y),
            lambda gradient: self.rounded(layer, "activation-gradient", gradient),
        )

    def parameter(self, name: str, x: torch.Tensor, ending: str) -> torch.Tensor:
        """Return a parameter, or its gradient, rounded."""
        layer, _, attribute = name.rpartition(".")
        return self.rounded(layer or attribute, f"parameter-{attribute}{ending}", x)

    def settle(self, name: str, parameter: torch.nn.Parameter) -> None:
        """Round a parameter in place, where it is not a number of the precision already."""
        now = self.parameter(name, parameter, "")
        if not torch.equal(now, parameter):
            parameter.copy_(now)


def leaves_of(module: torch.nn.Module, sites: Sequence[Site]) -> Iterator[tuple[str, torch.nn.Module]]:
    """Yield the modules whose outputs are rounded: those without submodules, but for norms, which round their own.

    Parametrisations are no submodules: what they compute is a weight.
    """
    norms = {id(site.found.module) for site in sites}
    seen: set[int] = set()
    for name, child in module.named_modules():
        is_part = "parametrizations" in name.split(".")
        inner = [key for key in child._modules if key != "parametrizations"]  # noqa: SLF001 - children, by name
        is_leaf = not inner or isinstance(child, torch.nn.MultiheadAttention)
        if is_leaf and not is_part and id(child) not in norms and id(child) not in seen:
            seen.add(id(child))
            yield name or type(child).__name__, child
