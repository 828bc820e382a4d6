"""What is different between the findings, and the verdicts, of two reports."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from normcheck.analysis.matching import matched
from normcheck.analysis.moves import figures, trend_of, trend_of_new
from normcheck.results import SEVERITIES, VERDICTS, Change

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from normcheck.analysis.matching import Place, Side
    from normcheck.analysis.moves import Kind
    from normcheck.analysis.policy import Policy
    from normcheck.results import Finding, Result, Severity, Verdict

REGRESSIONS = frozenset({"new", "worse"})

_GRAVITY: dict[Verdict, Severity] = {"unsafe": "error", "degraded": "warning", "ok": "note"}
"""The severity of a finding as grave as a verdict."""


class Difference(NamedTuple):
    """A change, where it is, the finding of the new report that it is about, and the results there."""

    change: Change
    place: Place
    finding: Finding | None
    before: Result | None
    after: Result | None

    @property
    def asked(self) -> bool:
        """Whether it is about something that was asked for."""
        result = self.after or self.before
        return result is None or result.asked

    @property
    def is_regression(self) -> bool:
        """Whether it is for the worse."""
        return self.change.kind in REGRESSIONS

    @property
    def weight(self) -> tuple[int, int, float, float]:
        """What orders changes, the least for the worst: severity, verdict, the share of bad rows, and deviation."""
        severity = SEVERITIES.index(self.change.severity or "note")
        result = (self.after or self.before) if self.is_regression else (self.before or self.after)
        if result is None:
            return severity, len(VERDICTS), 0.0, 0.0
        share, deviation = result.rows.bad / max(result.rows.total, 1), result.deviation.relative_rms or 0.0
        return severity, VERDICTS.index(result.verdict), -share, -math.inf if math.isnan(deviation) else -deviation


def of_findings(before: Side, after: Side, policy: Policy) -> tuple[list[Difference], int]:
    """Return what is different, and how many findings are as they were.

    What is gone because its place was not analysed again, or because its rule is not in force, is neither.
    """
    out, unchanged = [], 0
    for key in dict.fromkeys((*after.findings, *before.findings)):
        place, rule = key
        pairs, gone = matched(before.findings.get(key, ()), after.findings.get(key, ()))
        for old, new in pairs:
            here = before.results.get(place), after.results.get(place)
            kind = trend_of_new(new, *here) if old is None else trend_of(old, new)
            if kind is None:
                unchanged += 1
            else:
                out.append(_difference(kind, place, new, old, before, after))
        if gone and after.analysed(place) and policy.wants(rule, place[0]):
            out += [_difference("gone", place, old, None, before, after) for old in gone]
    return out, unchanged


def _difference(
    kind: Kind, place: Place, finding: Finding, old: Finding | None, before: Side, after: Side
) -> Difference:
    """Return that a finding, one of the old report where it is gone, is different from its counterpart there."""
    one, other = before.results.get(place), after.results.get(place)
    change = Change(
        kind=kind,
        rule=finding.rule,
        severity=finding.severity,
        layer=finding.layer,
        norm=finding.norm,
        precision=finding.precision,
        implementation=finding.implementation,
        params=place[-1],
        mode=finding.mode,
        message=finding.message,
        figures=tuple(figures(one, other, old, finding)),
    )
    return Difference(change, place, None if kind == "gone" else finding, one, other)


def of_verdicts(before: Side, after: Side, told: Iterable[Difference]) -> Iterator[Difference]:
    """Yield the verdicts that changed where no finding above a note says so; a place that is new was "ok" before.

    In the view that nobody asked for, whose findings are notes, a note does.
    """
    said = {(d.place, d.is_regression) for d in told if d.change.severity != "note" or not d.asked}
    for place, result in after.results.items():
        one = before.results.get(place)
        graver = VERDICTS.index(one.verdict if one else "ok") - VERDICTS.index(result.verdict)
        if graver and (place, graver > 0) not in said:
            yield Difference(_of_verdict(one, result, graver), place, None, one, result)


def _of_verdict(old: Result | None, new: Result, graver: int) -> Change:
    return Change(
        kind="new" if old is None else "worse" if graver > 0 else "better",
        rule=None,
        severity=_GRAVITY[new.verdict if old is None or graver > 0 else old.verdict],
        layer=new.layer,
        norm=new.norm,
        precision=new.precision,
        implementation=new.implementation,
        params=new.params,
        mode=new.mode,
        message=f"the verdict is {new.verdict}" + (f", it was {old.verdict}" if old else ""),
        figures=tuple(figures(old, new)),
    )
