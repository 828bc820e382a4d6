"""Rules about accuracy: how far the output, a sum or a variance is from the exact one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from normcheck.analysis.rule import KEEP_PARAMETERS, SUM_OTHERWISE, Case, Hit, Rule, rows, share
from normcheck.analysis.thresholds import deviation_severity
from normcheck.arithmetic.formats import format_named
from normcheck.norms.parameters import storage_named

if TYPE_CHECKING:
    from collections.abc import Iterator

    from normcheck.results import Severity


def _deviation(case: Case) -> Iterator[Hit]:
    error = case.result.deviation
    severity = deviation_severity(error.relative_rms, error.ideal.relative_rms, case.limits)
    if severity is not None and error.relative_rms is not None and error.ideal.relative_rms is not None:
        times = error.relative_rms / error.ideal.relative_rms if error.ideal.relative_rms else float("inf")
        yield Hit(
            None,
            f"relative rms error {error.relative_rms:.3g}, {times:.3g} times that of one rounding",
            severity,
            _exactly(case),
        )


def _exactly(case: Case) -> str | None:
    """What to do about an inaccurate result whose arithmetic is wide already."""
    facts = case.result.parameters
    if case.implementation.name != "wide":
        return None
    if facts is not None and storage_named(case.result.params) == "io":
        return KEEP_PARAMETERS
    return "scale the input, or store it in a wider format: the arithmetic is float32 already"


def _stagnation(case: Case) -> Iterator[Hit]:
    for step in case.result.steps:
        if step.lost_mass is None or step.lost_mass <= case.limits.lost_mass_warning:
            continue
        severity: Severity = "error" if step.lost_mass > case.limits.lost_mass_error else "warning"
        yield Hit(
            step.step,
            f"{step.step} loses {100 * step.lost_mass:.3g} % of its terms' magnitude in the worst row "
            f"({share(step.absorbed, step.operations)} additions changed nothing)",
            severity,
        )


def _cancellation(case: Case) -> Iterator[Hit]:
    if not case.implementation.variance.startswith(("one-pass", "shifted")) or case.result.norm.split("-")[-1] != "l2":
        return
    figures = case.result.statistic
    allowed = 2.0**-case.limits.variance_bits
    if figures.negative_rows:
        yield Hit("variance", f"{rows(case, figures.negative_rows)} have a negative variance")
    elif figures.max_relative_error > allowed:
        yield Hit(
            "variance",
            f"the variance E[x^2] - E[x]^2 is off by {figures.max_relative_error:.3g} of itself in the worst row",
        )


def _coherent(case: Case) -> Iterator[Hit]:
    error = case.result.deviation
    if error.gain is None or error.offset is None or case.result.rows.bad:
        return
    unit = format_named(case.result.precision).roundoff
    if unit <= format_named("float64").roundoff:
        return  # the reference is no better
    for name, size in (("gain", error.gain), ("offset", error.offset)):
        if abs(size) > case.limits.coherent * unit:
            yield Hit(
                None,
                f"{name} error {size:+.3g} is the same for all elements of a row "
                f"({abs(size) / unit:.3g} units of roundoff)",
                fix=_exactly(case),
            )


def _stalled_update(case: Case) -> Iterator[Hit]:
    facts = case.result.parameters
    if facts is None or case.result.mode == "eval":
        return
    for step, what in ((facts.mean_step, "mean by {} deviations"), (facts.variance_step, "variance by {} of itself")):
        if step is not None and step > case.limits.stalled_update:
            change = what.format(f"{step:.3g}")
            message = f"in {facts.format} the running statistics miss a change of the batch {change}"
            yield Hit("running-update", message, fact=True)


def _eps_dominates(case: Case) -> Iterator[Hit]:
    count, what = case.result.statistic.eps_dominated_rows, case.result.eps_on
    if count and case.result.mode == "train":  # under fixed statistics the norm is an affine map, whatever its eps
        share = case.result.statistic.eps_share_max
        yield Hit(
            "eps",
            f"eps {case.result.eps:g} is over 10 % of the {what} in {rows(case, count)} (up to {share:.3g} times it)",
        )


ACCURACY_RULES: tuple[Rule, ...] = (
    Rule(
        code="NC301",
        slug="deviation",
        title="Deviation",
        severity="warning",
        why="The output is further from the exact one than its format makes necessary.",
        fix="use implementation `wide`",
        accuracy=True,
        check=_deviation,
    ),
    Rule(
        code="NC302",
        slug="stagnating-sum",
        title="Stagnating sum",
        severity="warning",
        why="Terms below half an ulp of the running sum are lost, all in one direction.",
        fix=SUM_OTHERWISE,
        accuracy=True,
        check=_stagnation,
    ),
    Rule(
        code="NC303",
        slug="cancellation",
        title="Cancellation",
        severity="error",
        why="E[x^2] - E[x]^2 loses all right bits where the mean is large beside the deviation.",
        fix="use a two-pass or Welford variance",
        accuracy=True,
        check=_cancellation,
    ),
    Rule(
        code="NC304",
        slug="coherent-error",
        title="Coherent error",
        severity="note",
        why="An error that all elements share does not average out downstream.",
        fix="use implementation `wide`",
        accuracy=False,
        check=_coherent,
    ),
    Rule(
        code="NC305",
        slug="stalled-update",
        title="Running-statistic update stalls",
        severity="warning",
        why="A step of less than half an ulp changes nothing: inference runs on the statistics of an earlier model.",
        fix="keep the running statistics in float32 (--params autocast), or use a larger momentum",
        accuracy=False,
        check=_stalled_update,
    ),
    Rule(
        code="NC306",
        slug="eps-dominates",
        title="Eps dominates",
        severity="warning",
        why="The norm no longer normalises: its output shrinks with its input.",
        fix="nothing, if the model was trained with this eps; else a smaller one, or scale the input up",
        accuracy=False,
        check=_eps_dominates,
    ),
)
