"""How large the elements of an input may be, whatever they are, before a step can overflow."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from normcheck.analysis.engine import run_block
from normcheck.analysis.headroom import headroom
from normcheck.analysis.study import only
from normcheck.norms.parameters import Parameters

if TYPE_CHECKING:
    from normcheck.analysis.study import Runner, Study
    from normcheck.norms.table import Grouping

Array = np.ndarray[Any, np.dtype[Any]]

RESOLUTION = 2.0**-8
"""Bits to which the bound is found where no formula gives it."""


@dataclass(frozen=True, slots=True)
class _Extremes:
    """The rows of elements of magnitude 1 that drive steps to their extremes.

    All equal: the largest sum. Half of them negative: the largest variance and mean absolute deviation. All but one
    negative: the largest single deviation.
    """

    def draw(self, grouping: Grouping, row_start: int, row_stop: int, start: int, stop: int) -> Array:
        place = np.arange(start, stop)
        last = grouping.size - 1
        rows = (np.ones(len(place)), np.where(place % 2, -1.0, 1.0), np.where(place == last, 1.0, -1.0))
        return np.stack(rows)[row_start:row_stop].astype(np.float32)


@dataclass(frozen=True, slots=True)
class _PlusMinus:
    """Rows of two elements: the magnitude, and its negative."""

    magnitude: float

    def draw(self, grouping: Grouping, row_start: int, row_stop: int, start: int, stop: int) -> Array:  # noqa: ARG002
        pair = np.array([self.magnitude, -self.magnitude])[start:stop]
        return np.broadcast_to(pair, (row_stop - row_start, len(pair))).copy()


def safe_magnitude(study: Study, runner: Runner) -> float | None:
    """Return the largest B for which no input with |x| <= B everywhere overflows a step; None where there is none.

    It rests on no distribution: sums are largest where all elements are equal, variances where half of them have the
    other sign, deviations where one has. None also for weight norms, whose input is known, and where a step overflows
    at any scale: the element count, the reciprocal of eps in a row without variance, or gamma times the largest
    normalised value, sqrt(n - 1).
    """
    if study.norm.is_weight:
        return None
    alone = only(study, runner)
    return _under_fixed_statistics(alone) if study.has_fixed_statistics else _under_its_own(alone)


def _under_its_own(study: Study) -> float | None:
    """The bound from headroom, which is exact for homogeneous steps, on the extreme rows."""
    size = study.grouping.size
    rows = replace(
        study.grouping, groups=3, size=size, inner=size, row_stride=size, outer_stride=0, channels=3, channel_of="row"
    )
    extremes = replace(
        study,
        grouping=rows,
        source=_Extremes(),
        parameters=Parameters(),
        stored=Parameters(form=study.stored.form),
        momentum=None,
    )
    totals = run_block(extremes, 0, 3).totals[0]
    bits = headroom(totals).overflow_bits
    at_any_scale = any(total.counts[0] and not (total.degree or 0) > 0 for total in totals.steps.values())
    if bits is None or at_any_scale or _affine_overflows(study):
        return None
    return min(float(2.0**bits), study.io.max_finite)


def _affine_overflows(study: Study) -> bool:
    """Whether gamma and beta take the largest normalised value, sqrt(n - 1), beyond the format."""
    given = study.stored
    gamma = 1.0 if given.weight is None else _largest(given.weight + study.weight_offset)
    beta = 0.0 if given.bias is None else _largest(given.bias)
    size = study.grouping.size
    peak = math.sqrt(max(size - 1, 1) if study.norm.centred else size)
    return not gamma * peak + beta < study.io.overflow_threshold


def _largest(x: Array) -> float:
    return float(np.max(np.abs(x)))


def _under_fixed_statistics(study: Study) -> float | None:
    """The bound by bisection: each output is a function of its own element alone."""
    largest = study.io.max_finite
    if _is_clean(study, largest):
        return largest
    low, high = _bracket(study, math.log2(largest))
    if not _is_clean(study, 2.0**low):
        low, high = _LEAST, low
        if not _is_clean(study, 2.0**low):
            return None
    elif _is_clean(study, 2.0**high):
        low, high = high, math.log2(largest)
    while high - low > RESOLUTION:
        middle = (low + high) / 2
        low, high = (middle, high) if _is_clean(study, 2.0**middle) else (low, middle)
    return float(2.0**low)


_LEAST = -160.0
"""Bits of the smallest magnitude that is looked at."""


def _bracket(study: Study, top: float) -> tuple[float, float]:
    """Where the bound is, in bits, if the output is what overflows first: |gamma| (|x| + |mean|) / s + |beta| = T."""
    given = study.stored
    running = given.running_statistic
    assert running is not None  # noqa: S101  # fixed statistics
    with np.errstate(all="ignore"):
        s = np.sqrt(running + study.eps) if study.norm.statistic.eps_on == "variance" else running + study.eps
        gamma = np.abs(1.0 if given.weight is None else given.weight + study.weight_offset)
        beta, mean = (np.abs(0.0 if x is None else x) for x in (given.bias, given.running_mean))
        room = (study.io.overflow_threshold - beta) * s / gamma - mean
    least = float(np.min(room[np.isfinite(room)], initial=math.inf))
    guess = math.log2(least) if 0 < least < math.inf else 0.0
    return max(guess - 4 * RESOLUTION, _LEAST), min(guess + 4 * RESOLUTION, top)


def _is_clean(study: Study, magnitude: float) -> bool:
    rows = replace(
        study.grouping,
        groups=study.grouping.channels,
        size=2,
        inner=2,
        row_stride=2,
        outer_stride=0,
        channel_of="row",
        groups_per_sample=1,
    )
    pairs = replace(study, grouping=rows, source=_PlusMinus(magnitude))
    return all(
        not total.overflows and not total.kinds[1]
        for start, stop in pairs.blocks()
        for total in run_block(pairs, start, stop, whole=False).totals
    )
