"""What happens inside one step: counters that blocks are added up in."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

FLAG_OVERFLOW, FLAG_UNDERFLOW, FLAG_INVALID = 1, 2, 4
"""Bits of a row's flags; the kernels use the same (a test compares them)."""
FLAG_NAMES = {"overflow": FLAG_OVERFLOW, "underflow": FLAG_UNDERFLOW, "invalid": FLAG_INVALID}
COUNTS = 6


@dataclass(slots=True)
class Events:
    """Counters of one step over one block of rows: see `results.Step` for the definitions.

    counts: [overflow, underflow, subnormal, invalid, absorbed, -], int64. extremes: largest, and smallest non-zero,
    magnitude before rounding. flags: one byte a row, bits FLAG_*.
    """

    flags: NDArray[np.uint8]
    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(COUNTS, np.int64))
    extremes: NDArray[np.float64] = field(default_factory=lambda: np.array([0.0, np.inf]))
    operations: int = 0
    lost_mass: float | None = None
    cancelled_bits: float = 0.0

    @property
    def overflow(self) -> int:
        """Finite operands whose result lies beyond the largest finite number."""
        return int(self.counts[0])

    @property
    def underflow(self) -> int:
        """Results that became 0 though the exact ones are not."""
        return int(self.counts[1])

    @property
    def subnormal(self) -> int:
        """Results that are subnormal."""
        return int(self.counts[2])

    @property
    def invalid(self) -> int:
        """NaN from operands that are not NaN."""
        return int(self.counts[3])

    @property
    def absorbed(self) -> int:
        """Non-zero terms that left a sum unchanged."""
        return int(self.counts[4])

    def take(self, other: Events) -> None:
        """Add the events of some of the same operations; rows of the other are equal runs within rows of this one."""
        self.counts += other.counts
        self.operations += other.operations
        self.extremes[0] = max(self.extremes[0], other.extremes[0])
        self.extremes[1] = min(self.extremes[1], other.extremes[1])
        self.flags |= np.bitwise_or.reduce(other.flags.reshape(len(self.flags), -1), axis=1)
        self.cancelled_bits = max(self.cancelled_bits, other.cancelled_bits)
        if other.lost_mass is not None:
            self.lose(other.lost_mass)

    def lose(self, mass: float) -> None:
        """Take note of a row's lost mass; the worst is kept."""
        self.lost_mass = mass if self.lost_mass is None else max(self.lost_mass, mass)


def no_events(rows: int) -> Events:
    """Counters at zero for a block of that many rows."""
    return Events(np.zeros(rows, np.uint8))
