"""The emulated arithmetic: every operation rounded once to its step's format, every event counted."""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from normcheck.arithmetic.arithmetic import Arithmetic, V
from normcheck.arithmetic.elementwise import MIXED, elementwise, require_subnormals
from normcheck.arithmetic.events import Events, no_events
from normcheck.arithmetic.formats import FLOAT32, Format, holds
from normcheck.arithmetic.moment_schedules import moments_schedule
from normcheck.arithmetic.moments import Moments
from normcheck.arithmetic.orders import PLAIN, Layout
from normcheck.arithmetic.recurrences import RECURRENCES
from normcheck.arithmetic.rounding import NEAREST, Rounding, carried_by_float32
from normcheck.arithmetic.summation import summation
from normcheck.arithmetic.values import Array, Elements, PerRow, Value, product_degree

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from normcheck.arithmetic.accumulation import Summation
    from normcheck.arithmetic.arithmetic import RunningSum
    from normcheck.arithmetic.elementwise import Operation
    from normcheck.arithmetic.orders import Order


_PARTIALS = {"sum": "partial", "sum-mean": "partial-mean"}
"""Which step has the format of which step's partial sums."""


@dataclass(slots=True)
class StepRecord:
    """Events of one step, the format of its results, and their degree in the input's scale."""

    events: Events
    form: Format
    degree: int | None


@dataclass(frozen=True)
class Machine:
    """What a run computes with: the format of each step, the orders of its sums, and the rounding.

    formats: step name -> format; "partial" and "partial-mean" are those in which partial sums of the steps "sum" and
    "sum-mean" are added, where the order says so and they are given. orders: name of the summing step -> order.
    magnitudes_only: results are wanted for their size alone, so float32 may carry formats whose subnormals it would
    round twice. layout: how the elements of a row lie, for the orders that ask.
    """

    formats: Mapping[str, Format]
    orders: Mapping[str, Order]
    rounding: Rounding = NEAREST
    magnitudes_only: bool = False
    layout: Layout = PLAIN

    def carries(self, form: Format) -> bool:
        """Whether float32 carries what is rounded to a format."""
        if self.magnitudes_only:
            return form.emax <= FLOAT32.emax
        return carried_by_float32(form, self.rounding)

    def unbounded(self) -> Machine:
        """The same with exponents so wide that nothing overflows, precision as before: for magnitudes."""
        formats = {step: _unbounded(form) for step, form in self.formats.items()}
        return Machine(formats, self.orders, NEAREST, magnitudes_only=True, layout=self.layout)

    def partial_of(self, step: str) -> Format:
        """The format in which partial sums of a step are added: its own, where none is given."""
        own = self.formats[step]
        return self.formats.get(_PARTIALS.get(step, ""), own)


_NARROW_PRECISION = 11
"""Up to float16's precision, formats of fewer exponent bits than float32 have their sums and squares inside float32."""


def _unbounded(form: Format) -> Format:
    """The format with a wider exponent: float32's where that is wide enough, else half of float64's."""
    if form.name == "float64":
        return form
    name = f"{form.name}, unbounded"
    narrow = form.exponent_bits < FLOAT32.exponent_bits and form.precision <= _NARROW_PRECISION
    wide, bias = (FLOAT32.exponent_bits, FLOAT32.bias) if narrow else (10, 500)
    return dataclasses.replace(
        form, name=name, exponent_bits=wide, bias=bias, infinities=True, nan="ieee", overflow="ieee"
    )


class Emulated(Arithmetic):
    """Low-precision arithmetic on one block of rows, starting at row `first_row` of the whole."""

    def __init__(self, machine: Machine, rows: int, n: int, first_row: int = 0) -> None:
        super().__init__(rows, n)
        require_subnormals()
        self.machine = machine
        self.first_row = first_row
        self.steps: dict[str, StepRecord] = {}
        self._fast = functools.cache(machine.carries)
        self._rounding = dataclasses.replace(machine.rounding, daz=False)  # operands are flushed by their own format
        self._operation = 0

    def _begin(self, step: str, degree: int | None) -> tuple[StepRecord, int]:
        """The step's record, and a number that keys the random bits of this operation."""
        record = self.steps.get(step)
        if record is None:
            record = self.steps[step] = StepRecord(no_events(self.rows), self.machine.formats[step], degree)
        record.degree = degree
        self._operation += 1
        return record, (self.first_row << 20) + self._operation

    def constant(self, step: str, value: float) -> PerRow:
        """The number rounded to the step's format; the rounding is no operation of the step."""
        form = self.machine.formats[step]
        data = elementwise("copy", (np.full((1, 1), value),), form, self.machine.rounding, no_events(1), fast=False)
        return PerRow(data, form, 0)

    def yields_mean(self, step: str) -> bool:
        """Whether the step's order is a mean of means."""
        return self.machine.orders[step].is_mean

    def sum(self, step: str, x: Elements, y: Elements | None = None) -> PerRow:
        """Sum of each row in the step's order; with y, of products that enter by fused multiply-add."""
        degree = x.degree if y is None else product_degree(x.degree, y.degree)
        total = self._summation(step, x, degree, self.n if x.length is None else x.length)
        for index in range(x.parts):
            total.add(x.part(index), None if y is None else y.part(index))
        return PerRow(total.finish(), total.result_form, degree)

    def form_of(self, step: str) -> Format:
        """The format of a step's results."""
        return self.machine.formats[step]

    def order_of(self, step: str, order: Order) -> Order:  # noqa: ARG002  # the machine's own
        """The order of a step."""
        return self.machine.orders[step]

    def running_sum(self, step: str, like: Elements, terms: int) -> RunningSum:
        """An empty sum of each row in the step's order."""
        return self._summation(step, like, like.degree, terms)

    def _summation(self, step: str, like: Elements, degree: int | None, terms: int) -> Summation:
        record, key = self._begin(step, degree)
        fast = self._fast(record.form) and _all_in((like,), record.form)
        return summation(
            self.rows,
            terms,
            self.machine.orders[step],
            record.form,
            self.machine.rounding,
            record.events,
            fast=fast,
            key=key << 8,
            partial=self.machine.partial_of(step),
            layout=self._layout(terms),
        )

    def _layout(self, terms: int) -> Layout:
        """The layout where terms are the row's elements; of sums over something else nothing is known."""
        return self.machine.layout if terms == self.n else Layout(threads=self.machine.layout.threads)

    def _inner(self, step: str, x: Elements, rows: int, length: int) -> PerRow:
        record, _ = self._begin(step, x.degree)
        inner = Emulated(dataclasses.replace(self.machine, layout=PLAIN), rows, length, self.first_row)
        inner._operation = self._operation  # random bits go on where they are here
        total = inner.sum(step, x)
        self._operation = inner._operation
        record.events.take(inner.steps[step].events)
        return total

    def moments(
        self, mean_step: str, sum_step: str, x: Elements, order: Order, chunk: int = 0, recurrence: str = "chan"
    ) -> tuple[PerRow, PerRow]:
        """Mean and sum of squared deviations by a recurrence, every operation rounded."""
        squared = product_degree(x.degree, x.degree)
        (mean_record, key), (sum_record, _) = self._begin(mean_step, x.degree), self._begin(sum_step, squared)
        schedule = moments_schedule(self.n, order, self._layout(self.n), chunk)
        how, rounding = RECURRENCES[recurrence], self.machine.rounding
        forms, fast = (mean_record.form, sum_record.form), _all_in((x,), FLOAT32)
        moments = Moments(self.rows, self.n, schedule, how, rounding, forms, key=key, fast=fast)
        events = (mean_record.events, sum_record.events)
        for part in _parts(x, whole=not schedule.in_order):
            moments.add(part, events)
        mean, total = moments.finish(events)
        return PerRow(mean, mean_record.form, x.degree), PerRow(total, sum_record.form, squared)

    def convert(self, step: str, x: V) -> V:
        """Round x to the step's format; where it is in that format already, nothing is done and nothing counted."""
        if x.form is not None and x.form == self.machine.formats[step]:
            self._begin(step, x.degree)
            return x
        return super().convert(step, x)

    def _compute(
        self,
        step: str,
        operation: Operation,
        operands: tuple[Value, ...],
        degree: int | None,
        within: str | None = None,
    ) -> Value:
        record, key = self._begin(step, degree)
        first_format = record.form if within is None else self.machine.formats[within]
        two = first_format != record.form and holds(first_format, record.form)

        whole = next((o for o in operands if isinstance(o, Elements)), None)

        def run(index: int, first: bool, fast: bool, mixed: bool) -> Array:
            arrays = tuple(self._array(o, index, first_format) for o in operands)
            events = record.events if first else no_events(self.rows)
            draw = (key << 8) + index
            out = arrays
            if two:
                out = (
                    elementwise(
                        operation,
                        arrays,
                        first_format,
                        self._rounding,
                        no_events(self.rows),
                        fast=False,
                        key=draw,
                    ),
                )
            last: Operation = "copy" if two else operation
            rounded = elementwise(
                last,
                out,
                record.form,
                self._rounding,
                events,
                fast=fast and not two,
                mixed=mixed and not two,
                key=draw + 1,
                absorb=operation == "add",
            )
            if first and (operation == "subtract" or (operation == "fma" and whole is None)):
                terms = arrays if operation == "subtract" else (_product(*arrays[:2]), arrays[2])
                events.cancelled_bits = max(events.cancelled_bits, _cancelled_bits(terms, rounded))
            return rounded

        if whole is None:
            return PerRow(run(0, True, False, False), record.form, degree)
        carried = self._fast(record.form)
        dtype = np.float32 if carried else np.float64
        fast = carried and (operation in ("copy", "absolute") or _all_in(operands, record.form))
        mixed = carried and not fast and operation in MIXED and _is_mixed(operands, record.form)

        def compute(index: int, first: bool) -> Array:
            out = run(index, first, fast, mixed)
            return out if out.dtype == dtype else out.astype(dtype)

        out = Elements(compute, whole.parts, record.form, degree, length=whole.length)
        if whole.parts == 1:
            out.part(0)  # in the order of the program, so that a step's events are there when it is over
        return out

    def _array(self, value: Value, index: int, form: Format) -> Array:
        """The numbers of a part, as zeros where operands are flushed and they are subnormal in their own format.

        Input that has no format yet is taken to come from memory in the format `form` that it is loaded to.
        """
        data = value.part(index) if isinstance(value, Elements) else self._row_data(value)
        if not self.machine.rounding.daz:
            return data
        return np.where(np.abs(data) < (value.form or form).min_normal, np.copysign(0.0, data), data)

    def _row_data(self, value: PerRow) -> Array:
        """One number for each row."""
        if len(value.data) == self.rows:
            return value.data
        return np.full((self.rows, 1), value.data[0, 0])


def _parts(x: Elements, *, whole: bool) -> Iterable[Array]:
    """The parts of every row; `whole`: as one."""
    parts = (x.part(index) for index in range(x.parts))
    return [np.concatenate(list(parts), axis=1)] if whole and x.parts > 1 else parts


def _all_in(values: tuple[Value, ...], form: Format) -> bool:
    return all(v.form is not None and holds(form, v.form) for v in values)


_ODD_BITS = 2
"""Bits that a number rounded to odd needs beyond those that it is to be rounded to."""


def _is_mixed(values: tuple[Value, ...], form: Format) -> bool:
    """Whether all are numbers of float32, and the format is narrow enough for `kernels.mixed_elementwise`."""
    return form.precision + _ODD_BITS <= FLOAT32.precision and _all_in(values, FLOAT32)


def _product(a: Array, b: Array) -> Array:
    """The first term of a fused multiply-add, up to float64's roundoff."""
    with np.errstate(all="ignore"):
        product: Array = a * b
        return product


def _largest(x: Array) -> Array:
    """Largest magnitude of each row, without an array of magnitudes."""
    largest: Array = np.maximum(x.max(axis=1), -x.min(axis=1))
    return largest


def _cancelled_bits(operands: tuple[Array, ...], out: Array) -> float:
    """log2 of the largest operand over the largest result of the row in which that is most (0 where undefined).

    For one number a row this is the count of leading bits lost in that subtraction.
    """
    with np.errstate(all="ignore"):
        before = np.maximum(_largest(operands[0]), _largest(operands[1]))
        lost = np.log2(before / _largest(out))
    lost = lost[np.isfinite(lost)]
    return max(0.0, float(lost.max())) if lost.size else 0.0
