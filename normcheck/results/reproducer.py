"""A failing norm to be taken home, as data: what a script has to compute again, operation by operation, and to show."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from normcheck.results.result import RowKind

RowState = RowKind | Literal["flushed", "vanished", "finite"]
"""What became of a row; `flushed`: its statistic before eps is 0 where the exact one is not. Of a row of dx:
`nonfinite`, `vanished` (all of it is 0, where the exact row, rounded, is not) or `finite`."""


TORCH_FORMATS = ("float16", "bfloat16", "float32", "float64")
"""Formats whose names torch's dtypes have too, and in which its kernels compute; its casts to those of 8 bits differ
from version to version."""

Figure = Literal["rows", "deviation", "lost mass", "headroom", "overflow", "flushed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sum:
    """How a sum is associated: kind, width and merge as `--order` has them."""

    kind: str
    width: int
    merge: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One operation: its name among the recorded arrays, what it is applied to, and how its result is rounded.

    operands: names of earlier operations or of recorded arrays; a number that stands in the formula, as itself.
    degree: in the input's scale. limit: largest finite number of `format`. within: the wider format that a quotient
    is rounded to first. number: of a constant, or k of the largest. replayed: why the recorded result is taken
    instead of computing it; None where it is computed.
    """

    name: str
    step: str
    operation: str
    operands: tuple[str | float, ...]
    degree: int | None
    format: str
    limit: float
    within: str | None
    order: Sum | None
    number: float | None
    replayed: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What has to show for the failure to be reproduced.

    figure: ``rows`` (a row in one of `states`), ``deviation`` (a row's relative rms error of at least `limit`),
    ``lost mass`` (at least `limit`, of the sum that is `operation`), ``overflow`` (`operation` is infinite),
    ``flushed`` (of a row of dx at least the share `limit` is 0 where the exact row is not) or ``headroom`` (at most
    `limit` bits of `operation`, which grows with the input's scale to the power of `degree`).
    """

    figure: Figure
    states: tuple[RowState, ...] = ()
    limit: float = 0.0
    operation: str | None = None
    degree: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Formula:
    """The norm as a formula, for the exact reference and for torch's own module.

    scale: the constant C. weights, biases: whether there are gamma and beta. fixed: whether running statistics are
    used; momentum: with which they are updated, None where they are not. per_channel: elements of a channel in a row
    of a group norm.
    """

    where: str
    statistic: str
    centred: bool
    is_weight: bool
    eps: float
    scale: float
    k: int
    fixed: bool
    weights: bool
    biases: bool
    weight_offset: float
    per_channel: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A norm as the operations that were performed, in their order.

    io: format of the elements; parameters: of gamma and beta. load, output, statistic, divisor: names of what yields
    the input as loaded, y, the statistic before eps, and s. gradient: name of what yields dx; None where the forward
    pass is what fails. size: elements of a row, of which the first `kept` are recorded of each operation.
    """

    formula: Formula
    operations: tuple[Operation, ...]
    io: str
    parameters: str
    load: str
    output: str
    statistic: str
    divisor: str
    gradient: str | None
    size: int
    kept: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Reproducer:
    """The facts of a script; the arrays are in a file of their own.

    title: what was found. facts: where, and under which settings, as (name, value). rows: which rows of the `of` these
    are, `states` what became of each, and `row_noun` what a row is called.
    """

    version: str
    title: str
    facts: tuple[tuple[str, str], ...]
    claim: Claim
    program: Program
    rows: tuple[int, ...]
    states: tuple[RowState, ...]
    of: int
    row_noun: str
