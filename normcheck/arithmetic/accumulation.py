"""What all sums of rows that arrive in parts have in common: the operations they are made of, and the lost mass."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from normcheck.arithmetic import sums
from normcheck.arithmetic.elementwise import Operation, elementwise
from normcheck.arithmetic.events import Events, no_events

if TYPE_CHECKING:
    from normcheck.arithmetic.formats import Format
    from normcheck.arithmetic.orders import Layout, Order
    from normcheck.arithmetic.rounding import Rounding

Array = np.ndarray[Any, np.dtype[Any]]


class Summation:
    """A sum of rows that arrive in parts, in a given order, with every addition rounded to one format.

    Parts of a row must have a power of two of elements, at least the order's width, but for the last. partial: format
    in which partial sums are added, where the order says so; layout: how the row lies.
    """

    def __init__(
        self,
        rows: int,
        n: int,
        order: Order,
        form: Format,
        rounding: Rounding,
        events: Events,
        *,
        fast: bool,
        key: int,
        partial: Format,
        layout: Layout,
    ) -> None:
        self.rows, self.n, self.order, self.form, self.rounding = rows, n, order, form, rounding
        self.events, self.fast, self.key, self.partial, self.layout = events, fast, key, partial, layout
        self.result_form = form
        self.exact = np.zeros(rows)
        self.mass = np.zeros(rows)
        self._part = 0
        self._dtype = np.float32 if fast else np.float64
        self._start()

    def _start(self) -> None:
        raise NotImplementedError

    def _take(self, x: Array, y: Array | None) -> None:
        raise NotImplementedError

    def _result(self) -> Array:
        raise NotImplementedError

    def add(self, x: Array, y: Array | None = None) -> None:
        """Take the next part, (rows, m); with `y` the terms are x * y, added by fused multiply-add."""
        self._take(x, y)
        self._part += 1

    def finish(self) -> Array:
        """Return the sums (for blocks: the means), (rows, 1) float64, and note the lost mass."""
        out = self._result().astype(np.float64).reshape(self.rows, 1)
        exact = self.exact / self.n if self.order.is_mean else self.exact
        mass = self.mass / self.n if self.order.is_mean else self.mass
        good = np.isfinite(out[:, 0]) & (mass > 0) & np.isfinite(mass)
        if good.any():
            self.events.lose(float(np.max(np.abs(out[good, 0] - exact[good]) / mass[good])))
        return out

    def _operate(self, operation: Operation, *operands: Array, absorb: bool = False) -> Array:
        self.key += 1
        flat = no_events(operands[0].shape[0]) if operands[0].shape[0] != self.rows else self.events
        out = elementwise(
            operation, operands, self.form, self.rounding, flat, fast=self.fast, key=self.key, absorb=absorb
        )
        if flat is not self.events:
            self.events.take(flat)
        return out

    def _weigh(self, x: Array) -> None:
        sums.weigh(x, self.exact, self.mass)

    def _fold_blocks(self, x: Array) -> Array:
        """Trees over the last axis of many short rows (blocks, m), laid side by side so that vector units serve."""
        blocks, m = x.shape
        turned, trial = np.ascontiguousarray(x.T), no_events(1)
        first_key = self.key
        while m > 1:
            h = 1 << ((m - 1).bit_length() - 1)
            halves = (turned[: m - h].reshape(1, -1), turned[h:m].reshape(1, -1))
            self.key += 1
            head = elementwise(
                "add", halves, self.form, self.rounding, trial, fast=self.fast, key=self.key, absorb=True
            )
            if m < 2 * h:
                head = np.concatenate([head.reshape(m - h, blocks), turned[m - h : h]])
            turned, m = head.reshape(h, blocks), h
        if trial.flags[0]:  # which rows? in the slow layout they are known
            self.key = first_key
            return self._fold(x)
        trial.flags = np.zeros(self.rows, np.uint8)
        self.events.take(trial)
        return turned.reshape(blocks, 1)

    def _fold(self, x: Array) -> Array:
        """Tree over the last axis: element i and i + h, h the powers of two below its length, largest first."""
        while x.shape[1] > 1:
            h = 1 << ((x.shape[1] - 1).bit_length() - 1)
            over = x.shape[1] - h
            head = self._operate("add", x[:, :over], x[:, h:], absorb=True)
            x = head if over == h else np.concatenate([head, x[:, over:h]], axis=1)
        return x
