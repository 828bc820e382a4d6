"""Schedules of YNNPACK's sums, to which XLA leaves large reductions on a CPU: radix trees of short chains.

Chains of 4, four of them to 16, some of those to a block, all in each lane by itself; whole blocks enter the lane's
total by Kahan's step, an incomplete last one by plain additions. The result is lane 0 of a tree over the lanes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from normcheck.arithmetic.schedules import CLEAR, COMPENSATE, LESS, LOAD, MERGE, TAKE, Listing

if TYPE_CHECKING:
    from normcheck.arithmetic.orders import Layout, Order

_CHAIN, _GROUP = 4, 16
_ROW_BLOCK, _COLUMN_BLOCK = 64, 256
"""Vectors of a row, and elements of a column, whose sum enters the total by Kahan's step."""


def ynn_rows(n: int, order: Order, layout: Layout) -> Listing:  # noqa: ARG001
    """A contiguous row in vectors of W lanes; the chains of an incomplete last group go straight into the block."""
    return _radix(n, order.width, _ROW_BLOCK)


def ynn_columns(n: int, order: Order, layout: Layout) -> Listing:  # noqa: ARG001
    """A column, one of many that are summed side by side."""
    return _radix(n, 1, _COLUMN_BLOCK)


def ynn_groups(n: int, order: Order, layout: Layout) -> Listing:
    """Accumulator 0 is the result; those of a position's channels, which lie `run` elements apart, follow it."""
    run = max(layout.run, 1)
    channels = n // run
    if channels == 1:
        return ynn_columns(n, order, layout)
    one, out = Listing(), Listing()
    one.put(CLEAR, 1 + np.arange(2 * min(order.width, channels)), 0)
    row = _radix(channels, order.width, _ROW_BLOCK, first=1).entries()
    row[2] = np.where(row[0] <= LOAD, row[2] * run, row[2])
    one.parts.append(row)
    one.put(MERGE, 0, 1)
    out.repeat(one.entries(), np.arange(run))
    return out


def _radix(n: int, width: int, block: int, first: int = 0) -> Listing:
    """Totals of the lanes, each before its compensation, then the lanes of blocks, groups and chains, from `first` on.

    Lanes beyond the row's length would add nothing but zeros: they are left out.
    """
    lanes, size, out = min(width, n), width * block, Listing()
    total = first + 2 * np.arange(lanes)
    whole = n - n % size
    if whole:
        one = _block(size, width, lanes, first)
        one.put(COMPENSATE, total, _part(first, lanes, 0))
        out.repeat(one.entries(), np.arange(0, whole, size))
    if whole < n:
        rest = _block(n - whole, width, lanes, first)
        if whole:
            rest.put(LESS, _part(first, lanes, 0), total + 1)
            rest.put(CLEAR, total + 1, 0)
        rest.put(MERGE, total, _part(first, lanes, 0))
        out.repeat(rest.entries(), [whole])
    elif whole:
        out.put(LESS, total, total + 1)
    out.fold(first, lanes, stride=2)
    return out


def _part(first: int, lanes: int, level: int) -> np.ndarray[tuple[int], np.dtype[np.intp]]:
    """The accumulators of blocks (level 0), groups (1) or chains (2)."""
    return first + (2 + level) * lanes + np.arange(lanes)


def _block(n: int, width: int, lanes: int, first: int) -> Listing:
    """Up to a block of elements, summed in the lanes of its accumulators."""
    block, group, chain = (_part(first, lanes, level) for level in range(3))
    out = Listing()
    out.put(CLEAR, block, 0)
    for start in range(0, n, _GROUP * width):
        through = width == 1 or start + _GROUP * width <= n
        out.put(CLEAR, group, 0)
        for at in range(start, min(n, start + _GROUP * width), _CHAIN * width):
            elements = np.arange(at, min(n, at + _CHAIN * width))
            out.put(CLEAR, chain, 0)
            out.put(TAKE, chain[elements % width], elements)
            out.put(MERGE, group if through else block, chain)
        if through:
            out.put(MERGE, block, group)
    return out
