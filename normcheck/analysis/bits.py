"""Two arrays of numbers of one format, compared bit for bit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from normcheck.arithmetic.formats import Format

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far two arrays agree.

    compared: elements. identical: of the same value, NaN with NaN, 0 with -0. zero_signs: zeros of the other sign.
    max_ulp: the largest distance in numbers of the format that lie between, plus one; infinite where one is NaN, or
    infinite with the other sign. at: flat index of the first element that is farthest off; None where all are
    identical.
    """

    compared: int
    identical: int
    zero_signs: int
    max_ulp: float
    at: int | None

    @property
    def share(self) -> float:
        """Of identical elements; 1 where nothing was compared."""
        return self.identical / self.compared if self.compared else 1.0


def agreement(a: Array, b: Array, form: Format) -> Agreement:
    """Compare two arrays of one shape whose elements are numbers of `form`."""
    a, b = np.asarray(a, np.float64).reshape(-1), np.asarray(b, np.float64).reshape(-1)
    both_nan = np.isnan(a) & np.isnan(b)
    off = np.flatnonzero(~((a == b) | both_nan))
    zeros = int(np.count_nonzero((a == 0) & (b == 0) & (np.signbit(a) != np.signbit(b))))
    if not off.size:
        return Agreement(a.size, a.size, zeros, 0.0, None)
    distance = np.abs(places(a[off], form) - places(b[off], form))
    distance[np.isnan(a[off]) | np.isnan(b[off])] = np.inf
    distance[np.isinf(a[off]) & np.isinf(b[off])] = np.inf  # of different sign
    worst = int(np.argmax(distance))
    return Agreement(a.size, a.size - off.size, zeros, float(distance[worst]), int(off[worst]))


def are_numbers_of(x: Array, form: Format) -> bool:
    """Whether every finite element is a number of the format; NaN and infinities are passed over."""
    values = np.asarray(x)
    finite = values[np.isfinite(values)].astype(np.float64)
    if (np.abs(finite) > form.max_finite).any():
        return False
    return bool((places(finite, form) % 1 == 0).all())


def places(x: Array, form: Format) -> Array:
    """Number each number of the format, 0 for 0 and one more for each next one, as float64; infinity comes last."""
    size = np.minimum(np.abs(x), form.max_finite)
    _, exponent = np.frexp(size)
    step = np.maximum(exponent - 1, form.emin)  # of the binade; subnormal numbers share the lowest one's spacing
    within = np.ldexp(size, form.mantissa_bits - step)  # 2^mantissa_bits ... for normal numbers
    place = within + (step - form.emin) * 2.0**form.mantissa_bits + np.isinf(x)
    return np.where(size == 0, 0.0, np.copysign(place, x))
