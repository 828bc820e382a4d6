"""Runs one norm in one precision under several implementations, block by block of rows, against one reference."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from normcheck.analysis import deviation as dev
from normcheck.analysis.headroom import headroom
from normcheck.analysis.threads import in_order
from normcheck.analysis.thresholds import EPS_DOMINATES
from normcheck.analysis.totals import WORST_KEPT, Extent, Totals
from normcheck.arithmetic.elementwise import elementwise, require_subnormals
from normcheck.arithmetic.emulated import Emulated, Machine
from normcheck.arithmetic.events import FLAG_INVALID, FLAG_OVERFLOW, FLAG_UNDERFLOW, no_events
from normcheck.arithmetic.exact import Exact
from normcheck.arithmetic.exponents import LOWEST, NONFINITE, PLACES, ZEROS, count_exponents
from normcheck.arithmetic.rounding import NEAREST
from normcheck.arithmetic.values import PART, Elements, PerRow
from normcheck.norms.forward import Outputs, Problem, forward
from normcheck.norms.implementations import IMPLEMENTATIONS
from normcheck.norms.variance import VARIANCES
from normcheck.results import ROW_KINDS, Exponents, WorstRow

if TYPE_CHECKING:
    from collections.abc import Callable

    from normcheck.analysis.study import Runner, Study
    from normcheck.arithmetic.formats import Format

Array = np.ndarray[Any, np.dtype[Any]]

_KEPT_PARTS = 64
"""Parts of a long row's input that are kept between passes (64 MiB of float32); beyond that they are drawn anew."""

REFERENCE = replace(IMPLEMENTATIONS["wide"], contracted=("sum",))
"""The algorithm of the reference: two-pass, squares summed as they are formed; formats mean nothing to it."""


@dataclass(slots=True)
class Reference:
    """Totals that belong to the input and the norm, not to an implementation."""

    ratio: float = 0.0
    ratio_squared: float = 0.0
    ratio_rows: float = 0.0
    representation_ee: float = 0.0
    representation_yy: float = 0.0
    representation_max: float = 0.0
    exponents_of_input: Array = field(default_factory=lambda: np.zeros(PLACES, np.int64))

    def exponents(self) -> Exponents:
        """The input's exponents as a report has them."""
        counts = self.exponents_of_input
        places = np.flatnonzero(counts[:ZEROS])
        first, last = (int(places[0]), int(places[-1])) if len(places) else (-LOWEST, -LOWEST - 1)
        return Exponents(
            lowest=LOWEST + first,
            counts=tuple(counts[first : last + 1].tolist()),
            zeros=int(counts[ZEROS]),
            nonfinite=int(counts[NONFINITE]),
        )

    def merge(self, other: Reference) -> None:
        """Add the next block's."""
        for name in self.__slots__:
            mine, theirs = getattr(self, name), getattr(other, name)
            setattr(self, name, max(mine, theirs) if name.endswith("max") else mine + theirs)


@dataclass(slots=True)
class Block:
    """One block's totals: one of each runner, and the reference's."""

    totals: list[Totals]
    reference: Reference = field(default_factory=Reference)


@dataclass(frozen=True, slots=True)
class _Rows:
    """The exact side of a block: outputs, rows' statistics, what a collapsed row would be, the ideal's sums."""

    outputs: Outputs
    rms: Array
    beta: Elements
    ideal: Array


def run_block(
    study: Study, row_start: int, row_stop: int, *, whole: bool = True, keep: Callable[[Outputs], None] | None = None
) -> Block:
    """Run all implementations on rows [row_start, row_stop).

    whole: also measure what a factor on the input leaves alone or headroom needs: scale ratio, rounding of the
    inputs, magnitudes with unbounded exponents. keep: called with the first runner's outputs, for callers that
    want the values themselves.
    """
    require_subnormals()
    g, rows = study.grouping, row_stop - row_start
    raw = drawn(study, row_start, row_stop, kept=_KEPT_PARTS)
    loader = Emulated(Machine({"load": study.io}, {}, study.runners[0].machine.rounding), rows, g.size, row_start)
    x = loader.load(raw)
    exact = Exact(rows, g.size)
    given = study.problem(study.parameters, row_start, row_stop, None)
    outputs = forward(exact, x, given, REFERENCE)
    beta = study.problem(study.stored, row_start, row_stop, study.io).bias
    side = _Rows(outputs, _rms(study, outputs), beta_of_rows(beta, study.io, raw.parts), np.zeros((rows, dev.COLUMNS)))
    emulated = [_emulate(study, runner, x, loader, row_start) for runner in study.runners]
    sums = [np.zeros((rows, dev.COLUMNS)) for _ in study.runners]
    for index in range(raw.parts):
        y, b = outputs.y.part(index), side.beta.part(index)
        dev.compare_ideal(y, b, side.rms, study.io, side.ideal)
        for place, (_, out) in enumerate(emulated):
            dev.compare(y, out.y.part(index), b, side.rms, study.io, sums[place])
    if keep is not None:
        keep(emulated[0][1])
    fits = [_fit(side, out, s, raw.parts, study) for (_, out), s in zip(emulated, sums, strict=True)]
    totals = [
        _total(study, runner, machine, out, side, s, fit, row_start, x, raw if whole else None)
        for runner, (machine, out), s, fit in zip(study.runners, emulated, sums, fits, strict=True)
    ]
    return Block(totals, _reference(study, raw, x, given, outputs, exact) if whole else Reference())


def drawn(study: Study, row_start: int, row_stop: int, *, kept: int = 1) -> Elements:
    """The input of rows [row_start, row_stop), as it is before anything is rounded."""
    g = study.grouping
    return Elements(
        lambda i, _: study.source.draw(g, row_start, row_stop, i * PART, min(g.size, (i + 1) * PART)),
        -(-g.size // PART),
        kept=kept,
    )


def _emulate(study: Study, runner: Runner, x: Elements, loader: Emulated, row_start: int) -> tuple[Emulated, Outputs]:
    """Run one implementation on the loaded elements; their loading, done once for all, counts as each one's own."""
    machine = Emulated(runner.machine, loader.rows, loader.n, row_start)
    problem = study.problem(study.stored, row_start, row_start + loader.rows, study.stored.form)
    outputs = forward(machine, x, problem, runner.implementation)
    if machine.steps["load"].form == study.io:
        machine.steps["load"] = loader.steps["load"]
    return machine, outputs


def _rms(study: Study, outputs: Outputs) -> Array:
    """Root mean square of each exact row."""
    plain = study.parameters.weight is None and study.parameters.bias is None
    if plain and not study.has_fixed_statistics and study.norm.statistic.name == "l2" and not study.norm.is_weight:
        with np.errstate(all="ignore"):  # mean(c^2) is at hand: no pass over the elements
            return np.nan_to_num(np.sqrt(outputs.before_eps.data[:, 0]) / outputs.s.data[:, 0], nan=0.0, posinf=0.0)
    return row_rms(outputs.y, study.grouping.size)


def row_rms(y: Elements, n: int) -> Array:
    """Root mean square of each row of n elements."""
    total: Array = sum(np.einsum("ij,ij->i", y.part(i), y.part(i)) for i in range(y.parts))
    return np.sqrt(total / n)


def beta_of_rows(bias: PerRow | Elements | None, io: Format, parts: int) -> Elements:
    """Beta, rounded to the io format: what every element of a collapsed row equals; 0 without a beta."""

    def compute(index: int, _first: bool) -> Array:
        data = bias.part(index) if isinstance(bias, Elements) else (np.zeros((1, 1)) if bias is None else bias.data)
        return elementwise("copy", (np.asarray(data, np.float64),), io, NEAREST, no_events(len(data)), fast=False)

    return Elements(compute, parts)


def _fit(side: _Rows, out: Outputs, sums: Array, parts: int, study: Study) -> tuple[Array, Array]:
    """Row sums before the affine step, of the emulated and of the ideal: the output's own where there is none."""
    exact = side.outputs.normalized
    plain = study.stored.weight is None and study.stored.bias is None
    if plain or out.normalized is None or exact is None:
        return sums, side.ideal
    emulated, ideal, zero = np.zeros_like(sums), np.zeros_like(sums), np.zeros((1, 1))
    rms = row_rms(exact, study.grouping.size)
    for index in range(parts):
        y = exact.part(index)
        dev.compare(y, out.normalized.part(index), zero, rms, study.io, emulated)
        dev.compare_ideal(y, zero, rms, study.io, ideal)
    return emulated, ideal


def _total(
    study: Study,
    runner: Runner,
    machine: Emulated,
    out: Outputs,
    side: _Rows,
    sums: Array,
    fit: tuple[Array, Array],
    row_start: int,
    x: Elements,
    raw: Elements | None,
) -> Totals:
    totals = Totals(study.grouping.size)
    s, s_hat = side.outputs.s.data[:, 0], column(out.s, machine.rows)
    kinds = classify(study, out, sums, side.ideal, s, s_hat)
    finite = sums[:, dev.NONFINITE] == 0
    totals.kinds += np.bincount(kinds, minlength=1 + len(ROW_KINDS))
    totals.infinite_input = _infinite_inputs(x, np.flatnonzero(kinds == _NONFINITE))
    totals.error.add(sums[finite], fit[0][finite], study.grouping.size)
    totals.ideal.add(side.ideal[finite], fit[1][finite], study.grouping.size)
    totals.worst = _worst(kinds, s, s_hat, machine, row_start)
    _take_statistic(totals, study, side.outputs.before_eps, out.before_eps, machine.rows)
    if out.effective_eps is not None:
        _take_effective_eps(totals, study, side.outputs.before_eps, out.effective_eps, machine.rows)
    totals.take_steps(machine.steps, None if raw is None else _unbounded_steps(study, runner, machine, raw, row_start))
    bits = headroom(totals).overflow_bits
    totals.extents = [Extent(math.inf if bits is None else bits, totals.least_statistic, totals.error.ee)]
    return totals


def column(value: PerRow, rows: int) -> Array:
    """One number a row, as a vector."""
    return np.broadcast_to(value.data, (rows, 1))[:, 0]


_NONFINITE, _COLLAPSED = 1 + ROW_KINDS.index("nonfinite"), 1 + ROW_KINDS.index("collapsed")


def _loses_the_input(study: Study, out: Outputs, s: Array, s_hat: Array, rows: Array) -> Array:
    """Whether the norm itself made beta of some rows: a divisor far too large or infinite, or nothing left to divide.

    A row can be beta by right, or by a gamma that is nearly 0: a channel that is switched off, or, under fixed
    statistics, one whose input is the running mean.
    """
    lost: Array = ~(s_hat[rows] <= 2 * s[rows])
    if out.reciprocal is not None:
        lost |= column(out.reciprocal, len(s))[rows] == 0
    if out.normalized is not None and len(rows) and not study.has_fixed_statistics:
        empty = np.ones(len(rows), np.bool_)
        for index in range(out.normalized.parts):
            empty &= ~out.normalized.part(index)[rows].any(axis=1)
        lost |= empty
    return lost


def _infinite_inputs(x: Elements, rows: Array) -> int:
    """How many of some rows have input that is not finite once it is loaded."""
    if not len(rows):
        return 0
    bad = np.zeros(len(rows), np.bool_)
    for index in range(x.parts):
        bad |= ~np.isfinite(x.part(index)[rows]).all(axis=1)
    return int(np.count_nonzero(bad))


def classify(study: Study, out: Outputs, sums: Array, ideal: Array, s: Array, s_hat: Array) -> Array:
    """Class of each row, 1 + an index into ROW_KINDS, or 0; the first that matches.

    sums, ideal: of `dev.compare` and `dev.compare_ideal`. s, s_hat: the exact and the emulated divisor.
    """
    collapsed = (sums[:, dev.OFF_BIAS] == 0) & (ideal[:, dev.OFF_BIAS] > 0)
    with np.errstate(invalid="ignore"):
        conditions = [sums[:, dev.NONFINITE] > 0, collapsed, s_hat < s / 2, s_hat > 2 * s]
    kinds: Array = np.select(conditions, [1, 2, 3, 4], 0)
    suspects = np.flatnonzero(kinds == _COLLAPSED)
    kinds[suspects[~_loses_the_input(study, out, s, s_hat, suspects)]] = 0
    return kinds


def distance(s: Array, s_hat: Array) -> Array:
    """How many bits the emulated divisor of each row is off, either way; infinite where one is NaN."""
    with np.errstate(all="ignore"):
        return np.nan_to_num(np.abs(np.log2(s_hat / s)), nan=np.inf)


def _worst(kinds: Array, s: Array, s_hat: Array, machine: Emulated, row_start: int) -> list[WorstRow]:
    """The worst few bad rows of a block: by class, then by how far the statistic is off, then by index."""
    bad, off = np.flatnonzero(kinds), distance(s, s_hat)
    order = bad[np.lexsort((bad, -off[bad], kinds[bad]))][:WORST_KEPT]
    return [
        WorstRow(
            index=row_start + i,
            kind=ROW_KINDS[kinds[i] - 1],
            s=float(s[i]),
            s_emulated=float(s_hat[i]),
            first_bad_step=_first_bad_step(machine, i),
        )
        for i in order.tolist()
    ]


def _first_bad_step(machine: Emulated, row: int) -> str | None:
    """The first step of the row with an overflow or an invalid result; failing that, with an underflow."""
    for bits in (FLAG_OVERFLOW | FLAG_INVALID, FLAG_UNDERFLOW):
        for name, record in machine.steps.items():
            if record.events.flags[row] & bits:
                return name
    return None


def _take_statistic(totals: Totals, study: Study, exact: PerRow, emulated: PerRow, rows: int) -> None:
    v, v_hat = column(exact, rows), column(emulated, rows)
    has, finite = v > 0, np.isfinite(v) & np.isfinite(v_hat)
    totals.zero_rows = int(np.count_nonzero(v == 0))
    totals.flushed_rows = int(np.count_nonzero(has & (v_hat == 0)))
    totals.negative_rows = int(np.count_nonzero((v_hat < 0) | (np.isnan(v_hat) & ~np.isnan(v))))
    good = has & finite
    if good.any():
        totals.max_relative_error = float(np.max(np.abs(v_hat[good] - v[good]) / v[good]))
    if has.any():
        share = study.eps / v[has]
        totals.eps_share_max = float(share.max())
        totals.eps_dominated_rows = int(np.count_nonzero(share > EPS_DOMINATES))
        totals.least_statistic = float(v[has].min())
    totals.statistic_form, totals.statistic_degree = emulated.form, emulated.degree


def _take_effective_eps(totals: Totals, study: Study, exact: PerRow, eps: PerRow, rows: int) -> None:
    """Eps as the kernel adds it, in the row where that changes the divisor most: of those that have a statistic."""
    v, effective = column(exact, rows), column(eps, rows)
    with np.errstate(all="ignore"):
        ratio = (v + effective) / (v + study.eps)
        change = np.abs((np.sqrt(ratio) if study.norm.statistic.eps_on == "variance" else ratio) - 1.0)
    change = np.where((v > 0) & np.isfinite(change), change, -1.0)
    worst = int(np.argmax(change))
    totals.effective_eps, totals.eps_effect = float(effective[worst]), max(float(change[worst]), 0.0)


def _unbounded_steps(
    study: Study, runner: Runner, machine: Emulated, raw: Elements, row_start: int
) -> dict[str, Any] | None:
    """Steps of the same block with unbounded exponents, where something overflowed: how far beyond it went."""
    if not any(record.events.overflow for record in machine.steps.values()):
        return None
    wide = Emulated(runner.machine.unbounded(), machine.rows, machine.n, row_start)
    problem = study.problem(study.stored, row_start, row_start + machine.rows, study.stored.form)
    out = forward(wide, raw, problem, runner.implementation)
    for index in range(out.y.parts):
        out.y.part(index)
    return wide.steps


def _reference(study: Study, raw: Elements, x: Elements, problem: Problem, outputs: Outputs, exact: Exact) -> Reference:
    reference = Reference()
    for index in range(raw.parts):
        reference.exponents_of_input += count_exponents(raw.part(index))
    _take_ratio(reference, study, x, outputs, exact)
    if not _all_representable(raw, study.io):
        unrounded = forward(exact, raw, problem, REFERENCE)
        sums, rms, zero = np.zeros((exact.rows, dev.COLUMNS)), np.ones(exact.rows), np.zeros((1, 1))
        for index in range(raw.parts):
            dev.compare(unrounded.y.part(index), outputs.y.part(index), zero, rms, study.io, sums)
        finite = sums[:, dev.NONFINITE] == 0
        reference.representation_ee = float(sums[finite, dev.EE].sum())
        reference.representation_yy = float(sums[finite, dev.YY].sum())
        reference.representation_max = float(sums[finite, dev.MAX_E].max(initial=0.0))
    return reference


def _all_representable(raw: Elements, io: Format) -> bool:
    return io.name in ("float32", "float64") and raw.part(0).dtype == np.float32


def _take_ratio(reference: Reference, study: Study, x: Elements, outputs: Outputs, exact: Exact) -> None:
    """s / sigma of each row, both exact and without eps; sigma is the row's own deviation (or root mean square)."""
    if study.norm.is_weight or study.has_fixed_statistics:
        return
    before = outputs.before_eps.data[:, 0]
    if study.norm.statistic.name == "l2":
        reference.ratio_rows = reference.ratio_squared = reference.ratio = float(np.count_nonzero(before > 0))
        return
    variance = VARIANCES["two-pass"](exact, exact.load(x), study.norm.centred, REFERENCE).square
    sigma = np.sqrt(variance.data[:, 0])
    has = (sigma > 0) & np.isfinite(before)
    ratio = before[has] / sigma[has]
    reference.ratio_rows = float(np.count_nonzero(has))
    reference.ratio, reference.ratio_squared = float(ratio.sum()), float((ratio * ratio).sum())


def run(study: Study, *, jobs: int | None = None, progress: Callable[[float], None] | None = None) -> Block:
    """Run all blocks, on `jobs` threads (all processors unless given), and add them up in order."""
    blocks = study.blocks()
    total: Block | None = None
    for done, block in enumerate(in_order(lambda rows: run_block(study, *rows), blocks, jobs), start=1):
        total = block if total is None else _merged(total, block)
        if progress is not None:
            progress(done / len(blocks))
    assert total is not None  # noqa: S101  # a grouping has at least one row
    return total


def _merged(total: Block, block: Block) -> Block:
    for mine, theirs in zip(total.totals, block.totals, strict=True):
        mine.merge(theirs)
    total.reference.merge(block.reference)
    return total
