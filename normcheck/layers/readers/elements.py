"""Elements as files store them, and the numbers that they are: exact, without a deep-learning framework."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np

from normcheck.arithmetic.formats import Format, format_named
from normcheck.errors import UnreadableError
from normcheck.layers.contents import FLOATING

if TYPE_CHECKING:
    from pathlib import Path

    from normcheck.layers.contents import Array

CODES = {
    "float64": "f8",
    "float32": "f4",
    "float16": "f2",
    "bfloat16": "u2",
    "float8_e4m3fn": "u1",
    "float8_e5m2": "u1",
    "float8_e4m3fnuz": "u1",
    "float8_e5m2fnuz": "u1",
    "int64": "i8",
    "int32": "i4",
    "int16": "i2",
    "int8": "i1",
    "uint64": "u8",
    "uint32": "u4",
    "uint16": "u2",
    "uint8": "u1",
    "bool": "u1",
    "complex128": "c16",
    "complex64": "c8",
    "complex32": "V4",
    "float8_e8m0fnu": "u1",
    "float4_e2m1fn_x2": "u1",
}
"""How numpy reads the elements of each type, but for their byte order; formats that it has not, as their bits."""

UNREAL = frozenset({"complex128", "complex64", "complex32", "float8_e8m0fnu", "float4_e2m1fn_x2"})
"""Of these, the types whose elements are no real numbers as they stand: complex ones, scales, several in one."""


def item_size(dtype: str) -> int:
    """Bytes of an element."""
    return np.dtype(CODES[dtype]).itemsize


def read_run(path: Path, where: str, code: str, count: int, start: int) -> Array:
    """Read `count` elements from byte `start` of a file, as numpy's type `code`.

    Raises:
        UnreadableError: the file cannot be read, or ends before; `where` says what was to be read.
    """
    try:
        run: Array = np.fromfile(path, code, count, offset=start)
    except OSError as error:
        raise UnreadableError(f"{where} cannot be read: {error.strerror or error}; check the file") from error
    if run.size != count:
        expected = count * run.itemsize
        raise UnreadableError(
            f"{where} ends after {run.nbytes} of {expected} bytes: the file was truncated, or changed meanwhile"
        )
    return run


def as_numbers(stored: Array, dtype: str) -> Array:
    """Return elements of type `dtype`, none of `UNREAL`, as float32 or float64; exactly, but see `widened`."""
    if dtype == "bfloat16":
        return widened(np.left_shift(stored.astype(np.uint32), 16).view(np.float32))
    if dtype in FLOATING and dtype.startswith("float8"):
        return _values(format_named(dtype))[stored]
    return widened(stored)


def widened(numbers: Array) -> Array:
    """Return a copy in float32 where that holds all numbers of the type, else in float64; NaNs become quiet ones.

    Integers beyond 2**53 are rounded, as in any cast to float64.
    """
    wide = numbers.itemsize > 4 or (numbers.itemsize == 4 and numbers.dtype.kind in "iu")
    with np.errstate(invalid="ignore"):  # signalling NaNs
        copy = numbers.astype(np.float64 if wide else np.float32)
    copy[np.isnan(copy)] = np.nan  # the next conversion need not warn either
    return copy


def shortest(value: float) -> float:
    """Return the shortest decimal that is `value` in float32: the 1e-5 that was meant, not the double it equals."""
    return float(str(np.float32(value)))


@functools.cache
def _values(form: Format) -> Array:
    """Return the numbers that the 256 codes of an 8-bit format stand for."""
    codes = np.arange(256)
    fraction = codes & (2**form.mantissa_bits - 1)
    exponent = (codes & 127) >> form.mantissa_bits
    significand = fraction + np.where(exponent > 0, 2**form.mantissa_bits, 0)
    values: Array = np.ldexp(significand.astype(np.float32), np.maximum(exponent, 1) - form.bias - form.mantissa_bits)
    beyond = values > form.max_finite
    values[beyond] = np.where(form.infinities & (fraction[beyond] == 0), np.inf, np.nan)
    values[128:] = -values[128:]
    if form.nan == "negative-zero":
        values[128] = np.nan
    return values
