"""Sums of rows that arrive in parts: one class an order of summation.

Lanes and sequential sums run in kernels of their own; trees, pairwise sums and blocks are element-wise additions;
the rest are schedules.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from normcheck.arithmetic import kernels, sums
from normcheck.arithmetic.accumulation import Summation
from normcheck.arithmetic.blocks import block_levels
from normcheck.arithmetic.elementwise import NOTHING, elementwise, mix
from normcheck.arithmetic.events import Events, no_events
from normcheck.arithmetic.orders import PLAIN, Layout
from normcheck.arithmetic.rounding import Rounding, fast_constants, general_constants
from normcheck.arithmetic.scheduled import ByPosition, Scheduled
from normcheck.arithmetic.sum_schedules import AS_LAID
from normcheck.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from normcheck.arithmetic.formats import Format
    from normcheck.arithmetic.orders import Order

Array = np.ndarray[Any, np.dtype[Any]]


class _Lanes(Summation):
    """Lanes, merged by a tree or serially; one lane for a sequential sum."""

    def _start(self) -> None:
        self.width = self.order.width or 1
        self.turned = self.width == 1 and self.rows > 1  # rows as lanes: vector units serve a sequential sum too
        self.acc = np.zeros((1, self.rows) if self.turned else (self.rows, self.width), self._dtype)
        self.seen, self.rest = 0, [np.empty((self.rows, 0), self._dtype)] * 2

    def _take(self, x: Array, y: Array | None) -> None:
        self.events.operations += x.size
        self._weigh(x if y is None else np.multiply(x, y, dtype=np.float64))
        self.seen += x.shape[1]
        if self.rest[0].shape[1] or (x.shape[1] % self.width and self.seen < self.n):
            x, y = self._aligned(x, y)
        self._accumulate(x, y)

    def _aligned(self, x: Array, y: Array | None) -> tuple[Array, Array | None]:
        """Whole runs of all lanes; the rest waits for the next part: element i goes to lane i mod W in any part."""
        out: list[Array] = []
        for place, operand in enumerate((x,) if y is None else (x, y)):
            joined = np.concatenate([self.rest[place], operand], axis=1)
            end = joined.shape[1] if self.seen == self.n else joined.shape[1] // self.width * self.width
            out.append(joined[:, :end])
            self.rest[place] = joined[:, end:].copy()
        return out[0], None if y is None else out[1]

    def _accumulate(self, x: Array, y: Array | None) -> None:
        if self.turned:
            x = np.ascontiguousarray(x.T).reshape(1, -1)
            y = None if y is None else np.ascontiguousarray(y.T).reshape(1, -1)
        if not self.fast or self.rounding.ftz or y is not None:  # the fast kernel knows no underflow: sums have none
            self.acc = self._general(x, y, self.acc, self.events.counts).astype(self._dtype)
            return
        terms, before = np.ascontiguousarray(x, dtype=np.float32), self.acc.copy()
        suspect = np.zeros(len(terms), np.uint8)
        constants = fast_constants(self.form, self.rounding)
        sums.fast_lanes(terms, self.acc, constants, self.events.counts, self.events.extremes, suspect)
        live = suspect.astype(bool) & np.isfinite(before).any(axis=1)  # an infinite sum has no more overflows
        for row in np.flatnonzero(live).tolist():
            self._recount(terms[row : row + 1], before[row : row + 1], row)

    def _general(
        self, x: Array, y: Array | None, acc: Array, counts: NDArray[np.int64], row: int | None = None
    ) -> Array:
        terms = np.ascontiguousarray(x, dtype=np.float64)
        factors = NOTHING if y is None else np.ascontiguousarray(y, dtype=np.float64)
        key = mix(self.rounding.seed, self.key, self._part)
        after, flags = acc.astype(np.float64), np.zeros(acc.shape, np.uint8)
        constants = general_constants(self.form, self.rounding)
        sums.general_lanes(terms, factors, y is not None, after, constants, key, counts, self.events.extremes, flags)
        target = self.events.flags if row is None or self.turned else self.events.flags[row : row + 1]
        target |= np.bitwise_or.reduce(flags.reshape(len(target), -1), axis=1)
        return after

    def _recount(self, terms: Array, before: Array, row: int) -> None:
        """Count the events of a row that the fast kernel found suspect, and left out."""
        counts = np.zeros_like(self.events.counts)
        self._general(terms, None, before, counts, row)
        for place in (kernels.OVERFLOW, kernels.INVALID, kernels.ABSORBED, kernels.SUBNORMAL):
            self.events.counts[place] += counts[place]

    def _result(self) -> Array:
        acc = self.acc.reshape(self.rows, -1)
        if self.order.merge == "tree":
            return self._fold(acc[:, : self.n])
        total = np.ascontiguousarray(acc[:, :1])
        for lane in range(1, min(acc.shape[1], self.n)):
            total = self._operate("add", total, np.ascontiguousarray(acc[:, lane : lane + 1]), absorb=True)
        return total


class _Pairwise(Summation):
    """Neighbours are added, level by level; full parts are whole subtrees, kept until the end."""

    def _start(self) -> None:
        self.subtrees: list[Array] = []

    def _take(self, x: Array, y: Array | None) -> None:
        x = self._product(x, y)
        self._weigh(x)
        self.subtrees.append(self._pairs(x))

    def _product(self, x: Array, y: Array | None) -> Array:
        if y is not None:
            raise UsageError(
                f"order {self.order}: fused multiply-add needs a running accumulator (sequential or lanes)"
            )
        return x

    def _pairs(self, x: Array) -> Array:
        while x.shape[1] > 1:
            even = x.shape[1] // 2 * 2
            left, right = np.ascontiguousarray(x[:, 0:even:2]), np.ascontiguousarray(x[:, 1:even:2])
            x = np.concatenate([self._operate("add", left, right, absorb=True), x[:, even:]], axis=1)
        return x

    def _result(self) -> Array:
        return self._pairs(np.concatenate(self.subtrees, axis=1))


class _Tree(_Pairwise):
    """Strided halving over the whole row, which it has to hold."""

    def _take(self, x: Array, y: Array | None) -> None:
        x = self._product(x, y)
        self._weigh(x)
        self.subtrees.append(x)

    def _result(self) -> Array:
        return self._fold(np.concatenate(self.subtrees, axis=1) if len(self.subtrees) > 1 else self.subtrees[0])


class _Blocks(_Pairwise):
    """Mean of means. A level's blocks are equal where a divisor allows it, else nearly equal and weighted."""

    def _start(self) -> None:
        self.levels = block_levels(self.n, self.order.width)
        self.block_sizes, _ = next(self.levels)
        self.means: list[Array] = []
        self.rest = np.empty((self.rows, 0), self._dtype)
        self.done = 0

    def _take(self, x: Array, y: Array | None) -> None:
        x = self._product(x, y)
        self._weigh(x)
        x = np.concatenate([self.rest, x], axis=1) if self.rest.shape[1] else x
        count = int(np.searchsorted(np.cumsum(self.block_sizes[self.done :]), x.shape[1], side="right"))
        sizes = self.block_sizes[self.done : self.done + count]
        used = int(sizes.sum())
        if count:
            self.means.append(self._block_means(x[:, :used], sizes, None))
        self.done += count
        self.rest = x[:, used:].copy()

    def _block_means(self, x: Array, sizes: NDArray[np.int64], weights: Array | None) -> Array:
        """Means of consecutive blocks of x; sizes take at most two values, the larger first. (rows, blocks)."""
        parts, start = [], 0
        for size in dict.fromkeys(sizes.tolist()):
            count = int(np.count_nonzero(sizes == size))
            span = slice(start, start + count * size)
            start += count * size
            if size == 1 and weights is None:
                parts.append(x[:, span])
                continue
            if weights is None:
                terms = self._operate("divide", np.ascontiguousarray(x[:, span]), np.full((1, 1), float(size)))
            else:
                terms = self._operate("multiply", np.ascontiguousarray(x[:, span]), weights[:, span])
            parts.append(self._fold_blocks(terms.reshape(self.rows * count, size)).reshape(self.rows, count))
        return np.ascontiguousarray(np.concatenate(parts, axis=1))

    def _result(self) -> Array:
        x = np.concatenate(self.means, axis=1)
        for sizes, shares in self.levels:
            x = self._block_means(x, sizes, None if shares is None else self._weights(shares))
        return x

    def _weights(self, exact: NDArray[np.float64]) -> Array:
        constants = elementwise("copy", (exact[None, :],), self.form, self.rounding, no_events(1), fast=False)
        return constants.astype(self._dtype)


class _Kahan(_Pairwise):
    """Kahan's compensated sum."""

    def _start(self) -> None:
        self.acc, self.compensation = np.zeros((self.rows, 1)), np.zeros((self.rows, 1))
        self.row_flags = self.events.flags.reshape(-1, 1)

    def _take(self, x: Array, y: Array | None) -> None:
        x = np.ascontiguousarray(self._product(x, y), dtype=np.float64)
        self.events.operations += 4 * x.size
        self._weigh(x)
        constants, key = general_constants(self.form, self.rounding), mix(self.rounding.seed, self.key, self._part)
        sums.kahan(
            x, self.acc, self.compensation, constants, key, self.events.counts, self.events.extremes, self.row_flags
        )

    def _result(self) -> Array:
        return self.acc


_KINDS: dict[str, type[Summation]] = {
    "sequential": _Lanes,
    "lanes": _Lanes,
    "pairwise": _Pairwise,
    "tree": _Tree,
    "blocks": _Blocks,
    "kahan": _Kahan,
}


def summation(
    rows: int,
    n: int,
    order: Order,
    form: Format,
    rounding: Rounding,
    events: Events,
    *,
    fast: bool,
    key: int = 0,
    partial: Format | None = None,
    layout: Layout = PLAIN,
) -> Summation:
    """Return an empty sum of `rows` rows of `n` terms each.

    Raises:
        UsageError: the order is one of online moments, or the row is no whole number of the layout's runs.
    """
    order = order.resolved()
    turned = layout.channels_last and layout.run > 1 and order.kind not in AS_LAID
    laid = dataclasses.replace(layout, run=0, channels_last=False) if turned else layout
    kind = _KINDS.get(order.kind, Scheduled)
    total = kind(rows, n, order, form, rounding, events, fast=fast, key=key, partial=partial or form, layout=laid)
    return ByPosition(total, layout.run) if turned else total
