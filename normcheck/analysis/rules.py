"""The rules: stable codes, what they mean, what to do, and when they fire.

A rule is one row and one function, from a `Case` to the places where it fires.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from normcheck.analysis.thresholds import DEFAULTS, Thresholds, deviation_severity
from normcheck.arithmetic.formats import format_named
from normcheck.arithmetic.rounding import Mode, Rounding, round_to
from normcheck.norms.table import STATISTICS, Norm, norm_named
from normcheck.results import Finding, Result, Severity, Step, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from normcheck.norms.implementations import Implementation


@dataclass(frozen=True, slots=True)
class Case:
    """A result, and what of its settings rules need to know."""

    result: Result
    implementation: Implementation
    rounding: Rounding
    limits: Thresholds = DEFAULTS

    def step(self, name: str) -> Step | None:
        """The step of that name, if the norm has it."""
        return next((step for step in self.result.steps if step.step == name), None)

    @property
    def suspect(self) -> str | None:
        """The step to blame for bad rows: the first bad one of the worst row, else the first that overflowed."""
        named = next((row.first_bad_step for row in self.result.worst_rows if row.first_bad_step), None)
        return named or next((step.step for step in self.result.steps if step.overflow or step.invalid), None)


@dataclass(frozen=True, slots=True)
class Hit:
    """One place where a rule fires: the step and the message; severity and fix where they are not the rule's own."""

    step: str | None
    message: str
    severity: Severity | None = None
    fix: str | None = None


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule: `check` yields its hits on a case."""

    code: str
    slug: str
    title: str
    severity: Severity
    why: str
    fix: str
    accuracy: bool = field(compare=False)
    check: Callable[[Case], Iterator[Hit]] = field(compare=False, repr=False)

    @property
    def anchor(self) -> str:
        """Where the documentation of the rule is."""
        return f"docs/rules.md#{self.code.lower()}-{self.slug}"


def _share(count: int, of: int) -> str:
    return f"{count} of {of}"


def _rows(case: Case, count: int) -> str:
    return f"{_share(count, case.result.rows.total)} rows"


def _nonfinite(case: Case) -> Iterator[Hit]:
    count = case.result.rows.nonfinite
    if count:
        yield Hit(case.suspect, f"{_rows(case, count)} have NaN or infinite outputs")


def _collapsed(case: Case) -> Iterator[Hit]:
    count = case.result.rows.collapsed
    if count:
        step = case.step(case.suspect or "")
        cause = (
            f"; {step.step}: {_share(step.overflow, step.operations)} overflow {step.format}"
            if step and step.overflow
            else ""
        )
        yield Hit(case.suspect, f"{_rows(case, count)} collapse to beta, every output finite{cause}")


def _little_headroom(case: Case) -> Iterator[Hit]:
    bits, step = case.result.headroom.overflow_bits, case.result.headroom.overflow_step
    if bits is not None and bits < case.limits.headroom_bits and not case.result.rows.bad:
        room = f"{bits:.3g} bit is left before it overflows" if bits >= 0 else f"overflows by {-bits:.3g} bit"
        yield Hit(step, f"{step}: {room} (input scale x {2.0**bits:.3g})")


def _count(case: Case) -> Iterator[Hit]:
    step, n = case.step("count"), case.result.shape.size
    if step is None or case.result.norm.endswith(("topk-uncentred", "weight-l2")):  # those take k, or the root of n
        return
    rounded = float(round_to(float(n), step.format, rounding=_directed(case), seed=case.rounding.seed))
    if not abs(rounded - n) <= case.limits.count_error * n:  # also where it is NaN
        yield Hit("count", f"n = {n} becomes {rounded:g} in {step.format}")


def _directed(case: Case) -> Mode:
    return "nearest-even" if case.rounding.mode == "stochastic" else case.rounding.mode


def _eps_rounded(case: Case) -> float | None:
    """Eps in the format that it is added in; None where the norm has no eps step."""
    step = case.step("eps")
    if step is None or case.result.eps == 0.0:
        return None
    eps = max(case.result.eps, case.implementation.eps_min)
    return float(round_to(eps, step.format, rounding=_directed(case), ftz=case.rounding.ftz, daz=case.rounding.daz))


def _eps_zero(case: Case) -> Iterator[Hit]:
    rounded, step = _eps_rounded(case), case.step("eps")
    if rounded == 0.0 and step is not None:
        flat = case.result.statistic.zero_rows
        why = "is flushed to 0" if case.rounding.ftz else "rounds to 0"
        severity: Severity = "error" if flat else "warning"
        rows = f", and {_rows(case, flat)} have no variance: 0/0" if flat else ""
        yield Hit("eps", f"eps {case.result.eps:g} {why} in {step.format}{rows}", severity)


def _eps_subnormal(case: Case) -> Iterator[Hit]:
    rounded, step = _eps_rounded(case), case.step("eps")
    if rounded and step is not None and abs(rounded) < format_named(step.format).min_normal:
        yield Hit(
            "eps",
            f"eps {case.result.eps:g} is subnormal in {step.format} ({rounded:.6g}): gone where subnormals are flushed",
        )


def _statistic_underflow(case: Case) -> Iterator[Hit]:
    flushed, amplified = case.result.statistic.flushed_rows, case.result.rows.amplified
    if not flushed and not amplified:
        return
    step = next(
        (row.first_bad_step for row in case.result.worst_rows if row.kind == "amplified" and row.first_bad_step), None
    )
    parts = [f"{_rows(case, flushed)} have a statistic of 0 that is not 0"] * bool(flushed)
    parts += [f"{_rows(case, amplified)} are amplified (divisor under half of what it should be)"] * bool(amplified)
    stagnates = any((step.lost_mass or 0.0) > case.limits.lost_mass_error for step in case.result.steps)
    yield Hit(step or case.result.headroom.underflow_step, "; ".join(parts), fix=_SUM_OTHERWISE if stagnates else None)


def _deviation(case: Case) -> Iterator[Hit]:
    error = case.result.deviation
    severity = deviation_severity(error.relative_rms, error.ideal.relative_rms, case.limits)
    if severity is not None and error.relative_rms is not None and error.ideal.relative_rms is not None:
        times = error.relative_rms / error.ideal.relative_rms if error.ideal.relative_rms else float("inf")
        yield Hit(
            None, f"relative rms error {error.relative_rms:.3g}, {times:.3g} times that of one rounding", severity
        )


def _stagnation(case: Case) -> Iterator[Hit]:
    for step in case.result.steps:
        if step.lost_mass is None or step.lost_mass <= case.limits.lost_mass_warning:
            continue
        severity: Severity = "error" if step.lost_mass > case.limits.lost_mass_error else "warning"
        yield Hit(
            step.step,
            f"{step.step} loses {100 * step.lost_mass:.3g} % of its terms' magnitude in the worst row "
            f"({_share(step.absorbed, step.operations)} additions changed nothing)",
            severity,
        )


def _cancellation(case: Case) -> Iterator[Hit]:
    if not case.implementation.variance.startswith(("one-pass", "shifted")) or case.result.norm.split("-")[-1] != "l2":
        return
    figures = case.result.statistic
    allowed = 2.0**-case.limits.variance_bits
    if figures.negative_rows:
        yield Hit("variance", f"{_rows(case, figures.negative_rows)} have a negative variance")
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
            )


def _eps_dominates(case: Case) -> Iterator[Hit]:
    rows, what = case.result.statistic.eps_dominated_rows, case.result.eps_on
    if rows:
        share = case.result.statistic.eps_share_max
        yield Hit(
            "eps",
            f"eps {case.result.eps:g} is over 10 % of the {what} in {_rows(case, rows)} (up to {share:.3g} times it)",
        )


_SUM_OTHERWISE = (
    "sum in lanes, in a tree or as a mean of means (implementation `pure-scaled`), or accumulate in float32"
)
_KEEP_WIDE = (
    "compute this norm's statistics in float32 (implementation `wide`); or --norm {l1} with `pure-scaled`, "
    "which squares nothing"
)

RULES: tuple[Rule, ...] = (
    Rule(
        code="NC101",
        slug="non-finite-output",
        title="Non-finite output",
        severity="error",
        why="NaN and infinities spread through every later layer.",
        fix=_KEEP_WIDE,
        accuracy=False,
        check=_nonfinite,
    ),
    Rule(
        code="NC102",
        slug="silent-collapse",
        title="Silent collapse",
        severity="error",
        why="An infinite statistic or a reciprocal flushed to zero turns whole rows into beta, and nothing non-finite "
        "leaves the layer.",
        fix=_KEEP_WIDE,
        accuracy=False,
        check=_collapsed,
    ),
    Rule(
        code="NC103",
        slug="little-headroom",
        title="Little headroom",
        severity="warning",
        why="A slightly larger input overflows.",
        fix="scale the input down, or " + _KEEP_WIDE,
        accuracy=False,
        check=_little_headroom,
    ),
    Rule(
        code="NC106",
        slug="element-count",
        title="Element count not representable",
        severity="error",
        why="Sums are divided by a wrong n, or by infinity.",
        fix="count in float32, or take a mean of means (implementation `pure-scaled`)",
        accuracy=True,
        check=_count,
    ),
    Rule(
        code="NC201",
        slug="eps-zero",
        title="Eps rounds to zero",
        severity="warning",
        why="A row without variance becomes 0/0.",
        fix="use --eps 1e-4 or larger, or keep eps in float32",
        accuracy=False,
        check=_eps_zero,
    ),
    Rule(
        code="NC202",
        slug="eps-subnormal",
        title="Eps subnormal",
        severity="note",
        why="Hardware that flushes subnormals takes it for zero.",
        fix="use --eps 1e-4 or larger, or keep eps in float32",
        accuracy=False,
        check=_eps_subnormal,
    ),
    Rule(
        code="NC203",
        slug="statistic-underflow",
        title="Statistic underflows",
        severity="error",
        why="Rows are divided by the root of eps instead of by their deviation.",
        fix="scale the input up, or " + _KEEP_WIDE,
        accuracy=True,
        check=_statistic_underflow,
    ),
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
        fix=_SUM_OTHERWISE,
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
        code="NC306",
        slug="eps-dominates",
        title="Eps dominates",
        severity="warning",
        why="The norm no longer normalises: its output shrinks with its input.",
        fix="use a smaller --eps, or scale the input up",
        accuracy=False,
        check=_eps_dominates,
    ),
)


def _absolute_norm(name: str) -> str:
    """The norm's sibling that squares nothing."""
    norm = norm_named(name)
    return Norm(norm.where, STATISTICS["l1"], norm.centred).name


def findings_of(case: Case) -> list[Finding]:
    """All findings of a result. What rests on an assumed input alone is at most a warning."""
    result, out = case.result, []
    for rule in RULES:
        for hit in rule.check(case):
            severity = hit.severity or rule.severity
            if result.input.assumed and severity == "error":
                severity = "warning"
            out.append(
                Finding(
                    rule=rule.code,
                    severity=severity,
                    layer=result.layer,
                    norm=result.norm,
                    precision=result.precision,
                    implementation=result.implementation,
                    mode=result.mode,
                    step=hit.step,
                    message=hit.message,
                    fix=(hit.fix or rule.fix).format(l1=_absolute_norm(result.norm)),
                    assumed=result.input.assumed,
                )
            )
    return out


_BESIDE_THE_OUTPUT = frozenset({"saved", "running-update"})
"""Steps whose results are kept for later and do not enter y."""


def verdict_of(result: Result, findings: list[Finding]) -> Verdict:
    """`unsafe`, `degraded` or `ok`.

    `unsafe` with bad rows or an overflow on the way to the output; else `degraded` where an accuracy rule fired above
    a note. An overflow that leaves no bad row was saturated: the output is that of a clipped value.
    """
    reaches = any(step.overflow for step in result.steps if step.step not in _BESIDE_THE_OUTPUT)
    if result.rows.bad or reaches:
        return "unsafe"
    accuracy = {rule.code for rule in RULES if rule.accuracy}
    fired = any(f.rule in accuracy and f.severity != "note" for f in findings)
    return "degraded" if fired else "ok"
