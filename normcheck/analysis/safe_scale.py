"""The interval of factors on the input for which a run is clean, found by running it again."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING

from normcheck.analysis.engine import run_block
from normcheck.analysis.study import Scaled, only
from normcheck.analysis.threads import in_order
from normcheck.analysis.thresholds import deviation_severity
from normcheck.analysis.totals import Extent, Totals

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from normcheck.analysis.study import Runner, Study
    from normcheck.analysis.thresholds import Thresholds

RESOLUTION = 2.0**-8
"""Bits to which an end of the interval is found."""

FARTHEST = 160.0
"""Bits beyond which no end is looked for. Clean down to there, or to where nothing is left, is clean down to 0."""

_FEW_ELEMENTS = 1 << 22
"""Inputs up to this size are always run whole; of larger ones the worst blocks first, and whole to confirm."""


def _nearest_to_trouble(extents: list[Extent]) -> list[int]:
    """The blocks with the least headroom, the smallest statistic, and the largest errors."""
    places = range(len(extents))
    by_headroom = sorted(places, key=lambda i: extents[i].overflow_bits)[:2]
    by_statistic = sorted(places, key=lambda i: extents[i].least_statistic)[:1]
    by_error = sorted(places, key=lambda i: -extents[i].error)[:1]
    return list(dict.fromkeys(by_headroom + by_statistic + by_error))


class _Search:
    """Clean or not, by factor; remembers what was asked, and which blocks failed."""

    def __init__(self, study: Study, runner: Runner, measured: Totals, limits: Thresholds, jobs: int | None) -> None:
        self.study, self.runner, self.limits = study, runner, limits
        self.blocks = study.blocks()
        whole = study.grouping.groups * study.grouping.size <= _FEW_ELEMENTS
        self.sample = list(range(len(self.blocks))) if whole else _nearest_to_trouble(measured.extents)
        self.workers = min(jobs or os.cpu_count() or 1, len(self.blocks))
        self._known: dict[float, bool] = {0.0: _is_clean(measured, limits)}

    def clean(self, bits: float) -> bool:
        """Whether the sample of blocks is clean at the factor 2**bits."""
        if bits not in self._known:
            self._known[bits] = self._run(bits, self.sample)
        return self._known[bits]

    def confirm(self, bits: float) -> bool:
        """Whether all blocks are clean; those that fail join the sample."""
        rest = [b for b in range(len(self.blocks)) if b not in set(self.sample)]
        if not self.clean(bits):
            return False
        if rest and bits != 0.0 and not self._run(bits, [*self.sample, *rest], learn=True):
            self._known = {b: c for b, c in self._known.items() if not c}
            self._known[bits] = False
            return False
        return True

    def _run(self, bits: float, places: list[int], *, learn: bool = False) -> bool:
        study = only(self.study, self.runner, Scaled(self.study.source, 2.0**bits))
        total = Totals(study.grouping.size)
        for place, totals in zip(places, self._totals(study, places), strict=False):
            if totals.overflows or totals.kinds[1:].any():
                if learn and place not in self.sample:
                    self.sample.append(place)
                return False
            total.merge(totals)
        return _is_clean(total, self.limits)

    def _totals(self, study: Study, places: list[int]) -> Iterator[Totals]:
        def one(place: int) -> Totals:
            return run_block(study, *self.blocks[place], whole=False).totals[0]

        return in_order(one, places, self.workers)  # few at a time, so that a failure ends it


def _is_clean(totals: Totals, limits: Thresholds) -> bool:
    deviation = totals.deviation()
    silent = deviation_severity(deviation.relative_rms, deviation.ideal.relative_rms, limits) is None
    return silent and not totals.overflows and not totals.kinds[1:].any()


def safe_scale(
    study: Study,
    runner: Runner,
    measured: Totals,
    overflow_bits: float | None,
    limits: Thresholds,
    jobs: int | None = None,
    progress: Callable[[float], None] | None = None,
) -> tuple[float, float] | None:
    """Return [low, high], the interval of factors k nearest 1 for which k * x runs clean; None where there is none.

    Clean: no overflow in any step, no bad row, deviation (NC301) silent. The ends are found by bisection to 2**-8
    bits, starting from the headroom; low is 0 where nothing fails however small the input. measured: the totals at
    the factor 1. limits: thresholds of NC301.
    """
    report = progress or (lambda _fraction: None)
    if any(total.degree == 0 and total.counts[0] for total in measured.steps.values()):
        return None  # what overflows without regard to the scale (n itself) no factor can mend
    search = _Search(study, runner, measured, limits, jobs)
    start = _nearest_clean(search, overflow_bits)
    report(0.2)
    if start is None or not search.confirm(start):
        return None
    high = _edge(search, start, +1, overflow_bits, FARTHEST)
    report(0.6)
    farthest = _until_nothing_is_left(measured)
    low = _edge(search, start, -1, None, farthest)
    report(1.0)
    return (0.0 if low <= -farthest else 2.0**low, 2.0**high)


def _until_nothing_is_left(measured: Totals) -> float:
    """Bits by which the input shrinks until one more rounds it all to zeros, which are clean in their own way."""
    load = measured.steps.get("load")
    if load is None or not 0 < load.largest < math.inf:
        return FARTHEST
    return min(FARTHEST, max(math.log2(load.largest / load.form.min_subnormal), 0.0))


def _nearest_clean(search: _Search, overflow_bits: float | None) -> float | None:
    """The clean factor nearest 1, in bits, of those tried."""
    tries = [0.0]
    if overflow_bits is not None and overflow_bits < 0:
        tries.append(overflow_bits - 4 * RESOLUTION)
    step = 0.5
    while step < FARTHEST:
        tries += [-step, step]
        step *= 1.5
    return next((bits for bits in tries if search.clean(bits)), None)


def _edge(search: _Search, clean: float, direction: int, guess: float | None, farthest: float) -> float:
    """The farthest clean factor in a direction, in bits, to RESOLUTION; `farthest` where all are clean up to there."""
    start, dirty = clean, None
    if guess is not None and guess > clean:
        for bits in (guess - 4 * RESOLUTION, guess + 4 * RESOLUTION):
            if bits > clean and dirty is None:
                clean, dirty = (bits, None) if search.clean(bits) else (clean, bits)
    step = 1.0
    while dirty is None:
        if clean * direction >= farthest:
            return direction * farthest
        bits = direction * min((clean + direction * step) * direction, farthest)
        clean, dirty = (bits, None) if search.clean(bits) else (clean, bits)
        step *= 2.0
    while True:
        while abs(dirty - clean) > RESOLUTION:
            middle = (clean + dirty) / 2
            clean, dirty = (middle, dirty) if search.clean(middle) else (clean, middle)
        if search.confirm(clean):
            return clean
        dirty, clean = clean, clean - direction * 1.0
        if (clean - start) * direction <= 0:
            return start
