"""Replays of cases: an input under the implementation that failed and under those that are right, and what was said."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from normcheck.analysis.assemble import Labels, assemble
from normcheck.analysis.corpus.inputs import made
from normcheck.analysis.corpus.listing import case_of, corpus_of, described, replay_of
from normcheck.analysis.corpus.signatures import signature_of
from normcheck.analysis.engine import run_block
from normcheck.analysis.study import Runner, Study
from normcheck.arithmetic.formats import format_named
from normcheck.arithmetic.rounding import Rounding
from normcheck.errors import UsageError
from normcheck.layers.sources import Given
from normcheck.norms.aliases import chosen_rows
from normcheck.norms.catalogue import choices
from normcheck.norms.constants import scale_of
from normcheck.norms.parameters import Parameters, storage_named
from normcheck.norms.table import grouping, norm_named
from normcheck.results.cases import Figure, Flag, Side

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Literal

    from normcheck.analysis.assemble import Outcome
    from normcheck.analysis.corpus.records import Expected, Input, Record
    from normcheck.norms.forward import Outputs
    from normcheck.results import Finding
    from normcheck.results.cases import Corpus, Replay

Array = np.ndarray[Any, np.dtype[Any]]

FAILURE_RULES = ("NC101", "NC102", "NC105", "NC106", "NC201", "NC203", "NC303")
"""Rules that a published failure fires: on what is right none of them may, above a note, and no rule as an error."""

_LANES = 8
"""float32 lanes of orders that follow the machine: AVX2's, so that a replay is the same everywhere."""

_MOMENTUM = 0.1
"""Weight of the batch's statistics where running ones are kept: torch's default."""


@dataclass(slots=True)
class _Kept:
    """Values of a run that a report does not hold: outputs, rows by elements, and one number a row."""

    y: Array
    variance: Array
    running_mean: Array | None = None


@dataclass(frozen=True, slots=True)
class _Run:
    """One input under one implementation."""

    role: Literal["failed", "right"]
    name: str
    precision: str
    outcome: Outcome
    kept: _Kept


FIGURES: dict[str, Callable[[_Run], float]] = {
    "variance": lambda run: float(run.kept.variance[0]),
    "variance.min": lambda run: float(run.kept.variance.min()),
    "error.max": lambda run: _number(run.outcome.result.deviation.max_abs),
    "output.std": lambda run: float(run.kept.y.std()),
    "output.max": lambda run: float(run.kept.y.max()),
    "output.row_variance": lambda run: float(run.kept.y.var(axis=1).max()),
    "running_mean": lambda run: float("nan") if run.kept.running_mean is None else float(run.kept.running_mean[0]),
    "share.collapsed": lambda run: run.outcome.result.rows.collapsed / run.outcome.result.rows.total,
}
"""Numbers that a case can ask for: the variance of the first row and the least, before eps; the largest error; standard
deviation and largest of the outputs, largest variance of a row of them; the first running mean; collapsed rows."""


def replayed(records: Iterable[Record], progress: Callable[[float, str], None] | None = None) -> Corpus:
    """Replay cases.

    Raises:
        UsageError: an implementation that a case names does not exist.
    """
    chosen, cases = list(records), []
    for done, record in enumerate(chosen):
        if progress is not None:
            progress(done / len(chosen), record.id)
        cases.append(case_of(record, [_replay(each) for each in record.inputs]))
    return corpus_of(cases)


def _replay(each: Input) -> Replay:
    runs = [_run("failed", each.failed, each, each.precision)] if each.failed else []
    runs += [_run("right", name, each, each.right_precision or each.precision) for name in each.right]
    figures = [_figure(figure, run) for figure in each.figures for run in runs if run.role == figure.side]
    problems = [problem for run in runs for problem in _problems(each, run)]
    problems += [f"{f.name}: expected {f.expected}, measured {f.measured:g}" for f in figures if not f.holds]
    return replay_of(each, sides=tuple(map(_side, runs)), figures=tuple(figures), problems=tuple(problems))


def _run(role: Literal["failed", "right"], name: str, each: Input, precision: str) -> _Run:
    study, labels, rounding = _study(name, each, precision)
    (outcome,) = assemble(study, labels, rounding, jobs=1, search=False)
    return _Run(role, name, precision, outcome, _kept(study))


def _study(name: str, each: Input, precision: str) -> tuple[Study, Labels, Rounding]:
    norm, io, rounding = norm_named(each.norm), format_named(precision), Rounding(ftz=each.ftz)
    group = grouping(norm, each.shape, each.num_groups)
    given = _parameters(each, group.channels)
    stored = given.cast(storage_named(each.params), io, rounding)
    param = stored.form or io
    rows, without = chosen_rows(choices(name), norm, io, param, group, "train")
    if not rows:
        raise UsageError(f"implementation {name}: {without[0][1]}, which a case runs")
    how = rows[0]
    scale, _ = scale_of(norm, "exact", group.size, 1)
    runner = Runner(how, how.machine(io, param, rounding, group=group, simd=_LANES))
    source = Given.of(made(each.make, each.shape), group)
    momentum = _MOMENTUM if each.running else None
    study = Study(norm, group, io, source, each.eps, scale, 1, given, stored, (runner,), momentum)
    labels = Labels(
        layer=None,
        precision=io.label,
        mode="train",
        params=each.params,
        constant=None,
        k=None,
        eps_source="option",
        source=described(each),
        assumed=False,
    )
    return study, labels, rounding


def _parameters(each: Input, channels: int) -> Parameters:
    def same(value: float | None) -> Array | None:
        return None if value is None else np.full(channels, value)

    mean, variance = (0.0, 1.0) if each.running else (None, None)
    return Parameters(same(each.weight), same(each.bias), same(mean), same(variance))


def _kept(study: Study) -> _Kept:
    g = study.grouping
    kept = _Kept(np.empty((g.groups, g.size)), np.empty(g.groups))
    for start, stop in study.blocks():

        def keep(outputs: Outputs, start: int = start, stop: int = stop) -> None:
            y = [outputs.y.part(index) for index in range(outputs.y.parts)]
            kept.y[start:stop] = np.concatenate(y, axis=1)
            kept.variance[start:stop] = outputs.before_eps.data[:, 0]
            if outputs.running is not None and outputs.running[0] is not None:
                kept.running_mean = outputs.running[0].data[:, 0].copy()

        run_block(study, start, stop, whole=False, keep=keep)
    return kept


def _side(run: _Run) -> Side:
    result, finite = run.outcome.result, run.kept.y[np.isfinite(run.kept.y)]
    signature = signature_of(result, run.outcome.findings)
    flags = [Flag(rule=f.rule, severity=f.severity, message=f.message) for f in run.outcome.findings]
    return Side(
        role=run.role,
        implementation=run.name,
        precision=result.precision,
        verdict=result.verdict,
        signature=signature,
        bad_rows=result.rows.bad,
        rows=result.rows.total,
        flags=tuple(flag for flag in flags if flag.severity != "note"),
        flagged=bool(signature or _telling(run.outcome.findings)),
        output_std=float(finite.std()) if finite.size else None,
        output_max=float(np.abs(finite).max()) if finite.size else None,
    )


def _problems(each: Input, run: _Run) -> list[str]:
    """Return which predictions do not hold of a run: of the implementation that failed, or of one that is right."""
    result, findings = run.outcome.result, run.outcome.findings
    found = signature_of(result, findings)
    if run.role == "failed" and each.signature:
        fired = {f.rule for f in findings if f.severity != "note"}
        wrong = [f"{rule} does not fire" for rule in each.rules if rule not in fired]
        wrong += [f"the signature is {found or 'none'}, not {each.signature}"] * (found != each.signature)
        wrong += ["the verdict is ok"] * (result.verdict == "ok")
    else:
        wrong = [f"the signature is {found}, not none"] * bool(found)
        wrong += [f"{rule} fires" for rule in _telling(findings)]
        allowed = ("ok", each.verdict)
        wrong += [f"the verdict is {result.verdict}, not {each.verdict}"] * (result.verdict not in allowed)
    return [f"{run.name}, {result.precision}: {text}" for text in wrong]


def _telling(findings: Iterable[Finding]) -> list[str]:
    """Return the rules that fired and may not on what is right."""
    told = [f.rule for f in findings if f.severity == "error" or (f.rule in FAILURE_RULES and f.severity != "note")]
    return list(dict.fromkeys(told))


def _figure(expected: Expected, run: _Run) -> Figure:
    measured = _measured(expected.name, run)
    words, holds = _compared(expected, measured)
    return Figure(name=expected.name, side=expected.side, expected=words, measured=measured, holds=holds)


def _measured(name: str, run: _Run) -> float:
    match = re.fullmatch(r"output\[([0-9]+)\]", name)
    if match:
        return float(run.kept.y.reshape(-1)[int(match[1])])
    if name not in FIGURES:
        raise UsageError(f"figure {name!r} of a case: there are output[i], {', '.join(FIGURES)}")
    return FIGURES[name](run)


def _compared(expected: Expected, measured: float) -> tuple[str, bool]:
    """Return the expectation in words, and whether a number is as expected; NaN is as expected where NaN is."""
    words, holds = [], True
    if expected.value is not None:
        percent = f" to {100 * expected.tolerance:g} %" if expected.tolerance else ""
        words.append(f"{expected.value:g}{percent}")
        off = abs(measured - expected.value) <= expected.tolerance * abs(expected.value)
        holds = bool(off or np.array_equal(measured, expected.value, equal_nan=True))
    if expected.above is not None:
        words.append(f"above {expected.above:g}")
        holds = holds and measured > expected.above
    if expected.below is not None:
        words.append(f"below {expected.below:g}")
        holds = holds and measured < expected.below
    return ", ".join(words), holds


def _number(value: float | None) -> float:
    return float("nan") if value is None else value
