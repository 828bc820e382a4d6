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
from normcheck.arithmetic.values import Elements, PerRow, Value

if TYPE_CHECKING:
    from collections.abc import Mapping

    from normcheck.arithmetic.elementwise import Operation
    from normcheck.arithmetic.formats import Format
    from normcheck.arithmetic.orders import Order

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

    def yields_mean(self, step: str) -> bool:
        """Whether the step's order is a mean of means."""
        return self.orders[step].is_mean

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

    def moments(self, mean_step: str, sum_step: str, x: Elements, lanes: int, chunk: int) -> tuple[PerRow, PerRow]:
        """The operations of Welford's recurrence for each element, and of Chan's formula for each merge."""
        merges = _merges(self._length(x), lanes, chunk)
        for step, each, merging in ((mean_step, _ACCEPT_MEAN, _MERGE_MEAN), (sum_step, _ACCEPT_SUM, _MERGE_SUM)):
            for kind in ("add", "multiply", "divide"):
                count = each.get(kind, 0) * self._length(x) + merging.get(kind, 0) * merges
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
    if order.kind == "kahan":
        return {"add": 4 * n}
    if order.kind in ("sequential", "lanes"):
        merging = min(order.width or 1, n) - 1
        return {"fma": n, "add": merging} if fused else {"add": n + merging}
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


def selections(n: int, k: int) -> int:
    """Return the comparisons that suffice to find the k largest of n: n - k + (k - 1) ceil(log2(n - k + 2)).

    Source: Hadian and Sobel (1969), by a tournament; n - 1 for k = 1, and 0 where all are taken. Other ways of
    selecting take other numbers.
    """
    return 0 if k >= n else n - k + (k - 1) * (n - k + 1).bit_length()


_ACCEPT_MEAN: dict[Kind, int] = {"add": 3, "divide": 1}
_ACCEPT_SUM: dict[Kind, int] = {"add": 1, "multiply": 1}
"""Of one element: d = x - m; m += d / i; then M += d * (x - m), whose difference is the mean's."""
_MERGE_MEAN: dict[Kind, int] = {"add": 2, "multiply": 1, "divide": 1}
_MERGE_SUM: dict[Kind, int] = {"add": 2, "multiply": 3}
"""Of two sets: c = nB / n, d = mB - mA, m = mA + d c; then M = (MA + MB) + d d (nA c)."""


def _merges(n: int, lanes: int, chunk: int) -> int:
    """Merges of moments: of each lane's chunks, 0 where it has one only, and of the lanes that have elements."""
    each = [n // lanes + (lane < n % lanes) for lane in range(min(lanes, n))]
    chunks = sum(-(-m // chunk) - 1 for m in each) if chunk else 0
    return chunks + len(each) - 1


_ZERO = np.zeros((1, 1))


def _number(form: Format, depth: int) -> PerRow:
    return PerRow(_ZERO, form, depth)


def _elements(form: Format | None, depth: int, length: int | None) -> Elements:
    return Elements(lambda _index, _first: _ZERO, 1, form, depth, length=length)


def _after(*operands: Value | None, passed: bool) -> int:
    """The reductions before a value that is made of operands; `passed`: it is a reduction of the row itself."""
    return max(abs(o.degree or 0) for o in operands if o is not None) + passed
