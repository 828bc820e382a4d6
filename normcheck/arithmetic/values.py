"""Values that arithmetics compute with: one number a row, or one number an element in parts of bounded size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from normcheck.arithmetic.formats import Format

Array = np.ndarray[Any, np.dtype[Any]]

PART = 1 << 18
"""Elements of a row that are computed at once; rows beyond that are run in parts, so that memory stays bounded."""


class PerRow:
    """One number a row: data (rows, 1) float64, in format `form` (None: exact), of `degree` in the input's scale."""

    __slots__ = ("data", "degree", "form")

    def __init__(self, data: Array, form: Format | None, degree: int | None) -> None:
        self.data, self.form, self.degree = data, form, degree

    @property
    def is_zero(self) -> bool:
        """Whether it is 0 in every row, so that adding it changes nothing's degree."""
        return not self.data.any()


class Elements:
    """One number an element of a block of rows, computed part by part when asked for.

    A row that fits into one part is computed once and kept; of a longer one every pass computes the parts anew, so
    that memory does not grow with the row; up to `kept` parts are remembered all the same. `compute(index, first)` is
    told whether it runs for the first time: events are counted then and only then. length: elements of a row, where
    that is not the n of the norm (None).
    """

    __slots__ = ("_compute", "_kept", "_room", "_seen", "degree", "form", "length", "parts")

    def __init__(
        self,
        compute: Callable[[int, bool], Array],
        parts: int,
        form: Format | None = None,
        degree: int | None = 1,
        *,
        kept: int = 1,
        length: int | None = None,
    ) -> None:
        self._compute, self.parts, self.form, self.degree = compute, parts, form, degree
        self.length = length
        self._room = kept if parts <= kept else 0
        self._kept: dict[int, Array] = {}
        self._seen = bytearray(parts)

    is_zero = False

    @classmethod
    def of(cls, data: Array, form: Format | None = None, degree: int | None = 1) -> Elements:
        """Wrap an array (rows or 1, n) that exists, cut into parts."""
        count = max(1, -(-data.shape[1] // PART))
        length = data.shape[1]
        return cls(lambda i, _first: data[:, i * PART : (i + 1) * PART], count, form, degree, length=length)

    def part(self, index: int) -> Array:
        """Return part `index` as (rows, m)."""
        known = self._kept.get(index)
        if known is not None:
            return known
        first = not self._seen[index]
        self._seen[index] = 1
        out = self._compute(index, first)
        if self._room:
            self._kept[index] = out
        return out


Value = PerRow | Elements


def product_degree(a: int | None, b: int | None) -> int | None:
    """Degree of a * b: None where either is unknown."""
    return None if a is None or b is None else a + b
