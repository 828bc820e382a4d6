"""What a rule is: a row, and a function from a case to the places where it fires."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from normcheck.analysis.thresholds import DEFAULTS, Thresholds
from normcheck.arithmetic.formats import FLOAT32, format_named
from normcheck.norms.table import STATISTICS, Norm, norm_named
from normcheck.results import Measure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from normcheck.arithmetic.rounding import Mode, Rounding
    from normcheck.norms.implementations import Implementation
    from normcheck.results import Result, Severity, Step


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
    """One place where a rule fires: the step and the message; severity and fix where they are not the rule's own.

    fact: whether it holds whatever the input, so that an assumed input takes nothing from it. measure: the figure that
    made it fire, by which a later run is better or worse.
    """

    step: str | None
    message: str
    severity: Severity | None = None
    fix: str | None = None
    fact: bool = False
    measure: Measure | None = None


@dataclass(frozen=True, slots=True)
class Published:
    """A failure that others published: what happened, and where it stands; without a link where none is known to us."""

    text: str
    url: str | None = None


NONE_KNOWN = Published("none known to us")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A rule: `check` yields its hits on a case; for rules of layers, on the facts of a layer.

    detects: when it fires. bad, good: command lines, to be run beside `data`, one on which it fires and one, as like it
    as can be, on which it does not. thresholds: the settings that it reads. figures: the names of its hits' measures.
    accuracy: whether a result on which it fires is degraded.
    """

    code: str
    slug: str
    title: str
    severity: Severity
    detects: str
    why: str
    published: Published
    fix: str
    bad: str
    good: str
    thresholds: tuple[str, ...] = ()
    figures: tuple[str, ...] = ()
    accuracy: bool = field(compare=False, default=False)
    check: Callable[[Any], Iterator[Hit]] = field(compare=False, repr=False)

    @property
    def anchor(self) -> str:
        """Where the documentation of the rule is."""
        return f"docs/rules.md#{self.code.lower()}-{self.slug}"


def measure(name: str, value: float, limit: float = 0.0, unit: str = "rows") -> Measure:
    """The figure that made a rule fire, of those that are worse the higher they are; a count is one of `unit`."""
    return Measure(name=name, value=float(value), limit=limit, worse="higher", unit=unit)


def share(count: int, of: int) -> str:
    """A count with its denominator."""
    return f"{count} of {of}"


def rows(case: Case, count: int) -> str:
    """So many of the result's rows."""
    return f"{share(count, case.result.rows.total)} rows"


def channels(count: int, one: str, many: str) -> str:
    """So many channels, with their verb."""
    return f"1 channel {one}" if count == 1 else f"{count} channels {many}"


def directed(case: Case) -> Mode:
    """How a setting is rounded that is the same for all elements."""
    return "nearest-even" if case.rounding.mode == "stochastic" else case.rounding.mode


PLACEHOLDERS = {"l1": "WHERE-l1", "precision": "FORMAT"}
"""What stands in a rule's own fix for the norm without squares, and the format, that a finding names."""

SUM_IN_MEANS = "sum as a mean of means (implementation `pure-scaled`), or accumulate in float32"
SUM_OTHERWISE = "sum in lanes, in a tree or as a mean of means (implementation `pure-scaled`), or accumulate in float32"
KEEP_WIDE = (
    "compute this norm's statistics in float32 (implementation `wide`); or --norm {l1} with `pure-scaled`, "
    "which squares nothing"
)
KEEP_PARAMETERS = "keep this layer's parameters and running statistics in float32 (--params autocast)"
KEEP_DOUBLE = "keep this layer's parameters and running statistics in float64 (--params stored)"
MEND_THE_FILE = "train or convert the model again: no precision mends it"
INPUT_TOO_LARGE = "scale this layer's input down, or store it in bfloat16 or float32: {precision} cannot hold it"
OUTPUT_TOO_LARGE = "store this layer's output in bfloat16 or float32: {precision} cannot hold it"
SCALE_DOWN = "scale this layer's input down: float32 has no more range"
AROUND_THE_MEAN = "use a two-pass variance (implementation `wide`), or Welford's"


def reaches_float32(name: str) -> bool:
    """Whether a format has float32's range, so that float32 in its place loses nothing less."""
    return format_named(name).emax >= FLOAT32.emax


def breaks_any_input(case: Case) -> bool:
    """Whether parameters alone break rows, whatever the input: gamma, beta, and in eval mode the running statistics."""
    facts = case.result.parameters
    if facts is None:
        return False
    running = facts.beyond + facts.nonfinite + facts.negative if case.result.mode == "eval" else 0
    return facts.broken_affine + running > 0


def keep_parameters(format_name: str) -> str:
    """What helps parameters that the format they are kept in loses: the next wider preset."""
    return KEEP_DOUBLE if format_name == FLOAT32.name else KEEP_PARAMETERS


def remedy(case: Case, step_name: str | None) -> str | None:
    """What helps where a step overflows and the usual advice does not, or is followed already; None where it does."""
    facts = case.result.parameters
    if facts is not None and breaks_any_input(case):
        return keep_parameters(facts.format) if facts.beyond else MEND_THE_FILE
    step = case.step(step_name or "")
    if step is not None and reaches_float32(step.format):
        return SCALE_DOWN
    if step_name in ("residual", "load"):
        return INPUT_TOO_LARGE
    if step_name in ("gain", "bias", "store"):
        return OUTPUT_TOO_LARGE
    if norm_named(case.result.norm).statistic.name == "l1":
        wide = "compute this norm's statistics in float32 (implementation `wide`)"
        return wide if case.implementation.order.is_mean else f"{wide}, or sum as `pure-scaled` does"
    return None


def sum_otherwise(case: Case, step: Step) -> str:
    """How else to form a sum that loses terms: without what is done already."""
    if reaches_float32(step.format) and format_named(step.format).precision >= FLOAT32.precision:
        return "sum as a mean of means (--order 'blocks(64)')"
    if case.implementation.order.kind == "sequential":
        return SUM_OTHERWISE
    return "accumulate in float32" if case.implementation.order.is_mean else SUM_IN_MEANS


def is_one_pass(case: Case) -> bool:
    """Whether the norm's variance is a mean of squares less the square of a mean."""
    one_pass = case.implementation.variance.startswith(("one-pass", "shifted"))
    return one_pass and norm_named(case.result.norm).statistic.name == "l2" and norm_named(case.result.norm).centred


def cancelled(case: Case) -> bool:
    """Whether a one-pass variance is negative or has lost its leading bits (NC303)."""
    figures = case.result.statistic
    lost = figures.max_relative_error > 2.0**-case.limits.variance_bits
    return is_one_pass(case) and bool(figures.negative_rows or lost)


def around_the_mean(case: Case) -> str:
    """What to do about a variance that cancelled: torch's kernels for contiguous data take it around the mean."""
    if case.implementation.project == "PyTorch" and case.implementation.layout == "channels-last":
        return f"make this layer's input contiguous (x.contiguous()); else {AROUND_THE_MEAN}"
    return AROUND_THE_MEAN


def absolute_norm(name: str) -> str:
    """The norm's sibling that squares nothing."""
    norm = norm_named(name)
    return Norm(norm.where, STATISTICS["l1"], norm.centred).name
