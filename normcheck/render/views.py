"""The view that nobody asked for: which findings are of it, and on which condition they hold."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from normcheck.render.places import either, place

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from normcheck.results import Finding, Report, Result


def unasked(report: Report) -> Callable[[Finding], bool]:
    """Return what tells whether a finding is on a result that nobody asked for."""
    beside = {place(result) for result in report.results if not result.asked}
    return lambda finding: place(finding) in beside


def condition(items: Iterable[Result | Finding]) -> str:
    """Return on which condition results of that view, or findings on them, hold."""
    every = list(items)
    precisions, implementations = (
        either(getattr(item, name) or "" for item in every) for name in ("precision", "implementation")
    )
    return f"if your runtime computes norms in {precisions} itself ({implementations})"


def with_conditions(report: Report) -> Report:
    """Return the report with that condition in the messages of that view, for outputs that do not set it apart."""
    is_unasked = unasked(report)
    findings = (
        replace(finding, message=f"{finding.message}, {condition([finding])}") if is_unasked(finding) else finding
        for finding in report.findings
    )
    return replace(report, findings=tuple(findings))
