"""A report as data: layers, results, findings, what to change, and how it differs from an older one."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from normcheck.results.result import Result  # noqa: TC001  # read at run time, for the schema

if TYPE_CHECKING:
    from collections.abc import Iterable

FORMAT: Literal[1] = 1
"""Version of the report's JSON: raised when a field is renamed or removed, not when one is added."""

Severity = Literal["error", "warning", "note"]
Limit = Literal["error", "warning", "note", "never"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerFacts:
    """A norm layer of a model: what it is, and how that came to be known.

    `how`: how its kind was decided; `sure` where that leaves no doubt, else `might_be` names the other kinds.
    `stored`: the format of its parameters in the file; None without parameters. `assumed`: the settings that nothing
    but a default says, such as "eps" or "num_groups". `size`: elements that share a statistic, n.
    """

    name: str
    file: str
    norm: str
    aliases: tuple[str, ...]
    how: str
    sure: bool
    might_be: tuple[str, ...]
    channels: int
    num_groups: int | None
    eps: float
    eps_source: Literal["module", "config", "option", "assumed"]
    stored: str | None
    assumed: tuple[str, ...]
    size: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """Something to change, that was tried: for which layers, as text to paste, and what trying it gave.

    `asked`: False where only the view that nobody asked for calls for it.
    """

    title: str
    layers: tuple[str, ...]
    snippet: str
    evidence: str
    asked: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """The figure that made a rule fire: its path in the result, its value, and the limit that it went beyond.

    `worse`: whether a higher or a lower value is worse. `unit`: of both, such as "rows", "bits" or "ratio".
    """

    name: str
    value: float
    limit: float
    worse: Literal["higher", "lower"]
    unit: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A rule that fired on a result, or on a layer: where, why, and what to do.

    `precision`, `implementation`, `params` and `mode` are None where the finding holds whatever they are. `measure` is
    None where the rule has no figure: something is so, or it is not.
    """

    rule: str
    severity: Severity
    layer: str | None
    norm: str
    precision: str | None
    implementation: str | None
    mode: str | None
    step: str | None
    message: str
    fix: str
    assumed: bool
    params: str | None = None
    measure: Measure | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """Something asked for that was not analysed, and why."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """The program that wrote the report."""

    name: str
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleFacts:
    """A rule that was in force: what it finds and when, why that matters, how to fix it, where that is documented."""

    code: str
    slug: str
    title: str
    severity: Severity
    why: str
    fix: str
    documentation: str
    detects: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FormatFacts:
    """The range of a format that some step or element has; `overflow_threshold`: magnitude where rounding overflows."""

    name: str
    label: str
    precision: int
    min_subnormal: float
    min_normal: float
    max_finite: float
    overflow_threshold: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FigureChange:
    """A figure of a result in the old report and in the new one; `unit` as in `Measure`; None where it is undefined."""

    name: str
    old: float | str | None
    new: float | str | None
    unit: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What is different from an older report, of one layer, norm, precision, implementation, params and mode.

    `kind`: a finding that is "new" or "gone", or there in both and "worse" or "better"; without a `rule`, the verdict.
    `severity`: in the new report, of what is gone in the old one; of a verdict that of a finding as grave. `message`:
    of the finding. `figures`: what moved.
    """

    kind: Literal["new", "worse", "better", "gone"]
    rule: str | None
    severity: Severity | None
    layer: str | None
    norm: str
    precision: str | None
    implementation: str | None
    params: str | None
    mode: str | None
    message: str
    figures: tuple[FigureChange, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingChange:
    """A setting, the command or the version of the tool, in words, where two reports were not made the same way."""

    name: str
    old: str
    new: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """How a report differs from an older one.

    `old`, `new`: the files, `new` None for the run itself. `unchanged`: findings that are in both, no worse and no
    better. `only_old`, `only_new`: places (layer, norm, precision, ...), or whole layers, that only one of the two
    analysed. `unasked`: changes of the view that nobody asked for, which are no regressions. `settings`: those that
    differ.
    """

    old: str
    new: str | None
    regressions: tuple[Change, ...]
    improvements: tuple[Change, ...]
    unchanged: int
    only_old: tuple[str, ...] = ()
    only_new: tuple[str, ...] = ()
    unasked: tuple[Change, ...] = ()
    settings: tuple[SettingChange, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class FindingCounts:
    """How many findings of each severity."""

    error: int
    warning: int
    note: int

    @classmethod
    def of(cls, findings: Iterable[Finding]) -> FindingCounts:
        """Return how many of some findings have which severity."""
        counts = Counter(finding.severity for finding in findings)
        return cls(**{severity: counts[severity] for severity in SEVERITIES})


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """The report in numbers.

    `ignored`: findings that were left out because they were deselected; `known`: because the baseline has them.
    """

    layers: int
    results: int
    findings: FindingCounts
    ignored: int = 0
    known: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Everything a run found.

    The same input, seed, version and machine type give the same report, apart from `environment`. `unreadable`: files
    that could not be read, beside others that could. `fail_on`: the least severe finding that fails the run. `rules`:
    those in force. `formats`: those that results name. `comparison`: with the baseline, or of `normcheck diff`; then
    `findings` are only those that are new or worse.
    """

    format: Literal[1]
    tool: Tool
    command: Literal["simulate", "analyze", "diff"]
    settings: dict[str, Any]
    environment: dict[str, Any]
    results: tuple[Result, ...]
    findings: tuple[Finding, ...]
    skipped: tuple[Skipped, ...]
    summary: Summary
    layers: tuple[LayerFacts, ...] = ()
    advice: tuple[Advice, ...] = ()
    unreadable: tuple[Skipped, ...] = ()
    fail_on: Limit = "error"
    rules: tuple[RuleFacts, ...] = ()
    formats: tuple[FormatFacts, ...] = ()
    comparison: Comparison | None = None
