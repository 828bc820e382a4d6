"""A normalization layer of a model: what it computes, its parameters, and how all that came to be known."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable

    from normcheck.layers.contents import Array
    from normcheck.norms.parameters import Parameters
    from normcheck.norms.table import Norm

EpsSource = Literal["module", "config", "option", "assumed"]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Layer:
    """A norm with its parameters, found in a model.

    Attributes:
        name: its dotted name in the model; of several files, with the file's name and a colon before it.
        aliases: other names of the same module.
        norm: what it computes, such as `batch-l2`.
        how: how its kind was decided, in words.
        sure: whether that leaves no doubt; where not, `might_be` names the other kinds that fit.
        channels: C of (N, C, ...), D of (..., D), output channels of weight norms.
        normalized_shape: of layer norms, whose last dimensions they are; empty for all others.
        num_groups: of group norms. groups_assumed: whether nothing but a default says how many.
        parameters: gamma, beta and running statistics as stored (float64), with the format they are stored in; for
            weight norms `weight` is g, one an output channel, and for bounded weight norm rho.
        weight_offset: what the norm adds to its weight (1 for zero-centred weights, as in Gemma).
        eps: in the units of what it is added to. eps_source: where it came from.
        momentum: weight of the batch in the running statistics; None where unknown.
        spatial: False where it follows a linear layer and sees (N, C); None where that is unknown.
        vectors: of weight norms: reads v as (output channels, n) float32; None for all others.
        vector_size: n of weight norms; 0 for all others.
    """

    name: str
    norm: Norm
    how: str
    sure: bool
    channels: int
    parameters: Parameters
    eps: float
    eps_source: EpsSource
    aliases: tuple[str, ...] = ()
    might_be: tuple[str, ...] = ()
    normalized_shape: tuple[int, ...] = ()
    num_groups: int | None = None
    groups_assumed: bool = False
    weight_offset: float = 0.0
    momentum: float | None = None
    spatial: bool | None = None
    vectors: Callable[[], Array] | None = field(default=None, repr=False)
    vector_size: int = 0
