"""The emulated arithmetic with a memory: the operations in order of execution, their operands, and what came out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from normcheck.arithmetic.emulated import Emulated
from normcheck.arithmetic.formats import holds

if TYPE_CHECKING:
    from normcheck.arithmetic.arithmetic import V
    from normcheck.arithmetic.elementwise import Operation
    from normcheck.arithmetic.emulated import Machine
    from normcheck.arithmetic.formats import Format
    from normcheck.arithmetic.orders import Order
    from normcheck.arithmetic.values import Elements, PerRow, Value


@dataclass(frozen=True, slots=True, eq=False)
class Performed:
    """One operation that was performed; values are told apart by identity.

    operation: a name of `elementwise`, or constant, sum, moments, maximum, minimum, largest. form: format of the
    result; within: the wider one that a quotient was formed in first, if any. order: of a sum. number: the value of a
    constant, k of the largest.
    """

    step: str
    operation: str
    operands: tuple[Value, ...]
    result: Value
    form: Format
    within: Format | None = None
    order: Order | None = None
    number: float | None = None


class Traced(Emulated):
    """`Emulated`, bit for bit, that keeps in `performed` what it did; a conversion that changes nothing is not kept.

    Attributes:
        performed: the operations, in their order.
        aliases: (new, old) values that are the same, kept from another pass.
    """

    def __init__(self, machine: Machine, rows: int, n: int, first_row: int = 0) -> None:
        super().__init__(machine, rows, n, first_row)
        self.performed: list[Performed] = []
        self.aliases: list[tuple[Value, Value]] = []

    def held(self, x: V) -> V:
        """The same value, kept from another pass."""
        out = super().held(x)
        self.aliases.append((out, x))
        return out

    def constant(self, step: str, value: float) -> PerRow:
        """The number rounded to the step's format."""
        out = super().constant(step, value)
        self._keep(step, "constant", (), out, number=value)
        return out

    def sum(self, step: str, x: Elements, y: Elements | None = None) -> PerRow:
        """Sum of each row in the step's order."""
        out = super().sum(step, x, y)
        self._keep(step, "sum", (x,) if y is None else (x, y), out, order=self.machine.orders[step])
        return out

    def moments(
        self, mean_step: str, sum_step: str, x: Elements, order: Order, chunk: int = 0, recurrence: str = "chan"
    ) -> tuple[PerRow, PerRow]:
        """Mean and sum of squared deviations by a recurrence."""
        mean, total = super().moments(mean_step, sum_step, x, order, chunk, recurrence)
        self._keep(mean_step, "moments", (x,), mean)
        self._keep(sum_step, "moments", (x,), total)
        return mean, total

    def maximum(self, step: str, x: Elements) -> PerRow:
        """Largest element of each row."""
        before = len(self.performed)
        out = super().maximum(step, x)
        del self.performed[before:]  # the conversion inside is part of it
        self._keep(step, "maximum", (x,), out)
        return out

    def minimum(self, step: str, x: Elements) -> PerRow:
        """Smallest element of each row."""
        before = len(self.performed)
        out = super().minimum(step, x)
        del self.performed[before:]
        self._keep(step, "minimum", (x,), out)
        return out

    def largest(self, step: str, x: Elements, k: int) -> Elements:
        """The k largest elements of each row."""
        before = len(self.performed)
        out = super().largest(step, x, k)
        del self.performed[before:]
        self._keep(step, "largest", (x,), out, number=k)
        return out

    def _compute(
        self,
        step: str,
        operation: Operation,
        operands: tuple[Value, ...],
        degree: int | None,
        within: str | None = None,
    ) -> Value:
        out = super()._compute(step, operation, operands, degree, within)
        form = self.machine.formats[step]
        first = form if within is None else self.machine.formats[within]
        self._keep(step, operation, operands, out, within=first if first != form and holds(first, form) else None)
        return out

    def _keep(
        self,
        step: str,
        operation: str,
        operands: tuple[Value, ...],
        result: Value,
        *,
        within: Format | None = None,
        order: Order | None = None,
        number: float | None = None,
    ) -> None:
        form = self.machine.formats[step]
        self.performed.append(Performed(step, operation, operands, result, form, within, order, number))
