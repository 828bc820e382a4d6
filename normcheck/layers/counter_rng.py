"""Random numbers as a pure function of (seed, stream, index): no state, no order, no chunk to depend on.

Uniforms: SplitMix64 (Steele, Lea and Flood, OOPSLA 2014: a Weyl sequence through Stafford's finalizer Mix13),
started at `key` and jumped straight to the index. Seeds differ in `key` and in `salt`, a second word that
enters between the finalizer's two multiplications: without it, the streams of two seeds would be shifts of
one another.

Normals: the inverse of the normal distribution function by Wichura's AS241 (PPND16), Applied Statistics 37
(1988) 477-484. 85 % of the uniforms take its central branch, so the tails are gathered and run by themselves,
and both loops vectorise. Only IEEE additions, multiplications, divisions and square roots are used, the
logarithm included (fdlibm's e_log.c): the same bits in vector and scalar code, with any libm, on any machine.

Loops run over slices, because an index that may be negative keeps LLVM from vectorising; unsigned operations
are wrapped in np.uint64, because numba mixes them with signed literals into float64; ``error_model="numpy"``,
because Python's check of every divisor for zero keeps divisions scalar (4 times slower).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray

_GOLDEN = 0x9E3779B97F4A7C15
"""2**64 over the golden ratio, made odd: SplitMix64's increment."""
_FIRST, _SECOND = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
_U64 = 2**64 - 1

_WEYL, _M1, _M2 = np.uint64(_GOLDEN), np.uint64(_FIRST), np.uint64(_SECOND)
_S12, _S27, _S30, _S31, _S52 = (np.uint64(shift) for shift in (12, 27, 30, 31, 52))

Walk = tuple[int, int, int, int, int, int, int, int]
"""The flat indices to draw, in turn: (row, position, start, stop, inner, step, row_stride, outer_stride).

From `position` of `row` on, positions run up to `stop`, then again from `start` in the next row. Position j
of row r has the flat index ``r * row_stride + j // inner * outer_stride + j % inner * step``, modulo 2**64.
"""


def _finalized(z: int) -> int:
    """SplitMix64's finalizer (Stafford's Mix13), in Python integers."""
    z = (z ^ (z >> 30)) * _FIRST & _U64
    z = (z ^ (z >> 27)) * _SECOND & _U64
    return z ^ (z >> 31)


def stream_keys(seed: int, stream: int) -> tuple[np.uint64, np.uint64]:
    """Return a stream's key and salt: two outputs of a SplitMix64 whose state is hashed from the seed.

    Args:
        seed: from 0 to 2**64 - 1.
        stream: 0, 1, ...: independent numbers for one element.
    """
    state = _finalized(seed + _GOLDEN & _U64)
    key, salt = (_finalized(state + (2 * stream + k) * _GOLDEN & _U64) for k in (1, 2))
    return np.uint64(key), np.uint64(salt)


@njit(nogil=True, cache=True, error_model="numpy")
def _hash_run(out: NDArray[np.float64], state: np.uint64, pace: np.uint64, salt: np.uint64) -> None:
    """Fill `out` with the uniforms of the states `state`, `state` + `pace`, ..."""
    for t in range(out.size):
        z = np.uint64(state + np.uint64(np.uint64(t) * pace))
        z = np.uint64(np.uint64(z ^ np.uint64(z >> _S30)) * _M1)
        z = np.uint64(z ^ salt)
        z = np.uint64(np.uint64(z ^ np.uint64(z >> _S27)) * _M2)
        z = np.uint64(z ^ np.uint64(z >> _S31))
        out[t] = (np.float64(np.uint64(z >> _S12)) + 0.5) * 2.0**-52


@njit(nogil=True, cache=True, error_model="numpy")
def fill_uniform(out: NDArray[np.float64], key: np.uint64, salt: np.uint64, walk: Walk) -> None:
    """Fill `out` with uniforms on (0, 1): odd multiples of 2**-53, so 0.5 - u and 1 - u are exact.

    Args:
        out: float64, contiguous.
        key: the stream's first word, of `stream_keys`.
        salt: its second word.
        walk: the flat index of each element of `out`.
    """
    row, position, start, stop, inner, step, row_stride, outer_stride = walk
    pace = np.uint64(np.uint64(step) * _WEYL)
    done = 0
    while done < out.size:
        offset = position % inner
        run = min(inner - offset, stop - position, out.size - done)
        index = np.uint64(row * row_stride + position // inner * outer_stride + offset * step)
        _hash_run(out[done : done + run], np.uint64(key + np.uint64(index * _WEYL)), pace, salt)
        done += run
        position += run
        if position == stop:
            position = start
            row += 1


# ------------------------------------------------------------------------------------- the normal's quantiles

_TILE = 1024
"""Elements whose tails are gathered at a time: with the scratch 24 KiB, which a first-level cache holds."""
_CENTRE = 0.425
"""Half the width in probability of AS241's central branch."""
_CENTRE_SQUARED = 0.180625
_FAR = 5.0
"""AS241's second branch ends where sqrt(-log p) is this: p = 1.4e-11."""

# fmt: off
_A = (3.3871328727963666080, 1.3314166789178437745e2, 1.9715909503065514427e3, 1.3731693765509461125e4,
      4.5921953931549871457e4, 6.7265770927008700853e4, 3.3430575583588128105e4, 2.5090809287301226727e3)
_B = (1.0, 4.2313330701600911252e1, 6.8718700749205790830e2, 5.3941960214247511077e3,
      2.1213794301586595867e4, 3.9307895800092710610e4, 2.8729085735721942674e4, 5.2264952788528545610e3)
_C = (1.42343711074968357734, 4.63033784615654529590, 5.76949722146069140550, 3.64784832476320460504,
      1.27045825245236838258, 2.41780725177450611770e-1, 2.27238449892691845833e-2, 7.74545014278341407640e-4)
_D = (1.0, 2.05319162663775882187, 1.67638483018380384940, 6.89767334985100004550e-1,
      1.48103976427480074590e-1, 1.51986665636164571966e-2, 5.47593808499534494600e-4,
      1.05075007164441684324e-9)
_E = (6.65790464350110377720, 5.46378491116411436990, 1.78482653991729133580, 2.96560571828504891230e-1,
      2.65321895265761230930e-2, 1.24266094738807843860e-3, 2.71155556874348757815e-5,
      2.01033439929228813265e-7)
_F = (1.0, 5.99832206555887937690e-1, 1.36929880922735805310e-1, 1.48753612908506148525e-2,
      7.86869131145613259100e-4, 1.84631831751005468180e-5, 1.42151175831644588870e-7,
      2.04426310338993978564e-15)
# fmt: on
"""AS241's coefficients, numerator and denominator of each branch, by rising power."""

_ROOT_HALF = np.uint64(0x3FE6A09E00000000)
"""Bits of sqrt(1/2), rounded down: the logarithm's argument is reduced to [sqrt(1/2), sqrt(2))."""
_TO_ROOT_HALF = np.uint64(0x3FF0000000000000 - 0x3FE6A09E00000000)
_MANTISSA = np.uint64(2**52 - 1)
_LN2_HIGH, _LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10
_L = (
    6.666666666666735130e-01,
    3.999999999940941908e-01,
    2.857142874366239149e-01,
    2.222219843214978396e-01,
    1.818357216161805012e-01,
    1.531383769920937332e-01,
    1.479819860511658591e-01,
)
"""fdlibm's polynomial for log(1 + f), f = 2 s / (1 - s), in powers of s**2."""


@njit(nogil=True, cache=True, error_model="numpy")
def _polynomial(c: Any, x: Any) -> Any:
    """c[0] + c[1] x + ... + c[7] x**7."""
    return ((((((c[7] * x + c[6]) * x + c[5]) * x + c[4]) * x + c[3]) * x + c[2]) * x + c[1]) * x + c[0]


@njit(nogil=True, cache=True, error_model="numpy")
def _log(x: Any) -> Any:
    """Natural logarithm of a positive normal number, less than one ulp off (fdlibm's e_log.c)."""
    bits = np.uint64(np.float64(x).view(np.uint64) + _TO_ROOT_HALF)
    k = np.float64(np.int64(bits >> _S52) - 1023)
    f = np.uint64(np.uint64(bits & _MANTISSA) + _ROOT_HALF).view(np.float64) - 1.0
    s = f / (2.0 + f)
    z = s * s
    w = z * z
    even = w * (_L[1] + w * (_L[3] + w * _L[5]))
    odd = z * (_L[0] + w * (_L[2] + w * (_L[4] + w * _L[6])))
    half = 0.5 * f * f
    return s * (half + (even + odd)) + k * _LN2_LOW - half + f + k * _LN2_HIGH


@njit(nogil=True, cache=True, error_model="numpy")
def _tail_quantile(u: Any) -> None:
    """`normal_quantile` by AS241's two outer branches, for |u - 1/2| > 0.425.

    The loop stands in the function: LLVM inlines no function of this size, and vectorises no loop of calls.
    """
    for j in range(u.size):
        r = math.sqrt(-_log(min(u[j], 1.0 - u[j])))
        near = _polynomial(_C, r - 1.6) / _polynomial(_D, r - 1.6)
        far = _polynomial(_E, r - _FAR) / _polynomial(_F, r - _FAR)
        z = far if r > _FAR else near
        u[j] = z if u[j] > 0.5 else -z


@njit(nogil=True, cache=True, error_model="numpy")
def normal_quantile(u: NDArray[np.float64]) -> None:
    """Replace each u, 2**-1022 <= u < 1, by the z that a standard normal stays below with probability u.

    The relative error is below 2e-15 (AS241's own: 1e-16, before the roundings of float64).

    Args:
        u: float64, contiguous.
    """
    where = np.empty(_TILE, np.int64)
    scratch = np.empty(_TILE, np.float64)
    for first in range(0, u.size, _TILE):
        x = u[first : first + _TILE]
        count = 0
        for j in range(x.size):  # without a branch: the next tail overwrites what is none
            where[count] = j
            scratch[count] = x[j]
            count += abs(x[j] - 0.5) > _CENTRE
        for j in range(x.size):
            q = x[j] - 0.5
            r = _CENTRE_SQUARED - q * q
            x[j] = q * _polynomial(_A, r) / _polynomial(_B, r)
        tail = scratch[:count]
        _tail_quantile(tail)
        for j in range(tail.size):
            x[where[j]] = tail[j]
