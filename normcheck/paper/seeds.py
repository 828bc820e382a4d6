"""What several seeds say together: means with their spread, bands of curves, and whether two ways differ."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import TYPE_CHECKING

from normcheck.results.experiment import Series, Standing

if TYPE_CHECKING:
    from collections.abc import Sequence


def spread(values: Sequence[float], unit: str = "", *, scale: float = 1.0, digits: int = 1) -> str:
    """Return the mean and, of several values, their standard deviation over seeds, as ``97.2 +- 0.4 %``."""
    scaled = [value * scale for value in values]
    deviation = f" +- {stdev(scaled):.{digits}f}" if len(scaled) > 1 else ""
    return f"{fmean(scaled):.{digits}f}{deviation}{f' {unit}' if unit else ''}"


def percent(values: Sequence[float], digits: int = 1) -> str:
    """Return the mean of shares and their spread, in percent."""
    return spread(values, "%", scale=100, digits=digits)


def band(name: str, x: Sequence[float], runs: Sequence[Sequence[float]]) -> Series:
    """Return the mean of curves, one a seed, all over the same `x`, with their least and largest values for a band."""
    columns = list(zip(*runs, strict=True))
    edges = (tuple(map(min, columns)), tuple(map(max, columns))) if len(runs) > 1 else ((), ())
    return Series(name=name, x=tuple(map(float, x)), y=tuple(map(fmean, columns)), low=edges[0], high=edges[1])


@dataclass(frozen=True, slots=True)
class Difference:
    """The mean difference of two ways, seed by seed, and the ends of its 95 % interval by Student's t.

    With one seed, the interval has no ends.
    """

    mean: float
    low: float
    high: float

    def within(self, margin: float) -> bool:
        """Whether the whole interval is within +-margin."""
        return -margin <= self.low and self.high <= margin

    def text(self, unit: str = "", *, scale: float = 1.0, digits: int = 1) -> str:
        """Return it as ``-0.3 (95 %: -0.8 to 0.2) points``."""
        mean, low, high = (f"{value * scale:.{digits}f}" for value in (self.mean, self.low, self.high))
        ends = f" (95 %: {low} to {high})" if math.isfinite(self.low) else " (one seed: no interval)"
        return f"{mean}{ends}{f' {unit}' if unit else ''}"


def difference(ours: Sequence[float], other: Sequence[float]) -> Difference:
    """Return `ours` minus `other`, one value a seed each, in the same order."""
    from scipy.special import stdtrit  # noqa: PLC0415  # slow to import

    pairs = [a - b for a, b in zip(ours, other, strict=True)]
    mean = fmean(pairs)
    if len(pairs) < 2:
        return Difference(mean, -math.inf, math.inf)
    half = float(stdtrit(len(pairs) - 1, 0.975)) * stdev(pairs) / math.sqrt(len(pairs))
    return Difference(mean, mean - half, mean + half)


def standing_of_equal(found: Difference, margin: float) -> Standing:
    """Return how a claim stands that two ways are equal: by an interval within +-margin, or beyond it on one side."""
    if found.within(margin):
        return "reproduced"
    beyond = found.low > margin or found.high < -margin
    return "not reproduced" if beyond else "not comparable at this size"


def standing_of_better(found: Difference, margin: float) -> Standing:
    """Return how a claim stands that one way is better, by an interval above 0.

    It is not reproduced where the interval is below 0, or so short about 0 that no more than `margin` can be gained.
    """
    if found.low > 0:
        return "reproduced"
    worse = found.high < 0 or found.within(margin)
    return "not reproduced" if worse else "not comparable at this size"
