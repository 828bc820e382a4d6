"""`identify`: which implementation of the catalogue a real kernel's output comes from, and where they part."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from normcheck.analysis.bits import Agreement, agreement, are_numbers_of
from normcheck.analysis.emulate import Emulation, emulate, rows_of
from normcheck.analysis.engine import drawn
from normcheck.analysis.worst_rows import evaluate
from normcheck.arithmetic.emulated import Emulated
from normcheck.arithmetic.formats import FLOAT32, format_named
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
    from normcheck.norms.implementations import Implementation, Status
    from normcheck.norms.table import Norm

Array = np.ndarray[Any, np.dtype[Any]]

ROWS_TOLD = 16
"""Rows that differ, from whose bits it is told where a candidate parts from the kernel."""
MOST_OF_ROW = 1 << 16
"""Elements of such a row that are looked at."""
REACH = 4
"""Units in the last place that a mean or a variance is moved by, either way, to find the kernel's own."""


SAMPLE = 1 << 20
"""Elements that all rows are compared on; of larger tensors, the nearest rows alone are run on the whole."""
WHOLE = 8
"""How many rows those are."""
BY_STATUS: tuple[Status, ...] = ("verified", "from source", "reported", "generic")
"""Of rows that are equally near, the better known one comes first."""
PARAMETERS = ("weight", "bias", "running_mean", "running_var")


@dataclass(frozen=True, slots=True)
class Nearest:
    """Candidates, the nearest first, and what sets the first apart from the second."""

    candidates: tuple[Candidate, ...]
    contrast: Contrast | None
    skipped: tuple[Skipped, ...]


@dataclass(frozen=True, slots=True)
class _Call:
    """What a kernel was given and gave; given: further arguments of `emulate`, but for params."""

    x: Array
    y: Array
    norm: Norm
    io: Format
    given: Mapping[str, Any]

    def sample(self) -> _Call:
        """The first rows of it, or the first samples, or the first channels of a batch norm."""
        if self.x.size <= SAMPLE:
            return self
        axis = 1 if self.norm.where == "batch" else 0
        flat = (-1, self.x.shape[-1]) if self.norm.where == "layer" else self.x.shape
        keep = max(1, SAMPLE // (self.x.size // self.x.reshape(flat).shape[axis]))
        first = (slice(None),) * axis + (slice(keep),)
        given = dict(self.given)
        if given.get("residual") is not None:
            given["residual"] = np.asarray(given["residual"]).reshape(flat)[first]
        if axis or (self.norm.is_weight and self.norm.where != "bounded-weight"):  # a parameter for each of them
            given |= {name: np.ravel(given[name])[:keep] for name in PARAMETERS if given.get(name) is not None}
        return replace(self, x=self.x.reshape(flat)[first], y=self.y.reshape(flat)[first], given=given)


@dataclass(frozen=True, slots=True)
class _Trial:
    """A row that is tried, the storage of its parameters, and how near it comes; emulated: kept of a few."""

    how: Implementation
    params: str
    agreed: Agreement | None = None
    emulated: Emulation | None = None

    @property
    def nearness(self) -> tuple[float, float, int, int, str]:
        assert self.agreed is not None  # noqa: S101  # of what was compared
        share, known = self.agreed.share, BY_STATUS.index(self.how.status)
        return -share, self.agreed.max_ulp, self.agreed.zero_signs, known, self.how.name


def identify(
    x: Array,
    y: Array,
    norm: str,
    *,
    precision: str,
    implementations: Sequence[str | Implementation] = (),
    params: str = "stored",
    told: int = 3,
    progress: Callable[[float], None] | None = None,
    **given: Any,
) -> Nearest:
    """Compare a real kernel's output with what each implementation makes of the same input.

    Of tensors of more than `SAMPLE` elements, all rows are compared on the first ones (whole rows of the norm), and the
    nearest `WHOLE` on all; the others follow these, with the counts of the first ones.

    Args:
        x, y: input and output of the kernel, in torch's shape for the norm, numbers of the format `precision`.
        norm, precision: names, as for `emulate`. implementations: names or rows; all that define the norm where none.
        params: as for `emulate`; ``stored``: not rounded, and each row gets them as it takes them, in the io format or
            float32, where they are numbers of that.
        told: how many of the nearest are also told where they part from the kernel.
        progress: called with the fraction done. given: further arguments of `emulate`: weight, bias, eps, ...

    Raises:
        UsageError: shapes that differ, numbers that are not of the format, or a name or argument that cannot be used.
    """
    what, io = norm_named(norm), format_named(precision)
    _check(x, y, io)
    call = _Call(x, y, what, io, given)
    trials, skipped = _planned(call, implementations, params)
    first = call.sample()
    tick = _Ticks(progress, len(trials) * first.x.size + (0 if first is call else WHOLE * x.size))
    rest: list[_Trial] = []
    if first is not call and len(trials) > WHOLE:
        ranked = _compared(first, trials, skipped, 0, tick)
        trials, rest = ranked[:WHOLE], ranked[WHOLE:]
    found = _compared(call, trials, skipped, max(2, told), tick)
    candidates = [_candidate(trial, y, tells=place < told) for place, trial in enumerate(found + rest)]
    contrast = None
    if len(found) > 1:
        step = _first_difference(_study(found[0]), _study(found[1]))
        contrast = Contrast(implementation=found[1].how.name, step=step)
    return Nearest(tuple(candidates), contrast, tuple(skipped))


def _check(x: Array, y: Array, io: Format) -> None:
    if x.shape != y.shape:
        raise UsageError(f"the input has shape {x.shape}, the output {y.shape}: they must be of one call")
    for name, array in (("input", x), ("output", y)):
        if not are_numbers_of(array, io):
            raise UsageError(
                f"the {name} has numbers that {io.label} does not have; give --precision the format that it is in"
            )


def _planned(
    call: _Call, implementations: Sequence[str | Implementation], params: str
) -> tuple[list[_Trial], list[Skipped]]:
    """The rows to try, and the choices that have none."""
    group = grouping(call.norm, call.x.shape, call.given.get("num_groups"))
    chosen = choices(implementations or (ALL,))
    trials: dict[str, _Trial] = {}
    refused: list[dict[str, str]] = []
    for storage in _storages(call, params):
        form = storage_form(storage_named(storage), call.io)
        rows, without = chosen_rows(chosen, call.norm, call.io, form, group, call.given.get("mode", "train"))
        trials = {how.name: _Trial(how, storage) for how in rows} | trials
        refused.append(dict(without))
    skipped = [Skipped(name=n, reason=r) for n, r in refused[0].items() if all(n in other for other in refused)]
    if not trials:
        reasons = "; ".join(one.reason for one in skipped)
        none = f"no implementation defines {call.norm.name} in {call.io.label}; `normcheck implementations` lists them"
        raise UsageError(reasons if implementations else none)
    return list(trials.values()), skipped


def _storages(call: _Call, params: str) -> tuple[str, ...]:
    """Where the parameters may live without being rounded; what was asked for, where that says it."""
    if storage_named(params) != "stored":
        return (params,)
    arrays = [call.given[name] for name in PARAMETERS if call.given.get(name) is not None]
    exact = [
        name
        for name, form in (("io", call.io), ("float32", FLOAT32))
        if all(are_numbers_of(array, form) for array in arrays)
    ]
    return tuple(exact) or ("stored",)


class _Ticks:
    """How much of all elements is done."""

    def __init__(self, progress: Callable[[float], None] | None, total: int) -> None:
        self.progress, self.total, self.done = progress, total, 0

    def __call__(self, elements: int) -> None:
        self.done += elements
        if self.progress is not None:
            self.progress(min(1.0, self.done / self.total))


def _compared(call: _Call, trials: Sequence[_Trial], skipped: list[Skipped], kept: int, tick: _Ticks) -> list[_Trial]:
    """The trials, the nearest first, these with what they gave; a row that cannot run joins those skipped.

    Raises:
        UsageError: none can, for the reason that the first one has.
    """
    found: list[_Trial] = []
    refused: list[UsageError] = []
    for trial in trials:
        try:
            emulated = emulate(
                call.x, call.norm.name, precision=call.io.label, implementation=trial.how, params=trial.params,
                **call.given,
            )  # fmt: skip
        except UsageError as error:
            refused.append(error)
            skipped.append(Skipped(name=trial.how.name, reason=str(error)))
            continue
        found.append(replace(trial, agreed=agreement(emulated.output, call.y, call.io), emulated=emulated))
        found.sort(key=lambda one: one.nearness)
        found[kept:] = [replace(one, emulated=None) for one in found[kept:]]  # arrays of the size of the input
        tick(call.x.size)
    if not found:
        raise refused[0]
    return found


def _study(trial: _Trial) -> Study:
    assert trial.emulated is not None and trial.emulated.study is not None  # noqa: S101, PT018  # of the nearest
    return trial.emulated.study


def _candidate(trial: _Trial, y: Array, *, tells: bool) -> Candidate:
    how, agreed = trial.how, trial.agreed
    assert agreed is not None  # noqa: S101  # of what was compared
    tells = tells and trial.emulated is not None and agreed.identical < agreed.compared
    return Candidate(
        implementation=how.name,
        status=how.status,
        compared=agreed.compared,
        identical=agreed.identical,
        share=agreed.share,
        zero_signs=agreed.zero_signs,
        max_ulp=agreed.max_ulp,
        parting=_parting(trial, y) if tells else None,
    )


# ------------------------------------------------------------------------------ where a candidate and the kernel part


def _parting(trial: _Trial, y: Array) -> Parting:
    """Move the mean and the variance of rows that differ by a few units, until they are the kernel's to the bit."""
    study = _study(trial)
    assert trial.emulated is not None  # noqa: S101  # it has a study
    mine, theirs = rows_of(trial.emulated.output, study.grouping), rows_of(y, study.grouping)
    differs = np.flatnonzero(~_same(mine, theirs).all(axis=1))[:ROWS_TOLD]
    counts = {"mean": 0, "variance": 0, "normalize": 0}
    for row in differs.tolist():
        counts[_told(study, row, theirs[row : row + 1, :MOST_OF_ROW])] += 1
    return Parting(
        step=max(counts, key=counts.__getitem__) if len(differs) else None,
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
    if n > MOST_OF_ROW or study.has_fixed_statistics or runner.implementation.rescale != "none":
        # the row is too long to be run again and again, or the statistics are given, or those of a rescaled row
        return "normalize"
    x = Elements.of(np.concatenate([drawn(study, row, row + 1).part(0)], axis=1)[:, :MOST_OF_ROW], study.io)
    problem = study.problem(study.stored, row, row + 1, study.stored.form)
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


def _first_difference(one: Study, other: Study) -> str | None:
    """The first step, in the order of the first study, whose last results differ between two implementations."""
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
