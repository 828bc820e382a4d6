"""An arithmetic that counts instead of computing: how many operations of which kind and format a norm is made of.

A value is a token. Its degree is no power of the input's scale here, but how many reductions of a row lie before it,
which is how often the row must have been passed over: the elements of the input have 0, a mean of them 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from normcheck.arithmetic.arithmetic import Arithmetic, V
from normcheck.arithmetic.blocks import block_levels
from normcheck.arithmetic.formats import holds
from normcheck.arithmetic.moment_schedules import moments_schedule
from normcheck.arithmetic.recurrences import RECURRENCES
from normcheck.arithmetic.schedules import (
    CLEAR,
    COMPENSATE,
    LESS,
    LOAD,
    MERGE,
    MERGE_PARTIAL,
    MERGE_TAIL,
    TAKE,
    TAKE_PARTIAL,
    TAKE_TAIL,
)
from normcheck.arithmetic.sum_schedules import sum_schedule
from normcheck.arithmetic.values import Elements, PerRow, Value

if TYPE_CHECKING:
    from collections.abc import Mapping

    from normcheck.arithmetic.elementwise import Operation
    from normcheck.arithmetic.formats import Format
    from normcheck.arithmetic.orders import Order
    from normcheck.arithmetic.recurrences import Recurrence
    from normcheck.arithmetic.schedules import Schedule

Kind = Literal["add", "multiply", "fma", "divide", "root", "compare", "absolute", "convert"]

KINDS: dict[Kind, str] = {
    "add": "additions and subtractions",
    "multiply": "multiplications",
    "fma": "fused multiply-adds",
    "divide": "divisions and reciprocals",
    "root": "square roots and reciprocal square roots",
    "compare": "comparisons of a maximum, a minimum or a selection",
    "absolute": "magnitudes",
    "convert": "conversions from one format to another",
}
"""The kinds of operations."""

_KIND_OF: dict[Operation, Kind] = {
    "copy": "convert",
    "add": "add",
    "subtract": "add",
    "multiply": "multiply",
    "divide": "divide",
    "absolute": "absolute",
    "sqrt": "root",
    "rsqrt": "root",
    "fma": "fma",
}


@dataclass(slots=True)
class Count:
    """Operations of one row: those on its elements, sums over them included, and those on one number a row."""

    on_elements: int = 0
    on_rows: int = 0


class Counting(Arithmetic):
    """Counts the operations of one row of n elements.

    formats: of each step. orders: of each sum. An operation rounds to the format of its step: no conversion of its own.
    Constants and the tokens' numbers cost nothing.

    Attributes:
        counts: by step, kind and the format that the operation is performed in, in the order of the program.
    """

    def __init__(self, n: int, formats: Mapping[str, Format], orders: Mapping[str, Order]) -> None:
        super().__init__(1, n)
        self.formats, self.orders = formats, orders
        self.counts: dict[tuple[str, Kind, Format], Count] = {}

    def elements(self, form: Format) -> Elements:
        """A token for the n elements of the row, in a format, as they are before any pass."""
        return _elements(form, 0, None)

    def per_row(self, form: Format) -> PerRow:
        """A token for one number of the row that is there before any pass."""
        return _number(form, 0)

    def form_of(self, step: str) -> Format:
        """The format of a step's results."""
        return self.formats[step]

    def yields_mean(self, step: str) -> bool:
        """Whether the step's order is a mean of means."""
        return self.orders[step].is_mean

    def order_of(self, step: str, order: Order) -> Order:  # noqa: ARG002  # as they are given
        """The order of a step."""
        return self.orders[step]

    def constant(self, step: str, value: float) -> PerRow:  # noqa: ARG002  # which number does not matter
        """A token for the number."""
        return _number(self.formats[step], 0)

    def convert(self, step: str, x: V) -> V:
        """Nothing, where x is in the step's format already."""
        return x if x.form == self.formats[step] else super().convert(step, x)

    def sum(self, step: str, x: Elements, y: Elements | None = None) -> PerRow:
        """The additions of the step's order; with y, fused multiply-adds in place of those that take a term."""
        form = self.formats[step]
        operations = sum_operations(self.orders[step], self._length(x), fused=y is not None)
        for kind, count in operations.items():
            self._add(step, kind, form, on_elements=count)
        return _number(form, _after(x, y, passed=x.length is None))

    def moments(
        self, mean_step: str, sum_step: str, x: Elements, order: Order, chunk: int = 0, recurrence: str = "chan"
    ) -> tuple[PerRow, PerRow]:
        """The operations of the recurrence for each element, and for each merge."""
        total = moments_operations(self._length(x), order, chunk, RECURRENCES[recurrence])
        for step, operations in zip((mean_step, sum_step), total, strict=True):
            for kind, count in operations.items():
                self._add(step, kind, self.formats[step], on_elements=count)
        depth = _after(x, passed=True)
        return _number(self.formats[mean_step], depth), _number(self.formats[sum_step], depth)

    def maximum(self, step: str, x: Elements) -> PerRow:
        """One comparison less than there are elements."""
        self._add(step, "compare", self.formats[step], on_elements=self._length(x) - 1)
        return self.convert(step, PerRow(_ZERO, x.form, _after(x, passed=True)))

    def minimum(self, step: str, x: Elements) -> PerRow:
        """As `maximum`."""
        return self.maximum(step, x)

    def largest(self, step: str, x: Elements, k: int) -> Elements:
        """As many comparisons as selecting the k largest needs at most: see `selections`."""
        n = self._length(x)
        self._add(step, "compare", self.formats[step], on_elements=selections(n, k))
        return self.convert(step, _elements(x.form, _after(x, passed=True), min(k, n)))

    def _compute(
        self,
        step: str,
        operation: Operation,
        operands: tuple[Value, ...],
        degree: int | None,  # noqa: ARG002  # a token's is the passes before it
        within: str | None = None,
    ) -> Value:
        form = self.formats[step]
        wide = form if within is None else self.formats[within]
        whole = next((o for o in operands if isinstance(o, Elements)), None)
        count = {"on_rows": 1} if whole is None else {"on_elements": self._length(whole)}
        self._add(step, _KIND_OF[operation], wide if holds(wide, form) else form, **count)
        depth = _after(*operands, passed=False)
        return _number(form, depth) if whole is None else _elements(form, depth, whole.length)

    def _length(self, x: Elements) -> int:
        return self.n if x.length is None else x.length

    def _add(self, step: str, kind: Kind, form: Format, *, on_elements: int = 0, on_rows: int = 0) -> None:
        if on_elements or on_rows:
            count = self.counts.setdefault((step, kind, form), Count())
            count.on_elements += on_elements
            count.on_rows += on_rows


def passes(y: Value) -> int:
    """Return how often the elements of a row are passed over for a token's value: once more than it has reductions."""
    return 1 + abs(y.degree or 0)


def sum_operations(order: Order, n: int, *, fused: bool = False) -> dict[Kind, int]:
    """Return the operations of a sum of n terms in an order, by kind.

    Running accumulators start from zero, so each term costs an addition there, or, fused, a fused multiply-add (which
    only these orders can); lanes are merged by one addition less than there are lanes. Trees and pairwise sums: n - 1
    additions. Kahan's: four a term. Means of means divide each term by the size of its block or multiply it by its
    share, and add up each block.
    """
    order = order.resolved()
    if order.kind == "kahan":
        return {"add": 4 * n}
    if order.kind in ("sequential", "lanes"):
        merging = min(order.width or 1, n) - 1
        return {"fma": n, "add": merging} if fused else {"add": n + merging}
    if order.is_scheduled:
        return _scheduled_operations(order, n, fused=fused)
    if order.kind != "blocks":
        return {"add": n - 1}
    total: dict[Kind, int] = {"divide": 0, "multiply": 0, "add": 0}
    for sizes, shares in block_levels(n, order.width):
        several = sizes[sizes > 1]
        if shares is None:
            total["divide"] += int(several.sum())
        else:
            total["multiply"] += int(sizes.sum())
        total["add"] += int((several - 1).sum())
    return total


def _scheduled_operations(order: Order, n: int, *, fused: bool) -> dict[Kind, int]:
    """Each entry of a schedule is an addition; terms that begin an accumulator are products where fused, else free."""
    plan = sum_schedule(n, order)
    taken, merged = plan.count(TAKE, TAKE_TAIL, TAKE_PARTIAL), plan.count(MERGE, MERGE_TAIL, MERGE_PARTIAL)
    merged += plan.count(LESS) + 4 * plan.count(COMPENSATE)
    if fused:
        return {"fma": taken, "add": merged, "multiply": plan.count(LOAD)}
    return {"add": taken + merged}


def selections(n: int, k: int) -> int:
    """Return the comparisons that suffice to find the k largest of n: n - k + (k - 1) ceil(log2(n - k + 2)).

    Source: Hadian and Sobel (1969), by a tournament; n - 1 for k = 1, and 0 where all are taken. Other ways of
    selecting take other numbers.
    """
    return 0 if k >= n else n - k + (k - 1) * (n - k + 1).bit_length()


def moments_operations(
    n: int, order: Order, chunk: int, recurrence: Recurrence
) -> tuple[dict[Kind, int], dict[Kind, int]]:
    """Return the operations of online moments of n elements by kind: in the mean's format, and in the sum's.

    Merges of empty sets count where the recurrence carries them out.
    """
    plan = moments_schedule(n, order, chunk=chunk)
    tail_take, tail_merge = recurrence.tail_take or recurrence.take, recurrence.tail_merge or recurrence.merge
    merges = plan.count(MERGE)
    if recurrence.merge.skips_empty:
        merges = _sets(plan) - 1
    mean: dict[Kind, int] = {}
    total: dict[Kind, int] = {}
    for how, times in (
        (recurrence.take, plan.count(TAKE)),
        (tail_take, plan.count(TAKE_TAIL)),
        (recurrence.merge, merges),
        (tail_merge, 0 if recurrence.merge.skips_empty else plan.count(MERGE_TAIL)),
    ):
        for into, operations in zip((mean, total), how.operations, strict=True):
            for kind, count in operations.items():
                into[kind] = into.get(kind, 0) + count * times
    if not recurrence.merge.skips_empty:  # the share of nothing in nothing is no division
        for kind, count in recurrence.merge.shares.items():
            mean[kind] -= count * _merges_of_nothing(plan, n)
    return mean, total


_MOST_WITHOUT = 1 << 17
"""Rows of as many elements leave no accumulator without one: at most 4096 threads take vectors of at most 32."""


def _merges_of_nothing(plan: Schedule, n: int) -> int:
    """How many merges of the vectors or threads are of two empty sets."""
    if n >= _MOST_WITHOUT:
        return 0
    filled, found = [False] * plan.accumulators, 0
    for kind, into, source in zip(plan.kind.tolist(), plan.accumulator.tolist(), plan.source.tolist(), strict=True):
        if kind in (MERGE, MERGE_TAIL):
            found += kind == MERGE and not (filled[into] or filled[source])
            filled[into] = filled[into] or filled[source]
        else:
            filled[into] = kind != CLEAR
    return found


def _sets(plan: Schedule) -> int:
    """How many sets of elements a schedule makes before it merges any: each merge of two leaves one less."""
    ordered = np.argsort(plan.accumulator, kind="stable")
    kind, place = plan.kind[ordered], plan.accumulator[ordered]
    takes = np.isin(kind, (TAKE, TAKE_TAIL))
    begins = np.ones(len(kind), bool)
    begins[1:] = (place[1:] != place[:-1]) | (kind[:-1] == CLEAR)
    return int((takes & begins).sum())


_ZERO = np.zeros((1, 1))


def _number(form: Format, depth: int) -> PerRow:
    return PerRow(_ZERO, form, depth)


def _elements(form: Format | None, depth: int, length: int | None) -> Elements:
    return Elements(lambda _index, _first: _ZERO, 1, form, depth, length=length)


def _after(*operands: Value | None, passed: bool) -> int:
    """The reductions before a value that is made of operands; `passed`: it is a reduction of the row itself."""
    return max(abs(o.degree or 0) for o in operands if o is not None) + passed
