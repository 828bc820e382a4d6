"""How a report differs from an older one: what is new or worse, and what is gone or better."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from normcheck.analysis.differences import of_findings, of_verdicts
from normcheck.analysis.matching import printed, renamed_places, side_of
from normcheck.analysis.policy import EVERYTHING, policy_of
from normcheck.errors import UnreadableError, UsageError
from normcheck.results import Comparison, FindingCounts, SettingChange

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from normcheck.analysis.matching import Side
    from normcheck.analysis.policy import Policy
    from normcheck.results import Finding, Report


_EXACT = 1e15
"""Whole numbers below it are written digit by digit."""


def whole(report: Report, name: str) -> Report:
    """Return a report that was read, to compare another one with.

    Raises:
        UnreadableError: it was compared itself, and holds only findings that were new or worse then.
    """
    if report.comparison is not None:
        what = f"it holds only what is new or worse than in {report.comparison.old}"
        raise UnreadableError(f"{name}: {what}: give a report that was written without --baseline")
    return report


def compare(old: Report, new: Report, old_name: str, new_name: str | None) -> Comparison:
    """Return what is worse and what is better in `new`; docs/baseline.md says what that means."""
    return _compared(old, new, old_name, new_name)[0]


def against(report: Report, old: Report, old_name: str) -> Report:
    """Return the report with only those findings that are new, or worse than in `old`.

    Results and their verdicts stay. Advice stays where one of its layers still has a finding: its text is for all of
    its layers, and of use only whole.
    """
    comparison, fresh = _compared(old, report, old_name, None)
    return _reduced(report, comparison, [finding for finding in report.findings if finding in fresh], len(fresh))


def difference(old: Report, new: Report, old_name: str, new_name: str) -> Report:
    """Return `new` as the report of ``normcheck diff``: its findings are those that are new or worse.

    Those of the view that nobody asked for are in `Comparison.unasked` alone. Files that could not be read count as
    skipped: the diff itself could be made.
    """
    comparison, fresh = _compared(old, new, old_name, new_name)
    whole = replace(new, command="diff", skipped=(*new.skipped, *new.unreadable), unreadable=())
    return _reduced(whole, comparison, [finding for finding in new.findings if fresh.get(finding)], len(fresh))


def _reduced(report: Report, comparison: Comparison, kept: Sequence[Finding], fresh: int) -> Report:
    """Return the report with these of its findings; `fresh`: how many the older report does not have."""
    layers = {finding.layer for finding in kept}
    return replace(
        report,
        findings=tuple(kept),
        advice=tuple(item for item in report.advice if not layers.isdisjoint(item.layers)),
        summary=replace(
            report.summary,
            findings=FindingCounts.of(kept),
            known=len(report.findings) - fresh,
        ),
        comparison=comparison,
    )


def _compared(old: Report, new: Report, old_name: str, new_name: str | None) -> tuple[Comparison, dict[Finding, bool]]:
    """Return the comparison and the findings of `new` that are new or worse, each with whether it was asked for."""
    before, after = side_of(old), side_of(new)
    before = side_of(old, renamed_places(before.results, after.results))
    found, unchanged = of_findings(before, after, _policy(new))
    found += of_verdicts(before, after, found)
    found.sort(key=lambda difference: difference.weight)
    comparison = Comparison(
        old=old_name,
        new=new_name,
        regressions=tuple(d.change for d in found if d.asked and d.is_regression),
        improvements=tuple(d.change for d in found if d.asked and not d.is_regression),
        unchanged=unchanged,
        only_old=_only(before, after),
        only_new=_only(after, before),
        unasked=tuple(d.change for d in found if not d.asked),
        settings=tuple(_settings(old, new)),
    )
    return comparison, {d.finding: d.asked for d in found if d.finding and d.is_regression}


def _policy(report: Report) -> Policy:
    """Return which rules were in force; all, where the report does not say it in words that this version knows."""
    select, ignore = (report.settings.get(name) or () for name in ("select", "ignore"))
    try:
        return policy_of([rule.code for rule in report.rules], select=select, ignore=ignore)
    except (UsageError, AttributeError, TypeError):
        return EVERYTHING


def _only(one: Side, other: Side) -> tuple[str, ...]:
    """Return the places that only one report analysed; of a layer that only it has, just the layer."""
    places = [place for place in one.results if place not in other.results]
    told = (place if place[0] is None or place[0] in other.layers else place[:1] for place in places)
    return tuple(dict.fromkeys(" ".join(filter(None, parts)) for parts in told))


def _settings(old: Report, new: Report) -> Iterator[SettingChange]:
    """Yield what both reports state and state differently, before them the command and the version."""
    pairs = [("command", old.command, new.command), ("version", old.tool.version, new.tool.version)]
    pairs += [(name, old.settings[name], value) for name, value in new.settings.items() if name in old.settings]
    for name, one, other in pairs:
        before, after = _words(one), _words(other)
        if before != after:
            yield SettingChange(name=name, old=before, new=after)


def _words(value: Any, joint: str = ",") -> str:
    """Return a setting in words, the same ones before it is written into a file and after."""
    match value:
        case None | [] | () | {}:
            return "default"
        case dict():
            return _words(list(value.items()), joint)
        case list() | tuple():
            return joint.join(_words(item, "=") for item in value)
        case bool():
            return "yes" if value else "no"
        case float() if value.is_integer() and abs(value) < _EXACT:
            return str(int(value))
        case _:
            return printed(str(value)) or ""
