"""Schedules of online moments: which elements make up which sets, and which sets are merged."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from normcheck.arithmetic.orders import PLAIN, Layout, Order
from normcheck.arithmetic.schedules import (
    CLEAR,
    LOAD,
    MERGE,
    MERGE_TAIL,
    TAKE,
    TAKE_TAIL,
    Listing,
    Schedule,
    ceil_log2,
    kept,
    require_whole_runs,
)
from normcheck.arithmetic.sum_schedules import block

if TYPE_CHECKING:
    from collections.abc import Callable

Array = np.ndarray[Any, np.dtype[Any]]

_CHUNK = 16
"""Vectors that RowwiseMoments takes before it merges (``kChunkSize``)."""


def _rowwise(n: int, order: Order, layout: Layout) -> Listing:  # noqa: ARG001
    """Accumulator 0 is the scalar's and the result; then `vector` working vectors; then the stack."""
    lanes, vector = order.width, order.vector
    width, out, lane = lanes * vector, Listing(), np.arange(lanes)
    vectors = n // width
    chunks = -(-vectors // _CHUNK)
    depth = max(1, ceil_log2(chunks))
    working, first = 1 + np.arange(width), 1 + width

    def chunk(count: int) -> Array:
        one = Listing()
        one.put(TAKE, np.tile(working, count), np.arange(count * width))
        for half in range(vector):
            one.put(MERGE, first + lane, 1 + half * lanes + lane)
        one.put(CLEAR, working, 0)
        return one.entries()

    full = chunk(_CHUNK)
    for place in range(chunks):
        left = min(_CHUNK, vectors - place * _CHUNK)
        out.repeat(full if left == _CHUNK else chunk(left), [place * _CHUNK * width])
        mask, level = place + 1, 1
        while level < depth and not mask & 1:
            out.put(MERGE, first + level * lanes + lane, first + (level - 1) * lanes + lane)
            out.put(CLEAR, first + (level - 1) * lanes + lane, 0)
            mask, level = mask >> 1, level + 1
    for level in range(1, depth):
        out.put(MERGE, first + lane, first + level * lanes + lane)
    out.put(TAKE_TAIL, np.zeros(n - vectors * width, np.int32), np.arange(vectors * width, n))
    out.serial(first + lane, MERGE_TAIL)
    return out


def _chunked(n: int, lanes: int, chunk: int) -> Listing:
    """Accumulator 0 is the result; then the lanes' chunks under way; then what each lane has merged."""
    out, place = Listing(), np.arange(n)
    if chunk and n:
        part, whole = 1 + np.arange(lanes), 1 + lanes + np.arange(lanes)
        one = Listing()
        one.put(TAKE, np.tile(part, chunk - 1), np.arange((chunk - 1) * lanes))
        last = (chunk - 1) * lanes + np.arange(lanes)
        closing: list[tuple[int, Array, Array]] = [
            (TAKE, part, last),
            (MERGE, whole, part),
            (CLEAR, part, np.zeros(lanes, np.int32)),
        ]
        # each lane merges as soon as its chunk is full, before the next lane takes its element
        columns: list[Array] = [np.stack([np.full(lanes, kind, np.int32), a, s]) for kind, a, s in closing]
        one.parts.append(np.stack(columns, axis=2).reshape(3, -1).astype(np.int32))
        full, span = n // (chunk * lanes), chunk * lanes
        out.repeat(one.entries(), np.arange(full) * span)
        template = one.entries()
        rest = n - full * span
        keep = np.flatnonzero((template[0] <= LOAD) & (template[2] < rest))
        if keep.size:
            end = int(keep[-1]) + 1
            end += 2 * (rest > (chunk - 1) * lanes)  # the merge and the clearing that follow
            out.repeat(template[:, :end], [full * span])
    else:
        out.put(TAKE, 1 + place % lanes, place)
    for lane in range(lanes):
        out.put(MERGE, 1 + lanes + lane, 1 + lane)
        out.put(MERGE, 0, 1 + lanes + lane)
    return out


MOMENTS: dict[str, Callable[[int, Order, Layout], Listing]] = {"rowwise": _rowwise, "block": block}
"""The orders of online moments beside lanes and chunks."""


def moments_schedule(n: int, order: Order, layout: Layout = PLAIN, chunk: int = 0) -> Schedule:
    """Return the schedule of online moments of n elements.

    Orders that are none of moments: lanes of the order's width (one where it has none) that merge after every `chunk`
    elements, and at the end one after another; one lane where chunk is 0.
    """
    require_whole_runs(n, order, layout)
    return _made(n, order.resolved(), layout, chunk)


@kept
def _made(n: int, order: Order, layout: Layout, chunk: int) -> Schedule:
    if order.kind in MOMENTS:
        return MOMENTS[order.kind](n, order, layout).schedule()
    return _chunked(n, max(order.width, 1) if chunk else 1, chunk).schedule()
