"""Which weights are scale invariant: found by scaling them, not by looking for norms behind them."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch

from normcheck.errors import UsageError
from normcheck.optim.directions import by_channel, channel_norms

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

TOLERANCE = 0.01
"""Relative. Norms with an eps are invariant up to about eps over the variance of what they normalise; a weight without
a norm departs by an amount near 1."""


@dataclass(frozen=True)
class Departure:
    """How far a weight is from scale invariance, for factors a > 0; all three are 0 where it is exact (eq. 1-3).

    Attributes:
        output: ‖y(a·w) − y(w)‖/‖y(w)‖.
        radial: the share of the gradient along w, ‖(w·∂L/∂w)/‖w‖‖/‖∂L/∂w‖, which y(a·w) = y(w) makes 0.
        gradient: ‖a·∂L/∂w(a·w) − ∂L/∂w(w)‖/‖∂L/∂w(w)‖: 0 where the gradient goes with 1/‖w‖.
    """

    output: float
    radial: float
    gradient: float

    @property
    def largest(self) -> float:
        """The largest of the three; NaN if one is, as for a weight that has no effect and so no gradient."""
        values = (self.output, self.radial, self.gradient)
        return math.nan if any(map(math.isnan, values)) else max(values)


@dataclass(frozen=True)
class ScaleInvariance:
    """What was found of one weight.

    Attributes:
        channels: with a factor of its own for each output channel, as before a batch norm.
        tensor: with one factor for all of it, as before a layer norm, or where a norm follows further behind.
        tolerance: up to which departures count as none.
    """

    channels: Departure
    tensor: Departure
    tolerance: float

    @property
    def scope(self) -> Literal["channel", "tensor"] | None:
        """What can be scaled without effect: each channel, the weight as a whole only, or neither of them."""
        if self.channels.largest <= self.tolerance:
            return "channel"
        return "tensor" if self.tensor.largest <= self.tolerance else None


def scale_invariance(
    module: torch.nn.Module, *inputs: Any, seed: int = 0, tolerance: float = TOLERANCE
) -> dict[str, ScaleInvariance]:
    """Check every trainable weight with two dimensions or more for y(a·w) = y(w), w·∂L/∂w = 0, ∂L/∂w ~ 1/‖w‖.

        found = scale_invariance(model, images)
        weights = {name: p for name, p in model.named_parameters() if name in found and found[name].scope == "channel"}

    It runs on a copy in float64, in the mode that the module is in: batch norms make weights invariant in training mode
    alone. L is a random projection of the output; random layers draw the same numbers in every run. Factors are 2 for a
    whole weight, and drawn log-uniformly from [1/2, 2] for its channels (dimension 0: those of a transposed convolution
    are dimension 1, so that these weights are found invariant as a whole at best).

    The cost is two forward and backward passes a weight. Where y is not finite, no weight is invariant.

    Args:
        module: its forward must return one tensor.
        inputs: what it is called with; floating-point tensors are widened to float64.
        seed: of the projection, the factors and random layers; the global state of the generator is not changed.
        tolerance: up to which departures count as none.

    Raises:
        UsageError: the module returns no tensor, or none that has a gradient.
    """
    probe = _Probe(copy.deepcopy(module).double(), tuple(map(_widened, inputs)), seed)
    weights = {name: p for name, p in probe.module.named_parameters() if p.ndim >= 2 and p.requires_grad}
    output, gradients = probe.run(weights)
    found = {}
    for name, weight in weights.items():
        before = (output, gradients[name])
        generator = torch.Generator().manual_seed(seed)
        factors = 2 ** (2 * torch.rand(len(weight), generator=generator, dtype=torch.float64) - 1)
        found[name] = ScaleInvariance(
            channels=probe.departure(name, weight, before, factors.to(weight.device)),
            tensor=probe.departure(name, weight, before, torch.full_like(factors, 2).to(weight.device), whole=True),
            tolerance=tolerance,
        )
    return found


class _Probe:
    """A copy of a module, run again and again on the same input."""

    def __init__(self, module: torch.nn.Module, inputs: tuple[Any, ...], seed: int) -> None:
        self.module, self._inputs, self._seed = module, inputs, seed

    def run(self, weights: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """The output, and the gradient of its projection for each weight: zero where there is none."""
        with torch.random.fork_rng(), torch.enable_grad():
            torch.manual_seed(self._seed)
            output = self.module(*self._inputs)
        if not isinstance(output, torch.Tensor) or not output.requires_grad:
            raise UsageError(
                f"expected a module that returns one tensor with a gradient, received {type(output).__name__}: "
                "wrap it into one whose forward returns that tensor"
            )
        generator = torch.Generator().manual_seed(self._seed)
        projection = torch.randn(output.shape, generator=generator, dtype=torch.float64).to(output)
        tensors = list(weights.values())
        found = torch.autograd.grad(output, tensors, projection, allow_unused=True, materialize_grads=True)
        return output.detach(), dict(zip(weights, found, strict=True))

    def departure(
        self, name: str, weight: Tensor, before: tuple[Tensor, Tensor], factors: Tensor, *, whole: bool = False
    ) -> Departure:
        """Scale a weight's channels, run, and set it back."""
        kept, (y, gradient), a = weight.detach().clone(), before, by_channel(factors, weight)
        with torch.no_grad():
            weight.mul_(a)
        y_scaled, scaled = self.run({name: weight})
        with torch.no_grad():
            weight.copy_(kept)
        return Departure(
            output=_relative(y_scaled - y, y),
            radial=_radial(kept, gradient, whole=whole),
            gradient=_relative(a * scaled[name] - gradient, gradient),
        )


def _relative(difference: Tensor, reference: Tensor) -> float:
    """‖difference‖/‖reference‖; NaN for 0/0."""
    return float(difference.norm() / reference.norm())


def _radial(weight: Tensor, gradient: Tensor, *, whole: bool) -> float:
    """The share of the gradient along the weight, or along the weight of each channel."""
    if whole:
        return float((weight * gradient).sum().abs() / (weight.norm() * gradient.norm()))
    along = (weight * gradient).flatten(1).sum(1) / channel_norms(weight)
    return float(along.norm() / gradient.norm())


def _widened(value: Any) -> Any:
    return value.double() if isinstance(value, torch.Tensor) and value.is_floating_point() else value
