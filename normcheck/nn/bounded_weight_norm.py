"""Bounded weight norm: the direction of each output channel's weights is trained, the norm of the layer is not.

    fixed         w_i = rho * v_i / ||v_i||_p
    with gain     w_i = rho * sqrt(N) * g_i / ||g||_2 * v_i / ||v_i||_p

with N output channels. Fixed, rho = (sum ||w0_i||_p^p / N)^(1/p), the norm of all initial weights over N^(1/p)
(max |w0| for p = inf). With gain, g_i = ||w0_i||_p is trained too and rho = ||g||_2 / sqrt(N) at the start, so that
the weights start as they were and their norm as a whole stays: the two rho agree for p = 2.

Source: Hoffer et al., "Norm matters" (arXiv 1803.01814), section 5, and the authors' code for the gain.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.utils import parametrize

from normcheck.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

_EXPONENTS = (1.0, 2.0, math.inf)
_TRANSPOSED = (torch.nn.ConvTranspose1d, torch.nn.ConvTranspose2d, torch.nn.ConvTranspose3d)


class BoundedWeightNorm(torch.nn.Module):
    """Bounded weight norm as a parametrisation of a weight (out, ...), each [i] one output channel's vector.

    Norms are taken in float32 for float16 and bfloat16, else in the type of the weight. In a state dict it is
    ``original`` (v) of the parametrised weight, with ``0.rho``, ``0.p`` and, where gains are trained, ``0.gain``.

    Args:
        weight: the initial weight, from which rho comes and, with `gain`, the gains.
        p: 1, 2 or inf. gain: whether the norms of the single channels are trained, their total being fixed.

    Raises:
        UsageError: another p, a weight without vectors, or with a channel that is all zeros or not finite; when run,
            a channel that has become all zeros. Under torch.compile and torch.export, which look at no values, such
            a channel is NaN.
    """

    rho: torch.Tensor
    p: torch.Tensor
    gain: torch.nn.Parameter | None

    def __init__(self, weight: torch.Tensor, p: float = 2, gain: bool = False) -> None:
        super().__init__()
        if p not in _EXPONENTS:
            raise UsageError(f"bounded weight norm: p must be 1, 2 or inf, received {p!r}")
        if weight.ndim < 2 or weight.numel() == 0:
            raise UsageError(f"bounded weight norm needs a weight (out, ...), received shape {list(weight.shape)}")
        self.exponent = float(p)
        norms = self._norms(weight.detach())
        _check_norms(norms, "when it was to be normalised")
        rho = norms.square().mean().sqrt() if gain else _mean_of_powers(norms, self.exponent)
        self.register_buffer("rho", rho.to(weight.dtype))
        self.register_buffer("p", torch.tensor(self.exponent, dtype=torch.float32, device=weight.device))
        self.register_parameter("gain", torch.nn.Parameter(norms.to(weight.dtype)) if gain else None)

    def forward(self, v: torch.Tensor) -> torch.Tensor:
        """Return w of v."""
        norms = self._norms(v)
        if not torch.compiler.is_compiling():
            _check_norms(norms.detach(), "in training")
        scale = self.rho.to(norms.dtype)
        if self.gain is not None:
            g = self.gain.to(norms.dtype)
            scale = scale * math.sqrt(g.numel()) * g / torch.linalg.vector_norm(g)
        per_channel = (-1, *(1,) * (v.ndim - 1))
        w: torch.Tensor = v.to(norms.dtype) * (scale / norms).reshape(per_channel)
        return w.to(v.dtype)

    def _norms(self, v: torch.Tensor) -> torch.Tensor:
        wide = v.to(torch.promote_types(v.dtype, torch.float32))
        norms: torch.Tensor = torch.linalg.vector_norm(wide.flatten(1), ord=self.exponent, dim=1)
        return norms

    def normcheck_facts(self) -> None:
        """Return nothing: `normcheck.analyze` sees bounded weight norm by the names of its tensors."""

    def extra_repr(self) -> str:
        """Return the settings."""
        return f"p={self.exponent:g}, gain={self.gain is not None}"

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Refuse a state dict of another p: the weights would silently be others."""
        p = state_dict.get(f"{prefix}p")
        if p is not None and float(p) != self.exponent:
            rest[-1].append(f"{prefix}p is {float(p):g}, where this bounded weight norm has p = {self.exponent:g}")
            return
        load: Callable[..., None] = super()._load_from_state_dict
        load(state_dict, prefix, *rest)


def bounded_weight_norm(
    module: torch.nn.Module, name: str = "weight", p: float = 2, gain: bool = False
) -> torch.nn.Module:
    """Put a weight of a module under bounded weight norm, in place.

    `torch.nn.utils.parametrize.remove_parametrizations(module, name)` takes it off and leaves the weights as they are.

    Args:
        module: a linear layer or a convolution that is not transposed (its output channels are dimension 1).
        name: of the parameter.
        p: 1, 2 or inf. gain: whether the norms of the single channels are trained, see `BoundedWeightNorm`.

    Returns:
        The module.

    Raises:
        UsageError: no such parameter, one that is parametrised already, a transposed convolution, or what
            `BoundedWeightNorm` refuses.
    """
    what = f"{name!r} of {type(module).__name__}"
    if parametrize.is_parametrized(module, name):
        raise UsageError(f"bounded weight norm: {what} is parametrised already; remove that first")
    weight = module._parameters.get(name)  # noqa: SLF001  # getattr would also give buffers and methods
    if weight is None:
        known = ", ".join(key for key, value in module.named_parameters(recurse=False) if value is not None) or "none"
        raise UsageError(f"bounded weight norm: {what} is no parameter; the module has {known}")
    if isinstance(module, _TRANSPOSED):
        raise UsageError(f"bounded weight norm: {what} has its output channels in dimension 1, where 0 is expected")
    parametrize.register_parametrization(module, name, BoundedWeightNorm(weight, p, gain))
    return module


def _mean_of_powers(norms: torch.Tensor, p: float) -> torch.Tensor:
    """(sum norms^p / N)^(1/p), the maximum for p = inf."""
    return norms.max() if p == math.inf else norms.pow(p).mean().pow(1 / p)


def _check_norms(norms: torch.Tensor, when: str) -> None:
    """Refuse a vector without direction: 0 / 0."""
    good = (norms > 0) & norms.isfinite()
    if not bool(good.all()):
        bad = int((~good).nonzero()[0])
        raise UsageError(
            f"bounded weight norm: the weights of output channel {bad} have the norm {float(norms[bad]):g} {when}; a "
            "direction needs a norm that is finite and not 0"
        )
