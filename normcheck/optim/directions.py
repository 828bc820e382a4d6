"""Lengths and directions of weights, an output channel at a time: dimension 0 of a linear or convolution weight."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from normcheck.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from torch import Tensor


def channel_norms(weight: Tensor) -> Tensor:
    """‖w‖₂ of every output channel, (C, ...) to (C,), summed and returned in float64 whatever the weight's format.

    A channel with a NaN has the norm NaN, one with an infinity and no NaN the norm inf.
    """
    norms: Tensor = torch.linalg.vector_norm(weight.detach().flatten(1), dim=1, dtype=torch.float64)
    return norms


def by_channel(numbers: Tensor, weight: Tensor) -> Tensor:
    """One number a channel, in the format and of a shape that multiplies the weight channel by channel."""
    return numbers.to(weight.dtype).reshape(-1, *[1] * (weight.ndim - 1))


def directions(weight: Tensor) -> Tensor:
    """ŵ = w/‖w‖ of every output channel, in float64; NaN for a channel that is zero or not finite."""
    wide = weight.detach().double()
    return wide / by_channel(channel_norms(wide), wide)


def displacement_error(start: Sequence[Tensor], end: Sequence[Tensor], reference: Sequence[Tensor]) -> float:
    """How far the directions have gone astray, as a share of the way that those of the reference went: ‖d − r‖/‖r‖.

    d = ŵ_end − ŵ_start and r = ŵ_reference − ŵ_start, those of all channels of all weights in one vector, in float64.
    0: the same directions as the reference. 1: as wrong as not having moved at all. About √2: as far from the start as
    the reference, in unrelated directions. It does not see lengths, and is not the cosine between end and reference,
    which is near 1 for any two short runs from one start. NaN where a direction is, or where the reference is at its
    start.

    Args:
        start: the weights that both runs began with.
        end: the weights of the run that is judged, in the same order.
        reference: the weights of the run that it should have followed.
    """
    astray = way = 0.0
    for first, last, wanted in zip(start, end, reference, strict=True):
        astray += float((directions(last) - directions(wanted)).square().sum())
        way += float((directions(wanted) - directions(first)).square().sum())
    return math.sqrt(astray / way) if way > 0 else math.nan


def weights_of(named_parameters: Iterable[tuple[str, Tensor]] | Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The named weights, of which all must have output channels with a direction.

    Raises:
        UsageError: there is none, a name comes twice, a tensor has less than two dimensions, or a channel is zero or
            not finite.
    """
    pairs = list(named_parameters.items() if hasattr(named_parameters, "items") else named_parameters)
    weights = dict(pairs)
    if not weights or len(weights) < len(pairs):
        raise UsageError(f"expected named weights, each name once; received {[name for name, _ in pairs]}")
    for name, weight in weights.items():
        if weight.ndim < 2:
            raise UsageError(
                f"{name!r} has the shape {tuple(weight.shape)}: a weight with output channels has two dimensions or "
                "more; pass the scale-invariant weights alone, which normcheck.optim.scale_invariance finds"
            )
        lengths = channel_norms(weight)
        bad = torch.nonzero(~((lengths > 0) & lengths.isfinite())).flatten().tolist()
        if bad:
            raise UsageError(
                f"{name!r}: channel {bad[0]} has the norm {float(lengths[bad[0]]):g}, and so no direction; "
                "initialise it to finite numbers that are not all zero"
            )
    return weights
