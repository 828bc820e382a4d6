"""Distance of an emulated output from the exact one: JIT kernels that reduce a block to a few numbers a row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit

from normcheck.arithmetic.elementwise import elementwise
from normcheck.arithmetic.events import no_events
from normcheck.arithmetic.kernels import _ABS, _SIGN, _constants, _fast_round, jit
from normcheck.arithmetic.rounding import NEAREST, carried_by_float32, fast_constants

if TYPE_CHECKING:
    from normcheck.arithmetic.formats import Format

Array = np.ndarray[Any, np.dtype[Any]]

E, EE, ABS_E, YE, Y, YY, ULPS, MAX_E, MAX_ULPS, NONFINITE, OFF_BIAS = range(11)
"""Columns of a row's sums: e = computed - exact; e^2; |e|; y e; y; y^2; |e| in ulps; largest |e|; largest in ulps;
computed values that are not finite; computed values that differ from beta."""
COLUMNS = 11
_CHUNK = 1024
_BOTH = {"reassoc", "contract", "nsz"}
"""Sums may be reassociated so that they vectorise; NaN and infinities keep their meaning."""


@njit(nogil=True, cache=True, error_model="numpy", fastmath=_BOTH)
def _compare_row(y: Any, computed: Any, beta: Any, floor: Any, shift: Any, emin: Any, sums: Any) -> None:
    """Add one row's part to its sums. floor: rms of the exact row; shift: 52 + p - 1; emin: least exponent."""
    e_, ee, abs_e, ye, y_, yy, ulps = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    top, top_ulps = np.int64(0), np.int64(0)
    infinite, off = 0, 0
    single = beta.size == 1
    least = np.int64(emin) + 1023
    for j in range(y.size):
        value, exact = np.float64(computed[j]), y[j]
        e = value - exact
        size = abs(e)
        at = max(abs(exact), floor)
        exponent = max(np.int64(np.float64(at).view(np.int64) >> 52), least)
        inverse_ulp = np.int64((np.int64(2046) - exponent + shift) << 52).view(np.float64)
        in_ulps = size * inverse_ulp
        e_ += e
        ee += e * e
        abs_e += size
        ye += exact * e
        y_ += exact
        yy += exact * exact
        ulps += in_ulps
        bits, ulp_bits = np.float64(size).view(np.int64), np.float64(in_ulps).view(np.int64)
        top = bits if bits > top else top
        top_ulps = ulp_bits if ulp_bits > top_ulps else top_ulps
        infinite += 0 if abs(value) < np.inf else 1
        off += 0 if value == beta[0 if single else j] else 1
    sums[E] += e_
    sums[EE] += ee
    sums[ABS_E] += abs_e
    sums[YE] += ye
    sums[Y] += y_
    sums[YY] += yy
    sums[ULPS] += ulps
    sums[MAX_E] = max(sums[MAX_E], np.int64(top).view(np.float64))
    sums[MAX_ULPS] = max(sums[MAX_ULPS], np.int64(top_ulps).view(np.float64))
    sums[NONFINITE] += infinite
    sums[OFF_BIAS] += off


@jit
def _compare(y: Any, computed: Any, beta: Any, floor: Any, shift: Any, emin: Any, sums: Any) -> None:
    for i in range(y.shape[0]):
        _compare_row(y[i], computed[i], beta[i if beta.shape[0] > 1 else 0], floor[i], shift, emin, sums[i])


def compare(y: Array, computed: Array, beta: Array, rms: Array, io: Format, sums: Array) -> None:
    """Add a part of a block of rows to the rows' sums.

    Args:
        y: exact values (rows, m) float64. computed: emulated values (rows, m), float32 or float64.
        beta: what a collapsed row would consist of, (rows or 1, m or 1) float64.
        rms: root mean square of each exact row, (rows,): errors of smaller values are measured in its ulps.
        io: format whose ulps are meant.
        sums: (rows, COLUMNS) float64, added to.
    """
    _compare(y, computed, beta, rms, np.int64(io.precision - 1), np.int64(io.emin), sums)


@jit
def _round_to_odd_first(y: Any, out: Any, k: Any) -> None:
    """Round float64 once to a format that float32 carries: to odd in float32 first, then to the format."""
    bits_out = out.view(np.uint32)
    for j in range(y.size):
        value = y[j]
        near = np.float32(value)
        bits = np.float32(near).view(np.uint32)
        missing = value - np.float64(near)
        even = np.uint32(bits & np.uint32(1)) == np.uint32(0)
        if missing != 0.0 and even and near != np.float32(0) and k[0] != np.uint32(0):
            grows = (missing > 0.0) == (near > np.float32(0))
            bits = np.uint32(bits + np.uint32(1)) if grows else np.uint32(bits - np.uint32(1))
        bits_out[j] = np.uint32(_fast_round(np.uint32(bits & _ABS), k) | np.uint32(bits & _SIGN))


@jit
def _compare_ideal(y: Any, beta: Any, floor: Any, shift: Any, emin: Any, sums: Any, constants: Any) -> None:
    """As `_compare`, with the exact values rounded once as the computed ones, by chunks in first-level cache."""
    k = _constants(constants)
    rounded = np.empty(_CHUNK, np.float32)
    for i in range(y.shape[0]):
        b = beta[i if beta.shape[0] > 1 else 0]
        for start in range(0, y.shape[1], _CHUNK):
            part = y[i, start : min(y.shape[1], start + _CHUNK)]
            _round_to_odd_first(part, rounded, k)
            there = b if b.size == 1 else b[start : start + part.size]
            _compare_row(part, rounded, there, floor[i], shift, emin, sums[i])


def compare_ideal(y: Array, beta: Array, rms: Array, io: Format, sums: Array) -> None:
    """As `compare`, for the ideal: the exact values (rows, m), rounded once to the io format, nearest-even."""
    if io.name == "float64":
        compare(y, y, beta, rms, io, sums)
    elif carried_by_float32(io):
        shift, emin = np.int64(io.precision - 1), np.int64(io.emin)
        _compare_ideal(y, beta, rms, shift, emin, sums, fast_constants(io, NEAREST))
    else:
        rounded = elementwise("copy", (y,), io, NEAREST, no_events(len(y)), fast=False)
        compare(y, rounded, beta, rms, io, sums)
