"""JIT kernel of online moments: Welford's recurrence in lanes and chunks, merged by Chan, Golub and LeVeque."""

from __future__ import annotations

from typing import Any

import numpy as np

from normcheck.arithmetic.general import _record, _uniform, general_step
from normcheck.arithmetic.kernels import ABSORBED, ADD, DIVIDE, MULTIPLY, SUBTRACT, jit

OPERATIONS = 5
"""Place of the operations in a step's counts, which is free there."""
MEAN, TOTAL, COUNT, WHOLE_MEAN, WHOLE_TOTAL, WHOLE_COUNT = range(6)
"""Planes of the state: the chunk under way, and all chunks of the lane merged so far."""


@jit
def _round(op: Any, a: Any, b: Any, k: Any, draw: Any, counts: Any, extremes: Any, flags: Any, row: Any) -> Any:
    """One rounded, recorded operation. draw: [key, index] of the random numbers, the index moves on."""
    uniform = 0.0
    if k[4] == 4:
        uniform = _uniform(draw[0], draw[1])
        draw[1] += 1
    r, events, size = general_step(op, a, b, 0.0, k, uniform)
    _record(events, size, counts, extremes, flags, row)
    counts[OPERATIONS] += 1
    if op == ADD and b != 0.0 and r == a and np.isfinite(a):
        counts[ABSORBED] += 1
    return r


@jit
def _accept(
    s: Any,
    lane: Any,
    x: Any,
    km: Any,
    kt: Any,
    draw: Any,
    cm: Any,
    em: Any,
    fm: Any,
    ct: Any,
    et: Any,
    ft: Any,
    row: Any,
) -> None:
    """d = x - m; m += d / i; M += d * (x - m)."""
    s[COUNT, lane] += 1.0
    d = _round(SUBTRACT, x, s[MEAN, lane], km, draw, cm, em, fm, row)
    q = _round(DIVIDE, d, s[COUNT, lane], km, draw, cm, em, fm, row)
    s[MEAN, lane] = _round(ADD, s[MEAN, lane], q, km, draw, cm, em, fm, row)
    rest = _round(SUBTRACT, x, s[MEAN, lane], km, draw, cm, em, fm, row)
    term = _round(MULTIPLY, d, rest, kt, draw, ct, et, ft, row)
    s[TOTAL, lane] = _round(ADD, s[TOTAL, lane], term, kt, draw, ct, et, ft, row)


@jit
def _merge(
    a: Any, b: Any, km: Any, kt: Any, draw: Any, cm: Any, em: Any, fm: Any, ct: Any, et: Any, ft: Any, row: Any
) -> Any:
    """(m, M, n) of two sets merged: c = nB / n, m = mA + d c, M = (MA + MB) + d d (nA c), d = mB - mA."""
    if a[2] == 0.0:
        return b
    if b[2] == 0.0:
        return a
    n = a[2] + b[2]
    c = _round(DIVIDE, b[2], n, km, draw, cm, em, fm, row)
    d = _round(SUBTRACT, b[0], a[0], km, draw, cm, em, fm, row)
    t = _round(MULTIPLY, d, c, km, draw, cm, em, fm, row)
    mean = _round(ADD, a[0], t, km, draw, cm, em, fm, row)
    total = _round(ADD, a[1], b[1], kt, draw, ct, et, ft, row)
    dd = _round(MULTIPLY, d, d, kt, draw, ct, et, ft, row)
    weight = _round(MULTIPLY, a[2], c, kt, draw, ct, et, ft, row)
    between = _round(MULTIPLY, dd, weight, kt, draw, ct, et, ft, row)
    return mean, _round(ADD, total, between, kt, draw, ct, et, ft, row), n


@jit
def online_part(
    x: Any, state: Any, chunk: Any, km: Any, kt: Any, draw: Any, cm: Any, em: Any, fm: Any, ct: Any, et: Any, ft: Any
) -> None:
    """Take rows of x (rows, m) float64 into state (rows, 6, W); a lane merges after every `chunk` elements (0: never).

    km, kt: constants of the mean's and the sum's format; (cm, em, fm), (ct, et, ft): counts, extremes and flags of
    the two steps.
    """
    rows, m = x.shape
    width = state.shape[2]
    for i in range(rows):
        s = state[i]
        for j in range(m):
            lane = j % width
            _accept(s, lane, x[i, j], km, kt, draw, cm, em, fm, ct, et, ft, i)
            if chunk and s[COUNT, lane] == chunk:
                _close(s, lane, km, kt, draw, cm, em, fm, ct, et, ft, i)


@jit
def _close(
    s: Any, lane: Any, km: Any, kt: Any, draw: Any, cm: Any, em: Any, fm: Any, ct: Any, et: Any, ft: Any, row: Any
) -> None:
    """Merge the lane's chunk into what the lane has, and begin the next."""
    whole = (s[WHOLE_MEAN, lane], s[WHOLE_TOTAL, lane], s[WHOLE_COUNT, lane])
    part = (s[MEAN, lane], s[TOTAL, lane], s[COUNT, lane])
    merged = _merge(whole, part, km, kt, draw, cm, em, fm, ct, et, ft, row)
    s[WHOLE_MEAN, lane], s[WHOLE_TOTAL, lane], s[WHOLE_COUNT, lane] = merged
    s[MEAN, lane] = s[TOTAL, lane] = s[COUNT, lane] = 0.0


@jit
def online_finish(
    state: Any, km: Any, kt: Any, draw: Any, cm: Any, em: Any, fm: Any, ct: Any, et: Any, ft: Any, mean: Any, total: Any
) -> None:
    """Merge the lanes of each row, first to last, into mean and total, (rows, 1) each."""
    for i in range(state.shape[0]):
        s = state[i]
        whole = (0.0, 0.0, 0.0)
        for lane in range(state.shape[2]):
            _close(s, lane, km, kt, draw, cm, em, fm, ct, et, ft, i)
            part = (s[WHOLE_MEAN, lane], s[WHOLE_TOTAL, lane], s[WHOLE_COUNT, lane])
            whole = _merge(whole, part, km, kt, draw, cm, em, fm, ct, et, ft, i)
        mean[i, 0], total[i, 0] = whole[0], whole[1]
