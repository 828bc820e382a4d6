"""The interface that norms are written against: explicit operations, one line, one step, one rounding.

A norm's mathematics is written once, as calls on an `Arithmetic`; `Exact` runs it in float64, `Emulated` in an
implementation's formats with all events.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np

from normcheck.arithmetic.values import PART, Array, Elements, PerRow, Value, product_degree

if TYPE_CHECKING:
    from normcheck.arithmetic.elementwise import Operation
    from normcheck.arithmetic.formats import Format
    from normcheck.arithmetic.orders import Order

V = TypeVar("V", bound=Value)


class RunningSum(Protocol):
    """Sums of rows whose terms arrive in parts."""

    def add(self, x: Array) -> None:
        """Take the next terms of every row, (rows, m)."""
        ...

    def finish(self) -> Array:
        """Return the sums, (rows, 1) float64; the means where the order is a mean of means."""
        ...


class Arithmetic(ABC):
    """Operations on the values of one block of `rows` rows of `n` elements each."""

    def __init__(self, rows: int, n: int) -> None:
        self.rows, self.n = rows, n

    @abstractmethod
    def _compute(
        self,
        step: str,
        operation: Operation,
        operands: tuple[Value, ...],
        degree: int | None,
        within: str | None = None,
    ) -> Value:
        """Apply an operation to values: per element where an operand is, else per row."""

    @abstractmethod
    def constant(self, step: str, value: float) -> PerRow:
        """A number that is part of the formula, in the format of the step that uses it."""

    @abstractmethod
    def sum(self, step: str, x: Elements, y: Elements | None = None) -> PerRow:
        """Sum of each row (its mean where `yields_mean`); with y, of the products, added unrounded."""

    def form_of(self, step: str) -> Format | None:  # noqa: ARG002  # here in all steps
        """The format of a step's results; None where nothing is rounded."""
        return None

    def order_of(self, step: str, order: Order) -> Order:  # noqa: ARG002  # which step plays no part here
        """The order of a step in this run; `order` where nothing is rounded."""
        return order

    def running_sum(self, step: str, like: Elements, terms: int) -> RunningSum:
        """An empty sum of `terms` terms of each row, of which `like` says the format and degree.

        Terms come a power of two at a time, but for the last.
        """
        raise NotImplementedError

    def _inner(self, step: str, x: Elements, rows: int, length: int) -> PerRow:
        """Sum of rows that are runs of `length` elements within rows of this block."""
        raise NotImplementedError

    def sum_runs(self, step: str, x: Elements, runs: int) -> Elements:
        """Sum (mean where `yields_mean`) of each of `runs` equal runs of elements within every row: (rows, runs)."""
        length, sums = self.n // runs, []
        at_once = max(1, PART // length)
        for first in range(0, runs, at_once):
            count = min(at_once, runs - first)
            sums.append(self._inner(step, _runs(x, first, count, length), self.rows * count, length))
        data = np.concatenate([total.data.reshape(self.rows, -1) for total in sums], axis=1)
        return Elements.of(data, sums[0].form, sums[0].degree)

    @abstractmethod
    def moments(
        self, mean_step: str, sum_step: str, x: Elements, order: Order, chunk: int = 0, recurrence: str = "chan"
    ) -> tuple[PerRow, PerRow]:
        """Mean and sum of squared deviations of each row in one pass.

        order: which elements make up which sets, and how these are merged: ``rowwise``, ``block``, or lanes of the
        order's width that merge after every `chunk` elements and at the end (one lane where chunk is 0). recurrence:
        how an element is taken and two sets are merged, a row of `recurrences.RECURRENCES`.
        """

    @abstractmethod
    def yields_mean(self, step: str) -> bool:
        """Whether `sum` yields the mean in that step."""

    def load(self, x: Elements) -> Elements:
        """Take the input elements in."""
        return self.convert("load", x)

    def held(self, x: V) -> V:
        """The same value, kept from another pass: it does not depend on what degrees count in here."""
        if isinstance(x, PerRow):
            return PerRow(x.data, x.form, 0)  # type: ignore[return-value]
        return Elements(lambda index, _: x.part(index), x.parts, x.form, 0, length=x.length)  # type: ignore[return-value]

    def convert(self, step: str, x: V) -> V:
        """Round x to the step's format."""
        return self._compute(step, "copy", (x,), x.degree)  # type: ignore[return-value]

    def add(self, step: str, a: V, b: Value) -> V:
        """a + b; of two operands only the second may be one number a row beside elements."""
        return self._compute(step, "add", (a, b), _same(a, b))  # type: ignore[return-value]

    def subtract(self, step: str, a: V, b: Value) -> V:
        """a - b."""
        return self._compute(step, "subtract", (a, b), _same(a, b))  # type: ignore[return-value]

    def multiply(self, step: str, a: V, b: Value) -> V:
        """a * b."""
        return self._compute(step, "multiply", (a, b), product_degree(a.degree, b.degree))  # type: ignore[return-value]

    def divide(self, step: str, a: V, b: Value, *, within: str | None = None) -> V:
        """a / b; formed in the format of the step `within` first, where that is wider."""
        known = None if b.degree is None else -b.degree
        return self._compute(step, "divide", (a, b), product_degree(a.degree, known), within)  # type: ignore[return-value]

    def absolute(self, step: str, a: V) -> V:
        """|a|."""
        return self._compute(step, "absolute", (a,), a.degree)  # type: ignore[return-value]

    def sqrt(self, step: str, a: PerRow) -> PerRow:
        """Square root."""
        return self._compute(step, "sqrt", (a,), _half(a.degree))  # type: ignore[return-value]

    def rsqrt(self, step: str, a: PerRow, *, within: str | None = None) -> PerRow:
        """Correctly rounded reciprocal square root; formed in the format of the step `within` first, as quotients."""
        half = _half(a.degree)
        return self._compute(step, "rsqrt", (a,), None if half is None else -half, within)  # type: ignore[return-value]

    def fma(self, step: str, x: V, y: Value, z: Value) -> V:
        """x * y + z with one rounding; of elements and one number a row, x is the elements wherever y is."""
        product = product_degree(x.degree, y.degree)
        degree = product if product == z.degree or z.is_zero else None
        return self._compute(step, "fma", (x, y, z), degree)  # type: ignore[return-value]

    def maximum(self, step: str, x: Elements) -> PerRow:
        """Largest element of each row: exact, NaN if there is one."""
        return self.convert(step, PerRow(_extreme(np.maximum, x), x.form, x.degree))

    def minimum(self, step: str, x: Elements) -> PerRow:
        """Smallest element of each row: exact, NaN if there is one."""
        return self.convert(step, PerRow(_extreme(np.minimum, x), x.form, x.degree))

    def largest(self, step: str, x: Elements, k: int) -> Elements:
        """The k largest elements of each row, largest first: exact, NaN first."""
        best = np.empty((self.rows, 0))
        for index in range(x.parts):
            both = np.concatenate([best, x.part(index).astype(np.float64)], axis=1)
            at = max(both.shape[1] - k, 0)
            best = np.partition(both, at, axis=1)[:, at:] if at else both
        ordered = -np.sort(-best, axis=1)
        return self.convert(step, Elements.of(ordered, x.form, x.degree))


def _same(a: Value, b: Value) -> int | None:
    return a.degree if a.degree == b.degree or b.is_zero else None


def _half(degree: int | None) -> int | None:
    return None if degree is None or degree % 2 else degree // 2


def _extreme(choose: np.ufunc, x: Elements) -> Array:
    parts = [choose.reduce(x.part(index), axis=1) for index in range(x.parts)]
    return np.asarray(choose.reduce(np.stack(parts), axis=0), dtype=np.float64).reshape(-1, 1)


def _runs(x: Elements, first: int, count: int, length: int) -> Elements:
    """Runs [first, first + count) of every row as rows of their own; more than one only where they fit into a part."""

    def compute(index: int, _first: bool) -> Array:
        start, stop = first * length + index * PART, (first + count) * length
        part = _span(x, start, min(stop, start + PART))
        return np.ascontiguousarray(part).reshape(len(part) * count, -1)

    return Elements(compute, -(-length // PART), x.form, x.degree)


def _span(x: Elements, start: int, stop: int) -> Array:
    """Elements [start, stop) of every row."""
    parts = []
    for index in range(start // PART, -(-stop // PART)):
        offset = index * PART
        parts.append(x.part(index)[:, max(start - offset, 0) : stop - offset])
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
