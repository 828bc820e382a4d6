"""Gradients of gamma and beta over all rows of a study: gathered block by block, and compared with the exact ones."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from normcheck.arithmetic.emulated import Emulated
from normcheck.arithmetic.rounding import round_to
from normcheck.arithmetic.values import Elements
from normcheck.norms.backward import Affine, gradient_machine
from normcheck.norms.shared_gradients import SharedGradient
from normcheck.results import ParameterGradient

if TYPE_CHECKING:
    from normcheck.analysis.study import Runner, Study
    from normcheck.analysis.totals import Totals
    from normcheck.arithmetic.emulated import Machine
    from normcheck.arithmetic.formats import Format
    from normcheck.norms.backward import Gradients
    from normcheck.norms.table import Grouping

Array = np.ndarray[Any, np.dtype[Any]]
Name = Literal["weight", "bias"]
_STEPS: dict[Name, str] = {"weight": "grad-weight", "bias": "grad-bias"}


def affine_of(study: Study, *, always: bool) -> Affine:
    """Which gradients of gamma and beta a study has; always: also where it has neither, as if they were 1 and 0.

    The rho of a bounded weight norm is fixed. Norms that are not centred have no beta of their own accord.
    """
    norm, group, given = study.norm, study.grouping, study.stored
    return Affine(
        weight=norm.where != "bounded-weight" and (given.weight is not None or (always and not norm.is_weight)),
        bias=not norm.is_weight and (given.bias is not None or (always and norm.centred)),
        channels=group.channels // group.groups_per_sample if group.channel_of == "group" else 1,
    )


def parameters_of(group: Grouping) -> int:
    """How many gammas there are: one a row, an element of the row, or a channel."""
    return {"row": group.groups, "element": group.size}.get(group.channel_of, group.channels)


class Part(NamedTuple):
    """What a block of rows gives of the gradient of one parameter.

    values: of rows' own parameters their gradients, else what each row adds, flat, parameters innermost. like: what of
    it has the format and degree. unbounded: the same with unbounded exponents, where something overflowed.
    """

    values: Array
    like: Elements
    is_own: bool
    unbounded: Array | None = None


def parts_of(gradients: Gradients) -> dict[Name, Part]:
    """Return what a block gives of each parameter's gradient."""
    out: dict[Name, Part] = {}
    for name in _STEPS:
        own, terms = getattr(gradients, name), getattr(gradients, f"{name}_terms")
        if own is not None:
            out[name] = Part(own.data[:, 0], Elements.of(own.data, own.form, own.degree), is_own=True)
        elif terms is not None:
            values = [terms.part(index) for index in range(terms.parts)]
            flat = (values[0] if len(values) == 1 else np.concatenate(values, axis=1)).reshape(-1)
            out[name] = Part(flat, terms, is_own=False)
    return out


def exact_part(part: Part, first: int, columns: int) -> Array:
    """Return the exact gradients of rows' own parameters, else the sums of a block for each of the parameters.

    first: how many terms of all parameters come before the block's.
    """
    if part.is_own:
        return part.values
    if len(part.values) % columns == 0 and first % columns == 0:
        with np.errstate(all="ignore"):
            sums: Array = np.add.reduce(part.values.reshape(-1, columns), axis=0)
        return sums
    return np.bincount((first + np.arange(len(part.values))) % columns, weights=part.values, minlength=columns)


@dataclass(slots=True)
class Gathering:
    """The gradient of one parameter under one implementation, as its blocks come in order.

    columns: how many parameters; elements: how many elements each is applied to; terms: rows or samples that share one.
    """

    name: Name
    machine: Machine
    columns: int
    elements: int
    terms: int
    first_row: int
    measured: bool
    own: list[Array] = field(default_factory=list)
    exact: list[Array] = field(default_factory=list)
    _sums: list[tuple[Emulated, SharedGradient]] = field(default_factory=list)

    @classmethod
    def of(cls, study: Study, runner: Runner, name: Name, *, measured: bool) -> Gathering:
        """Begin with nothing. measured: with unbounded exponents beside, for magnitudes."""
        group, columns = study.grouping, parameters_of(study.grouping)
        rows_of_a_sample = group.channels if group.channel_of == "row-modulo" else group.groups_per_sample
        terms = group.groups if group.channel_of == "element" else group.groups // rows_of_a_sample
        elements = group.groups * group.size // columns
        return cls(name, gradient_machine(runner.machine), columns, elements, terms, group.groups, measured)

    def take(self, part: Part, exact: Array) -> None:
        """Add the next block's."""
        self.exact.append(exact) if part.is_own or not self.exact else self._add_exact(exact)
        if part.is_own:
            self.own.append(part.values)
            return
        if not self._sums:
            machines = [self.machine, *([self.machine.unbounded()] if self.measured else [])]
            self._sums = [self.begun(machine, part.like) for machine in machines]
        wide = part.values if part.unbounded is None else part.unbounded
        for (_, total), values in zip(self._sums, (part.values, wide), strict=False):
            total.add(values)

    def _add_exact(self, exact: Array) -> None:
        with np.errstate(all="ignore"):
            self.exact[0] = self.exact[0] + exact

    def begun(self, machine: Machine, like: Elements) -> tuple[Emulated, SharedGradient]:
        """Return a sum over rows that has nothing yet, on an arithmetic of its own, whose steps have its events."""
        a = Emulated(machine, self.columns, self.elements, self.first_row)
        return a, SharedGradient(a, _STEPS[self.name], like, self.terms)

    def finish(self, totals: Totals) -> ParameterGradient:
        """Return the gradient as it is reported; the steps of sums over rows go to the totals."""
        got = np.concatenate(self.own) if self.own else np.empty(0)
        if self._sums:
            got, *_ = [total.finish().data[:, 0] for _, total in self._sums]
            records = [a.steps for a, _ in self._sums]
            totals.take_sums(records[0], records[1] if self.measured else None)
        form = self.machine.formats["grad-parameter"]
        return compared(got, np.concatenate(self.exact), form, self.elements)


def compared(got: Array, exact: Array, form: Format, elements: int) -> ParameterGradient:
    """Return how far a gradient is from the exact one."""
    finite = np.isfinite(got)
    with np.errstate(all="ignore"):
        rounded = round_to(exact, form)
    ideal = finite & np.isfinite(rounded)
    return ParameterGradient(
        format=form.name,
        count=len(got),
        elements=elements,
        nonfinite=int(np.count_nonzero(~finite)),
        flushed=int(np.count_nonzero((got == 0) & (exact != 0))),
        relative_rms=_relative(got[finite], exact[finite]),
        ideal=_relative(rounded[ideal], exact[ideal]),
    )


def _relative(got: Array, exact: Array) -> float | None:
    """The norm of the error over that of the exact numbers; None without any, 0 where both are 0."""
    if not len(got):
        return None
    with np.errstate(all="ignore"):
        error, size = float(np.linalg.norm(got - exact)), float(np.linalg.norm(exact))
    return error / size if size else (0.0 if error == 0 else float("inf"))
