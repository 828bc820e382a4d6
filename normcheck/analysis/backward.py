"""The backward pass of a study: dx of each implementation against the exact one, and the loss scales that are safe."""

from __future__ import annotations

import functools
import math
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from normcheck.analysis import deviation as dev
from normcheck.analysis.engine import REFERENCE, drawn, row_rms
from normcheck.analysis.headroom import headroom
from normcheck.analysis.study import Remembered, Scaled, only
from normcheck.analysis.thresholds import DEFAULTS, Thresholds
from normcheck.analysis.totals import Totals
from normcheck.arithmetic.elementwise import require_subnormals
from normcheck.arithmetic.emulated import Emulated, Machine
from normcheck.arithmetic.exact import Exact
from normcheck.arithmetic.exponents import LOWEST, PLACES, ZEROS, count_exponents
from normcheck.norms.backward import backward, gradient_machine
from normcheck.norms.forward import forward
from normcheck.results import ROW_KINDS, Backward, Flushed, GradientRows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from normcheck.analysis.study import Runner, Source, Study
    from normcheck.arithmetic.formats import Format
    from normcheck.arithmetic.values import Elements
    from normcheck.norms.forward import Outputs, Problem

Array = np.ndarray[Any, np.dtype[Any]]

FARTHEST_SCALE = 64
"""Loss scales are looked for from 2**-64 to 2**64, which float32 gradients of usual size survive."""

_NONFINITE, _VANISHED = 1 + ROW_KINDS.index("nonfinite"), 1 + ROW_KINDS.index("collapsed")


@dataclass(frozen=True)
class Incoming:
    """The gradient that arrives at a norm's output: where it comes from, its name, and what the loss is scaled by."""

    source: Source
    label: str
    loss_scale: float = 1.0


@dataclass(slots=True)
class GradientTotals:
    """All that the backward pass of one result needs of its rows; a row that vanished counts as collapsed."""

    totals: Totals
    flushed: int = 0
    ideal: int = 0
    nonzero: int = 0
    exponents: Array = field(default_factory=lambda: np.zeros(PLACES, np.int64))

    def merge(self, other: GradientTotals) -> None:
        """Add the next block's."""
        self.totals.merge(other.totals)
        self.flushed, self.ideal = self.flushed + other.flushed, self.ideal + other.ideal
        self.nonzero, self.exponents = self.nonzero + other.nonzero, self.exponents + other.exponents

    @property
    def overflows(self) -> bool:
        """Whether a step overflowed, or dx has rows that are not finite."""
        return bool(self.totals.overflows or self.totals.kinds[_NONFINITE])

    @property
    def share(self) -> float:
        """The flushed share of dx."""
        return self.flushed / self.nonzero if self.nonzero else 0.0


def run_backward_block(study: Study, incoming: Incoming, row_start: int, row_stop: int) -> list[GradientTotals]:
    """Run both passes of all implementations on rows [row_start, row_stop).

    The reference is the exact backward pass of the stored input, with the gradient as it is before it is stored: what
    the io format makes of the gradient is what a loss scale is for, so it counts as deviation.
    """
    require_subnormals()
    rows, n = row_stop - row_start, study.grouping.size
    loader = Emulated(Machine({"load": study.io}, {}, study.runners[0].machine.rounding), rows, n, row_start)
    x = loader.load(drawn(study, row_start, row_stop))
    g = drawn(replace(study, source=Scaled(incoming.source, incoming.loss_scale)), row_start, row_stop)
    exact, given = Exact(rows, n), study.problem(study.parameters, row_start, row_stop, None)
    dx = backward(exact, g, x, forward(exact, x, given, REFERENCE), given, REFERENCE).x
    stored = study.problem(study.stored, row_start, row_stop, study.stored.form)
    out = []
    for runner in study.runners:
        outputs = forward(Emulated(runner.machine, rows, n, row_start), x, stored, runner.implementation)
        machine = Emulated(gradient_machine(runner.machine), rows, n, row_start)
        got = backward(machine, g, x, outputs, stored, runner.implementation).x
        total = _compared(study, dx, got, rows)
        total.totals.take_steps(machine.steps, _unbounded_steps(runner, machine, g, x, outputs, stored))
        out.append(total)
    return out


def _compared(study: Study, exact: Elements, got: Elements, rows: int) -> GradientTotals:
    """Deviation and classes of the rows of dx, and what of it was flushed."""
    n, zero = study.grouping.size, np.zeros((1, 1))
    sums, ideal = np.zeros((rows, dev.COLUMNS)), np.zeros((rows, dev.COLUMNS))
    rms, out = row_rms(exact, n), GradientTotals(Totals(n))
    for index in range(exact.parts):
        y, computed = exact.part(index), got.part(index)
        dev.compare(y, computed, zero, rms, study.io, sums)
        dev.compare_ideal(y, zero, rms, study.io, ideal)
        out.exponents += count_exponents(y)
        out.nonzero += int(np.count_nonzero(y))
        out.flushed += int(np.count_nonzero((computed == 0) & (y != 0)))
    out.ideal = out.nonzero - int(ideal[:, dev.OFF_BIAS].sum())
    vanished = (sums[:, dev.OFF_BIAS] == 0) & (ideal[:, dev.OFF_BIAS] > 0)
    kinds = np.select([sums[:, dev.NONFINITE] > 0, vanished], [_NONFINITE, _VANISHED], 0)
    finite = kinds != _NONFINITE
    out.totals.kinds += np.bincount(kinds, minlength=1 + len(ROW_KINDS))
    out.totals.error.add(sums[finite], sums[finite], n)
    out.totals.ideal.add(ideal[finite], ideal[finite], n)
    return out


def _unbounded_steps(
    runner: Runner, machine: Emulated, g: Elements, x: Elements, outputs: Outputs, problem: Problem
) -> dict[str, Any] | None:
    """Steps of the same block with unbounded exponents, where something overflowed; the forward pass stays as it is."""
    if not any(record.events.overflow for record in machine.steps.values()):
        return None
    wide = Emulated(gradient_machine(runner.machine).unbounded(), machine.rows, machine.n, machine.first_row)
    dx = backward(wide, g, x, outputs, problem, runner.implementation).x
    for index in range(dx.parts):
        dx.part(index)
    return wide.steps


def run_backward(study: Study, incoming: Incoming, *, jobs: int | None = None) -> list[GradientTotals]:
    """Run all blocks, on `jobs` threads (all processors unless given), and add them up in order."""
    out: list[GradientTotals] = []
    for block in _in_order(study, incoming, jobs):
        if out:
            for mine, theirs in zip(out, block, strict=True):
                mine.merge(theirs)
        else:
            out = block
    return out


def _in_order(study: Study, incoming: Incoming, jobs: int | None) -> Iterator[list[GradientTotals]]:
    blocks = study.blocks()
    workers = min(jobs or os.cpu_count() or 1, len(blocks))
    if workers <= 1:
        yield from (run_backward_block(study, incoming, *rows) for rows in blocks)
        return
    with ThreadPoolExecutor(workers) as pool:
        yield from pool.map(lambda rows: run_backward_block(study, incoming, *rows), blocks)


def backward_of(
    study: Study, incoming: Incoming, limits: Thresholds = DEFAULTS, *, jobs: int | None = None
) -> list[Backward]:
    """Return the backward pass of each implementation as it is reported; a safe loss scale flushes within limits."""
    incoming = replace(incoming, source=Remembered(incoming.source))
    every = run_backward(study, incoming, jobs=jobs)
    return [
        _backward(only(study, runner), incoming, totals, limits.flushed_share, jobs)
        for runner, totals in zip(study.runners, every, strict=True)
    ]


def _backward(
    study: Study, incoming: Incoming, measured: GradientTotals, flushed_share: float, jobs: int | None
) -> Backward:
    totals, room = measured.totals, headroom(measured.totals)
    tallies, kinds = totals.tallies(), totals.kinds
    return Backward(
        source=incoming.label,
        loss_scale=incoming.loss_scale,
        steps=tuple(total.step(name) for name, total in totals.steps.items()),
        overflow=tallies["overflow"],
        underflow=tallies["underflow"],
        invalid=tallies["invalid"],
        absorbed=tallies["absorbed"],
        rows=GradientRows(total=int(kinds.sum()), nonfinite=int(kinds[_NONFINITE]), vanished=int(kinds[_VANISHED])),
        deviation=totals.deviation(),
        flushed=Flushed(count=measured.flushed, of=measured.nonzero, share=measured.share, ideal=measured.ideal),
        overflow_bits=room.overflow_bits,
        overflow_step=room.overflow_step,
        safe_loss_scale=safe_loss_scale(study, incoming, measured, flushed_share, jobs=jobs),
    )


def safe_loss_scale(
    study: Study, incoming: Incoming, measured: GradientTotals, flushed_share: float, *, jobs: int | None = None
) -> tuple[float, float] | None:
    """Return the least and the largest power of two that is a safe loss scale for a study of one implementation.

    Safe: no step overflows, no row of dx is not finite, at most `flushed_share` of dx is flushed. Found by running:
    overflows only grow with the scale and what is flushed only shrinks, so each end is a bisection, begun where the
    run at the given scale, `measured`, suggests.
    """

    @functools.cache
    def at(power: int) -> GradientTotals:
        return run_backward(study, replace(incoming, loss_scale=2.0**power), jobs=jobs)[0]

    bits, here = headroom(measured.totals).overflow_bits, math.log2(incoming.loss_scale)
    guess = FARTHEST_SCALE if bits is None else math.floor(here + bits)
    high = _last(lambda power: not at(power).overflows, guess, +1)
    if high is None or at(high).share > flushed_share:
        return None
    guess = min(high, round(here) + _until_flushed(measured, study.io, flushed_share))
    low = _last(lambda power: at(power).share <= flushed_share, guess, -1)
    return None if low is None else (2.0**low, 2.0**high)


def _until_flushed(measured: GradientTotals, io: Format, flushed_share: float) -> int:
    """The least power of two that dx could be multiplied by, were rounding it to the format all that flushed it."""
    below = np.cumsum(measured.exponents[:ZEROS])
    first = int(np.searchsorted(below, flushed_share * measured.nonzero, side="right"))
    return math.floor(math.log2(io.min_subnormal)) - 1 - (LOWEST + first)


def _last(holds: Callable[[int], bool], guess: int, direction: int) -> int | None:
    """The last power in a direction of which something holds that holds of all before it; None if of none."""
    good, bad, step = None, None, 1
    power = max(-FARTHEST_SCALE, min(guess, FARTHEST_SCALE))
    while good is None or bad is None or abs(bad - good) > 1:
        if holds(power):
            good = power
            if good * direction >= FARTHEST_SCALE:
                return good
        else:
            bad = power
            if bad * direction <= -FARTHEST_SCALE:
                return None
        if good is not None and bad is not None:
            power = (good + bad) // 2
        else:
            power += direction * (step if bad is None else -step)
            power, step = max(-FARTHEST_SCALE, min(power, FARTHEST_SCALE)), 2 * step
    return good
