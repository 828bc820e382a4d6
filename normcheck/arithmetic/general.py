"""JIT kernels on the float64 carrier: any rounding mode, any format of at most 24 bits, and float64 itself.

The operation's result in float64 and the sign of its residual (error-free transformations) are folded into a float64
rounded to odd, which rounds once more to the format without double rounding (Boldo and Melquiond 2008).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types
from numba.extending import intrinsic

from normcheck.arithmetic.kernels import (
    ABSOLUTE,
    ABSORBED,
    ADD,
    COPY,
    DIVIDE,
    FLAG_INVALID,
    FLAG_OVERFLOW,
    FLAG_UNDERFLOW,
    FMA,
    INVALID,
    MULTIPLY,
    OVERFLOW,
    RSQRT,
    SQRT,
    SUBNORMAL,
    SUBTRACT,
    UNDERFLOW,
    ZERO,
    jit,
)


@intrinsic
def _fma(typing_context: Any, a: Any, b: Any, c: Any) -> Any:  # noqa: ARG001
    """float64 a * b + c with one rounding (the hardware's instruction, or libm's)."""
    signature = types.float64(types.float64, types.float64, types.float64)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ARG001
        return builder.fma(*args)

    return signature, codegen


@intrinsic
def _fma32(typing_context: Any, a: Any, b: Any, c: Any) -> Any:  # noqa: ARG001
    """float32 a * b + c with one rounding."""
    signature = types.float32(types.float32, types.float32, types.float32)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ARG001
        return builder.fma(*args)

    return signature, codegen


fma: Any = _fma  # to the type checker, one that takes three numbers
fma32: Any = _fma32


@jit
def flushes_subnormals(tiny: float) -> bool:
    """Whether this thread's floating-point unit flushes subnormals: tiny is 2**-1022, halved it must not be 0."""
    return tiny * 0.5 == 0.0


_TINY, _HUGE = 2.0**-960, 1.7976931348623157e308
"""Stand for results too small and too large for float64: no format but float64 itself has numbers there."""
_EVEN, _ZERO, _UP, _DOWN, _STOCHASTIC = range(5)
_GOLDEN, _MIX1, _MIX2 = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


@jit
def _uniform(key: Any, index: Any) -> Any:
    """Uniform number in [0, 1) from a counter: SplitMix64 (Steele, Lea and Flood 2014) of key + index."""
    z = np.uint64(key + np.uint64(np.uint64(index) * _GOLDEN))
    z = np.uint64(np.uint64(z ^ np.uint64(z >> np.uint64(30))) * _MIX1)
    z = np.uint64(np.uint64(z ^ np.uint64(z >> np.uint64(27))) * _MIX2)
    z = np.uint64(z ^ np.uint64(z >> np.uint64(31)))
    return np.float64(np.uint64(z >> np.uint64(11))) * 2.0**-53


@jit
def _to_odd(s: Any, e: Any) -> Any:
    """Fold the sign of the residual e = exact - s into s: the odd one of the two neighbours of the exact value."""
    if e == 0.0 or np.isnan(e) or not np.isfinite(s):
        return s
    if s == 0.0:
        return np.copysign(5e-324, e)
    bits = np.float64(s).view(np.int64)
    if bits & 1:
        return s
    bits += 1 if (e > 0.0) == (s > 0.0) else -1
    return np.int64(bits).view(np.float64)


@jit
def _two_sum(a: Any, b: Any) -> tuple[Any, Any]:
    """a + b = s + e exactly (Knuth), for finite a, b and s."""
    s = a + b
    t = s - a
    return s, (a - (s - t)) + (b - t)


@jit
def _exact_fma(a: Any, b: Any, c: Any) -> tuple[Any, Any]:
    """a * b + c as a float64 and the sign of what it lacks."""
    p = a * b
    tail = fma(a, b, -p)
    if not np.isfinite(p + c):
        return p + c, 0.0
    if abs(p) < _TINY and a != 0.0 and b != 0.0:
        p, tail = np.copysign(_TINY, p), 0.0
    s, e1 = _two_sum(p, c)
    if tail == 0.0:  # the rest would turn a sum of -0 into +0
        return s, e1
    t, e2 = _two_sum(e1, tail)
    s2, e3 = _two_sum(s, t)
    return s2, e3 if e3 != 0.0 else e2


@jit
def _general_operate(op: Any, a: Any, b: Any, c: Any) -> tuple[Any, Any]:
    """The operation rounded to float64, and a residual of the right sign."""
    if op == COPY:
        return a, 0.0
    if op == ABSOLUTE:
        return abs(a), 0.0
    if op == ADD:
        return _two_sum(a, b)
    if op == SUBTRACT:
        return _two_sum(a, -b)
    if op == MULTIPLY:
        p = a * b
        return p, fma(a, b, -p)
    if op == DIVIDE:
        q = a / b
        r = fma(-q, b, a)
        return q, (r if b > 0.0 else -r)
    if op == SQRT:
        s = np.sqrt(a)
        return s, fma(-s, s, a)
    if op == RSQRT:
        s = 1.0 / np.sqrt(a)
        if 1e-150 < s < 1e150:  # a Newton step: two roundings may have missed both neighbours of the exact value
            s += 0.5 * s * _reciprocal_root_residual(a, s, s * s)
        return s, _reciprocal_root_residual(a, s, s * s)
    return _exact_fma(a, b, c)


@jit
def _reciprocal_root_residual(a: Any, s: Any, p: Any) -> Any:
    """Sign of 1/sqrt(a) - s, from 1 - a s^2 with s^2 = p + tail exactly."""
    tail = fma(s, s, -p)
    r = fma(-a, p, 1.0)
    return r - a * tail


@jit
def _quantum(v: Any, k: Any) -> Any:
    """Exponent of the format's ulp at v (finite, not 0)."""
    e = ((np.float64(v).view(np.int64) >> 52) & 0x7FF) - 1023
    return max(e, np.int64(k[1])) - (np.int64(k[0]) - 1)


@jit
def _power(e: Any) -> Any:
    """2.0**e for -1022 <= e <= 1023."""
    return np.int64((np.int64(e) + 1023) << 52).view(np.float64)


@jit
def _general_round(v: Any, k: Any, mode: Any, uniform: Any) -> tuple[Any, Any]:
    """Round a float64 (rounded to odd, if not exact) to the format; also whether it overflowed."""
    if np.isnan(v):
        return v, False
    if np.isinf(v):
        return np.copysign(k[7], v), False
    if k[0] == 0 or v == 0.0:
        return v, False
    q = _quantum(v, k)
    t = abs(v) * _power(-q)
    if mode == _EVEN:
        n = np.rint(t)
    else:
        n = np.floor(t)
        fraction = t - n
        if mode == _STOCHASTIC:
            n += 1.0 if uniform < fraction else 0.0
        elif fraction > 0.0 and ((mode == _UP and v > 0.0) or (mode == _DOWN and v < 0.0)):
            n += 1.0
    r = n * _power(q)
    if r > k[2]:
        inwards = mode == _ZERO or (mode == _UP and v < 0.0) or (mode == _DOWN and v > 0.0)
        return np.copysign(k[6] if inwards else k[5], v), True
    return np.copysign(r, v), False


@jit
def _zero_sum(op: Any, a: Any, b: Any, c: Any, s: Any, mode: Any) -> Any:
    """The sign of an exact zero: -0 rounding down, unless both terms are +0 (IEEE 754 6.3)."""
    if mode != _DOWN or s != 0.0 or op not in (ADD, SUBTRACT, FMA):
        return s
    first = a * b if op == FMA else a
    second = c if op == FMA else (b if op == ADD else -b)
    both_plus = np.copysign(1.0, first) > 0.0 and np.copysign(1.0, second) > 0.0 and first == 0.0 and second == 0.0
    return s if both_plus else -0.0


@jit
def _within_float64(op: Any, a: Any, b: Any, c: Any, s: Any, e: Any) -> tuple[Any, Any]:
    """Where float64 itself overflowed or underflowed, a number that narrower formats round as the exact result."""
    if np.isinf(s):
        finite = np.isfinite(a) and np.isfinite(b) and np.isfinite(c)
        by_zero = (op == DIVIDE and b == 0.0) or op == RSQRT
        return (np.copysign(_HUGE, s), 0.0) if finite and not by_zero else (s, e)
    if (op == MULTIPLY or op == DIVIDE) and abs(s) < _TINY and a != 0.0 and b != 0.0 and not np.isinf(b):
        return np.copysign(_TINY, s), 0.0
    return s, e


@jit
def general_step(op: Any, a: Any, b: Any, c: Any, k: Any, uniform: Any) -> tuple[Any, Any, Any]:
    """One rounded operation: the result, its events as flags (1 << place in the counts), the magnitude before."""
    mode = np.int64(k[4])
    if k[9] != 0.0:
        a = np.copysign(0.0, a) if abs(a) < k[3] else a
        b = np.copysign(0.0, b) if abs(b) < k[3] else b
        c = np.copysign(0.0, c) if abs(c) < k[3] else c
    s, e = _general_operate(op, a, b, c)
    if k[0] == 0:
        v = fma(a, b, c) if op == FMA else s
    else:
        s, e = _within_float64(op, a, b, c, s, e)
        v = _zero_sum(op, a, b, c, s, mode) if e == 0.0 else _to_odd(s, e)
    r, over = _general_round(v, k, mode, uniform)
    if k[8] != 0.0 and abs(r) < k[3]:
        r = np.copysign(0.0, r)
    if r == 0.0 and k[10] == 0.0:
        r = 0.0
    events = _events(op, a, b, c, v, r, over or (np.isinf(v) and op != COPY), k)
    return r, events, abs(v)


@jit
def _events(op: Any, a: Any, b: Any, c: Any, v: Any, r: Any, over: Any, k: Any) -> Any:
    """Events of one operation as bits."""
    finite = np.isfinite(a)
    whole = not np.isnan(a)
    if op not in (COPY, ABSOLUTE, SQRT, RSQRT):
        finite = finite and np.isfinite(b)
        whole = whole and not np.isnan(b)
    if op == FMA:
        finite = finite and np.isfinite(c)
        whole = whole and not np.isnan(c)
    if np.isnan(v):
        return 1 << INVALID if whole else 0
    if over:
        return 1 << OVERFLOW if finite else 0
    if r == 0.0:
        vanished = (op == MULTIPLY or op == DIVIDE) and a != 0.0 and b != 0.0 and not np.isinf(b)
        return 1 << UNDERFLOW if v != 0.0 or vanished else 1 << ZERO
    return 1 << SUBNORMAL if abs(r) < k[3] else 0


@jit
def general_elementwise(
    op: Any, a: Any, b: Any, c: Any, out: Any, k: Any, key: Any, counts: Any, extremes: Any, flags: Any, absorb: Any
) -> None:
    """out = round(a op b [op c]) over (rows, m) float64 arrays; b and c may have one row or one column.

    Arguments as for `fast_elementwise`; key: uint64 of stochastic rounding, element (i, j) draws number i * m + j.
    """
    rows, m = out.shape
    stochastic = k[4] == _STOCHASTIC
    for i in range(rows):
        ra = a[i if a.shape[0] > 1 else 0]
        rb = b[i if b.shape[0] > 1 else 0]
        rc = c[i if c.shape[0] > 1 else 0]
        for j in range(m):
            x = ra[j if ra.size > 1 else 0]
            y = rb[j if rb.size > 1 else 0]
            uniform = _uniform(key, i * m + j) if stochastic else 0.0
            r, events, size = general_step(op, x, y, rc[j if rc.size > 1 else 0], k, uniform)
            out[i, j] = r
            _record(events, size, counts, extremes, flags, i)
            if absorb and y != 0.0 and r == x and np.isfinite(x):
                counts[ABSORBED] += 1


@jit
def _record(events: Any, size: Any, counts: Any, extremes: Any, flags: Any, i: Any) -> None:
    """Add one operation's events to the counts, the extremes and the row's flags."""
    if size > extremes[0]:
        extremes[0] = size
    if 0.0 < size < extremes[1]:
        extremes[1] = size
    if events == 0:
        return
    counts[OVERFLOW] += (events >> OVERFLOW) & 1
    counts[UNDERFLOW] += (events >> UNDERFLOW) & 1
    counts[SUBNORMAL] += (events >> SUBNORMAL) & 1
    counts[INVALID] += (events >> INVALID) & 1
    if events & (1 << OVERFLOW):
        flags[i] |= FLAG_OVERFLOW
    if events & (1 << UNDERFLOW):
        flags[i] |= FLAG_UNDERFLOW
    if events & (1 << INVALID):
        flags[i] |= FLAG_INVALID
