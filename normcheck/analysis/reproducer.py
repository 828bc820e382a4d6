"""Taking a finding home: choosing the result that shows it worst, and what a script needs to show it again."""

from __future__ import annotations

import dataclasses
import difflib
import fnmatch
import json
import math
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from normcheck import __version__
from normcheck.analysis.engine import column
from normcheck.analysis.programs import program_of
from normcheck.analysis.rules import rule_named
from normcheck.analysis.worst_rows import find_worst, judge, judge_gradient
from normcheck.arithmetic.formats import format_named
from normcheck.arithmetic.values import Elements, PerRow, Value
from normcheck.errors import UsageError
from normcheck.norms.table import norm_named
from normcheck.results import ROW_KINDS, SEVERITIES, VERDICTS
from normcheck.results.reproducer import Claim, Reproducer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from normcheck.analysis.assemble import Outcome, Plan
    from normcheck.analysis.backward import Incoming
    from normcheck.analysis.worst_rows import Evaluated
    from normcheck.arithmetic.traced import Performed
    from normcheck.results import Finding, Report, Result
    from normcheck.results.reproducer import Figure, Program, RowState

Array = np.ndarray[Any, np.dtype[Any]]

_CODE = re.compile(r"NC[0-9]+")

_STATES: dict[str, tuple[RowState, ...]] = {
    "NC101": ("nonfinite",),
    "NC102": ("collapsed",),
    "NC105": ("nonfinite",),
    "NC203": (*ROW_KINDS, "flushed"),
    "NC104": ROW_KINDS,
    "NC106": ROW_KINDS,
    "NC201": ROW_KINDS,
    "NC204": ROW_KINDS,
    "NC303": ROW_KINDS,
}
"""Rules that bad rows show, and what becomes of these rows."""

_FIGURES: dict[str, Figure] = {
    "NC103": "headroom",
    "NC205": "overflow",
    "NC301": "deviation",
    "NC302": "lost mass",
    "NC303": "deviation",
}
"""Rules that a figure of a row shows, where no row is bad."""

_GRADIENT_STATES: dict[str, tuple[RowState, ...]] = {"NC501": ("nonfinite",), "NC502": ("vanished",)}
_GRADIENT_FIGURES: dict[str, Figure] = {
    "NC501": "overflow",
    "NC502": "flushed",
    "NC503": "headroom",
    "NC504": "deviation",
}
"""The same of rules about gradients, and rows of dx."""

_OVER_ROWS = ("grad-weight", "grad-bias", "grad-parameter", "count")
"""Steps of which no few rows show anything, where rows share gamma and beta."""

_ENOUGH, _BITS = 0.5, 0.5
"""A figure is there again from this share of what was recorded, headroom up to so many bits above: another machine's
float64 reference may differ in the last place, not by that much."""


class Candidate(NamedTuple):
    """A finding that rows can show, its result, and the plan that led to it."""

    plan: Plan
    result: Result
    finding: Finding


@dataclass(slots=True)
class Wanted:
    """What is to be taken home, as `--reproducer` names it, and the worst of it so far.

    code: of a rule, None for any. pattern: glob of layers (of norms, where there are no layers), None for all.
    """

    text: str
    code: str | None
    pattern: str | None
    best: Candidate | None = None
    names: set[str] = field(default_factory=set)

    def take(self, plan: Plan, outcome: Outcome) -> None:
        """Look at a result; the worst one is kept, whichever comes first."""
        result = outcome.result
        name = _place(result.layer, result.norm)
        self.names.add(name)
        if not self._covers(name):
            return
        for finding in outcome.findings:
            shown = self.code in (None, finding.rule) and _figure(finding, result) is not None
            if shown and (self.best is None or _badness(result, finding) < _badness(*self.best[1:])):
                self.best = Candidate(plan, result, finding)

    def _covers(self, name: str) -> bool:
        return self.pattern is None or name == self.pattern or fnmatch.fnmatchcase(name, self.pattern)

    def why_none(self, report: Report) -> str:
        """Return why there is no best: the rule did not fire, or what was found shows in no row.

        Raises:
            UsageError: no layer matches.
        """
        known = sorted(self.names | {_place(f.layer, f.norm) for f in report.findings})
        here = [name for name in known if self._covers(name)]
        if not here:
            raise UsageError(f"--reproducer {self.text!r} matches no layer{_near(self.pattern or '', known)}")
        fired = {f.rule for f in report.findings if _place(f.layer, f.norm) in here}
        if self.code is not None and self.code not in fired:
            return f"{', '.join(sorted(fired)) or 'no rule'} fired there, and {self.code} did not"
        return "nothing was found there that rows show"


def wanted(text: str) -> Wanted:
    """Return what `--reproducer` asks for: ``NC102``, ``NC102:LAYER``, or a layer; layers may be globs.

    Raises:
        UsageError: no such rule, or no layer after the colon.
    """
    code, colon, layer = text.partition(":")
    if not _CODE.fullmatch(code.strip().upper()):
        if not text.strip():
            raise UsageError("--reproducer names nothing: give a rule (NC102), NC102:LAYER or a layer")
        return Wanted(text, None, text)
    if colon and not layer:
        raise UsageError(f"--reproducer {text!r} names no layer: write NC102 for all, or NC102:LAYER")
    return Wanted(text, rule_named(code).code, layer or None)


def reproducer_of(candidate: Candidate) -> tuple[Reproducer, dict[str, Array]]:
    """Run the worst rows of a finding once more and return the facts and the arrays of its script.

    Raises:
        UsageError: its rows are too long to be taken home.
    """
    plan, result, finding = candidate
    runner = next(r for r in plan.study.runners if r.implementation.name == result.implementation)
    figure = _figure(finding, result) or "rows"
    states = (_STATES | _GRADIENT_STATES).get(finding.rule, ())
    incoming = plan.incoming if finding.rule in _GRADIENT_FIGURES else None

    def score(block: Evaluated) -> Array:
        return _score(block, figure, states, finding.step)

    worst = find_worst(plan.study, runner, score, incoming)
    rows = [row for _, row in worst]
    program, became, arrays = program_of(plan.study, runner, rows, incoming)
    made = Reproducer(
        version=__version__,
        title=f"{finding.rule} {rule_named(finding.rule).title}: {finding.message}",
        facts=_facts(result, incoming),
        claim=_claim(figure, states, program, finding.step, worst[0][0]),
        program=program,
        rows=tuple(rows),
        states=became,
        of=plan.study.grouping.groups,
        row_noun=plan.study.norm.row_noun,
    )
    settings = dict(made.facts) | {"finding": made.title, "normcheck": __version__}
    return made, {"normcheck": np.array(json.dumps(settings)), **arrays}


def _place(layer: str | None, norm: str) -> str:
    return norm if layer is None else layer


def _near(pattern: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(pattern, known, n=3, cutoff=0.3) or known[:3]
    return f"; there are {', '.join(near)}" if near else ": there are none"


def _figure(finding: Finding, result: Result) -> Figure | None:
    """What of a row shows the finding; None where no row does."""
    if finding.rule in _GRADIENT_FIGURES:
        return _figure_of_gradient(finding, result)
    counts = dataclasses.asdict(result.rows) | {"flushed": result.statistic.flushed_rows}
    if any(counts[state] for state in _STATES.get(finding.rule, ())):
        return "rows"
    return _FIGURES.get(finding.rule)


def _figure_of_gradient(finding: Finding, result: Result) -> Figure | None:
    """The same for a finding about gradients: what is of sums over rows, or was clipped, no row shows."""
    gradient, figure = result.backward, _GRADIENT_FIGURES[finding.rule]
    if gradient is None:
        return None
    if any(getattr(gradient.rows, state) for state in _GRADIENT_STATES.get(finding.rule, ())):
        return "rows"
    if figure == "deviation":
        is_of_rows = finding.measure is not None and finding.measure.name.startswith("backward.deviation")
        return figure if is_of_rows else None
    if figure == "flushed":
        return figure
    step = next((step for step in gradient.steps if step.step == finding.step), None)
    shared = norm_named(result.norm).where not in ("batch", "weight") and finding.step in _OVER_ROWS
    clipped = figure == "overflow" and (step is None or not format_named(step.format).infinities)
    return None if shared or clipped else figure


def _badness(result: Result, finding: Finding) -> tuple[Any, ...]:
    """A key that sorts the worst first, what nobody asked for last; names decide, not threads, where all is equal."""
    room = result.headroom.overflow_bits
    return (
        not result.asked,
        VERDICTS.index(result.verdict),
        SEVERITIES.index(finding.severity),
        -result.rows.bad,
        math.inf if room is None else room,
        (result.layer or "", result.norm, result.precision, result.implementation, result.mode),
        (finding.rule, finding.step or ""),
    )


def _score(block: Evaluated, figure: Figure, states: tuple[RowState, ...], step: str | None) -> Array:
    """How badly each row of a block shows the finding; -inf where it does not."""
    if figure in ("rows", "deviation", "flushed"):
        judged = judge(block) if block.gradient is None else judge_gradient(block)
        if figure != "rows":
            return judged.deviation if figure == "deviation" else judged.distance
        return np.where([state in states for state in judged.states], judged.distance, -np.inf)
    place = _culprit([(op.step, op.operation, op.result.degree) for op in block.performed], figure, step)
    performed = block.performed[place]
    if figure == "lost mass":
        return _lost_mass(block, performed)
    if figure == "overflow":
        return np.where(np.isinf(_largest(performed.result, block.rows)), 0.0, -np.inf)
    with np.errstate(divide="ignore"):
        size: Array = np.log2(_largest(performed.result, block.rows))
    return size


def _culprit(operations: Sequence[tuple[str, str, int | None]], figure: Figure, step: str | None) -> int:
    """The place of the operation (step, operation, degree) that a figure is of: the step's sum, last, or what grows."""
    of_step = [place for place, (name, _, _) in enumerate(operations) if name == step]
    if figure == "lost mass":
        return next(place for place in of_step if operations[place][1] == "sum")
    if figure == "overflow":
        return of_step[-1]
    return next(place for place in reversed(of_step) if (operations[place][2] or 0) > 0)


def _lost_mass(block: Evaluated, performed: Performed) -> Array:
    """|computed sum - exact sum| / sum of |terms| of each row; -inf where that is not finite."""
    terms, is_mean = performed.operands[0], performed.order is not None and performed.order.is_mean
    assert isinstance(terms, Elements)  # noqa: S101  # a sum is of elements
    assert isinstance(performed.result, PerRow)  # noqa: S101  # and one number a row
    parts = [terms.part(index).astype(np.float64) for index in range(terms.parts)]
    n = sum(part.shape[1] for part in parts) if is_mean else 1
    with np.errstate(all="ignore"):
        exact = np.sum([part.sum(axis=1) for part in parts], axis=0)
        mass = np.sum([np.abs(part).sum(axis=1) for part in parts], axis=0)
        loss = np.abs(column(performed.result, block.rows) * n - exact) / mass
    return np.where(np.isfinite(loss), loss, -np.inf)


def _largest(value: Value, rows: int) -> Array:
    """Largest magnitude of each row; NaN counts for nothing."""
    if isinstance(value, PerRow):
        return np.nan_to_num(np.abs(column(value, rows)), nan=0.0, posinf=np.inf)
    parts = [np.nan_to_num(np.abs(value.part(i)), nan=0.0, posinf=np.inf).max(axis=1) for i in range(value.parts)]
    largest: Array = np.max(parts, axis=0).astype(np.float64)
    return largest


def _claim(figure: Figure, states: tuple[RowState, ...], program: Program, step: str | None, worst: float) -> Claim:
    """What the script has to show, given the worst row's score."""
    if figure == "rows":
        return Claim(figure=figure, states=states)
    if figure in ("deviation", "flushed"):
        return Claim(figure=figure, limit=_ENOUGH * worst)
    place = _culprit([(op.step, op.operation, op.degree) for op in program.operations], figure, step)
    operation = program.operations[place]
    if figure == "lost mass":
        return Claim(figure=figure, limit=_ENOUGH * worst, operation=operation.name)
    if figure == "overflow":
        return Claim(figure=figure, operation=operation.name)
    degree = operation.degree or 1
    bits = (math.log2(operation.limit) - worst) / degree
    return Claim(figure=figure, limit=bits + _BITS, operation=operation.name, degree=degree)


def _facts(result: Result, incoming: Incoming | None) -> tuple[tuple[str, str], ...]:
    """Where and under which settings, as a script shows them."""
    facts = {
        "layer": result.layer or "",
        "norm": result.norm,
        "precision": result.precision,
        "implementation": result.implementation,
        "mode": result.mode,
        "params": result.params,
        "eps": f"{result.eps:g}, added to the {result.eps_on}",
        "constant": result.constant or "",
        "k": "" if result.k is None else str(result.k),
        "input": result.input.source + (" (assumed)" if result.input.assumed else ""),
    }
    if incoming is not None:
        facts["gradient"] = incoming.label + (" (assumed)" if incoming.assumed else "")
        facts["loss scale"] = f"{incoming.loss_scale:g}"
    return tuple((name, text) for name, text in facts.items() if text)
