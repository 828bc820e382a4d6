"""Gradients of gamma and beta that rows share: the sum over rows of what each row adds, as the rows come."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from normcheck.arithmetic.values import PerRow
from normcheck.norms.backward import as_parameter

if TYPE_CHECKING:
    from normcheck.arithmetic.arithmetic import Arithmetic
    from normcheck.arithmetic.values import Array, Elements

_MOST_ROWS, _MOST_TERMS = 1 << 10, 1 << 19
"""So many rows, and terms, are added at once."""


class SharedGradient:
    """The gradient of a parameter that rows share (layer, instance and group norms), under an arithmetic.

    Term i of a parameter's sum is what row i (layer norms) or sample i (instance and group norms, whose rows have
    summed their own elements of that channel already) adds to it. The terms are added in the implementation's order for
    that step, exactly as if they were a row: of lanes, term i goes to lane i mod W. The blocks that rows come in change
    nothing. Memory is that of the sums and of 2^19 terms, but for trees and pairwise sums, which hold all terms, as
    they do of a row.
    """

    def __init__(self, a: Arithmetic, step: str, like: Elements, terms: int) -> None:
        """Begin an empty sum.

        Args:
            a: with one row for each parameter; its n is the number of elements that each parameter is applied to.
            step: ``grad-weight`` or ``grad-bias``.
            like: what a row adds, of which format and degree count.
            terms: rows, or samples, that share a parameter.
        """
        self._a, self._step, self._degree = a, step, like.degree
        self._sum = a.running_sum(step, like, terms)
        most = max(1, min(_MOST_ROWS, _MOST_TERMS // a.rows))
        self._at_once = 1 << (most.bit_length() - 1)
        self._waiting: list[Array] = []
        self._size = 0

    def add(self, terms: Array) -> None:
        """Take the next terms: all parameters' first, then all parameters' second, and so on; in pieces of any size."""
        self._waiting.append(terms.reshape(-1))
        self._size += terms.size
        piece = self._at_once * self._a.rows
        if self._size >= piece:
            flat = np.concatenate(self._waiting)
            whole = len(flat) // piece * piece
            for start in range(0, whole, piece):
                self._take(flat[start : start + piece])
            self._waiting, self._size = [flat[whole:]], len(flat) - whole

    def finish(self) -> PerRow:
        """Return the sums as they are stored for the optimizer, one number a parameter."""
        if self._size:
            self._take(np.concatenate(self._waiting))
        total = PerRow(self._sum.finish(), self._a.form_of(self._step), self._degree)
        return as_parameter(self._a, self._step, total)

    def _take(self, flat: Array) -> None:
        self._sum.add(np.ascontiguousarray(flat.reshape(-1, self._a.rows).T))
