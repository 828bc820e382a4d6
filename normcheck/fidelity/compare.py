"""Bit for bit over many calls: how many numbers are the same, and which pair lies furthest apart."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from normcheck.analysis.bits import agreement
from normcheck.errors import NormcheckError
from normcheck.fidelity.results import NAN_APART, Compared, Worst

if TYPE_CHECKING:
    from collections.abc import Callable

    from normcheck.arithmetic.formats import Format

Array = np.ndarray[Any, np.dtype[Any]]


class Tally:
    """Counts over many calls, and the worst pair of all. form: the format whose numbers are compared."""

    def __init__(self, form: Format) -> None:
        self.form = form
        self.counts = Compared()
        self.worst: Worst | None = None

    def add(self, kernel: Array, row: Array, describe: Callable[[int, int], Worst]) -> None:
        """Count two arrays of one shape.

        Args:
            kernel, row: numbers of the format.
            describe: called with an index of the flattened arrays and the distance there, for the worst pair.

        Raises:
            NormcheckError: the shapes differ.
        """
        if kernel.shape != row.shape:
            raise NormcheckError(f"the kernel gave an array of shape {kernel.shape}, its row one of {row.shape}")
        a, b = kernel.reshape(-1), row.reshape(-1)
        apart = np.isnan(a) != np.isnan(b)
        nan_apart = int(np.count_nonzero(apart))
        found = agreement(a, b, self.form)
        rest = agreement(a[~apart], b[~apart], self.form) if nan_apart else found
        ulps = int(rest.max_ulp) if math.isfinite(rest.max_ulp) else OPPOSITE_INFINITIES
        self.counts += Compared(
            numbers=found.compared,
            identical=found.identical,
            zero_signs=found.zero_signs,
            nan_apart=nan_apart,
            max_ulps=ulps,
        )
        if found.at is not None:
            distance = NAN_APART if nan_apart else ulps
            if self.worst is None or _rank(distance) > _rank(self.worst.ulps):
                self.worst = describe(found.at, distance)


OPPOSITE_INFINITIES = 1 << 33
"""Stands for the distance of an infinity from the one of the other sign: beyond that of any two float32 numbers."""


def _rank(distance: int) -> float:
    return math.inf if distance == NAN_APART else distance
