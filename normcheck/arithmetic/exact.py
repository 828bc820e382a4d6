"""The reference: the same mathematics in float64, one operation a line, no events."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from normcheck.arithmetic import scratch
from normcheck.arithmetic.arithmetic import Arithmetic
from normcheck.arithmetic.elementwise import broadcast_shape
from normcheck.arithmetic.values import Array, Elements, PerRow, Value, product_degree

if TYPE_CHECKING:
    from normcheck.arithmetic.arithmetic import RunningSum
    from normcheck.arithmetic.elementwise import Operation
    from normcheck.arithmetic.orders import Order


class Exact(Arithmetic):
    """float64 throughout: 29 bits more than float32, 42 more than float16. Sums are pairwise (numpy's)."""

    def yields_mean(self, step: str) -> bool:  # noqa: ARG002  # in no step
        """Sums are sums."""
        return False

    def constant(self, step: str, value: float) -> PerRow:  # noqa: ARG002
        """The number itself."""
        return PerRow(np.full((1, 1), value), None, 0)

    def sum(self, step: str, x: Elements, y: Elements | None = None) -> PerRow:  # noqa: ARG002
        """Sum of each row, or of each row's products."""
        total = np.zeros(self.rows)
        for index in range(x.parts):
            a = x.part(index)
            with np.errstate(all="ignore"):
                total += np.add.reduce(a, axis=1) if y is None else np.einsum("ij,ij->i", a, y.part(index))
        return PerRow(total.reshape(-1, 1), None, x.degree if y is None else product_degree(x.degree, y.degree))

    def running_sum(self, step: str, like: Elements, terms: int) -> RunningSum:  # noqa: ARG002  # all are alike here
        """Sums in float64."""
        return _Running(self.rows)

    def _inner(self, step: str, x: Elements, rows: int, length: int) -> PerRow:
        return Exact(rows, length).sum(step, x)

    def moments(
        self,
        mean_step: str,
        sum_step: str,
        x: Elements,
        order: Order,  # noqa: ARG002
        chunk: int = 0,  # noqa: ARG002
        recurrence: str = "chan",  # noqa: ARG002
    ) -> tuple[PerRow, PerRow]:
        """Mean and sum of squared deviations, in two passes: the same numbers, up to float64's roundoff."""
        mean = self.divide(mean_step, self.sum(sum_step, x), self.constant(mean_step, float(self.n)))
        c = self.subtract(mean_step, x, mean)
        return mean, self.sum(sum_step, self.multiply(sum_step, c, c))

    def _compute(
        self,
        step: str,  # noqa: ARG002  # all steps are alike here
        operation: Operation,
        operands: tuple[Value, ...],
        degree: int | None,
        within: str | None = None,  # noqa: ARG002  # and all formats
    ) -> Value:
        whole = next((o for o in operands if isinstance(o, Elements)), None)
        if whole is None:
            return PerRow(_apply(operation, [o.data for o in operands if isinstance(o, PerRow)]), None, degree)
        if operation == "copy" and whole.form is None and whole.parts == 1 and whole.part(0).dtype == np.float64:
            return whole

        def compute(index: int, _first: bool) -> Array:
            return _apply(operation, [o.part(index) if isinstance(o, Elements) else o.data for o in operands])

        return Elements(compute, whole.parts, None, degree, length=whole.length)


class _Running:
    """Sums of rows whose terms arrive in parts."""

    def __init__(self, rows: int) -> None:
        self._total = np.zeros(rows)

    def add(self, x: Array) -> None:
        with np.errstate(all="ignore"):
            self._total += np.add.reduce(x, axis=1)

    def finish(self) -> Array:
        return self._total.reshape(-1, 1)


_UFUNCS: dict[str, np.ufunc] = {
    "add": np.add,
    "subtract": np.subtract,
    "multiply": np.multiply,
    "divide": np.divide,
    "absolute": np.absolute,
    "sqrt": np.sqrt,
}


def _apply(operation: Operation, operands: list[Array]) -> Array:
    out = scratch.empty(broadcast_shape(operands), np.float64)
    with np.errstate(all="ignore"):
        if operation == "copy":
            np.copyto(out, operands[0])
        elif operation == "rsqrt":
            np.divide(1.0, np.sqrt(operands[0]), out=out)
        elif operation == "fma":
            np.add(np.multiply(operands[0], operands[1]), operands[2], out=out)
        else:
            _UFUNCS[operation](*operands, out=out)
    return out
