"""The norms as data: where (which elements share a statistic) x statistic x centred or not.

    c = x - mu                  (c = x where the norm is not centred)
    y = gamma * c / s + beta    (s estimates the standard deviation of the group)

Source: Hoffer, Banner, Golan, Soudry, "Norm matters", NeurIPS 2018 (arXiv 1803.01814).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from normcheck.errors import UsageError, unknown_name

Where = Literal["batch", "layer", "instance", "group", "weight", "bounded-weight"]
StatisticName = Literal["l2", "l1", "linf", "topk", "range"]
EpsOn = Literal["variance", "statistic"]


@dataclass(frozen=True, slots=True)
class Statistic:
    """What a norm divides by: `formula` of s, whether a constant C scales it, and what eps is added to."""

    name: StatisticName
    title: str
    formula: str
    has_constant: bool
    eps_on: EpsOn
    degree: int
    """The quantity that is summed grows with this power of the input's scale."""


STATISTICS: dict[str, Statistic] = {
    s.name: s
    for s in (
        Statistic(
            name="l2",
            title="standard deviation",
            formula="sqrt(mean(c^2) + eps)",
            has_constant=False,
            eps_on="variance",
            degree=2,
        ),
        Statistic(
            name="l1",
            title="mean absolute deviation",
            formula="C * mean(|c|) + eps",
            has_constant=True,
            eps_on="statistic",
            degree=1,
        ),
        Statistic(
            name="linf",
            title="largest deviation",
            formula="C(n) * max(|c|) + eps",
            has_constant=True,
            eps_on="statistic",
            degree=1,
        ),
        Statistic(
            name="topk",
            title="mean of the k largest deviations",
            formula="C(n, k) * mean(k largest |c|) + eps",
            has_constant=True,
            eps_on="statistic",
            degree=1,
        ),
        Statistic(
            name="range",
            title="range",
            formula="C(n) * (max(c) - min(c)) + eps",
            has_constant=True,
            eps_on="statistic",
            degree=1,
        ),
    )
}

WHERES: dict[Where, str] = {
    "batch": "one channel over N x H x W; gamma and beta per channel",
    "layer": "one row (token) over the last dimension D; gamma and beta per element",
    "instance": "one channel of one sample over H x W; gamma and beta per channel",
    "group": "one group of channels of one sample over C/G x H x W; gamma and beta per channel",
    "weight": "one output channel's weight vector v: w = g * v / ||v||_p, no centring, no eps",
    "bounded-weight": "one output channel's weight vector v: w = rho * v / ||v||_p with one fixed rho a layer",
}
_WEIGHT_STATISTICS = ("l2", "l1", "linf")


@dataclass(frozen=True, slots=True)
class Norm:
    """A norm: where x statistic x centred."""

    where: Where
    statistic: Statistic
    centred: bool = True

    @property
    def is_weight(self) -> bool:
        """Whether it normalises a weight vector by its p-norm instead of activations by a deviation."""
        return self.where in ("weight", "bounded-weight")

    @property
    def has_constant(self) -> bool:
        """Whether s carries a constant C that makes it an estimate of the standard deviation."""
        return self.statistic.has_constant and not self.is_weight

    @property
    def name(self) -> str:
        """The norm's name: ``batch-l2``, ``layer-l1-uncentred``, ``rms``, ``weight-l2``."""
        plain = f"{self.where}-{self.statistic.name}"
        if self.is_weight or self.centred:
            return plain
        return "rms" if plain == "layer-l2" else f"{plain}-uncentred"

    @property
    def row_noun(self) -> str:
        """What one row is called in a report."""
        nouns = {"batch": "channel", "layer": "token", "instance": "instance", "group": "group"}
        return nouns.get(self.where, "output channel")


def _table() -> dict[str, Norm]:
    norms = [
        Norm(where, statistic, centred)
        for where in ("batch", "layer", "instance", "group")
        for statistic in STATISTICS.values()
        for centred in (True, False)
    ]
    norms += [
        Norm(where, STATISTICS[name], False) for where in ("weight", "bounded-weight") for name in _WEIGHT_STATISTICS
    ]
    return {norm.name: norm for norm in norms}


NORMS: dict[str, Norm] = _table()
_ALIASES = {
    "rmsnorm": "rms",
    "rms-norm": "rms",
    "layer-l2-uncentred": "rms",
    "batch": "batch-l2",
    "layer": "layer-l2",
    "batchnorm": "batch-l2",
    "layernorm": "layer-l2",
    "instance": "instance-l2",
    "instancenorm": "instance-l2",
    "group": "group-l2",
    "groupnorm": "group-l2",
    "weightnorm": "weight-l2",
}


def norm_named(name: str) -> Norm:
    """Return the norm of that name; ``layer``, ``groupnorm``, ``rms-norm`` and their like mean the L2 one.

    Raises:
        UsageError: no such norm.
    """
    key = name.strip().lower()
    try:
        return NORMS[_ALIASES.get(key, key)]
    except KeyError:
        raise unknown_name("norm", name, [*NORMS, *_ALIASES], "normcheck norms") from None


@dataclass(frozen=True, slots=True)
class Grouping:
    """How a tensor's elements fall into rows of `size` elements that share a statistic.

    Element j of row r is element ``(j // inner) * outer_stride + r * row_stride + j % inner`` of the tensor in
    C order. Channel of that element: ``channel_step`` selects how it follows from r and j.
    """

    groups: int
    size: int
    inner: int
    row_stride: int
    outer_stride: int
    channels: int
    channel_of: Literal["row", "row-modulo", "element", "group"]
    groups_per_sample: int = 1

    @property
    def run(self) -> int:
        """Elements of one channel of one sample that follow each other in a row; 0 where rows have no channels."""
        if self.channel_of == "element":
            return 0
        if self.channel_of == "group":
            return self.size // (self.channels // self.groups_per_sample)
        return self.inner

    @property
    def contiguous(self) -> bool:
        """Whether each row is one run of the tensor."""
        return self.inner == self.size


def grouping(norm: Norm, shape: tuple[int, ...], num_groups: int | None = None) -> Grouping:
    """Return the rows of a tensor of `shape` under `norm`.

    Shapes are torch's: (N, C, ...) for batch, instance and group, (..., D) for layer and rms, (out, ...) for weights.

    Raises:
        UsageError: the shape has too few dimensions, an empty dimension, or channels that the groups do not divide.
    """
    if not shape or any(d < 1 for d in shape):
        raise UsageError(f"shape {_text(shape)}: every dimension must be at least 1")
    if norm.where == "layer":
        size = shape[-1]
        return Grouping(math.prod(shape) // size, size, size, size, 0, size, "element")
    if norm.is_weight:
        size = math.prod(shape[1:])
        return Grouping(shape[0], size, size, size, 0, shape[0], "row")
    if len(shape) < 2:
        raise UsageError(f"shape {_text(shape)}: {norm.name} takes (N, C, ...), at least two dimensions")
    n, c, spatial = shape[0], shape[1], math.prod(shape[2:])
    if norm.where == "batch":
        return Grouping(c, n * spatial, spatial, spatial, c * spatial, c, "row")
    if norm.where == "instance":
        return Grouping(n * c, spatial, spatial, spatial, 0, c, "row-modulo")
    groups = num_groups if num_groups is not None else default_num_groups(c)
    if groups < 1 or c % groups:
        raise UsageError(
            f"shape {_text(shape)}: {c} channels do not divide into {groups} groups; give --num-groups a divisor of {c}"
        )
    size = c // groups * spatial
    return Grouping(n * groups, size, size, size, 0, c, "group", groups)


def default_num_groups(channels: int) -> int:
    """The usual 32 groups, or the largest divisor of the channels below it."""
    return next(g for g in range(min(32, channels), 0, -1) if channels % g == 0)


def _text(shape: tuple[int, ...]) -> str:
    return ",".join(map(str, shape)) or "()"
