"""What a rule is: a row, and a function from a case to the places where it fires."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from normcheck.analysis.thresholds import DEFAULTS, Thresholds
from normcheck.norms.table import STATISTICS, Norm, norm_named

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from normcheck.arithmetic.rounding import Rounding
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

    fact: whether it holds whatever the input, so that an assumed input takes nothing from it.
    """

    step: str | None
    message: str
    severity: Severity | None = None
    fix: str | None = None
    fact: bool = False


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule: `check` yields its hits on a case; for rules of layers, on the facts of a layer."""

    code: str
    slug: str
    title: str
    severity: Severity
    why: str
    fix: str
    accuracy: bool = field(compare=False)
    check: Callable[[Any], Iterator[Hit]] = field(compare=False, repr=False)

    @property
    def anchor(self) -> str:
        """Where the documentation of the rule is."""
        return f"docs/rules.md#{self.code.lower()}-{self.slug}"


def share(count: int, of: int) -> str:
    """A count with its denominator."""
    return f"{count} of {of}"


def rows(case: Case, count: int) -> str:
    """So many of the result's rows."""
    return f"{share(count, case.result.rows.total)} rows"


SUM_OTHERWISE = "sum in lanes, in a tree or as a mean of means (implementation `pure-scaled`), or accumulate in float32"
KEEP_WIDE = (
    "compute this norm's statistics in float32 (implementation `wide`); or --norm {l1} with `pure-scaled`, "
    "which squares nothing"
)
KEEP_PARAMETERS = "keep this layer's parameters and running statistics in float32 (--params autocast)"
MEND_THE_FILE = "train or convert the model again: no precision mends it"
INPUT_TOO_LARGE = "scale this layer's input down, or store it in bfloat16 or float32: {precision} cannot hold it"
OUTPUT_TOO_LARGE = "store this layer's output in bfloat16 or float32: {precision} cannot hold it"


def breaks_any_input(case: Case) -> bool:
    """Whether parameters alone break rows, whatever the input: gamma, beta, and in eval mode the running statistics."""
    facts = case.result.parameters
    if facts is None:
        return False
    running = facts.beyond + facts.nonfinite + facts.negative if case.result.mode == "eval" else 0
    return facts.broken_affine + running > 0


def remedy(case: Case) -> str | None:
    """What helps where the usual advice does not; None where it does."""
    facts = case.result.parameters
    if facts is not None and breaks_any_input(case):
        return KEEP_PARAMETERS if facts.beyond else MEND_THE_FILE
    if case.implementation.name == "wide":
        return OUTPUT_TOO_LARGE if case.suspect in ("gain", "bias", "store") else INPUT_TOO_LARGE
    if norm_named(case.result.norm).statistic.name == "l1":
        return "compute this norm's statistics in float32 (implementation `wide`), or sum as `pure-scaled` does"
    return None


def absolute_norm(name: str) -> str:
    """The norm's sibling that squares nothing."""
    norm = norm_named(name)
    return Norm(norm.where, STATISTICS["l1"], norm.centred).name
