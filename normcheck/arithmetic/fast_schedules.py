"""JIT kernels of schedules on the float32 carrier: entry by entry, all rows of a tile at once, in vector units.

As in `kernels`: nearest-even, and formats for which float32 arithmetic followed by one rounding is exact. Rows in which
something overflows or becomes NaN (of moments: or comes near the subnormals) are marked, and left out of the counts:
the general kernels run them again.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from normcheck.arithmetic.general import fma32
from normcheck.arithmetic.kernels import (
    _ABS,
    _MOST,
    _NOUGHT,
    _ONE,
    _SIGN,
    ABSORBED,
    SUBNORMAL,
    _constants,
    _fast_round,
    jit,
    merge_extremes,
)
from normcheck.arithmetic.schedules import CLEAR, LOAD, MERGE, TAKE, TAKE_TAIL

ROWS_AT_ONCE = 64
"""Rows of a tile: enough for the vector units, few enough that all accumulators stay in the cache."""


@jit
def _fast_add(bits: Any, term: Any, k: Any, big: Any, least: Any, absorbed: Any, below: Any) -> None:
    """bits = round(bits + term) for one accumulator of each row: see `sums._fast_lane_steps`."""
    subnormal = k[8]
    for row in range(bits.size):
        j = np.uintp(row)
        before = bits[j]
        t = term[j]
        s = np.float32(np.uint32(before).view(np.float32) + t).view(np.uint32)
        a = np.uint32(s & _ABS)
        b = np.uint32(a - _ONE)
        big[j] = a if a > big[j] else big[j]
        least[j] = b if b < least[j] else least[j]
        below[j] = np.uint32(below[j] + (_ONE if b < subnormal else _NOUGHT))
        r = np.uint32(_fast_round(a, k) | np.uint32(s & _SIGN))
        same = (r == before) & (t != np.float32(0))
        absorbed[j] = np.uint32(absorbed[j] + (_ONE if same else _NOUGHT))
        bits[j] = r


@jit
def fast_scheduled(
    x: Any,
    first: Any,
    kind: Any,
    accumulator: Any,
    source: Any,
    acc: Any,
    constants: Any,
    counts: Any,
    extremes: Any,
    suspect: Any,
) -> None:
    """Carry out entries of a sum's schedule on x (m, rows) float32, whose elements begin with number `first`.

    acc: (accumulators, rows) float32. suspect: uint8 (rows,), set for rows that are to be run again.
    """
    rows = acc.shape[1]
    k = _constants(constants)
    bits = acc.view(np.uint32)
    big, least = np.zeros(rows, np.uint32), np.full(rows, _MOST)
    absorbed, below = np.zeros(rows, np.uint32), np.zeros(rows, np.uint32)
    for e in range(kind.size):
        what, place, j = kind[e], accumulator[e], source[e]
        if what == CLEAR:
            acc[place, :] = np.float32(0)
        elif what == LOAD:
            acc[place, :] = x[j - first]
        elif what >= MERGE:
            _fast_add(bits[place], acc[j], k, big, least, absorbed, below)
        else:
            _fast_add(bits[place], x[j - first], k, big, least, absorbed, below)
    for i in range(rows):
        if big[i] >= k[4]:
            suspect[i] = 1
        else:
            counts[ABSORBED] += absorbed[i]
            counts[SUBNORMAL] += below[i]
            merge_extremes(big[i], least[i], extremes)


# --------------------------------------------------------------------------------------------------- moments


_ZERO, _UNITY = np.float32(0), np.float32(1)
_LEAST_NORMAL, _INFINITE = np.uint32(0x00800000), np.uint32(0x7F800000)
BIG, LEAST, ABSORBED_HERE, OPERATIONS_HERE = range(4)
"""Planes of a step's notes on each row, (4, rows) uint32: largest magnitude's bits, the smallest non-zero one's less 1,
absorbed terms, and operations (in column 0: all rows have as many)."""


@jit
def _note(out: Any, notes: Any) -> None:
    """Note one operation's results."""
    bits, big, least = out.view(np.uint32), notes[BIG], notes[LEAST]
    for row in range(bits.size):
        j = np.uintp(row)
        a = np.uint32(bits[j] & _ABS)
        b = np.uint32(a - _ONE)
        big[j] = a if a > big[j] else big[j]
        least[j] = b if b < least[j] else least[j]
    notes[OPERATIONS_HERE, 0] += _ONE


@jit
def _note_number(v: Any, spare: Any, notes: Any) -> Any:
    """Note an operation whose result is the same in all rows."""
    spare[:] = v
    _note(spare, notes)
    return v


@jit
def _subtract(a: Any, b: Any, out: Any, notes: Any) -> None:
    for j in range(out.size):
        out[j] = a[j] - b[j]
    _note(out, notes)


@jit
def _scale(a: Any, v: Any, out: Any, lost: Any, notes: Any) -> None:
    """out = a * v, a number; products that vanish are lost."""
    some = v != _ZERO
    for j in range(out.size):
        r = np.float32(a[j] * v)
        lost[j] = lost[j] | (some & (r == _ZERO) & (a[j] != _ZERO))
        out[j] = r
    _note(out, notes)


@jit
def _quotient(a: Any, v: Any, out: Any, lost: Any, notes: Any) -> None:
    """out = a / v."""
    for j in range(out.size):
        r = np.float32(a[j] / v)
        lost[j] = lost[j] | ((r == _ZERO) & (a[j] != _ZERO))
        out[j] = r
    _note(out, notes)


@jit
def _multiply(a: Any, b: Any, out: Any, lost: Any, notes: Any) -> None:
    for j in range(out.size):
        r = np.float32(a[j] * b[j])
        lost[j] = lost[j] | ((r == _ZERO) & (a[j] != _ZERO) & (b[j] != _ZERO))
        out[j] = r
    _note(out, notes)


@jit
def _increase(whole: Any, term: Any, notes: Any) -> None:
    """whole += term."""
    absorbed = notes[ABSORBED_HERE]
    for row in range(whole.size):
        j = np.uintp(row)
        before = whole[j]
        t = term[j]
        r = np.float32(before + t)
        absorbed[j] = np.uint32(absorbed[j] + (_ONE if (r == before) & (t != _ZERO) else _NOUGHT))
        whole[j] = r
    _note(whole, notes)


@jit
def _plus(fused: Any, whole: Any, a: Any, b: Any, spare: Any, lost: Any, notes: Any) -> None:
    """whole += a * b, with one rounding or two."""
    if not fused:
        _multiply(a, b, spare, lost, notes)
        _increase(whole, spare, notes)
        return
    absorbed = notes[ABSORBED_HERE]
    for row in range(whole.size):
        j = np.uintp(row)
        before, p, q = whole[j], a[j], b[j]
        r = fma32(p, q, before)
        some = (p != _ZERO) & (q != _ZERO)
        lost[j] = lost[j] | (some & (r == _ZERO))
        absorbed[j] = np.uint32(absorbed[j] + (_ONE if some & (r == before) else _NOUGHT))
        whole[j] = r
    _note(whole, notes)


@jit
def _accept(x: Any, mean: Any, total: Any, count: Any, how: Any, w: Any, lost: Any, of_mean: Any, of_sum: Any) -> None:
    """d = x - m; m += d / i; M += d * (x - m)."""
    d, rest, spare = w[0], w[1], w[2]
    _subtract(x, mean, d, of_mean)
    if how[0]:
        rest[:] = np.float32(_UNITY / count)
        _plus(how[1], mean, d, rest, spare, lost, of_mean)
    else:
        _quotient(d, count, spare, lost, of_mean)
        _increase(mean, spare, of_mean)
    _subtract(x, mean, rest, of_mean)
    _plus(how[2], total, d, rest, spare, lost, of_sum)


@jit
def _shares(na: Any, nb: Any, how: Any, spare: Any, of_mean: Any) -> Any:
    """(a, b, r) as in `online._shares`: numbers that all rows have in common."""
    n = np.float32(na + nb)
    if n == _ZERO:
        return _ZERO, _ZERO, _UNITY
    r = np.float32(_UNITY / n)
    if how[0] or how[1] == 2:
        _note_number(r, spare, of_mean)
    if how[1] == 2:
        return _ZERO, _ZERO, r
    a = np.float32(na * r) if how[0] else np.float32(na / n)
    b = np.float32(nb * r) if how[0] else np.float32(nb / n)
    if how[1] == 1:
        _note_number(a, spare, of_mean)
    return a, _note_number(b, spare, of_mean), r


@jit
def _between(d: Any, na: Any, nb: Any, shares: Any, how: Any, w: Any, lost: Any, of_sum: Any) -> None:
    """The two factors whose product is added to the sums of squared deviations, in w[2] and w[3]."""
    left, right = w[2], w[3]
    a, b, r = shares
    if how[2] == 1:
        _scale(d, na, left, lost, of_sum)
        _scale(d, b, right, lost, of_sum)
        return
    _multiply(d, d, left, lost, of_sum)
    if how[2] == 0:
        _note_number(np.float32(na * b), right, of_sum)
    elif how[2] == 2:
        _scale(left, b, left, lost, of_sum)
        right[:] = na
    else:
        _scale(left, a if how[2] == 4 else na, left, lost, of_sum)
        if how[2] == 3:
            right[:] = b
        else:
            _scale(left, b if how[2] == 4 else nb, left, lost, of_sum)
            right[:] = np.float32(na + nb) if how[2] == 4 else r


@jit
def _merge(
    mean: Any,
    total: Any,
    count: Any,
    into: Any,
    source: Any,
    how: Any,
    w: Any,
    lost: Any,
    of_mean: Any,
    of_sum: Any,
) -> None:
    """Merge a set into another: see `recurrences.Merge`."""
    one, two = (source, into) if how[7] else (into, source)
    na, nb = count[one], count[two]
    count[into] = np.float32(na + nb)
    if how[6] and min(na, nb) == _ZERO:
        if na == _ZERO:
            mean[into, :] = mean[source]
            total[into, :] = total[source]
        return
    d, spare = w[0], w[1]
    shares = _shares(na, nb, how, spare, of_mean)
    _subtract(mean[two], mean[one], d, of_mean)
    if how[1] == 0:
        w[2][:] = shares[1]
        _plus(how[3], mean[into], d, w[2], spare, lost, of_mean)
    else:
        a, b = (shares[0], shares[1]) if how[1] == 1 else (na, nb)
        _scale(mean[two], b, spare, lost, of_mean)
        w[2][:] = a
        _plus(how[3], spare, mean[one], w[2], w[3], lost, of_mean)
        if how[1] == 1:
            mean[into, :] = spare
        else:
            _scale(spare, shares[2], mean[into], lost, of_mean)
    if how[5]:
        _between(d, na, nb, shares, how, w, lost, of_sum)
        spare[:] = total[source]
        _plus(how[4], spare, w[2], w[3], d, lost, of_sum)
        _increase(total[into], spare, of_sum)
    else:
        _increase(total[into], total[source], of_sum)
        _between(d, na, nb, shares, how, w, lost, of_sum)
        _plus(how[4], total[into], w[2], w[3], d, lost, of_sum)


@jit
def fast_online(
    x: Any,
    first: Any,
    mean: Any,
    total: Any,
    count: Any,
    kind: Any,
    accumulator: Any,
    source: Any,
    codes: Any,
    notes: Any,
    suspect: Any,
) -> None:
    """Carry out entries of a schedule of moments on x (m, rows) float32, whose elements begin with number `first`.

    mean, total: (accumulators, rows) float32; count: (accumulators,) float32, the same in all rows. notes: (2, 4, rows)
    of the mean's step and the sum's. suspect: uint8 (rows,), set where a result is no finite number, or where one is
    subnormal or vanishes.
    """
    rows = mean.shape[1]
    w = np.empty((4, rows), np.float32)
    lost = np.zeros(rows, np.bool_)
    of_mean, of_sum = notes[0], notes[1]
    for e in range(kind.size):
        what, place, j = kind[e], accumulator[e], source[e]
        if what == CLEAR:
            mean[place, :] = _ZERO
            total[place, :] = _ZERO
            count[place] = _ZERO
        elif what in (TAKE, TAKE_TAIL):
            how = codes[:3] if what == TAKE else codes[11:14]
            count[place] = np.float32(count[place] + _UNITY)
            _accept(x[j - first], mean[place], total[place], count[place], how, w, lost, of_mean, of_sum)
        else:
            how = codes[3:11] if what == MERGE else codes[14:]
            _merge(mean, total, count, place, j, how, w, lost, of_mean, of_sum)
    for i in range(rows):
        least = min(of_mean[LEAST, i], of_sum[LEAST, i])
        if lost[i] or least < _LEAST_NORMAL - _ONE or max(of_mean[BIG, i], of_sum[BIG, i]) >= _INFINITE:
            suspect[i] = 1
