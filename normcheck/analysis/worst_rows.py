"""The worst rows of a result, run once more with every value kept: what a reproducer is made of."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from normcheck.analysis import deviation as dev
from normcheck.analysis.backward import arriving
from normcheck.analysis.engine import REFERENCE, beta_of_rows, classify, column, distance, drawn, row_rms
from normcheck.analysis.parameter_gradients import affine_of
from normcheck.arithmetic.emulated import Machine
from normcheck.arithmetic.exact import Exact
from normcheck.arithmetic.traced import Performed, Traced
from normcheck.arithmetic.values import Elements, PerRow, Value
from normcheck.errors import UsageError
from normcheck.norms.backward import Affine, backward, gradient_machine
from normcheck.norms.forward import Outputs, Problem, forward
from normcheck.results import ROW_KINDS

if TYPE_CHECKING:
    from collections.abc import Callable

    from normcheck.analysis.backward import Incoming
    from normcheck.analysis.study import Runner, Study
    from normcheck.results.reproducer import RowState

Array = np.ndarray[Any, np.dtype[Any]]

MOST_ROWS = 8
MOST_ELEMENTS = 1 << 18
"""Elements of each array that are kept, so that a file can be attached; of a longer row only its beginning."""

MOST_INPUT = 1 << 24
"""Elements of a row that are kept as input, all of which a statistic needs."""


@dataclass(frozen=True, slots=True)
class Evaluated:
    """A block of rows from `start` on, computed exactly and as emulated, with all that was performed."""

    study: Study
    start: int
    rows: int
    raw: Elements
    performed: list[Performed]
    given: Problem
    stored: Problem
    exact: Outputs
    emulated: Outputs
    gradient: Differentiated | None = None


@dataclass(frozen=True, slots=True)
class Differentiated:
    """The backward pass of such a block: the gradient that arrives, dx exactly and as emulated.

    aliases: (new, old) values that the backward pass has from the forward pass.
    """

    raw: Elements
    exact: Elements
    emulated: Elements
    aliases: list[tuple[Value, Value]]


def evaluate(study: Study, runner: Runner, start: int, stop: int, incoming: Incoming | None = None) -> Evaluated:
    """Run one implementation on a block as the engine does, bit for bit, and keep every value.

    incoming: run the backward pass on that gradient too, but for what is summed over rows.
    """
    g, rows = study.grouping, stop - start
    raw = drawn(study, start, stop)
    loader = Traced(Machine({"load": study.io}, {}, runner.machine.rounding), rows, g.size, start)
    x = loader.load(raw)
    machine = Traced(runner.machine, rows, g.size, start)
    given = study.problem(study.parameters, start, stop, None)
    stored = study.problem(study.stored, start, stop, study.stored.form)
    exact = forward(Exact(rows, g.size), x, given, REFERENCE)
    emulated = forward(machine, x, stored, runner.implementation)
    performed = [*loader.performed, *machine.performed]
    block = Evaluated(study, start, rows, raw, performed, given, stored, exact, emulated)
    return block if incoming is None else _differentiated(block, runner, x, incoming)


def _differentiated(block: Evaluated, runner: Runner, x: Elements, incoming: Incoming) -> Evaluated:
    """The same block, with the backward pass."""
    study, rows, n = block.study, block.rows, block.study.grouping.size
    raw = arriving(study, incoming, block.start, block.start + rows)
    affine = affine_of(study, always=incoming.affine)
    if study.grouping.channel_of != "row":
        affine = Affine(weight=False, bias=False)
    reference = backward(Exact(rows, n), raw, x, block.exact, block.given, REFERENCE)
    machine = Traced(gradient_machine(runner.machine), rows, n, block.start)
    got = backward(machine, raw, x, block.emulated, block.stored, runner.implementation, affine)
    gradient = Differentiated(raw, reference.x, got.x, machine.aliases)
    return replace(block, performed=[*block.performed, *machine.performed], gradient=gradient)


class Judged(NamedTuple):
    """What became of the rows of a block: class of each (see `RowState`), relative rms error, and how far s is off."""

    states: list[RowState]
    deviation: Array
    distance: Array


def judge(block: Evaluated) -> Judged:
    """Classify rows as the engine does; rows that it finds good and whose statistic is lost are `flushed`."""
    study, exact, emulated = block.study, block.exact, block.emulated
    sums, ideal = np.zeros((block.rows, dev.COLUMNS)), np.zeros((block.rows, dev.COLUMNS))
    beta = study.problem(study.stored, block.start, block.start + block.rows, study.io).bias
    betas = beta_of_rows(beta, study.io, exact.y.parts)
    rms = row_rms(exact.y, study.grouping.size)
    for index in range(exact.y.parts):
        y, b = exact.y.part(index), betas.part(index)
        dev.compare_ideal(y, b, rms, study.io, ideal)
        dev.compare(y, emulated.y.part(index), b, rms, study.io, sums)
    s, s_hat = column(exact.s, block.rows), column(emulated.s, block.rows)
    kinds = classify(study, emulated, sums, ideal, s, s_hat)
    before, before_hat = column(exact.before_eps, block.rows), column(emulated.before_eps, block.rows)
    flushed = (before > 0) & (before_hat == 0)
    states = [_state(int(kind), lost) for kind, lost in zip(kinds, flushed.tolist(), strict=True)]
    with np.errstate(all="ignore"):
        error = np.sqrt(sums[:, dev.EE] / sums[:, dev.YY])
    return Judged(states, np.where(sums[:, dev.NONFINITE] > 0, np.nan, error), distance(s, s_hat))


def judge_gradient(block: Evaluated) -> Judged:
    """Classify rows of dx as the engine does; `distance` is the share of a row that is flushed."""
    assert block.gradient is not None  # noqa: S101  # the caller asked for it
    exact, got, io = block.gradient.exact, block.gradient.emulated, block.study.io
    sums, ideal, zero = np.zeros((block.rows, dev.COLUMNS)), np.zeros((block.rows, dev.COLUMNS)), np.zeros((1, 1))
    lost, nonzero = np.zeros(block.rows), np.zeros(block.rows)
    rms = row_rms(exact, block.study.grouping.size)
    for index in range(exact.parts):
        y, computed = exact.part(index), got.part(index)
        dev.compare(y, computed, zero, rms, io, sums)
        dev.compare_ideal(y, zero, rms, io, ideal)
        lost += np.count_nonzero((computed == 0) & (y != 0), axis=1)
        nonzero += np.count_nonzero(y, axis=1)
    nonfinite = sums[:, dev.NONFINITE] > 0
    vanished = (sums[:, dev.OFF_BIAS] == 0) & (ideal[:, dev.OFF_BIAS] > 0)
    words: list[RowState] = ["nonfinite", "vanished", "finite"]
    states = [words[place] for place in np.select([nonfinite, vanished], [0, 1], 2).tolist()]
    with np.errstate(all="ignore"):
        error = np.sqrt(sums[:, dev.EE] / sums[:, dev.YY])
    return Judged(states, np.where(nonfinite, np.nan, error), lost / np.maximum(nonzero, 1))


def _state(kind: int, flushed: bool) -> RowState:
    if kind:
        return ROW_KINDS[kind - 1]
    return "flushed" if flushed else "finite"


def find_worst(
    study: Study, runner: Runner, score: Callable[[Evaluated], Array], incoming: Incoming | None = None
) -> list[tuple[float, int]]:
    """Return the highest scores and their rows, the worst first; rows of -inf or NaN do not count.

    Raises:
        UsageError: a row alone is more than a file for a bug report should hold.
    """
    size = study.grouping.size
    if size > MOST_INPUT:
        raise UsageError(
            f"a row of {size} elements is too long to take home: give a smaller input (up to {MOST_INPUT})"
        )
    best: list[tuple[float, int]] = []
    count = max(1, min(MOST_ROWS, MOST_ELEMENTS // size))
    for start, stop in study.blocks():
        scores = score(evaluate(study, runner, start, stop, incoming))
        wanted = np.flatnonzero(scores > -np.inf)
        best = sorted([*best, *((-float(scores[i]), start + int(i)) for i in wanted)])[:count]
    return [(-negated, index) for negated, index in best]


def gathered(
    study: Study,
    runner: Runner,
    rows: list[int],
    take: Callable[[Evaluated, Array], dict[str, Array]],
    incoming: Incoming | None = None,
) -> dict[str, Array]:
    """Run the blocks of some rows again and join what `take` takes of each; arrays of one row are alike in all.

    take: gets a block and the places of its rows in it. The arrays come back in the order of `rows`, but for those
    whose names begin with an underscore, which belong to no row.
    """
    parts, order = [], []
    for start, stop in study.blocks():
        here = [row for row in rows if start <= row < stop]
        if here:
            parts.append(take(evaluate(study, runner, start, stop, incoming), np.array(here) - start))
            order += here
    back = [order.index(row) for row in rows]
    return {
        name.lstrip("_"): part if name.startswith("_") else np.concatenate([p[name] for p in parts])[back]
        for name, part in parts[0].items()
    }


def values_of(value: Value, places: Array, rows: int, kept: int | None = None) -> Array:
    """Return the numbers of some rows of a block, the first `kept` of each."""
    if isinstance(value, PerRow):
        data = value.data
    else:
        parts, width = [], 0
        for index in range(value.parts):
            if kept is not None and width >= kept:
                break
            parts.append(value.part(index))
            width += parts[-1].shape[1]
        data = np.concatenate(parts, axis=1)[:, :kept]
    return np.array(np.broadcast_to(data, (rows, data.shape[1]))[places])
