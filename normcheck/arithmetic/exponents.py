"""How many elements lie in which binade."""

from __future__ import annotations

from typing import Any

import numpy as np

from normcheck.arithmetic.kernels import jit

Array = np.ndarray[Any, np.dtype[Any]]

LOWEST, HIGHEST = -1074, 1023
"""Exponents of float64, subnormal numbers included."""
ZEROS, NONFINITE = HIGHEST - LOWEST + 1, HIGHEST - LOWEST + 2
"""Places of zeros, and of infinities and NaN, after those of the binades."""
PLACES = NONFINITE + 1


@jit
def _count_fields(bits: Any, shift: Any, mask: Any, fields: Any) -> None:
    """Count exponent fields: what is left of the bits above the mantissa without the sign."""
    for i in range(bits.size):
        fields[(bits[i] >> shift) & mask] += 1


def count_exponents(x: Array) -> Array:
    """Return how many elements of a float32 or float64 array have which exponent.

    Place i counts magnitudes in [2^(LOWEST + i), 2^(LOWEST + i + 1)), subnormal numbers by their own leading bit;
    places ZEROS and NONFINITE count the rest. Shape (PLACES,), int64.
    """
    single = x.dtype == np.float32
    bits, top, bias, mantissa = (np.uint32, 0xFF, 127, 23) if single else (np.uint64, 0x7FF, 1023, 52)
    fields = np.zeros(top + 1, np.int64)
    flat = np.ascontiguousarray(x).reshape(-1)
    _count_fields(flat.view(bits), bits(mantissa), bits(top), fields)
    counts = np.zeros(PLACES, np.int64)
    first = 1 - bias - LOWEST
    counts[first : first + top - 1] = fields[1:top]
    counts[NONFINITE] = fields[top]
    if fields[0]:
        small = flat[np.abs(flat) < np.finfo(flat.dtype).smallest_normal].astype(np.float64)
        _, exponents = np.frexp(small[small != 0])
        counts[:ZEROS] += np.bincount(exponents - 1 - LOWEST, minlength=ZEROS)
        counts[ZEROS] = np.count_nonzero(small == 0)
    return counts
