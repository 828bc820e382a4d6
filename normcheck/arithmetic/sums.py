"""JIT kernels of sums: running accumulators in lanes (a sequential sum has one), Kahan's, and any schedule.

Every addition is rounded to the accumulator's format. Trees, pairwise sums and blocks need no kernel
of their own: they are element-wise additions of halves (`operations`).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from normcheck.arithmetic.general import _record, _uniform, general_step
from normcheck.arithmetic.kernels import (
    _ABS,
    _MOST,
    _NOUGHT,
    _ONE,
    _SIGN,
    ABSORBED,
    ADD,
    COPY,
    FMA,
    MULTIPLY,
    SUBNORMAL,
    SUBTRACT,
    _constants,
    _fast_round,
    jit,
    merge_extremes,
)
from normcheck.arithmetic.schedules import CLEAR, COMPENSATE, LESS, LOAD, MERGE, MERGE_PARTIAL, TAKE_PARTIAL


@jit
def _fast_lane_steps(x: Any, steps: Any, acc: Any, k: Any, big: Any, least: Any, absorbed: Any, below: Any) -> None:
    """acc = round(acc + x) for `steps` runs of as many terms as there are lanes. acc: the lanes' bits, uint32.

    The accumulator is read and written through one pointer and indices are unsigned: either the other way, and LLVM
    does not vectorise (4 to 8 times slower). Events of each lane go to uint32 arrays.
    """
    subnormal = k[8]
    base = np.uintp(0)
    for _ in range(steps):
        for lane in range(acc.size):
            j = np.uintp(lane)
            before = acc[j]
            term = x[np.uintp(base + j)]
            s = np.float32(np.uint32(before).view(np.float32) + term).view(np.uint32)
            a = np.uint32(s & _ABS)
            b = np.uint32(a - _ONE)
            big[j] = a if a > big[j] else big[j]
            least[j] = b if b < least[j] else least[j]
            below[j] = np.uint32(below[j] + (_ONE if b < subnormal else _NOUGHT))
            r = np.uint32(_fast_round(a, k) | np.uint32(s & _SIGN))
            same = (r == before) & (term != np.float32(0))
            absorbed[j] = np.uint32(absorbed[j] + (_ONE if same else _NOUGHT))
            acc[j] = r
        base = np.uintp(base + np.uintp(acc.size))


@jit
def fast_lanes(x: Any, acc: Any, k: Any, counts: Any, extremes: Any, suspect: Any) -> None:
    """Add the rows of x (rows, n) float32 to the lanes acc (rows, W) float32, element i to lane i mod W.

    counts, extremes: as for `kernels.fast_elementwise`, rows with overflows or invalid results left out. suspect:
    uint8 (rows,), set for those: their part is to be run again by `general_lanes`, which counts what happens.
    """
    rows, n = x.shape
    t = _constants(k)
    width = acc.shape[1]
    big, least = np.empty(width, np.uint32), np.empty(width, np.uint32)
    absorbed, below = np.empty(width, np.uint32), np.empty(width, np.uint32)
    for i in range(rows):
        big[:] = _NOUGHT
        least[:] = _MOST
        absorbed[:] = _NOUGHT
        below[:] = _NOUGHT
        bits = acc[i].view(np.uint32)
        whole = n // width
        _fast_lane_steps(x[i], whole, bits, t, big, least, absorbed, below)
        if n > whole * width:
            _fast_lane_steps(x[i, whole * width :], 1, bits[: n - whole * width], t, big, least, absorbed, below)
        largest, smallest = _NOUGHT, _MOST
        for j in range(width):
            largest = big[j] if big[j] > largest else largest
            smallest = least[j] if least[j] < smallest else smallest
        if largest >= t[4]:
            suspect[i] = 1
        else:
            for j in range(width):
                counts[ABSORBED] += absorbed[j]
                counts[SUBNORMAL] += below[j]
        merge_extremes(largest, smallest, extremes)


@jit
def weigh(x: Any, exact: Any, mass: Any) -> None:
    """Add each row's sum, and its sum of magnitudes, of x (rows, m) float32 or float64, in float64 over 32 lanes."""
    rows, m = x.shape
    plain, positive = np.empty(32), np.empty(32)
    for i in range(rows):
        plain[:] = 0.0
        positive[:] = 0.0
        for start in range(0, m, 32):
            part = x[i, start : min(m, start + 32)]
            for j in range(part.size):
                term = np.float64(part[j])
                plain[j] += term
                positive[j] += abs(term)
        exact[i] += plain.sum()
        mass[i] += positive.sum()


@jit
def general_lanes(
    x: Any, y: Any, fused: Any, acc: Any, k: Any, key: Any, counts: Any, extremes: Any, flags: Any
) -> None:
    """As `fast_lanes` in float64 and any mode; where `fused`, the terms are x * y, added by fused multiply-add.

    flags has one entry a lane, uint8 (rows, W).
    """
    rows, n = x.shape
    width = acc.shape[1]
    stochastic = k[4] == 4
    for i in range(rows):
        for j in range(n):
            lane = j % width
            before = acc[i, lane]
            term = x[i, j] * y[i, j] if fused else x[i, j]
            uniform = _uniform(key, i * n + j) if stochastic else 0.0
            if fused:
                r, events, size = general_step(FMA, x[i, j], y[i, j], before, k, uniform)
            else:
                r, events, size = general_step(ADD, before, term, 0.0, k, uniform)
            lane_flags = flags[i, lane : lane + 1]
            _record(events, size, counts, extremes, lane_flags, 0)
            if r == before and term != 0.0 and np.isfinite(before):
                counts[ABSORBED] += 1
            acc[i, lane] = r


@jit
def kahan(x: Any, acc: Any, compensation: Any, k: Any, key: Any, counts: Any, extremes: Any, flags: Any) -> None:
    """Kahan's compensated sum of each row of x (rows, n) float64, each of its four operations rounded.

    y = x - c;  t = acc + y;  c = (t - acc) - y;  acc = t. acc, compensation: (rows, 1).
    """
    rows, n = x.shape
    for i in range(rows):
        for j in range(n):
            before, first = (acc[i, 0], compensation[i, 0]), 4 * (i * n + j)
            acc[i, 0], compensation[i, 0] = _kahan_step(before, x[i, j], k, key, first, counts, extremes, flags[i])


@jit
def _kahan_step(before: Any, term: Any, k: Any, key: Any, first: Any, counts: Any, extremes: Any, flags: Any) -> Any:
    """Return the next total and compensation. first: number of the step's first random number."""
    s, c = before
    stochastic = k[4] == 4
    y = t = d = after = 0.0
    for op, place in ((SUBTRACT, 0), (ADD, 1), (SUBTRACT, 2), (SUBTRACT, 3)):
        left = term if place == 0 else (s if place == 1 else (t if place == 2 else d))
        right = c if place == 0 else (y if place == 1 else (s if place == 2 else y))
        uniform = _uniform(key, first + place) if stochastic else 0.0
        r, events, size = general_step(op, left, right, 0.0, k, uniform)
        _record(events, size, counts, extremes, flags, 0)
        if place == 0:
            y = r
        elif place == 1:
            t = r
        elif place == 2:
            d = r
        else:
            after = r
    if t == s and term != 0.0 and after == c and np.isfinite(s):
        counts[ABSORBED] += 1
    return t, after


@jit
def scheduled(
    x: Any,
    y: Any,
    fused: Any,
    first: Any,
    kind: Any,
    accumulator: Any,
    source: Any,
    acc: Any,
    k: Any,
    kp: Any,
    key: Any,
    counts: Any,
    extremes: Any,
    flags: Any,
) -> None:
    """Carry out entries of a schedule on rows of x (rows, m) float64, whose elements begin with number `first`.

    Where `fused`, the terms are x * y, added by fused multiply-add (or rounded, where they begin an accumulator).
    acc: (rows, accumulators) float64. k, kp: constants of the sum's format and of that of partial sums. An element
    that begins an accumulator is no operation, but for the rounding where it is no number of the format.
    """
    entries = kind.size
    stochastic = k[4] == 4
    loads = k.copy()
    if not fused:
        loads[8] = 0.0  # what is only moved is not flushed
    for i in range(acc.shape[0]):
        row_flags = flags[i : i + 1]
        for e in range(entries):
            what, place, j = kind[e], accumulator[e], source[e]
            if what == CLEAR:
                acc[i, place] = 0.0
                continue
            uniform = _uniform(key, i * entries + e) if stochastic else 0.0
            constants = kp if what in (TAKE_PARTIAL, MERGE_PARTIAL) else k
            merges = what >= MERGE
            term = (-acc[i, j] if what == LESS else acc[i, j]) if merges else x[i, j - first]
            if what == LOAD:
                factor = y[i, j - first] if fused else 1.0
                r, events, size = general_step(MULTIPLY if fused else COPY, term, factor, 0.0, loads, uniform)
                if fused or r != term:
                    _record(events, size, counts, extremes, row_flags, 0)
                acc[i, place] = r
                continue
            before = acc[i, place]
            if what == COMPENSATE:
                first_number = 4 * ((acc.shape[0] + i) * entries + e)  # beyond those of single steps
                pair = before, acc[i, place + 1]
                r, rest = _kahan_step(pair, term, k, key, first_number, counts, extremes, row_flags)
                acc[i, place], acc[i, place + 1] = r, rest if np.isfinite(r) else 0.0
                continue
            if fused and not merges:
                r, events, size = general_step(FMA, term, y[i, j - first], before, constants, uniform)
                term *= y[i, j - first]
            else:
                r, events, size = general_step(ADD, before, term, 0.0, constants, uniform)
            _record(events, size, counts, extremes, row_flags, 0)
            if r == before and term != 0.0 and np.isfinite(before):
                counts[ABSORBED] += 1
            acc[i, place] = r
