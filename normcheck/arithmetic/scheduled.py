"""Sums that are schedules, and sums of rows that are visited in another order than they are given in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from normcheck.arithmetic import fast_schedules, sums
from normcheck.arithmetic.accumulation import Summation
from normcheck.arithmetic.elementwise import NOTHING, mix
from normcheck.arithmetic.rounding import fast_constants, general_constants
from normcheck.arithmetic.schedules import CLEAR, COMPENSATE, LOAD
from normcheck.arithmetic.sum_schedules import sum_schedule
from normcheck.arithmetic.values import PART

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from normcheck.arithmetic.formats import Format

Array = np.ndarray[Any, np.dtype[Any]]


class Scheduled(Summation):
    """Any schedule; one that does not take the elements as they stand has to hold the row."""

    def _start(self) -> None:
        self.schedule = sum_schedule(self.n, self.order, self.layout)
        self.result_form = self.partial if self.schedule.partial else self.form
        plain = not (self.schedule.partial or self.schedule.compensated)  # the fast kernel does no more than add
        self.quick = self.fast and not self.rounding.ftz and plain
        shape = (self.schedule.accumulators, self.rows)
        self.acc = np.zeros(shape, np.float32) if self.quick else np.zeros(shape[::-1])
        self.held: list[tuple[Array, Array | None]] = []
        self.seen = self.done = 0

    def _take(self, x: Array, y: Array | None) -> None:
        self._weigh(x if y is None else np.multiply(x, y, dtype=np.float64))
        if y is not None and self.quick:  # the fast kernel has no fused multiply-add
            self.quick, self.acc = False, np.ascontiguousarray(self.acc.T, dtype=np.float64)
        first, self.seen = self.seen, self.seen + x.shape[1]
        if self.schedule.in_order:
            self._run(x, y, first, self.schedule.until(self.seen, self.done))
            return
        self.held.append((x, y))
        if self.seen == self.n:
            terms = np.concatenate([part for part, _ in self.held], axis=1)
            factors = None if y is None else np.concatenate([f for _, f in self.held if f is not None], axis=1)
            self._run(terms, factors, 0, self.schedule.until(self.seen, 0))

    def _run(self, x: Array, y: Array | None, first: int, end: int) -> None:
        entries = slice(self.done, end)
        free = (CLEAR,) if y is not None else (CLEAR, LOAD)
        kinds = self.schedule.kind[entries]
        each = ~np.isin(kinds, free) + 3 * (kinds == COMPENSATE)  # a Kahan step is four operations
        self.events.operations += self.rows * int(each.sum())
        if not self.quick:
            self._general(x, y, first, entries, self.acc, self.events.counts, self.events.flags)
        else:
            for start in range(0, self.rows, fast_schedules.ROWS_AT_ONCE):
                self._tile(x, first, entries, slice(start, start + fast_schedules.ROWS_AT_ONCE))
        self.done = end

    def _tile(self, x: Array, first: int, entries: slice, rows: slice) -> None:
        """Some rows at once; what the fast kernel found suspect is counted by the general one."""
        before = self.acc[:, rows].copy()
        after, plan = before.copy(), self.schedule
        terms = np.ascontiguousarray(x[rows].T, dtype=np.float32)
        suspect = np.zeros(after.shape[1], np.uint8)
        constants, events = fast_constants(self.form, self.rounding), self.events
        fast_schedules.fast_scheduled(
            terms,
            first,
            plan.kind[entries],
            plan.accumulator[entries],
            plan.source[entries],
            after,
            constants,
            events.counts,
            events.extremes,
            suspect,
        )
        self.acc[:, rows] = after
        for row in np.flatnonzero(suspect).tolist():
            again = before[:, row : row + 1].T.astype(np.float64)
            place = rows.start + row
            flags = events.flags[place : place + 1]
            self._general(terms[:, row : row + 1].T, None, first, entries, again, events.counts, flags)

    def _general(
        self,
        x: Array,
        y: Array | None,
        first: int,
        entries: slice,
        acc: Array,
        counts: NDArray[np.int64],
        flags: NDArray[np.uint8],
    ) -> None:
        plan = self.schedule
        sums.scheduled(
            np.ascontiguousarray(x, dtype=np.float64),
            NOTHING if y is None else np.ascontiguousarray(y, dtype=np.float64),
            y is not None,
            first,
            plan.kind[entries],
            plan.accumulator[entries],
            plan.source[entries],
            acc,
            general_constants(self.form, self.rounding),
            general_constants(self.partial, self.rounding),
            mix(self.rounding.seed, self.key, self.done),
            counts,
            self.events.extremes,
            flags,
        )

    def _result(self) -> Array:
        self._run(np.empty((self.rows, 0)), None, self.n, len(self.schedule.kind))
        return self.acc[:1].T if self.quick else self.acc[:, :1]


class ByPosition(Summation):
    """A sum of rows that come as (channel, spatial) and are visited as (spatial, channel): they have to be held.

    inner: the sum, to which the elements are handed in that order. run: spatial elements of a channel.
    """

    def __init__(self, inner: Summation, run: int) -> None:
        self.inner, self.run, self.n = inner, run, inner.n
        self.held: list[tuple[Array, Array | None]] = []
        self.seen = 0

    @property
    def result_form(self) -> Format:  # type: ignore[override]
        """The inner sum's."""
        return self.inner.result_form

    def add(self, x: Array, y: Array | None = None) -> None:
        """Take the next part."""
        self.held.append((x, y))
        self.seen += x.shape[1]
        if self.seen < self.n:
            return
        factors = None if y is None else self._turned([f for _, f in self.held if f is not None])
        terms = self._turned([part for part, _ in self.held])
        for start in range(0, self.n, PART):
            span = slice(start, start + PART)
            self.inner.add(terms[:, span], None if factors is None else factors[:, span])

    def finish(self) -> Array:
        """Return the inner sums."""
        return self.inner.finish()

    def _turned(self, parts: list[Array]) -> Array:
        whole = np.concatenate(parts, axis=1)
        by_channel = whole.reshape(len(whole), -1, self.run)
        return np.ascontiguousarray(by_channel.transpose(0, 2, 1)).reshape(len(whole), -1)
