"""A study: one norm on one input in one precision, and the implementations that are to run on it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from normcheck.arithmetic.values import PART, Elements
from normcheck.norms.forward import Problem

if TYPE_CHECKING:
    from normcheck.arithmetic.emulated import Machine
    from normcheck.arithmetic.formats import Format
    from normcheck.norms.implementations import Implementation
    from normcheck.norms.parameters import Parameters
    from normcheck.norms.table import Grouping, Norm

Array = np.ndarray[Any, np.dtype[Any]]

BLOCK = 1 << 19
"""Elements of a block: with its intermediates it stays in the last-level cache, and Python's share stays small."""


class Source(Protocol):
    """Where elements come from."""

    def draw(self, grouping: Grouping, row_start: int, row_stop: int, start: int, stop: int) -> Array:
        """Return elements [start, stop) of rows [row_start, row_stop), (rows, m), float32 or float64."""
        ...


@dataclass(frozen=True)
class Scaled:
    """A source times a factor."""

    source: Source
    factor: float

    def draw(self, grouping: Grouping, row_start: int, row_stop: int, start: int, stop: int) -> Array:
        """The source's elements times the factor, in their own type."""
        x = self.source.draw(grouping, row_start, row_stop, start, stop)
        with np.errstate(all="ignore"):
            out: Array = x * x.dtype.type(self.factor)
            return out


_REMEMBERED = 1 << 24
"""Elements (64 MiB of float32) up to which a source's values are kept: the search for the safe scale asks often."""


class Remembered:
    """A source whose values are drawn once, where they are few enough to be kept."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self._drawn: dict[tuple[Any, ...], Array] = {}

    def draw(self, grouping: Grouping, row_start: int, row_stop: int, start: int, stop: int) -> Array:
        """The source's elements."""
        if grouping.groups * grouping.size > _REMEMBERED:
            return self.source.draw(grouping, row_start, row_stop, start, stop)
        key = (grouping, row_start, row_stop, start, stop)
        if key not in self._drawn:
            self._drawn[key] = self.source.draw(grouping, row_start, row_stop, start, stop)
        return self._drawn[key]


@dataclass(frozen=True)
class Runner:
    """One implementation, with the machine that its roles resolve to."""

    implementation: Implementation
    machine: Machine


@dataclass(frozen=True)
class Study:
    """One norm on one input in one precision: what all its implementations share.

    parameters: as given, for the reference. stored: as they are in the format of the parameters. momentum: of the
    running statistics, where they are updated. weight_offset: added to gamma by the norm itself. residual: added to
    the input first, where there is one; numbers of the io format, as the input that is loaded.
    """

    norm: Norm
    grouping: Grouping
    io: Format
    source: Source
    eps: float
    scale: float
    k: int
    parameters: Parameters
    stored: Parameters
    runners: tuple[Runner, ...]
    momentum: float | None = None
    weight_offset: float = 0.0
    residual: Source | None = None

    def problem(self, parameters: Parameters, row_start: int, row_stop: int, param_form: Format | None) -> Problem:
        """The problem of a block of rows with those parameters."""
        values = parameters.values(self.norm, self.grouping, row_start, row_stop, param_form)
        return Problem(
            norm=self.norm,
            eps=self.eps,
            scale=self.scale,
            k=self.k,
            momentum=self.momentum,
            weight_offset=self.weight_offset,
            residual=self._residual(row_start, row_stop),
            **values,
        )

    def _residual(self, row_start: int, row_stop: int) -> Elements | None:
        """The residual of a block of rows."""
        source, g = self.residual, self.grouping
        if source is None:
            return None
        return Elements(
            lambda i, _: source.draw(g, row_start, row_stop, i * PART, min(g.size, (i + 1) * PART)),
            -(-g.size // PART),
            self.io,
        )

    @property
    def has_fixed_statistics(self) -> bool:
        """Whether running statistics take the place of the input's own (eval mode)."""
        return self.parameters.running_statistic is not None and self.momentum is None

    def blocks(self) -> list[tuple[int, int]]:
        """Row ranges: as many rows as fill a block."""
        rows = max(1, BLOCK // min(self.grouping.size, PART))
        if self.grouping.size > PART:
            rows = 1
        return [(start, min(start + rows, self.grouping.groups)) for start in range(0, self.grouping.groups, rows)]


def only(study: Study, runner: Runner, source: Source | None = None) -> Study:
    """The same study with one implementation, and another source if given."""
    return replace(study, runners=(runner,), source=source or study.source)
