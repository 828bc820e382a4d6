"""What became of a run, in words and in numbers: the same in every output."""

from __future__ import annotations

from typing import TYPE_CHECKING

from normcheck.render.places import counted
from normcheck.results import SEVERITIES

if TYPE_CHECKING:
    from normcheck.results import Report, Severity


def failing(report: Report) -> tuple[Severity, ...]:
    """Return the severities that fail the run, the worst first; none for "never"."""
    return () if report.fail_on == "never" else SEVERITIES[: SEVERITIES.index(report.fail_on) + 1]


def failures(report: Report) -> int:
    """Return how many findings fail the run; of a diff how many regressions, those of verdicts alone among them."""
    severities = failing(report)
    found = report.comparison.regressions if report.command == "diff" and report.comparison else report.findings
    return sum(item.severity in severities for item in found)


def outcome(report: Report) -> str:
    """Return "failed" where the exit code is not 0, and why; else "passed"."""
    if report.unreadable:
        many = len(report.unreadable)
        return f"failed: {counted(many, 'file')} could not be read"
    if not report.results and report.command != "diff":
        return "failed: nothing was analysed"
    many = failures(report)
    if not many:
        return "passed"
    noun = "regression" if report.command == "diff" else "new or worse finding" if report.comparison else "finding"
    return f"failed: {counted(many, noun)} at or above {report.fail_on}"


def counts(report: Report) -> dict[str, int]:
    """Return the numbers of the summary by what they count, and those beside it that are not 0."""
    summary = report.summary
    found = {f"{severity}s": getattr(summary.findings, severity) for severity in SEVERITIES}
    beside = {
        "unreadable": len(report.unreadable),
        "skipped": len(report.skipped),
        "known already": summary.known,
        "deselected": summary.ignored,
    }
    sizes = {"layers": summary.layers, "results": summary.results}
    return found | sizes | {what: many for what, many in beside.items() if many}


def told(report: Report) -> str:
    """Return the counts in a line: ``2 errors, 0 warnings, 1 note, 14 layers, 80 results``."""
    return ", ".join(f"{many} {agreeing(what, many)}" for what, many in counts(report).items())


def agreeing(what: str, many: int) -> str:
    """Return a word of `counts` for so many of it."""
    return what.removesuffix("s") if many == 1 else what
