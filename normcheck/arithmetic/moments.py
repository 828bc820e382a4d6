"""Online moments of rows that arrive in parts: a schedule and a recurrence, every operation rounded and counted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from normcheck.arithmetic import fast_schedules, kernels, online
from normcheck.arithmetic.elementwise import mix
from normcheck.arithmetic.formats import FLOAT32, Format
from normcheck.arithmetic.rounding import Rounding, general_constants

if TYPE_CHECKING:
    from normcheck.arithmetic.events import Events
    from normcheck.arithmetic.recurrences import Recurrence
    from normcheck.arithmetic.schedules import Schedule

Array = np.ndarray[Any, np.dtype[Any]]
Pair = tuple["Events", "Events"]
_MOST_IN_FLOAT32 = 1 << FLOAT32.precision
"""Rows of more elements have counts that are no numbers of float32."""


class Moments:
    """Mean and sum of squared deviations of each of `rows` rows of n elements, as a schedule and a recurrence say.

    forms: of the mean, and of the sum. `fast`: the elements are numbers of float32. Events of either step go to the
    pair that `add` and `finish` are given.
    """

    def __init__(
        self,
        rows: int,
        n: int,
        schedule: Schedule,
        recurrence: Recurrence,
        rounding: Rounding,
        forms: tuple[Format, Format],
        *,
        key: int,
        fast: bool,
    ) -> None:
        self.rows, self.schedule = rows, schedule
        self.codes = np.array(recurrence.codes, np.int64)
        self.constants = [general_constants(form, rounding) for form in forms]
        self.draw = np.array([mix(rounding.seed, key), 0], np.uint64)
        plain = rounding.mode == "nearest-even" and not rounding.ftz and not rounding.daz
        ieee = all(form == FLOAT32 and rounding.policy(form) == "ieee" for form in forms)
        self.quick = fast and plain and ieee and n <= _MOST_IN_FLOAT32
        dtype = np.float32 if self.quick else np.float64
        self.state = np.zeros((3, schedule.accumulators, rows), dtype)
        self.seen = self.done = 0

    def add(self, x: Array, events: Pair) -> None:
        """Take the next part, (rows, m); all of the row, where the schedule is not in order."""
        first, self.seen = self.seen, self.seen + x.shape[1]
        self._run(x, first, self.schedule.until(self.seen, self.done), events)

    def finish(self, events: Pair) -> tuple[Array, Array]:
        """Return the means and the sums, (rows, 1) each."""
        self._run(np.empty((self.rows, 0)), self.seen, len(self.schedule.kind), events)
        for each in events:
            each.operations += int(each.counts[online.OPERATIONS])
            each.counts[online.OPERATIONS] = 0
        mean, total = (self.state[plane, 0].astype(np.float64).reshape(-1, 1) for plane in (online.MEAN, online.TOTAL))
        return mean, total

    def _run(self, x: Array, first: int, end: int, events: Pair) -> None:
        entries = slice(self.done, end)
        self.done = end
        if not self.quick:
            flags = (events[0].flags, events[1].flags)
            self.state = self._general(x, first, entries, self.state, events, flags)
            return
        for start in range(0, self.rows, fast_schedules.ROWS_AT_ONCE):
            self._tile(x, first, entries, slice(start, start + fast_schedules.ROWS_AT_ONCE), events)

    def _tile(self, x: Array, first: int, entries: slice, rows: slice, events: Pair) -> None:
        """Some rows at once; those that the fast kernel found suspect run again in the general one."""
        plan, before = self.schedule, np.ascontiguousarray(self.state[:, :, rows])
        after, width = before.copy(), before.shape[2]
        terms = np.ascontiguousarray(x[rows].T, dtype=np.float32)
        suspect, notes = np.zeros(width, np.uint8), np.zeros((2, 4, width), np.uint32)
        notes[:, fast_schedules.LEAST] = np.uint32(0xFFFFFFFF)
        counts = np.ascontiguousarray(after[online.COUNT, :, 0])
        fast_schedules.fast_online(
            terms,
            first,
            after[online.MEAN],
            after[online.TOTAL],
            counts,
            plan.kind[entries],
            plan.accumulator[entries],
            plan.source[entries],
            self.codes,
            notes,
            suspect,
        )
        after[online.COUNT] = counts[:, None]
        for row in np.flatnonzero(suspect).tolist():
            place, one = rows.start + row, slice(row, row + 1)
            flags = (events[0].flags[place : place + 1], events[1].flags[place : place + 1])
            again = before[:, :, one].astype(np.float64)
            after[:, :, one] = self._general(terms[:, one].T, first, entries, again, events, flags)
        self.state[:, :, rows] = after
        good = suspect == 0
        for each, seen in zip(events, notes, strict=True):
            _take_notes(each, seen, good)

    def _general(
        self, x: Array, first: int, entries: slice, state: Array, events: Pair, flags: tuple[Array, Array]
    ) -> Array:
        plan, by_row = self.schedule, np.ascontiguousarray(state.transpose(2, 0, 1))
        counters = [c for each, flag in zip(events, flags, strict=True) for c in (each.counts, each.extremes, flag)]
        kernel: Any = online.online_part
        kernel(
            np.ascontiguousarray(x, dtype=np.float64),
            first,
            by_row,
            plan.kind[entries],
            plan.accumulator[entries],
            plan.source[entries],
            self.codes,
            *self.constants,
            self.draw,
            *counters,
        )
        return np.ascontiguousarray(by_row.transpose(1, 2, 0))


def _take_notes(events: Events, notes: Array, good: Array) -> None:
    """Count what the fast kernel noted on the rows that are good."""
    events.counts[kernels.ABSORBED] += int(notes[fast_schedules.ABSORBED_HERE, good].sum(dtype=np.int64))
    events.counts[online.OPERATIONS] += int(notes[fast_schedules.OPERATIONS_HERE, 0]) * int(good.sum())
    for row in np.flatnonzero(good).tolist():
        kernels.merge_extremes(notes[fast_schedules.BIG, row], notes[fast_schedules.LEAST, row], events.extremes)
