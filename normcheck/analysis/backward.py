"""The backward pass of a study: dx of each implementation against the exact one, and the loss scales that are safe."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from normcheck.analysis import deviation as dev
from normcheck.analysis.engine import REFERENCE, drawn, row_rms
from normcheck.analysis.headroom import headroom
from normcheck.analysis.parameter_gradients import Gathering, affine_of, exact_part, parameters_of, parts_of
from normcheck.analysis.study import Remembered, Scaled, only
from normcheck.analysis.threads import in_order
from normcheck.analysis.thresholds import DEFAULTS, Thresholds
from normcheck.analysis.totals import Totals
from normcheck.arithmetic.elementwise import require_subnormals
from normcheck.arithmetic.emulated import Emulated, Machine
from normcheck.arithmetic.exact import Exact
from normcheck.arithmetic.exponents import LOWEST, PLACES, ZEROS, count_exponents
from normcheck.errors import UsageError
from normcheck.layers.distributions import parse_distribution
from normcheck.layers.sources import Synthetic
from normcheck.norms.backward import backward, gradient_machine
from normcheck.norms.forward import forward
from normcheck.results import ROW_KINDS, Backward, Flushed, GradientRows

if TYPE_CHECKING:
    from collections.abc import Callable

    from normcheck.analysis.parameter_gradients import Name, Part
    from normcheck.analysis.study import Runner, Source, Study
    from normcheck.arithmetic.formats import Format
    from normcheck.arithmetic.values import Elements
    from normcheck.norms.backward import Affine
    from normcheck.norms.forward import Outputs, Problem
    from normcheck.results import ParameterGradient

Array = np.ndarray[Any, np.dtype[Any]]

FARTHEST_SCALE = 64
"""Loss scales are looked for from 2**-64 to 2**64, which float32 gradients of usual size survive."""

_NONFINITE, _VANISHED = 1 + ROW_KINDS.index("nonfinite"), 1 + ROW_KINDS.index("collapsed")


@dataclass(frozen=True)
class Incoming:
    """The gradient that arrives at a norm's output: where it comes from, its name, and what the loss is scaled by.

    assumed: whether nothing but a default or an option says so. affine: the gradients of gamma and beta are wanted of
    norms without them too, as of 1 and 0.
    """

    source: Source
    label: str
    loss_scale: float = 1.0
    assumed: bool = False
    affine: bool = False


def incoming_of(
    *, backward: bool, loss_scale: float, grad_dist: str, grad_std: float, seed: int, analyzed: bool
) -> Incoming | None:
    """Return the gradient of a backward pass, drawn with the seed after that of the input; None without one.

    analyzed: of the layers of a model, where it is an assumption, and gamma and beta are the layer's own.

    Raises:
        UsageError: a value that cannot be used, or a setting of the gradient where none is asked for.
    """
    if not (loss_scale > 0 and math.isfinite(loss_scale)):
        raise UsageError(f"the loss scale must be finite and above 0, received {loss_scale:g}")
    if not backward:
        given = {"loss_scale": loss_scale != 1.0, "grad_dist": grad_dist != "gaussian", "grad_std": grad_std != 1.0}
        alone = next((name for name, changed in given.items() if changed), None)
        if alone is not None:
            option = alone.replace("_", "-")
            raise UsageError(f"--{option} is a setting of the backward pass: give --backward, or leave it out")
        return None
    source = Synthetic(parse_distribution(grad_dist), 0.0, grad_std, (seed + 1) % 2**64)
    return Incoming(source, source.label, loss_scale, assumed=analyzed, affine=not analyzed)


@dataclass(slots=True)
class GradientTotals:
    """All that the backward pass of one result needs of its rows; a row that vanished counts as collapsed."""

    totals: Totals
    flushed: int = 0
    ideal: int = 0
    nonzero: int = 0
    exponents: Array = field(default_factory=lambda: np.zeros(PLACES, np.int64))
    parameters: dict[Name, ParameterGradient] = field(default_factory=dict)

    def merge(self, other: GradientTotals) -> None:
        """Add the next block's."""
        self.totals.merge(other.totals)
        self.flushed, self.ideal = self.flushed + other.flushed, self.ideal + other.ideal
        self.nonzero, self.exponents = self.nonzero + other.nonzero, self.exponents + other.exponents

    @property
    def overflows(self) -> bool:
        """Whether a step overflowed, or a gradient is not finite."""
        lost = self.totals.kinds[_NONFINITE] or any(parameter.nonfinite for parameter in self.parameters.values())
        return bool(self.totals.overflows or lost)

    @property
    def share(self) -> float:
        """The flushed share of dx."""
        return self.flushed / self.nonzero if self.nonzero else 0.0


@dataclass(slots=True)
class Block:
    """One block's totals, and what it gives of the gradients of parameters: of each runner, and exactly."""

    totals: list[GradientTotals]
    parts: list[dict[Name, Part]]
    exact: dict[Name, Array]


def run_backward_block(
    study: Study, incoming: Incoming, row_start: int, row_stop: int, *, measured: bool = True
) -> Block:
    """Run both passes of all implementations on rows [row_start, row_stop).

    The reference is the exact backward pass of the stored input, with the gradient as it is before it is stored: what
    the io format makes of the gradient is what a loss scale is for, so it counts as deviation. measured: also take
    magnitudes with unbounded exponents, where something overflows.
    """
    require_subnormals()
    rows, n, affine = row_stop - row_start, study.grouping.size, affine_of(study, always=incoming.affine)
    loader = Emulated(Machine({"load": study.io}, {}, study.runners[0].machine.rounding), rows, n, row_start)
    x = loader.load(drawn(study, row_start, row_stop))
    g = arriving(study, incoming, row_start, row_stop)
    exact, given = Exact(rows, n), study.problem(study.parameters, row_start, row_stop, None)
    reference = backward(exact, g, x, forward(exact, x, given, REFERENCE), given, REFERENCE, affine)
    stored = study.problem(study.stored, row_start, row_stop, study.stored.form)
    out = Block([], [], _exact_parts(study, parts_of(reference), row_start, rows))
    for runner in study.runners:
        outputs = forward(Emulated(runner.machine, rows, n, row_start), x, stored, runner.implementation)
        machine = Emulated(gradient_machine(runner.machine), rows, n, row_start)
        got = backward(machine, g, x, outputs, stored, runner.implementation, affine)
        total = _compared(study, reference.x, got.x, rows)
        parts = parts_of(got)
        wide = _unbounded(runner, machine, g, x, outputs, stored, affine) if measured else None
        total.totals.take_steps(machine.steps, None if wide is None else wide.steps)
        out.totals.append(total)
        out.parts.append(parts if wide is None else wide.beside(parts))
    return out


def arriving(study: Study, incoming: Incoming, row_start: int, row_stop: int) -> Elements:
    """The gradient that arrives at rows [row_start, row_stop), before it is stored."""
    return drawn(replace(study, source=Scaled(incoming.source, incoming.loss_scale)), row_start, row_stop)


def _exact_parts(study: Study, parts: dict[Name, Part], row_start: int, rows: int) -> dict[Name, Array]:
    columns = parameters_of(study.grouping)
    return {name: exact_part(part, row_start * (len(part.values) // rows), columns) for name, part in parts.items()}


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


@dataclass(frozen=True, slots=True)
class _Wide:
    """A block's steps with unbounded exponents, and what rows add to parameters then."""

    steps: dict[str, Any]
    parts: dict[Name, Part]

    def beside(self, parts: dict[Name, Part]) -> dict[Name, Part]:
        """The parts with those of unbounded exponents beside them."""
        return {name: part._replace(unbounded=self.parts[name].values) for name, part in parts.items()}


def _unbounded(
    runner: Runner,
    machine: Emulated,
    g: Elements,
    x: Elements,
    outputs: Outputs,
    problem: Problem,
    affine: Affine,
) -> _Wide | None:
    """The same block with unbounded exponents, where something overflowed; the forward pass stays as it is."""
    if not any(record.events.overflow for record in machine.steps.values()):
        return None
    wide = Emulated(gradient_machine(runner.machine).unbounded(), machine.rows, machine.n, machine.first_row)
    got = backward(wide, g, x, outputs, problem, runner.implementation, affine)
    for index in range(got.x.parts):
        got.x.part(index)
    return _Wide(wide.steps, parts_of(got))


def run_backward(
    study: Study, incoming: Incoming, *, jobs: int | None = None, measured: bool = True
) -> list[GradientTotals]:
    """Run all blocks, on `jobs` threads (all processors unless given), and add them up in order."""
    out: list[GradientTotals] = []
    sums: list[dict[Name, Gathering]] = []

    def one(rows: tuple[int, int]) -> Block:
        return run_backward_block(study, incoming, *rows, measured=measured)

    for block in in_order(one, study.blocks(), jobs):
        if out:
            for mine, theirs in zip(out, block.totals, strict=True):
                mine.merge(theirs)
        else:
            out = block.totals
            sums = [
                {name: Gathering.of(study, runner, name, measured=measured) for name in block.exact}
                for runner in study.runners
            ]
        for gathering, parts in zip(sums, block.parts, strict=True):
            for name, part in parts.items():
                gathering[name].take(part, block.exact[name])
    for mine, gathering in zip(out, sums, strict=True):
        mine.parameters = {name: one.finish(mine.totals) for name, one in gathering.items()}
    return out


def backward_of(
    study: Study,
    incoming: Incoming,
    limits: Thresholds = DEFAULTS,
    *,
    jobs: int | None = None,
    searched: Callable[[Runner], bool] = lambda _runner: True,
) -> list[Backward]:
    """Return the backward pass of each implementation as it is reported.

    limits: a safe loss scale flushes no more than these allow. searched: whether a runner's is looked for at all.
    """
    incoming = replace(incoming, source=Remembered(incoming.source))
    every = run_backward(study, incoming, jobs=jobs)
    out = []
    for runner, totals in zip(study.runners, every, strict=True):
        own, share = only(study, runner), limits.flushed_share
        scales = safe_loss_scale(own, incoming, totals, share, jobs=jobs) if searched(runner) else None
        out.append(_backward(incoming, totals, scales))
    return out


def _backward(incoming: Incoming, measured: GradientTotals, scales: tuple[float, float] | None) -> Backward:
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
        safe_loss_scale=scales,
        weight=measured.parameters.get("weight"),
        bias=measured.parameters.get("bias"),
        assumed=incoming.assumed,
    )


def safe_loss_scale(
    study: Study, incoming: Incoming, measured: GradientTotals, flushed_share: float, *, jobs: int | None = None
) -> tuple[float, float] | None:
    """Return the least and the largest power of two that is a safe loss scale for a study of one implementation.

    Safe: no step overflows, no gradient is not finite, at most `flushed_share` of dx is flushed. Found by running:
    overflows only grow with the scale and what is flushed only shrinks, so each end is a bisection, begun where the
    run at the given scale, `measured`, suggests.
    """

    @functools.cache
    def at(power: int) -> GradientTotals:
        return run_backward(study, replace(incoming, loss_scale=2.0**power), jobs=jobs, measured=False)[0]

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
