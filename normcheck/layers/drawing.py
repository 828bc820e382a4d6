"""Where a distribution draws: consecutive elements of a rectangle of rows, with their random numbers.

The random numbers of the element with flat index i (torch's C order) are a pure function of the seed and i.
Importing this module does not load numba.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from types import ModuleType

    from numpy.typing import NDArray

    from normcheck.layers.counter_rng import Walk
    from normcheck.norms.table import Grouping

    Float64 = NDArray[np.float64]


def kernels() -> ModuleType:
    """Return the module with the kernels: numba is loaded at the first draw, not with the lists of names."""
    from normcheck.layers import counter_rng  # noqa: PLC0415

    return counter_rng


@dataclass(frozen=True, slots=True)
class Block:
    """Consecutive elements of a rectangle of rows and positions, to which a distribution gives values.

    Attributes:
        seed: the tensor's seed.
        grouping: how rows and positions map to flat indices and channels.
        row: row of the first element.
        position: position of the first element.
        start: first position of every row.
        stop: one past the last position of every row.
        size: number of elements.
    """

    seed: int
    grouping: Grouping
    row: int
    position: int
    start: int
    stop: int
    size: int

    def uniform(self, stream: int = 0) -> Float64:
        """Return a uniform on (0, 1) for each element; streams are independent of each other."""
        rng = kernels()
        out = np.empty(self.size)
        rng.fill_uniform(out, *rng.stream_keys(self.seed, stream), self._walk())
        return out

    def normal(self, stream: int = 0) -> Float64:
        """Return a standard normal for each element: the quantile of `uniform`."""
        out = self.uniform(stream)
        kernels().normal_quantile(out)
        return out

    def channel(self) -> NDArray[np.int64]:
        """Return the channel of each element (for layer and rms norms: its place in the row)."""
        grouping = self.grouping
        first, width = self.position - self.start, self.stop - self.start
        row, position = np.divmod(np.arange(first, first + self.size, dtype=np.int64), width)
        row += self.row
        position += self.start
        match grouping.channel_of:
            case "row":
                return row
            case "row-modulo":
                return row % grouping.channels
            case "element":
                return position
            case "group":
                spatial = grouping.size * grouping.groups_per_sample // grouping.channels
                return (row * grouping.size + position) // spatial % grouping.channels

    def _walk(self) -> Walk:
        g = self.grouping
        if g.inner == 1:  # one run with a stride, instead of runs of one element
            return (self.row, self.position, self.start, self.stop, g.size, g.outer_stride, g.row_stride, 0)
        return (self.row, self.position, self.start, self.stop, g.inner, 1, g.row_stride, g.outer_stride)
