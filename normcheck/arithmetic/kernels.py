"""JIT kernels on the float32 carrier: one operation, one rounding, all events, over blocks that stay in cache.

For nearest-even and formats for which float32 arithmetic followed by one rounding is exact
(`rounding.carried_by_float32`); everything else runs in `general`. A kernel serves every format: the format's facts
are arguments (`rounding.fast_constants`).
Loops run over slices, because an index that may be negative keeps LLVM from vectorising, and every unsigned
operation is wrapped in np.uint32, because numba widens it to 64 bits otherwise (9 times slower).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
from numba import njit

F = TypeVar("F", bound=Callable[..., Any])
jit: Callable[[F], F] = cast("Any", njit(nogil=True, cache=True, error_model="numpy"))
"""Compiled once and cached; runs without the interpreter's lock; x / 0 is an infinity, no exception."""

COPY, ADD, SUBTRACT, MULTIPLY, DIVIDE, ABSOLUTE, SQRT, RSQRT, FMA = range(9)

OVERFLOW, UNDERFLOW, SUBNORMAL, INVALID, ABSORBED, ZERO = range(6)
"""Places in a kernel's counts."""
COUNTS = 6

FLAG_OVERFLOW, FLAG_UNDERFLOW, FLAG_INVALID = 1, 2, 4
"""Bits of a row's flags."""

_CHUNK = 1024
_SIGN, _ABS = np.uint32(0x80000000), np.uint32(0x7FFFFFFF)
_ABS64, _INF64 = np.int64(0x7FFFFFFFFFFFFFFF), np.int64(0x7FF0000000000000)
_WIDE_RANGE = np.uint32(0x20000000)
"""Bits of 2**-63: where the smallest normal number lies below it, a product may vanish in float32 itself."""
_INF, _ONE, _NOUGHT, _MOST = np.uint32(0x7F800000), np.uint32(1), np.uint32(0), np.uint32(0xFFFFFFFF)


@jit
def _constants(k: Any) -> Any:
    """The constants in registers: a loop that stores could overwrite an array of them, for all that LLVM knows."""
    return (k[0], k[1], k[2], k[3], k[4], k[5], k[6], k[7], k[8], k[9])


@jit
def _fast_round(a: Any, k: Any) -> Any:
    """Round the magnitude bits `a` of a float32: nearest-even by integer addition, subnormals by a magic float."""
    r = np.uint32(np.uint32(a + np.uint32(k[1] + np.uint32(np.uint32(a >> k[0]) & k[2]))) & k[3])
    magic = np.uint32(k[9]).view(np.float32)
    s = np.float32(np.float32(np.uint32(a).view(np.float32) + magic) - magic).view(np.uint32)
    r = s if a < k[6] else r
    r = _NOUGHT if a <= k[7] else r
    r = k[5] if a >= k[4] else r
    return a if a > _INF else r


@jit
def _fast_operate(op: Any, a: Any, b: Any, scalar: Any, v: Any, out: Any) -> None:
    """out = a op b in float32 over one chunk; b is the scalar v where `scalar`."""
    n = a.size
    if op == COPY:
        for j in range(n):
            out[j] = a[j]
    elif op == ABSOLUTE:
        for j in range(n):
            out[j] = abs(a[j])
    elif op == ADD:
        if scalar:
            for j in range(n):
                out[j] = a[j] + v
        else:
            for j in range(n):
                out[j] = a[j] + b[j]
    elif op == SUBTRACT:
        if scalar:
            for j in range(n):
                out[j] = a[j] - v
        else:
            for j in range(n):
                out[j] = a[j] - b[j]
    elif op == MULTIPLY:
        if scalar:
            for j in range(n):
                out[j] = a[j] * v
        else:
            for j in range(n):
                out[j] = a[j] * b[j]
    elif op == DIVIDE:
        if scalar:
            for j in range(n):
                out[j] = np.float32(a[j] / v)
        else:
            for j in range(n):
                out[j] = np.float32(a[j] / b[j])


@jit
def _fast_extremes(u: Any) -> tuple[Any, Any]:
    """Largest magnitude's bits, and the smallest non-zero one's less 1 (so that 0 wraps to the largest)."""
    largest, least = _NOUGHT, _MOST
    for j in range(u.size):
        a = np.uint32(u[j] & _ABS)
        b = np.uint32(a - _ONE)
        largest = a if a > largest else largest
        least = b if b < least else least
    return largest, least


@jit
def _fast_small(u: Any, k: Any) -> tuple[Any, Any]:
    """How many results round to zero though they are not, and how many to subnormals."""
    zeros, below, zero, subnormal = _NOUGHT, _NOUGHT, k[7], k[8]
    for j in range(u.size):
        b = np.uint32(np.uint32(u[j] & _ABS) - _ONE)
        zeros = np.uint32(zeros + (_ONE if b < zero else _NOUGHT))
        below = np.uint32(below + (_ONE if b < subnormal else _NOUGHT))
    return zeros, np.uint32(below - zeros)


@jit
def _fast_large(op: Any, a: Any, b: Any, scalar: Any, v: Any, out: Any, limit: Any) -> tuple[Any, Any, Any]:
    """Overflows of finite operands, NaN from operands that are not NaN, and the largest magnitude that is no NaN."""
    over, invalid, largest = 0, 0, np.float32(0)
    for j in range(a.size):
        t = out[j]
        other = np.float32(0) if op in (COPY, ABSOLUTE) else (v if scalar else b[j])
        if np.isnan(t):
            invalid += 1 if not (np.isnan(a[j]) or np.isnan(other)) else 0
            continue
        size = abs(t)
        largest = max(largest, size)
        if size >= limit:
            over += 1 if np.isfinite(a[j]) and np.isfinite(other) else 0
    return over, invalid, np.float32(largest).view(np.uint32)


@jit
def _lost_to_zero(a: Any, b: Any, scalar: Any, v: Any, out: Any) -> Any:
    """Products or quotients that float32 itself took to zero (finite quotients by infinity are exact zeros)."""
    lost = 0
    for j in range(a.size):
        other = v if scalar else b[j]
        if out[j] == 0 and a[j] != 0 and other != 0 and not np.isinf(other):
            lost += 1
    return lost


@jit
def _fast_absorbed(a: Any, b: Any, scalar: Any, v: Any, out: Any) -> Any:
    """Non-zero terms b that left a unchanged (out already rounded)."""
    absorbed = 0
    for j in range(a.size):
        other = v if scalar else b[j]
        if other != 0 and out[j] == a[j] and np.isfinite(a[j]):
            absorbed += 1
    return absorbed


@jit
def fast_elementwise(
    op: Any, a: Any, b: Any, out: Any, k: Any, counts: Any, extremes: Any, flags: Any, absorb: Any
) -> None:
    """out = round(a op b), with events.

    a, out: (rows, m) float32, C-contiguous along m, different arrays. b: (rows or 1, m or 1) float32. k: constants.
    counts: int64[COUNTS], added to. extremes: float64[2], largest and smallest non-zero magnitude before rounding,
    updated. flags: uint8 (rows,), or-ed. absorb: count non-zero b that leave a unchanged.
    """
    rows, m = a.shape
    k = _constants(k)
    scalar = b.shape[1] == 1 and m != 1
    one_row = b.shape[0] == 1
    limit = np.uint32(k[4]).view(np.float32)
    safe_least = np.uint32(k[6] - _ONE)
    largest, least = _NOUGHT, _MOST
    for i in range(rows):
        ib = 0 if one_row else i
        v = b[ib, 0]
        for start in range(0, m, _CHUNK):
            stop = min(m, start + _CHUNK)
            ac, oc = a[i, start:stop], out[i, start:stop]
            bc = b[ib, :1] if scalar else b[ib, start:stop]
            _fast_operate(op, ac, bc, scalar, v, oc)
            u = oc.view(np.uint32)
            big, small = _fast_extremes(u)
            least = small if small < least else least
            if small < safe_least:
                zeros, subnormal = _fast_small(u, k)
                counts[UNDERFLOW] += zeros
                counts[SUBNORMAL] += subnormal
                if zeros:
                    flags[i] |= FLAG_UNDERFLOW
            if k[6] < _WIDE_RANGE and (op == MULTIPLY or op == DIVIDE):
                lost = _lost_to_zero(ac, bc, scalar, v, oc)
                counts[UNDERFLOW] += lost
                if lost:
                    flags[i] |= FLAG_UNDERFLOW
            if big >= k[4]:
                over, invalid, big = _fast_large(op, ac, bc, scalar, v, oc, limit)
                counts[OVERFLOW] += over
                counts[INVALID] += invalid
                if over:
                    flags[i] |= FLAG_OVERFLOW
                if invalid:
                    flags[i] |= FLAG_INVALID
            largest = big if big > largest else largest
            for j in range(u.size):
                w = u[j]
                u[j] = np.uint32(_fast_round(np.uint32(w & _ABS), k) | np.uint32(w & _SIGN))
            if absorb:
                counts[ABSORBED] += _fast_absorbed(ac, bc, scalar, v, oc)
    merge_extremes(largest, least, extremes)


@jit
def _exact_operate(op: Any, a: Any, b: Any, scalar: Any, v: Any, wide: Any) -> None:
    """Write a op b, for float32 numbers, as float64: products are exact, sums that are not are rounded to odd."""
    if op == MULTIPLY:
        for j in range(a.size):
            wide[j] = np.float64(a[j]) * np.float64(v if scalar else b[j])
        return
    bits = wide.view(np.int64)
    for j in range(a.size):
        x, other = np.float64(a[j]), np.float64(v if scalar else b[j])
        y = other if op == ADD else -other
        s = x + y
        t = s - x
        e = (x - (s - t)) + (y - t)
        w = np.float64(s).view(np.int64)
        step = np.int64(1) if (e > 0.0) == (s > 0.0) else np.int64(-1)
        moves = (abs(e) > 0.0) & ((w & np.int64(1)) == np.int64(0))
        bits[j] = w + step if moves else w


@jit
def _to_odd(wide: Any, u: Any) -> None:
    """Round float64 to odd in float32, as bits: two bits less are then had without double rounding."""
    for j in range(wide.size):
        x = wide[j]
        f = np.float32(x)
        d = x - np.float64(f)
        w = f.view(np.uint32)
        step = _ONE if (d > 0.0) == (x > 0.0) else _MOST
        moves = (abs(d) > 0.0) & (abs(d) < np.inf) & (np.uint32(w & _ONE) == _NOUGHT)
        u[j] = np.uint32(w + step) if moves else w


@jit
def _wide_extremes(wide: Any, extremes: Any) -> None:
    """Update the largest, and the smallest non-zero, magnitude of a step; NaN counts for neither."""
    bits, infinite, largest, least = wide.view(np.int64), _INF64, np.int64(0), _INF64
    for j in range(bits.size):
        size = np.int64(bits[j] & _ABS64)
        number = size if size <= infinite else np.int64(0)
        largest = number if number > largest else largest
        present = size if size > np.int64(0) else infinite
        least = present if present < least else least
    extremes[0] = max(extremes[0], np.int64(largest).view(np.float64))
    extremes[1] = min(extremes[1], np.int64(least).view(np.float64))


@jit
def mixed_elementwise(
    op: Any, a: Any, b: Any, out: Any, k: Any, counts: Any, extremes: Any, flags: Any, absorb: Any
) -> None:
    """out = round(a op b) for float32 numbers that are none of the format; + - x alone.

    As `fast_elementwise`, for formats with at least two bits less than float32: computed in float64, rounded to odd
    in float32, and from there to the format, which is one rounding of the exact result (Boldo and Melquiond 2008).
    """
    rows, m = a.shape
    k = _constants(k)
    scalar = b.shape[1] == 1 and m != 1
    one_row = b.shape[0] == 1
    limit = np.uint32(k[4]).view(np.float32)
    safe_least = np.uint32(k[6] - _ONE)
    wide = np.empty(min(m, _CHUNK), np.float64)
    for i in range(rows):
        ib = 0 if one_row else i
        v = b[ib, 0]
        for start in range(0, m, _CHUNK):
            stop = min(m, start + _CHUNK)
            ac, oc, wc = a[i, start:stop], out[i, start:stop], wide[: stop - start]
            bc = b[ib, :1] if scalar else b[ib, start:stop]
            u = oc.view(np.uint32)
            _exact_operate(op, ac, bc, scalar, v, wc)
            _to_odd(wc, u)
            _wide_extremes(wc, extremes)
            big, small = _fast_extremes(u)
            if small < safe_least:
                zeros, subnormal = _fast_small(u, k)
                counts[UNDERFLOW] += zeros
                counts[SUBNORMAL] += subnormal
                if zeros:
                    flags[i] |= FLAG_UNDERFLOW
            if big >= k[4]:
                over, invalid, _ = _fast_large(op, ac, bc, scalar, v, oc, limit)
                counts[OVERFLOW] += over
                counts[INVALID] += invalid
                if over:
                    flags[i] |= FLAG_OVERFLOW
                if invalid:
                    flags[i] |= FLAG_INVALID
            for j in range(u.size):
                w = u[j]
                u[j] = np.uint32(_fast_round(np.uint32(w & _ABS), k) | np.uint32(w & _SIGN))
            if absorb:
                counts[ABSORBED] += _fast_absorbed(ac, bc, scalar, v, oc)


@jit
def fast_round_only(x: Any, out: Any, constants: Any) -> None:
    """Round x to out, both one-dimensional float32, without a count: one pass."""
    k = _constants(constants)
    u, o = x.view(np.uint32), out.view(np.uint32)
    for j in range(u.size):
        w = u[j]
        o[j] = np.uint32(_fast_round(np.uint32(w & _ABS), k) | np.uint32(w & _SIGN))


def are_compiled() -> bool:
    """Whether this machine has compiled the kernels since their source last changed, so that a run only loads them."""
    stored = Path(fast_elementwise.stats.cache_path)  # type: ignore[attr-defined]  # numba's dispatcher has it
    source = Path(__file__)
    changed = source.stat().st_mtime
    return any(f.stat().st_mtime >= changed for f in stored.glob(f"{source.stem}.fast_elementwise-*.nbi"))


@jit
def merge_extremes(largest: Any, least: Any, extremes: Any) -> None:
    """Add largest and smallest magnitude bits (the latter less 1) of finite values to a step's extremes."""
    big = np.float64(np.uint32(largest).view(np.float32))
    if big > extremes[0]:
        extremes[0] = big
    if least < _INF:
        small = np.float64(np.uint32(least + _ONE).view(np.float32))
        if small < extremes[1]:
            extremes[1] = small
