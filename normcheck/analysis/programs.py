"""A norm on a few rows as a list of operations, with the value of each: what a script can do again in torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from normcheck.analysis.worst_rows import MOST_ELEMENTS, Evaluated, gathered, judge, judge_gradient, values_of
from normcheck.arithmetic.formats import FLOAT32, Format, format_named, holds
from normcheck.arithmetic.values import Elements, PerRow, Value
from normcheck.errors import UsageError
from normcheck.results.reproducer import TORCH_FORMATS, Formula, Operation, Program, Sum

if TYPE_CHECKING:
    from normcheck.analysis.backward import Incoming
    from normcheck.analysis.study import Runner, Study
    from normcheck.arithmetic.emulated import Machine
    from normcheck.arithmetic.traced import Performed
    from normcheck.results.reproducer import RowState

Array = np.ndarray[Any, np.dtype[Any]]

_PARAMETERS = ("weight", "bias", "running_mean", "running_statistic")


@dataclass(slots=True)
class _Names:
    """The names of a block's values, and the arrays of those that no operation yields."""

    block: Evaluated
    of: dict[int, str] = field(default_factory=dict)
    arrays: dict[str, Value] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.of[id(self.block.raw)] = "x"
        if self.block.gradient is not None:
            self.of[id(self.block.gradient.raw)] = "g"
        for name in _PARAMETERS:
            value = getattr(self.block.stored, name)
            if value is not None:
                self.of[id(value)] = f"stored_{name}"
        for place, performed in enumerate(self.block.performed, start=1):
            self.of[id(performed.result)] = f"step_{place:02d}_{performed.step.replace('-', '_')}"
        for new, old in self.block.gradient.aliases if self.block.gradient is not None else ():
            self.of[id(new)] = self.name(old)

    def name(self, value: Value) -> str:
        """The value's name; what no operation yields is recorded as it is given."""
        if id(value) not in self.of:
            self.of[id(value)] = f"given_{len(self.arrays) + 1:02d}"
            self.arrays[self.of[id(value)]] = value
        return self.of[id(value)]

    def operand(self, value: Value) -> str | float:
        """The value's name, or a number of the formula itself, such as n."""
        if id(value) not in self.of and isinstance(value, PerRow) and value.data.shape == (1, 1):
            return float(value.data[0, 0])
        return self.name(value)


def program_of(
    study: Study, runner: Runner, rows: list[int], incoming: Incoming | None = None
) -> tuple[Program, tuple[RowState, ...], dict[str, Array]]:
    """Return the operations of some rows, what became of each row, and the arrays that belong to them.

    incoming: of both passes, and what became of dx.

    Raises:
        UsageError: the rows are so long that values would have to be left out that a script cannot compute.
    """
    kept = min(study.grouping.size, max(1, MOST_ELEMENTS // len(rows)))
    programs: list[Program] = []

    def take(block: Evaluated, places: Array) -> dict[str, Array]:
        names = _Names(block)
        programs.append(_program(block, runner, names, kept))
        return _arrays(block, names, places, kept)

    arrays = gathered(study, runner, rows, take, incoming)
    program = programs[0]
    lost = [op for op in program.operations if op.replayed and arrays[op.name].shape[1] > 1]
    if kept < study.grouping.size and lost:
        raise UsageError(
            f"rows of {study.grouping.size} elements are too long to take home where torch cannot compute a step "
            f"({lost[0].step}: {lost[0].replayed}): give a smaller input"
        )
    states = tuple(arrays.pop("states").tolist())
    return program, states, {"rows": np.array(rows), **arrays}


def _program(block: Evaluated, runner: Runner, names: _Names, kept: int) -> Program:
    operations = tuple(_operation(p, names, runner.machine) for p in block.performed)
    emulated, study = block.emulated, block.study
    return Program(
        formula=_formula(block),
        operations=operations,
        io=study.io.name,
        parameters=(study.stored.form or study.io).name,
        load=operations[0].name,
        output=names.name(emulated.y),
        statistic=names.name(emulated.before_eps),
        divisor=names.name(emulated.s),
        gradient=None if block.gradient is None else names.name(block.gradient.emulated),
        size=study.grouping.size,
        kept=kept,
    )


def _operation(performed: Performed, names: _Names, machine: Machine) -> Operation:
    order = performed.order
    return Operation(
        name=names.name(performed.result),
        step=performed.step,
        operation=performed.operation,
        operands=tuple(names.operand(value) for value in performed.operands),
        degree=performed.result.degree,
        format=performed.form.name,
        limit=performed.form.max_finite,
        within=None if performed.within is None else performed.within.name,
        order=None if order is None else Sum(kind=order.kind, width=order.width, merge=order.merge),
        number=performed.number,
        replayed=_why_replayed(performed, machine),
    )


def _why_replayed(performed: Performed, machine: Machine) -> str | None:
    """Why a script takes the recorded result; None where torch computes it bit for bit."""
    rounding, sums = machine.rounding, performed.operation == "sum"
    strange = [f.name for f in (performed.form, performed.within) if f is not None and f.name not in TORCH_FORMATS]
    reasons = {
        f"torch does not round {rounding.mode}": rounding.mode != "nearest-even",
        "torch does not flush or saturate so": rounding.ftz or rounding.daz or rounding.overflow is not None,
        f"torch does not compute in {', '.join(strange)}": bool(strange),
        "Welford's recurrence takes the elements one by one": performed.operation == "moments",
        "torch has no fused multiply-add": performed.operation == "fma"
        or (performed.operation == "sum" and len(performed.operands) > 1),
        "Kahan's sum takes the elements one by one": performed.order is not None and performed.order.kind == "kahan",
        f"torch has no sum in the order {performed.order}": performed.order is not None
        and performed.order.is_scheduled,
        "a script does not visit rows position by position": sums and machine.layout.channels_last,
    }
    return next((reason for reason, holds_here in reasons.items() if holds_here), None)


def _formula(block: Evaluated) -> Formula:
    study = block.study
    norm, group = study.norm, study.grouping
    return Formula(
        where=norm.where,
        statistic=norm.statistic.name,
        centred=norm.centred,
        is_weight=norm.is_weight,
        eps=study.eps,
        scale=study.scale,
        k=study.k,
        fixed=study.has_fixed_statistics,
        weights=study.parameters.weight is not None,
        biases=study.parameters.bias is not None,
        weight_offset=study.weight_offset,
        per_channel=group.size * group.groups_per_sample // group.channels if norm.where == "group" else group.size,
    )


def _arrays(block: Evaluated, names: _Names, places: Array, kept: int) -> dict[str, Array]:
    """The arrays of some rows of a block; a leading underscore marks those that belong to no row (see `gathered`)."""

    def rows_of(value: Value, most: int | None = None) -> Array:
        return values_of(value, places, block.rows, most)

    arrays = {"x": rows_of(block.raw)}
    for kind, problem in (("", block.given), ("stored_", block.stored)):
        for name in _PARAMETERS:
            value = getattr(problem, name)
            if isinstance(value, Elements) and block.study.grouping.channel_of == "element":
                arrays[f"_{kind}{name}"] = _whole(value)
            elif value is not None:
                arrays[kind + name] = rows_of(value)
    arrays |= {name: rows_of(value) for name, value in names.arrays.items()}
    for performed in block.performed:
        name = names.name(performed.result)
        data = _narrow(rows_of(performed.result, kept), performed.result.form or performed.form)
        arrays |= {f"_{name}": data[:1]} if performed.operation == "constant" else {name: data}
    gradient, judged = block.gradient, judge(block) if block.gradient is None else judge_gradient(block)
    exact, emulated = (block.exact.y, block.emulated.y) if gradient is None else (gradient.exact, gradient.emulated)
    arrays |= {"exact": rows_of(exact, kept), "emulated": rows_of(emulated, kept)}
    if gradient is not None:
        arrays["g"] = rows_of(gradient.raw)
    arrays["statistic_exact"] = rows_of(block.exact.before_eps)
    arrays["statistic_emulated"] = rows_of(block.emulated.before_eps)
    arrays["s_exact"], arrays["s_emulated"] = rows_of(block.exact.s), rows_of(block.emulated.s)
    return arrays | {"states": np.array(judged.states)[places]}


def _whole(value: Elements) -> Array:
    """All numbers of a value that is the same in all rows, (1, n)."""
    return np.concatenate([value.part(index) for index in range(value.parts)], axis=1)


def _narrow(data: Array, form: Format) -> Array:
    """The numbers in the smallest of numpy's types that holds the format."""
    smallest = next(
        (t for f, t in ((format_named("float16"), np.float16), (FLOAT32, np.float32)) if holds(f, form)), np.float64
    )
    with np.errstate(all="ignore"):
        return data.astype(smallest)
