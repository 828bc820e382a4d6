"""Schedules of sums: one function an order, which lists for n terms what is added to what."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np

from normcheck.arithmetic.orders import PLAIN, Layout, Order
from normcheck.arithmetic.schedules import (
    CLEAR,
    LOAD,
    MERGE,
    MERGE_PARTIAL,
    TAKE,
    TAKE_PARTIAL,
    Listing,
    Schedule,
    ceil_log2,
    kept,
    require_whole_runs,
)
from normcheck.arithmetic.ynn_schedules import ynn_columns, ynn_groups, ynn_rows
from normcheck.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

Array = np.ndarray[Any, np.dtype[Any]]
_WARP = 32


def _sequential(n: int, order: Order, layout: Layout) -> Listing:  # noqa: ARG001
    out = Listing()
    out.put(TAKE, 0, np.arange(n))
    return out


def _numpy(n: int, order: Order, layout: Layout) -> Listing:  # noqa: ARG001
    """Below 8 elements one by one; up to 128 in 8 accumulators; longer ones halved."""
    out = Listing()
    least, most = 8, 128

    @functools.cache
    def leaf(length: int) -> Array:
        one = Listing()
        whole = length - length % least
        one.put(LOAD, np.arange(least), np.arange(least))
        one.put(TAKE, np.tile(np.arange(least), whole // least - 1), np.arange(least, whole))
        for step in (1, 2, 4):
            one.put(MERGE, np.arange(0, least, 2 * step), np.arange(step, least, 2 * step))
        one.put(TAKE, np.zeros(length - whole, np.int32), np.arange(whole, length))
        return one.entries()

    def add(start: int, length: int, depth: int) -> None:
        if length <= most:
            part = leaf(length).copy()
            if start == 0:
                part[0][part[0] == LOAD] = TAKE  # a reduction begins with +0
            part[1] += least * depth
            part[2] += np.where(part[0] == MERGE, least * depth, start).astype(np.int32)
            out.parts.append(part)
            return
        half = length // 2 // least * least
        add(start, half, depth)
        add(start + half, length - half, depth + 1)
        out.put(MERGE, least * depth, least * (depth + 1))

    if n < least:
        out.put(TAKE, 0, np.arange(n))
    else:
        add(0, n, 0)
    return out


def _numpy_runs(n: int, order: Order, layout: Layout) -> Listing:
    """Accumulator 0 is the total; the others, a run's, are cleared after it, for each run begins from 0."""
    run, one, out = layout.run or n, Listing(), Listing()
    template = _numpy(run, order, layout).entries()
    template[1] += 1
    template[2] += template[0] == MERGE
    one.parts.append(template)
    one.put(MERGE_PARTIAL, 0, 1)
    one.put(CLEAR, np.arange(1, template[1].max() + 1), 0)
    out.repeat(one.entries(), np.arange(0, n, run))
    return out


_ROWS, _LEVELS = 4, 4
"""Accumulators that torch's sum fills in turn, and levels of each one's cascade."""


def _cascade(n: int, order: Order, layout: Layout) -> Listing:  # noqa: ARG001
    """Accumulator 0 is the result; then a temporary vector; then levels, each of 4 rows of lanes."""
    lanes, vector = (order.width, order.vector) if n >= order.width * order.vector else (1, 1)
    out, lane, first, width = Listing(), np.arange(lanes), 1 + lanes, lanes * vector
    vectors = n // width
    size = vectors // _ROWS
    turn = [_vector(first + row * lanes + lane, row * width, vector) for row in range(_ROWS)]
    _levels(out, np.concatenate(turn, axis=1), size, first, lanes, width)
    out.repeat(_vector(first + lane, 0, vector), np.arange(size * _ROWS, vectors) * width)
    for row in range(1, _ROWS):
        out.put(MERGE, first + lane, first + row * lanes + lane)
    out.put(TAKE, np.zeros(n - vectors * width, np.int32), np.arange(vectors * width, n))
    out.serial(first + lane)
    return out


def _vector(into: Array, start: int, halves: int) -> Array:
    """A vector of elements taken into as many lanes; of 16-bit elements its two halves are added first."""
    one, lane, lanes = Listing(), np.arange(len(into)), len(into)
    if halves == 1:
        one.put(TAKE, into, start + lane)
    else:
        one.put(LOAD, 1 + lane, start + lane)
        one.put(TAKE, 1 + lane, start + lanes + lane)
        one.put(MERGE, into, 1 + lane)
    return one.entries()


def _levels(out: Listing, template: Array, size: int, first: int, lanes: int, width: int) -> None:
    """Four rows of vectors, `size` times: every 2**power of a level's sums are merged into the next level."""
    power, group = max(4, ceil_log2(size) // _LEVELS), _ROWS * width
    at = [first + level * _ROWS * lanes + np.arange(_ROWS * lanes) for level in range(_LEVELS)]
    step, done = 1 << power, 0
    while done + step <= size:
        out.repeat(template, np.arange(done, done + step) * group)
        done += step
        for level in range(1, _LEVELS):
            out.put(MERGE, at[level], at[level - 1])
            out.put(CLEAR, at[level - 1], 0)
            if done & ((step - 1) << (level * power)):
                break
    out.repeat(template, np.arange(done, size) * group)
    for level in range(1, _LEVELS):
        out.put(MERGE, at[0], at[level])


def _runs(n: int, order: Order, layout: Layout) -> Listing:
    """Accumulator 0 is the scalar, 1 to W the lanes."""
    run, width, one, out = layout.run or n, order.width, Listing(), Listing()
    whole = run - run % (2 * width)
    one.put(TAKE, 1 + np.arange(whole) % width, np.arange(whole))
    one.put(TAKE, np.zeros(run - whole, np.int32), np.arange(whole, run))
    out.repeat(one.entries(), np.arange(0, n, run))
    out.serial(np.arange(2, 1 + width), into=1)
    out.put(MERGE, 0, 1)
    return out


def _threads(n: int, order: Order, layout: Layout) -> Listing:  # noqa: ARG001
    out = Listing()
    share = n if n <= layout.threads else -(-n // layout.threads)
    out.put(TAKE, np.arange(n) // share, np.arange(n))
    out.serial(np.arange(1, -(-n // share)), MERGE_PARTIAL)
    return out


def _vertical(n: int, order: Order, layout: Layout) -> Listing:
    """Accumulators 0 to W - 1 are the lanes; of 16-bit elements W more hold the sum of a vector's halves."""
    run, width, one, out = max(layout.run, 1), order.width, Listing(), Listing()
    channels = n // run
    if order.vector == 1:
        one.put(TAKE, np.arange(channels) % width, np.arange(channels) * run)
    else:
        for start in range(0, channels, 2 * width):
            low = np.arange(start, min(start + width, channels))
            high = np.arange(start + width, min(start + 2 * width, channels))
            one.put(LOAD, width + low - start, low * run)
            one.put(TAKE, high - start, high * run)
            one.put(MERGE, low - start, width + low - start)
    out.repeat(one.entries(), np.arange(run))
    if order.merge == "tree":
        out.fold(0, width)
    else:
        out.serial(np.arange(1, width))
    return out


def _channels(n: int, order: Order, layout: Layout) -> Listing:  # noqa: ARG001
    """Accumulator d * threads + t is that of channel d and thread t."""
    out, run = Listing(), max(layout.run, 1)
    share = -(-run // min(layout.threads, run))
    count = -(-run // share)
    place = np.arange(n)
    out.put(TAKE, place // run * count + place % run // share, place)
    out.serial(np.arange(1, n // run * count))
    return out


def block(n: int, order: Order, layout: Layout) -> Listing:  # noqa: ARG001
    """A CUDA block's: a tree over each warp's lanes, then one over the warps."""
    out = _read_by_threads(n, order)
    warps = range(0, order.width, _WARP)
    for warp in warps:
        out.fold(warp, min(_WARP, order.width))
    out.fold(0, len(warps), stride=_WARP)
    return out


def _cub(n: int, order: Order, layout: Layout) -> Listing:  # noqa: ARG001
    out = _read_by_threads(n, order)
    step = 1
    while step < min(_WARP, order.width):
        out.put(MERGE, np.arange(0, order.width, 2 * step), np.arange(step, order.width, 2 * step))
        step *= 2
    out.serial(np.arange(_WARP, order.width, _WARP))
    return out


def _read_by_threads(n: int, order: Order) -> Listing:
    out, place = Listing(), np.arange(n)
    out.put(TAKE, place // order.vector % order.width, place)
    return out


def _steps(n: int, order: Order, layout: Layout) -> Listing:  # noqa: ARG001
    """Accumulator 0 is the result, 1 to W the vector."""
    one, out, width = Listing(), Listing(), order.width
    one.put(LOAD, 1 + np.arange(width), np.arange(width))
    one.fold(1, width)
    one.put(MERGE_PARTIAL, 0, 1)
    whole = n - n % width
    out.repeat(one.entries(), np.arange(0, whole, width))
    out.put(TAKE_PARTIAL, np.zeros(n - whole, np.int32), np.arange(whole, n))
    return out


def _vectors(n: int, order: Order, layout: Layout) -> Listing:  # noqa: ARG001
    """Accumulators 0 to W - 1 are the lanes; in W a product is rounded."""
    out, width = Listing(), order.width
    whole = n - n % width
    out.put(TAKE, np.arange(whole) % width, np.arange(whole))
    if whole:
        out.fold(0, width)
    rounded = order.vector if order.vector > 1 and n - whole >= order.vector else 0
    for place in range(whole, whole + rounded):
        out.put(LOAD, width, place)
        out.put(MERGE, 0, width)
    out.put(TAKE, np.zeros(n - whole - rounded, np.int32), np.arange(whole + rounded, n))
    return out


_PACKET = 4
"""Lanes of Eigen's float32 packets, which are SSE's on every x86."""


def _eigen(n: int, order: Order, layout: Layout) -> Listing:  # noqa: ARG001
    return _redux(n, 0)


def _eigen_runs(n: int, order: Order, layout: Layout) -> Listing:  # noqa: ARG001
    run, out = layout.run or n, Listing()
    one = _redux(run, 1)
    one.put(MERGE_PARTIAL, 0, 1)
    out.repeat(one.entries(), np.arange(0, n, run))
    return out


def _redux(n: int, first: int) -> Listing:
    """Eigen's sum in the accumulators from `first` on: a pair of packets; the first of them is the result."""
    out, lane = Listing(), first + np.arange(_PACKET)
    packets = n // _PACKET
    if not packets:
        out.put(LOAD, first, 0)
        out.put(TAKE, first, np.arange(1, n))
        return out
    pair = 2 * _PACKET
    paired = n // pair * pair
    if paired:
        out.put(LOAD, first + np.arange(pair), np.arange(pair))
        out.put(TAKE, first + np.arange(pair, paired) % pair, np.arange(pair, paired))
        out.put(MERGE, lane, lane + _PACKET)
    if packets % 2:
        out.put(TAKE if paired else LOAD, lane, paired + np.arange(_PACKET))
    out.fold(first, _PACKET)
    out.put(TAKE, first, np.arange(packets * _PACKET, n))
    return out


_SPLIT_FROM, _PIECES, _UNROLLED = 32768, range(256, 7, -1), 32
"""tinygrad's REDUCEOP_SPLIT_THRESHOLD and the divisors that it tries; sums up to 32 terms are unrolled whole."""


def _split(n: int, order: Order, layout: Layout) -> Listing:
    pieces = next((d for d in _PIECES if n % d == 0), 0) if n >= _SPLIT_FROM else 0
    if not pieces:
        return _sequential(n, order, layout)
    out = Listing()
    out.put(TAKE, np.arange(n) // (n // pieces), np.arange(n))
    out.serial(np.arange(1, pieces))
    return out


def _split_squares(n: int, order: Order, layout: Layout) -> Listing:
    """Unrolled, a0 a0 + a1 a1 is contracted to fma(a0, a0, a1 a1): element 1 comes first."""
    if not 1 < n <= _UNROLLED:
        return _split(n, order, layout)
    out = Listing()
    out.put(TAKE, 0, [1, 0, *range(2, n)])
    return out


SUMS: dict[str, Callable[[int, Order, Layout], Listing]] = {
    "sequential": _sequential,
    "numpy": _numpy,
    "cascade": _cascade,
    "runs": _runs,
    "threads": _threads,
    "vertical": _vertical,
    "channels": _channels,
    "block": block,
    "cub": _cub,
    "steps": _steps,
    "split": _split,
    "split-squares": _split_squares,
    "vectors": _vectors,
    "eigen": _eigen,
    "eigen-runs": _eigen_runs,
    "numpy-runs": _numpy_runs,
    "ynn-rows": ynn_rows,
    "ynn-columns": ynn_columns,
    "ynn-groups": ynn_groups,
}
"""The orders of sums that are schedules."""
AS_LAID = frozenset({"vertical", "channels", "runs", "threads", "eigen-runs", "numpy-runs", "ynn-groups"})
"""Orders that know from the layout themselves which element is whose: for them a row is never turned."""


def sum_schedule(n: int, order: Order, layout: Layout = PLAIN) -> Schedule:
    """Return the schedule of a sum of n terms.

    Raises:
        UsageError: the order adds no terms, or the row is no whole number of the layout's runs.
    """
    if order.kind not in SUMS:
        raise UsageError(f"order {order}: it is one of online moments, no sum's: use it with a Welford algorithm")
    require_whole_runs(n, order, layout)
    return _made(n, order.resolved(), layout)


@kept
def _made(n: int, order: Order, layout: Layout) -> Schedule:
    return SUMS[order.kind](n, order, layout).schedule()
