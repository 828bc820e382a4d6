"""JIT kernel of online moments: a schedule of elements and merges, carried out with a recurrence's flags."""

from __future__ import annotations

from typing import Any

import numpy as np

from normcheck.arithmetic.general import _record, _uniform, general_step
from normcheck.arithmetic.kernels import ABSORBED, ADD, DIVIDE, FMA, MULTIPLY, SUBTRACT, jit
from normcheck.arithmetic.schedules import CLEAR as _CLEAR
from normcheck.arithmetic.schedules import MERGE as _MERGE_ENTRY
from normcheck.arithmetic.schedules import TAKE as _TAKE
from normcheck.arithmetic.schedules import TAKE_TAIL as _TAKE_TAIL

OPERATIONS = 5
"""Place of the operations in a step's counts, which is free there."""
MEAN, TOTAL, COUNT = range(3)
"""Planes of the state, (rows, 3, accumulators)."""
_MERGE_CODES, _TAIL_CODES = 3, 11
"""Places in a recurrence's codes: of the merge, and of the scalar flavours."""


@jit
def _round(op: Any, a: Any, b: Any, c: Any, k: Any, draw: Any, counts: Any, extremes: Any, flags: Any, row: Any) -> Any:
    """One rounded, recorded operation. draw: [key, index] of the random numbers, the index moves on."""
    uniform = 0.0
    if k[4] == 4:
        uniform = _uniform(draw[0], draw[1])
        draw[1] += 1
    r, events, size = general_step(op, a, b, c, k, uniform)
    _record(events, size, counts, extremes, flags, row)
    counts[OPERATIONS] += 1
    if op == ADD and b != 0.0 and r == a and np.isfinite(a):
        counts[ABSORBED] += 1
    if op == FMA and r == c and a * b != 0.0 and np.isfinite(c):
        counts[ABSORBED] += 1
    return r


@jit
def _plus(
    fused: Any,
    whole: Any,
    a: Any,
    b: Any,
    k: Any,
    draw: Any,
    counts: Any,
    extremes: Any,
    flags: Any,
    row: Any,
) -> Any:
    """whole + a * b, with one rounding or two."""
    if fused:
        return _round(FMA, a, b, whole, k, draw, counts, extremes, flags, row)
    term = _round(MULTIPLY, a, b, 0.0, k, draw, counts, extremes, flags, row)
    return _round(ADD, whole, term, 0.0, k, draw, counts, extremes, flags, row)


@jit
def _accept(
    s: Any,
    place: Any,
    x: Any,
    how: Any,
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
    s[COUNT, place] += 1.0
    d = _round(SUBTRACT, x, s[MEAN, place], 0.0, km, draw, cm, em, fm, row)
    if how[0]:
        share = general_step(DIVIDE, 1.0, s[COUNT, place], 0.0, km, 0.5)[0]
        s[MEAN, place] = _plus(how[1], s[MEAN, place], d, share, km, draw, cm, em, fm, row)
    else:
        q = _round(DIVIDE, d, s[COUNT, place], 0.0, km, draw, cm, em, fm, row)
        s[MEAN, place] = _round(ADD, s[MEAN, place], q, 0.0, km, draw, cm, em, fm, row)
    rest = _round(SUBTRACT, x, s[MEAN, place], 0.0, km, draw, cm, em, fm, row)
    s[TOTAL, place] = _plus(how[2], s[TOTAL, place], d, rest, kt, draw, ct, et, ft, row)


@jit
def _shares(na: Any, nb: Any, how: Any, k: Any, draw: Any, counts: Any, extremes: Any, flags: Any, row: Any) -> Any:
    """(a, b, r): the shares of the sets in the whole, as the merge needs them, and 1 / n."""
    n = na + nb
    if n == 0.0:
        return 0.0, 0.0, 1.0
    if how[1] == 2:
        return 0.0, 0.0, _round(DIVIDE, 1.0, n, 0.0, k, draw, counts, extremes, flags, row)
    a = 0.0
    if how[0]:
        r = _round(DIVIDE, 1.0, n, 0.0, k, draw, counts, extremes, flags, row)
        if how[1] == 1:
            a = _round(MULTIPLY, na, r, 0.0, k, draw, counts, extremes, flags, row)
        return a, _round(MULTIPLY, nb, r, 0.0, k, draw, counts, extremes, flags, row), r
    if how[1] == 1:
        a = _round(DIVIDE, na, n, 0.0, k, draw, counts, extremes, flags, row)
    return a, _round(DIVIDE, nb, n, 0.0, k, draw, counts, extremes, flags, row), 0.0


@jit
def _between(
    d: Any,
    na: Any,
    nb: Any,
    shares: Any,
    how: Any,
    k: Any,
    draw: Any,
    counts: Any,
    extremes: Any,
    flags: Any,
    row: Any,
) -> Any:
    """The two factors whose product is added to the sums of squared deviations."""
    a, b, r = shares
    if how[2] == 1:
        left = _round(MULTIPLY, d, na, 0.0, k, draw, counts, extremes, flags, row)
        return left, _round(MULTIPLY, b, d, 0.0, k, draw, counts, extremes, flags, row)
    dd = _round(MULTIPLY, d, d, 0.0, k, draw, counts, extremes, flags, row)
    if how[2] == 0:
        return dd, _round(MULTIPLY, na, b, 0.0, k, draw, counts, extremes, flags, row)
    if how[2] == 2:
        return _round(MULTIPLY, dd, b, 0.0, k, draw, counts, extremes, flags, row), na
    first = a if how[2] == 4 else na
    left = _round(MULTIPLY, dd, first, 0.0, k, draw, counts, extremes, flags, row)
    if how[2] == 3:
        return left, b
    second = b if how[2] == 4 else nb
    left = _round(MULTIPLY, left, second, 0.0, k, draw, counts, extremes, flags, row)
    return left, na + nb if how[2] == 4 else r


@jit
def _merge(
    s: Any,
    into: Any,
    source: Any,
    how: Any,
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
    """Merge a set into another: see `recurrences.Merge`."""
    first, second = (source, into) if how[7] else (into, source)
    ma, ta, na = s[MEAN, first], s[TOTAL, first], s[COUNT, first]
    mb, tb, nb = s[MEAN, second], s[TOTAL, second], s[COUNT, second]
    s[COUNT, into] = na + nb
    if how[6] and (na == 0.0 or nb == 0.0):
        if na == 0.0:
            s[MEAN, into], s[TOTAL, into] = mb, tb
        return
    shares = _shares(na, nb, how, km, draw, cm, em, fm, row)
    d = _round(SUBTRACT, mb, ma, 0.0, km, draw, cm, em, fm, row)
    if how[1] == 0:
        s[MEAN, into] = _plus(how[3], ma, d, shares[1], km, draw, cm, em, fm, row)
    else:
        a, b = (shares[0], shares[1]) if how[1] == 1 else (na, nb)
        second = _round(MULTIPLY, b, mb, 0.0, km, draw, cm, em, fm, row)
        mean = _plus(how[3], second, ma, a, km, draw, cm, em, fm, row)
        s[MEAN, into] = mean if how[1] == 1 else _round(MULTIPLY, mean, shares[2], 0.0, km, draw, cm, em, fm, row)
    held, new = s[TOTAL, into], s[TOTAL, source]
    left = tb if how[5] else _round(ADD, held, new, 0.0, kt, draw, ct, et, ft, row)
    p, q = _between(d, na, nb, shares, how, kt, draw, ct, et, ft, row)
    total = _plus(how[4], left, p, q, kt, draw, ct, et, ft, row)
    s[TOTAL, into] = _round(ADD, ta, total, 0.0, kt, draw, ct, et, ft, row) if how[5] else total


@jit
def online_part(
    x: Any,
    first: Any,
    state: Any,
    kind: Any,
    accumulator: Any,
    source: Any,
    codes: Any,
    km: Any,
    kt: Any,
    draw: Any,
    cm: Any,
    em: Any,
    fm: Any,
    ct: Any,
    et: Any,
    ft: Any,
) -> None:
    """Carry out entries of a schedule on rows of x (rows, m) float64, whose elements begin with number `first`.

    state: (rows, 3, accumulators). codes: a recurrence's. km, kt: constants of the mean's and the sum's format;
    (cm, em, fm), (ct, et, ft): counts, extremes and flags of the two steps.
    """
    for i in range(state.shape[0]):
        s = state[i]
        for e in range(kind.size):
            what, place, j = kind[e], accumulator[e], source[e]
            if what == _CLEAR:
                s[:, place] = 0.0
            elif what in (_TAKE, _TAKE_TAIL):
                how = codes[:_MERGE_CODES] if what == _TAKE else codes[_TAIL_CODES : _TAIL_CODES + _MERGE_CODES]
                _accept(s, place, x[i, j - first], how, km, kt, draw, cm, em, fm, ct, et, ft, i)
            else:
                tail = what != _MERGE_ENTRY
                how = codes[_TAIL_CODES + _MERGE_CODES :] if tail else codes[_MERGE_CODES:_TAIL_CODES]
                _merge(s, place, j, how, km, kt, draw, cm, em, fm, ct, et, ft, i)
