"""Where elements come from: synthetic activations, a layer's running statistics, recorded activations.

A synthetic element with flat index i (torch's C order) is a pure function of the seed and i, whichever rows,
positions or threads ask for it: every norm sees the same tensor, whatever its rows are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from normcheck.errors import UsageError
from normcheck.layers.distributions import Configured, arguments_text, figure
from normcheck.layers.drawing import Block

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from normcheck.layers.contents import Array
    from normcheck.norms.table import Grouping

    Float32 = NDArray[np.float32]
    Float64 = NDArray[np.float64]


_BLOCK = 16384
"""Elements drawn at a time: 128 KiB of float64, which a second-level cache holds."""


@dataclass(frozen=True, slots=True)
class Synthetic:
    """A tensor of activations x = mean + std * z that is computed where it is looked at.

    Attributes:
        distribution: of the standard values z.
        mean: added to std * z; the mean of x where z has mean 0.
        std: factor of z, at least 0; the standard deviation of x where that of z is 1.
        seed: from 0 to 2**64 - 1; another seed, an independent tensor.

    Raises:
        UsageError: a mean, std or seed out of range.
    """

    distribution: Configured
    mean: float = 0.0
    std: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not math.isfinite(self.mean):
            raise UsageError(f"mean must be a finite number, received {figure(self.mean)}")
        if not 0.0 <= self.std < math.inf:
            raise UsageError(f"std must be a finite number of at least 0, received {figure(self.std)}")
        if not 0 <= self.seed < 2**64:
            raise UsageError(f"seed must be from 0 to 2**64 - 1, received {self.seed}")

    @property
    def label(self) -> str:
        """The source as reports name it: ``student-t(df=4, mean=0, std=1)``."""
        values = {**dict(self.distribution.parameters), "mean": self.mean, "std": self.std}
        return f"{self.distribution.distribution.name}({arguments_text(values)})"

    def draw(self, grouping: Grouping, row_start: int, row_stop: int, start: int, stop: int) -> Float32:
        """Return the values of rows [row_start, row_stop) at positions [start, stop).

        Each depends on the seed and its flat index alone: the same bits in every rectangle that holds it.
        Computed in float64 and rounded once; beyond float32's range it is infinite.

        Returns:
            float32 array (row_stop - row_start, stop - start), C-contiguous.

        Raises:
            IndexError: the rectangle is not within the grouping.
        """
        if not (0 <= row_start <= row_stop <= grouping.groups and 0 <= start <= stop <= grouping.size):
            raise IndexError(
                f"rows [{row_start}, {row_stop}) at positions [{start}, {stop}) are not within "
                f"{grouping.groups} rows of {grouping.size}"
            )
        width = stop - start
        out = np.empty((row_stop - row_start, width), np.float32)
        flat = out.reshape(-1)
        with np.errstate(all="ignore"):  # heavy tails overflow, by intent
            for first in range(0, flat.size, _BLOCK):
                part = flat[first : first + _BLOCK]
                row, position = row_start + first // width, start + first % width
                self._fill(part, Block(self.seed, grouping, row, position, start, stop, part.size))
        return out

    def _fill(self, out: Float32, block: Block) -> None:
        if self.std == 0.0:  # also where z is infinite
            out.fill(self.mean)
            return
        x = self.distribution.standard(block)
        x *= self.std
        x += self.mean
        out[...] = x


@dataclass(frozen=True, slots=True, eq=False)
class FromStatistics:
    """x = mean_c + deviation_c * z for each channel c: what running statistics say of a layer's input.

    Attributes:
        noise: the source of z, standardised to mean 0 and deviation 1 where it has these moments.
        mean: of each channel; 0 for all where None.
        deviation: of each channel. What is not finite, or negative, says nothing: it counts as 0 and 1.
    """

    noise: Synthetic
    mean: Float64 | None
    deviation: Float64

    @property
    def label(self) -> str:
        """The source as reports name it."""
        return f"running statistics, z ~ {self.noise.distribution}"

    def draw(self, grouping: Grouping, row_start: int, row_stop: int, start: int, stop: int) -> Float32:
        """Return the values of rows [row_start, row_stop) at positions [start, stop), float32 (infinite beyond)."""
        channel = np.arange(row_start, row_stop) % len(self.deviation)
        center, spread = self.noise.distribution.moments
        usable = math.isfinite(center) and math.isfinite(spread) and spread > 0
        known = np.isfinite(self.deviation) & (self.deviation >= 0)
        factor = np.where(known, self.deviation, 1.0)[channel] / (spread if usable else 1.0)
        mean = np.zeros(len(known)) if self.mean is None else np.where(np.isfinite(self.mean), self.mean, 0.0)
        shift = mean[channel] - (factor * center if usable else 0.0)
        z = self.noise.draw(grouping, row_start, row_stop, start, stop)
        with np.errstate(over="ignore", invalid="ignore"):
            x: Float32 = (z * factor[:, None] + np.reshape(shift, (-1, 1))).astype(np.float32)
        return x


@dataclass(frozen=True, slots=True, eq=False)
class Given:
    """An array of the user's, as rows."""

    rows: Array

    @classmethod
    def of(cls, x: Array, group: Grouping) -> Given:
        """Arrange a tensor as (groups, size); a view where the rows are contiguous, else a copy."""
        if group.contiguous:
            return cls(np.ascontiguousarray(x).reshape(group.groups, group.size))
        split = x.reshape(-1, group.groups, group.inner)
        return cls(np.ascontiguousarray(split.transpose(1, 0, 2)).reshape(group.groups, group.size))

    def draw(self, grouping: Grouping, row_start: int, row_stop: int, start: int, stop: int) -> Array:  # noqa: ARG002
        """A rectangle of the rows."""
        return self.rows[row_start:row_stop, start:stop]
