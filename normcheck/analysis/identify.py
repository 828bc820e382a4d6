"""`identify`: which implementation of the catalogue a real kernel's output comes from, and where they part."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from normcheck.analysis.bits import Agreement, agreement, places
from normcheck.analysis.emulate import Emulation, emulate, rows_of
from normcheck.analysis.engine import drawn
from normcheck.analysis.worst_rows import evaluate
from normcheck.arithmetic.emulated import Emulated
from normcheck.arithmetic.formats import format_named
from normcheck.arithmetic.values import Elements, PerRow, Value
from normcheck.errors import UsageError
from normcheck.norms.aliases import ALL, chosen_rows
from normcheck.norms.catalogue import choices
from normcheck.norms.forward import forward
from normcheck.norms.parameters import storage_form, storage_named
from normcheck.norms.table import grouping, norm_named
from normcheck.results import Skipped
from normcheck.results.identification import Candidate, Contrast, Parting

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from normcheck.analysis.study import Study
    from normcheck.arithmetic.formats import Format
    from normcheck.norms.implementations import Implementation

Array = np.ndarray[Any, np.dtype[Any]]

ROWS_TOLD = 16
"""Rows that differ, from whose bits it is told where a candidate parts from the kernel."""
MOST_OF_ROW = 1 << 16
"""Elements of such a row that are looked at."""
REACH = 4
"""Units in the last place that a mean or a variance is moved by, either way, to find the kernel's own."""


@dataclass(frozen=True, slots=True)
class Nearest:
    """Candidates, the nearest first, and what sets the first apart from the second."""

    candidates: tuple[Candidate, ...]
    contrast: Contrast | None
    skipped: tuple[Skipped, ...]


def identify(
    x: Array,
    y: Array,
    norm: str,
    *,
    precision: str,
    implementations: Sequence[str | Implementation] = (),
    told: int = 3,
    progress: Callable[[float], None] | None = None,
    **given: Any,
) -> Nearest:
    """Compare a real kernel's output with what each implementation makes of the same input.

    Args:
        x, y: input and output of the kernel, in torch's shape for the norm, numbers of the format `precision`.
        norm, precision: names, as for `emulate`. implementations: names or rows; all that define the norm where none.
        told: how many of the nearest are also told where they part from the kernel.
        progress: called with the fraction done. given: further arguments of `emulate`: weight, bias, eps, ...

    Raises:
        UsageError: shapes that differ, numbers that are not of the format, or a name that cannot be used.
    """
    what, io = norm_named(norm), format_named(precision)
    _check(x, y, io)
    param = storage_form(storage_named(given.get("params", "half")), io)
    group = grouping(what, x.shape, given.get("num_groups"))
    chosen = choices(implementations or (ALL,))
    rows, without = chosen_rows(chosen, what, io, param, group, given.get("mode", "train"))
    skipped = [Skipped(name=name, reason=reason) for name, reason in without]
    found: list[tuple[Implementation, Agreement, Emulation]] = []
    for place, how in enumerate(rows):
        try:
            emulated = emulate(x, norm, precision=precision, implementation=how, **given)
        except UsageError as error:
            skipped.append(Skipped(name=how.name, reason=str(error)))
            continue
        found.append((how, agreement(emulated.output, y, io), emulated))
        if progress is not None:
            progress((place + 1) / len(rows))
    if not found:
        raise UsageError(f"no implementation defines {what.name} in {io.label}; `normcheck implementations` lists them")
    found.sort(key=lambda item: (-item[1].share, item[1].max_ulp, item[1].zero_signs, item[0].name))
    candidates = []
    for place, (how, agreed, emulated) in enumerate(found):
        tells = place < told and agreed.identical < agreed.compared
        parting = _parting(emulated, y) if tells else None
        candidates.append(_candidate(how, agreed, parting))
    contrast = None
    if len(found) > 1:
        step = _first_difference(found[0][2].study, found[1][2].study)
        contrast = Contrast(implementation=found[1][0].name, step=step)
    return Nearest(tuple(candidates), contrast, tuple(skipped))


def _check(x: Array, y: Array, io: Format) -> None:
    if x.shape != y.shape:
        raise UsageError(f"the input has shape {x.shape}, the output {y.shape}: they must be of one call")
    for name, array in (("input", x), ("output", y)):
        finite = np.asarray(array, np.float64)[np.isfinite(array)]
        with np.errstate(all="ignore"):
            inside = np.abs(finite) <= io.max_finite
            whole = places(finite[inside], io) % 1 == 0
        if not (inside.all() and whole.all()):
            raise UsageError(
                f"the {name} has numbers that {io.label} does not have; give --precision the format that it is in"
            )


def _candidate(how: Implementation, agreed: Agreement, parting: Parting | None) -> Candidate:
    return Candidate(
        implementation=how.name,
        status=how.status,
        compared=agreed.compared,
        identical=agreed.identical,
        share=agreed.share,
        zero_signs=agreed.zero_signs,
        max_ulp=agreed.max_ulp,
        parting=parting,
    )


# ------------------------------------------------------------------------------ where a candidate and the kernel part


def _parting(emulated: Emulation, y: Array) -> Parting:
    """Move the mean and the variance of rows that differ by a few units, until they are the kernel's to the bit."""
    study = emulated.study
    assert study is not None  # noqa: S101  # of an emulation
    mine, theirs = rows_of(emulated.output, study.grouping), rows_of(y, study.grouping)
    differs = np.flatnonzero(~_same(mine, theirs).all(axis=1))[:ROWS_TOLD]
    counts = {"mean": 0, "variance": 0, "normalize": 0}
    for row in differs.tolist():
        counts[_told(study, row, theirs[row : row + 1, :MOST_OF_ROW])] += 1
    step = next((name for name, count in counts.items() if count), None)
    return Parting(
        step=step,
        rows=len(differs),
        by_mean=counts["mean"],
        by_variance=counts["variance"],
        by_elements=counts["normalize"],
    )


def _same(a: Array, b: Array) -> Array:
    same: Array = (a == b) | (np.isnan(a) & np.isnan(b))
    return same


def _told(study: Study, row: int, wanted: Array) -> str:
    """Which moved statistic, if any, gives the row that the kernel gave."""
    runner, n = study.runners[0], study.grouping.size
    x = Elements.of(np.concatenate([drawn(study, row, row + 1).part(0)], axis=1)[:, :MOST_OF_ROW], study.io)
    problem = study.problem(study.stored, row, row + 1, study.stored.form)
    if n > MOST_OF_ROW or study.has_fixed_statistics:
        return "normalize"  # the statistics are given, or the row too long to be run again and again
    first = forward(Emulated(runner.machine, 1, n, row), x, problem, runner.implementation)
    spread = np.arange(-REACH, REACH + 1, dtype=np.float64)
    means, variances = (spread, spread) if first.mean is not None else (np.zeros(1), spread)
    moved = np.array([(m, v) for m in means for v in variances])
    order = np.argsort(np.abs(moved[:, 0]) * (REACH + 1) + np.abs(moved[:, 1]), kind="stable")
    moved = moved[order]
    statistic = _moved(first.before_eps, moved[:, 1])
    mean = None if first.mean is None else _moved(first.mean, moved[:, 0])
    many = replace(problem, running_mean=mean, running_statistic=statistic, momentum=None)
    tiled = Elements.of(np.repeat(x.part(0), len(moved), axis=0), x.form)
    y = forward(Emulated(runner.machine, len(moved), n, row), tiled, many, runner.implementation).y
    same = np.concatenate([_same(y.part(i), wanted) for i in range(y.parts)], axis=1).all(axis=1)
    if not same.any():
        return "normalize"
    return "variance" if moved[int(np.argmax(same)), 0] == 0 else "mean"


def _moved(value: PerRow, steps: Array) -> PerRow:
    """A number moved by so many units in its last place, one a row."""
    form = value.form
    assert form is not None  # noqa: S101  # emulated
    size = abs(float(value.data[0, 0]))
    exponent = max(int(np.frexp(size)[1]) - 1, form.emin) if np.isfinite(size) else 0
    data = value.data[0, 0] + steps * 2.0 ** (exponent - form.mantissa_bits)
    return PerRow(data.reshape(-1, 1), form, value.degree)


# ---------------------------------------------------------------------------------------- what sets two rows apart


def _first_difference(one: Study | None, other: Study | None) -> str | None:
    """The first step, in the order of the first study, whose last results differ between two implementations."""
    assert one is not None and other is not None  # noqa: S101, PT018  # of emulations
    rows = max(1, min(one.grouping.groups, MOST_OF_ROW // max(1, one.grouping.size)))
    results = [_results(study, rows) for study in (one, other)]
    for step, value in results[0].items():
        twin = results[1].get(step)
        if twin is None or twin.shape != value.shape or not _same(value, twin).all():
            return step
    return None


def _results(study: Study, rows: int) -> Mapping[str, Array]:
    """The last result of each step on the first rows, of one part at most."""
    block = evaluate(study, study.runners[0], 0, rows)
    return {performed.step: _data(performed.result, rows) for performed in block.performed}


def _data(value: Value, rows: int) -> Array:
    if isinstance(value, PerRow):
        return np.broadcast_to(value.data, (rows, 1)).astype(np.float64)
    return np.asarray(value.part(0), np.float64)
