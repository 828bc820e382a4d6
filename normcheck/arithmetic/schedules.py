"""Schedules: orders of summation as lists of additions, for one interpreter of sums and one of online moments.

A schedule says, entry by entry, what is done to which accumulator. Accumulators start from zero; the result is in
accumulator 0. Entries that concern different accumulators may stand in any order: where it can be done, they stand in
that of the elements, so that a row can arrive in parts.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from normcheck.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from normcheck.arithmetic.orders import Layout, Order

Array = np.ndarray[Any, np.dtype[Any]]

TAKE, TAKE_TAIL, TAKE_PARTIAL, LOAD, MERGE, MERGE_TAIL, MERGE_PARTIAL, CLEAR, LESS, COMPENSATE = range(10)
"""What an entry does: accumulator += element (by the scalar code of a recurrence; in the format of partial sums);
accumulator = element; accumulator += accumulator `source` (likewise); accumulator = 0; of sums alone, accumulator -=
accumulator `source`, and Kahan's step, whose compensation is in the next accumulator (and becomes 0 where the new total
is not finite). Those that take an element come first, up to LOAD."""
_PARTIAL = (TAKE_PARTIAL, MERGE_PARTIAL)
_COMPENSATED = (LESS, COMPENSATE)


@dataclass(frozen=True, slots=True, eq=False)
class Schedule:
    """Entries in the order of their execution.

    kind: (entries,) uint8, one of the above. accumulator, source: (entries,) int32; source is the place of an element
    in the row, or an accumulator. accumulators: how many there are. in_order: elements are taken as they stand in the
    row. partial: whether anything is added in the format of partial sums, which is then the result's. compensated:
    whether any entry is LESS or COMPENSATE.
    """

    kind: NDArray[np.uint8]
    accumulator: NDArray[np.int32]
    source: NDArray[np.int32]
    accumulators: int
    in_order: bool
    partial: bool
    compensated: bool = False

    def until(self, seen: int, start: int) -> int:
        """Return the end of the entries from `start` on that need no more than the first `seen` elements, in order."""
        takes = self.kind[start:] <= LOAD
        waiting = np.flatnonzero(takes & (self.source[start:] >= seen))
        if waiting.size:
            return start + int(waiting[0])
        last = np.flatnonzero(takes)
        return start + (int(last[-1]) + 1 if last.size else 0)

    def count(self, *kinds: int) -> int:
        """Return how many entries are of some kinds."""
        return int(np.isin(self.kind, kinds).sum())


class Listing:
    """Entries under construction."""

    def __init__(self) -> None:
        self.parts: list[Array] = []

    def put(self, kind: int, accumulators: Any, sources: Any) -> None:
        """Add entries of one kind; what is one number serves all of them."""
        a, s = np.broadcast_arrays(np.atleast_1d(accumulators), np.atleast_1d(sources))
        part = np.empty((3, a.size), np.int32)
        part[0], part[1], part[2] = kind, a.reshape(-1), s.reshape(-1)
        self.parts.append(part)

    def entries(self) -> Array:
        """All entries so far, (3, entries)."""
        return np.concatenate(self.parts, axis=1) if self.parts else np.empty((3, 0), np.int32)

    def repeat(self, template: Array, offsets: Any) -> None:
        """Add a template once for each offset, which moves the elements that it takes."""
        moved = template[0] <= LOAD
        part = np.repeat(template[:, None, :], len(offsets), axis=1)
        part[2] += np.asarray(offsets, np.int32)[:, None] * moved
        self.parts.append(part.reshape(3, -1))

    def fold(self, first: int, count: int, kind: int = MERGE, stride: int = 1) -> None:
        """Merge accumulators into the first by a tree: i and i + h, h halving from the largest power of two."""
        while count > 1:
            h = 1 << ((count - 1).bit_length() - 1)
            low = first + stride * np.arange(count - h)
            self.put(kind, low, low + stride * h)
            count = h

    def serial(self, accumulators: Any, kind: int = MERGE, into: int = 0) -> None:
        """Merge accumulators into one, first to last."""
        if len(accumulators):
            self.put(kind, into, accumulators)

    def schedule(self) -> Schedule:
        """What was listed."""
        kind, accumulator, source = self.entries()
        taken = kind <= LOAD
        merged = np.where(taken, 0, source)
        sources = source[taken]
        return Schedule(
            kind.astype(np.uint8),
            np.ascontiguousarray(accumulator),
            np.ascontiguousarray(source),
            int(max(accumulator.max(initial=0), merged.max(initial=0))) + 1,
            bool((np.diff(sources) >= 0).all()),
            bool(np.isin(kind, _PARTIAL).any()),
            bool(np.isin(kind, _COMPENSATED).any()),
        )


def ceil_log2(x: int) -> int:
    """ceil(log2(x)), 0 up to 1."""
    return (x - 1).bit_length() if x > 1 else 0


def kept(make: Callable[..., Schedule]) -> Callable[..., Schedule]:
    """Remember schedules of rows by their arguments, n first; those of long rows are large: only the last two."""
    many, few = functools.lru_cache(maxsize=64)(make), functools.lru_cache(maxsize=2)(make)

    def made(n: int, *arguments: object) -> Schedule:
        return (few if n > _KEPT_ELEMENTS else many)(n, *arguments)

    return made


_KEPT_ELEMENTS = 1 << 18


def require_whole_runs(n: int, order: Order, layout: Layout) -> None:
    """Refuse a row that is no whole number of the layout's runs.

    Raises:
        UsageError: it is not.
    """
    if layout.run and n % layout.run:
        raise UsageError(f"order {order}: rows of {n} elements are no whole number of runs of {layout.run}")
