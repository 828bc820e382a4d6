"""From a study to results and findings: the one place where totals become a report's figures."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from normcheck.analysis.backward import backward_of
from normcheck.analysis.engine import Reference, run
from normcheck.analysis.headroom import headroom
from normcheck.analysis.policy import EVERYTHING, Policy
from normcheck.analysis.rule import Case
from normcheck.analysis.rules import findings_of, verdict_of
from normcheck.analysis.safe_magnitude import safe_magnitude
from normcheck.analysis.safe_scale import safe_scale
from normcheck.analysis.study import Remembered, Runner, Study
from normcheck.results import Input, Representation, Result, ScaleRatio, Shape

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Literal

    from normcheck.analysis.backward import Incoming
    from normcheck.analysis.totals import Totals
    from normcheck.arithmetic.rounding import Rounding
    from normcheck.results import Backward, Finding, Headroom, ParameterFacts


@dataclass(frozen=True, slots=True)
class Labels:
    """What a result says of its settings beside its figures. unasked: implementations run as a view that is a note."""

    layer: str | None
    precision: str
    mode: Literal["train", "eval"]
    params: str
    constant: Literal["paper", "exact"] | None
    k: int | None
    eps_source: Literal["module", "config", "option", "assumed"]
    source: str
    assumed: bool
    unasked: frozenset[str] = frozenset()
    parameters: ParameterFacts | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """A study that is to be run, what its results will say of their settings, and the gradient that it is run on."""

    study: Study
    labels: Labels
    incoming: Incoming | None = None


class Outcome(NamedTuple):
    """A result, its findings, and how many more there are that were deselected."""

    result: Result
    findings: list[Finding]
    ignored: int


_MEASURING, _SEARCHING = 0.3, 0.7
"""Shares of the progress bar: the run itself, and the search for the safe scale."""


def assemble(
    study: Study,
    labels: Labels,
    rounding: Rounding,
    *,
    jobs: int | None = None,
    progress: Callable[[float], None] | None = None,
    search: bool = True,
    policy: Policy = EVERYTHING,
    incoming: Incoming | None = None,
) -> list[Outcome]:
    """Run a study and return, for each implementation, the result and its findings.

    search: also look for the safe scales and magnitude, which takes most of the time; without, and of a view that
    nobody asked for, they are None. policy: which findings count, and from which thresholds on.
    incoming: the gradient to run the backward pass on; None for the forward pass alone.
    """
    report = progress or (lambda _fraction: None)
    study, limits = replace(study, source=Remembered(study.source)), policy.limits(labels.layer)
    block = run(study, jobs=jobs, progress=lambda f: report(_MEASURING * f))

    def searched(runner: Runner) -> bool:
        return search and runner.implementation.name not in labels.unasked

    gradients: Sequence[Backward | None] = [None] * len(study.runners)
    if incoming is not None:
        gradients = backward_of(study, incoming, limits, jobs=jobs, searched=searched)
    out: list[Outcome] = []
    for place, (runner, totals) in enumerate(zip(study.runners, block.totals, strict=True)):

        def searching(fraction: float, place: int = place) -> None:
            report(_MEASURING + _SEARCHING * (place + fraction) / len(study.runners))

        room = headroom(totals)
        looks = searched(runner)
        scale = safe_scale(study, runner, totals, room.overflow_bits, limits, jobs, searching) if looks else None
        bound = safe_magnitude(study, runner) if looks else None
        result = _result(study, runner, totals, block.reference, labels, room, scale, bound, gradients[place])
        every = findings_of(Case(result, runner.implementation, rounding, limits))
        findings, ignored = policy.judged(every, as_notes=not result.asked)
        out.append(Outcome(replace(result, verdict=verdict_of(result, findings)), findings, ignored))
    return out


def _result(
    study: Study,
    runner: Runner,
    totals: Totals,
    reference: Reference,
    labels: Labels,
    room: Headroom,
    scale: tuple[float, float] | None,
    bound: float | None,
    gradient: Backward | None,
) -> Result:
    g, tallies = study.grouping, totals.tallies()
    source = Input(
        source=labels.source,
        assumed=labels.assumed,
        rows=g.groups,
        elements=g.groups * g.size,
        exponents=reference.exponents(),
    )
    return Result(
        layer=labels.layer,
        norm=study.norm.name,
        precision=labels.precision,
        implementation=runner.implementation.name,
        mode=labels.mode,
        params=labels.params,
        constant=labels.constant,
        k=labels.k,
        shape=Shape(groups=g.groups, size=g.size, row=study.norm.row_noun),
        eps=study.eps,
        eps_on=study.norm.statistic.eps_on,
        eps_source=labels.eps_source,
        input=source,
        steps=tuple(total.step(name) for name, total in totals.steps.items()),
        overflow=tallies["overflow"],
        underflow=tallies["underflow"],
        invalid=tallies["invalid"],
        absorbed=tallies["absorbed"],
        rows=totals.rows(),
        worst_rows=tuple(totals.worst),
        statistic=totals.statistic(),
        deviation=totals.deviation(),
        representation=_representation(reference),
        scale_ratio=_scale_ratio(reference),
        headroom=room,
        safe_scale=scale,
        verdict="ok",
        asked=runner.implementation.name not in labels.unasked,
        parameters=labels.parameters,
        safe_magnitude=bound,
        backward=gradient,
    )


def _representation(reference: Reference) -> Representation:
    yy = reference.representation_yy
    relative = math.sqrt(reference.representation_ee / yy) if yy else 0.0
    return Representation(max_abs=reference.representation_max, relative_rms=relative)


def _scale_ratio(reference: Reference) -> ScaleRatio:
    if not reference.ratio_rows:
        return ScaleRatio(mean=math.nan, cv=math.nan)
    mean = reference.ratio / reference.ratio_rows
    spread = max(reference.ratio_squared / reference.ratio_rows - mean**2, 0.0)
    return ScaleRatio(mean=mean, cv=math.sqrt(spread) / mean)
